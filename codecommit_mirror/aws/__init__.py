"""AWS: sessions, the mirror's stack, and the Git credentials of its IAM user."""
