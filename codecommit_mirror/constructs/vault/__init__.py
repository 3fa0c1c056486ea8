"""The vault's constructs: bucket, signing key and the guard's role."""
