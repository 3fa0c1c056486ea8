"""Live replicas of Azure DevOps Git repositories in AWS CodeCommit."""
