"""Azure Repos' Git service over HTTP: who is let in, what is fetched and pushed, and large files."""
