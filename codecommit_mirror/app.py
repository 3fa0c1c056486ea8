"""The CDK app: a ReplicaStack for each mirror of mirrors.yaml, what their roles need, the guard and its vault."""

from __future__ import annotations

import sys

from .errors import MirrorError

try:
    import aws_cdk as cdk
except ModuleNotFoundError:
    sys.exit("the CDK app needs aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'")

from .config.guard import stack_suffix
from .config.identity import parse_auth_migration
from .config.load import from_context, identity_providers, takes_snapshots
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
    configuration = from_context(context)
    mirrors, cis, guards = configuration
    migrations = parse_auth_migration(context("auth_migration"))
    for mirror in mirrors:
        if mirror.is_deployed_elsewhere:
            continue
        ci = configuration.ci_of(mirror.account)
        ReplicaStack(app, mirror=mirror, provisioned_from=ci.owner if ci else None, earlier=migrations.get(mirror.name))
    if context("mirror"):
        return
    providers = identity_providers(mirrors, cis)
    identities = {
        one.account: IdentityStack(app, provider=one, suffix=f"-{one.account}" if len(providers) > 1 else "")
        for one in providers
    }
    for ci in cis:
        roles = DeployRoleStack(app, ci=ci, reads_snapshots=takes_snapshots(configuration, ci))
        if ci.account in identities:
            roles.add_stack_dependency(identities[ci.account])
    for guard in guards:
        suffix = stack_suffix(guard, guards)
        GuardStack(app, guard=guard, vault=VaultStack(app, guard=guard, suffix=suffix), suffix=suffix)


if __name__ == "__main__":
    main()
