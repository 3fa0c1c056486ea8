"""What runs in Azure Pipelines: the pipeline's template, and the mirror program that it carries."""
