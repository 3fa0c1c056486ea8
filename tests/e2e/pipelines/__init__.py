"""The pipeline on its agents, and as a person runs it."""
