"""The CDK app: a ReplicaStack for each mirror of mirrors.yaml, what their roles need, the guard and its vault."""

from __future__ import annotations

import sys

from .errors import MirrorError

try:
    import aws_cdk as cdk
except ModuleNotFoundError:
    sys.exit("the CDK app needs aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'")

from .config.identity import parse_auth_migration
from .config.load import from_context, identity_provider
from .feature_flags import FEATURE_FLAGS
from .stacks import DeployRoleStack, GuardStack, IdentityStack, ReplicaStack, VaultStack


def main() -> None:
    """Synthesize the stacks that the context names; a user's error ends with one sentence and exit status 1."""
    # CDK's own validator takes half of a synthesis; cfn-lint checks these templates, in the tests and in CI.
    app = cdk.App(context=FEATURE_FLAGS, analytics_reporting=False, builtin_cloud_formation_validation=False)
    try:
        _add_stacks(app)
    except MirrorError as error:
        sys.exit(str(error))
    app.synth()


def _add_stacks(app: cdk.App) -> None:
    context = app.node.try_get_context
    mirrors, ci, guard = from_context(context)
    migrations = parse_auth_migration(context("auth_migration"))
    for mirror in mirrors:
        if mirror.is_deployed_elsewhere:
            continue
        ReplicaStack(app, mirror=mirror, provisioned_from=ci.owner if ci else None, earlier=migrations.get(mirror.name))
    if context("mirror"):
        return
    provider = identity_provider(mirrors, ci)
    identity = IdentityStack(app, provider=provider) if provider else None
    if ci:
        roles = DeployRoleStack(app, ci=ci, reads_snapshots=bool(guard and guard.snapshots))
        if identity:
            roles.add_stack_dependency(identity)
    if guard:
        GuardStack(app, guard=guard, vault=VaultStack(app, guard=guard))


if __name__ == "__main__":
    main()
