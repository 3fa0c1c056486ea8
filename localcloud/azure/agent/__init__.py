"""An agent that runs a pipeline's YAML as Azure Pipelines does, and refuses what it does not know.

It reproduces these rules of the service: macros are replaced in scripts and ``env:`` before any shell sees them, and
unknown ones stay; variables become upper-case environment variables, secret ones only if ``env:`` maps them; exact
values of secrets are masked in the log; ``bash:`` and ``script:`` do not stop at a failing command by themselves; each
job has fresh folders; logging commands work anywhere in a line; a job that exceeds its time-out is canceled; a stage
that uses a service connection only starts if the connection's checks allow it.
(https://learn.microsoft.com/azure/devops/pipelines/process/variables and .../scripts/logging-commands)
"""
