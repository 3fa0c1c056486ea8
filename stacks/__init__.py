"""What a mirror owns in AWS: one construct a file, and the stack that composes them."""

from .replica_stack import ReplicaStack

__all__ = ["ReplicaStack"]
