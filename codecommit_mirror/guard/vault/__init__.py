"""The vault: what the guard keeps, in a form that shows that the guard wrote it."""
