"""Provisioning from CI: what a pipeline for the repository that holds ``mirrors.yaml`` does, and who it is to AWS."""
