"""Provisioning from CI: plan, deploy and remove the stacks of mirrors.yaml, and render the pipeline that does it."""
