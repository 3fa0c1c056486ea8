"""The REST API of Azure DevOps: signing in, requests, lists, and one typed client for a project."""
