"""CodeCommit: its API, its Git endpoint, what it tells EventBridge, and its tags."""
