"""A deployment repository: what it consists of, and the files that it is made from."""
