"""Azure DevOps: Repos' Git endpoint, and an agent that runs pipelines."""
