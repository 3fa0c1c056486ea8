"""Azure DevOps: Repos, Pipelines with an agent that runs them, and the REST API to both."""
