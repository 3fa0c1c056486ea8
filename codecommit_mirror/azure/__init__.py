"""Azure DevOps: its REST API, and a mirror's pipeline there."""
