"""Snapshots and restores: what a replica was, read from the guard's bucket or from the replica, and put elsewhere."""
