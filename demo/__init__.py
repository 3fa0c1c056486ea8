"""The demo: the whole journey of one mirror on the embedded cloud."""
