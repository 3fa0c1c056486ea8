"""CDK app: one ReplicaStack for each mirror of mirrors.yaml, what their roles need, the guard and its vault."""

import sys
from pathlib import Path

import aws_cdk as cdk

from codecommit_mirror.config.identity import parse_auth_migration
from codecommit_mirror.config.load import from_context, identity_provider
from codecommit_mirror.errors import MirrorError
from stacks import DeployRoleStack, GuardStack, IdentityStack, ReplicaStack, VaultStack
from stacks.template_digest import tag_with_digests

# CDK's own validator takes half of a synthesis; cfn-lint checks these templates, in the tests and in CI.
app = cdk.App(builtin_cloud_formation_validation=False)
context = app.node.try_get_context
try:
    mirrors, ci, guard = from_context(context)
    migrations = parse_auth_migration(context("auth_migration"))
    provider = None if context("mirror") else identity_provider(mirrors, ci)
except MirrorError as error:
    sys.exit(str(error))
for mirror in mirrors:
    ReplicaStack(app, mirror=mirror, provisioned_from=ci and ci.owner, earlier=migrations.get(mirror.name))
identity = IdentityStack(app, provider=provider) if provider else None
if not context("mirror"):
    if ci:
        roles = DeployRoleStack(app, ci=ci, reads_snapshots=bool(guard and guard.snapshots))
        if identity:
            roles.add_stack_dependency(identity)
    if guard:
        GuardStack(app, guard=guard, vault=VaultStack(app, guard=guard))
tag_with_digests(Path(app.synth().directory))
