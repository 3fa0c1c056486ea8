"""YAML for CI services, which replace parts of it before any parser sees it."""
