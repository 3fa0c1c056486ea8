"""mirrors.yaml: read, validated once, and trusted everywhere as a ``Mirror``. It knows no cloud."""
