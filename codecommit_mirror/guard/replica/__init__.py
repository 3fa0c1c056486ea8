"""What the guard reads of a replica: its refs, its history, and what runs have confirmed."""
