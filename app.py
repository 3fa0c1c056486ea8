"""CDK app: one ReplicaStack for each mirror of mirrors.yaml, the roles of their CI, and the guard."""

import sys

import aws_cdk as cdk

from codecommit_mirror.config.load import from_context
from codecommit_mirror.errors import MirrorError
from stacks import DeployRoleStack, GuardStack, ReplicaStack

# CDK's own validator takes half of a synthesis; cfn-lint checks these templates, in the tests and in CI.
app = cdk.App(builtin_cloud_formation_validation=False)
try:
    mirrors, ci, guard = from_context(app.node.try_get_context)
except MirrorError as error:
    sys.exit(str(error))
for mirror in mirrors:
    ReplicaStack(app, mirror=mirror, provisioned_from=ci and ci.owner)
if not app.node.try_get_context("mirror"):
    if ci:
        DeployRoleStack(app, ci=ci, reads_snapshots=bool(guard and guard.snapshots))
    if guard:
        GuardStack(app, guard=guard)
app.synth()
