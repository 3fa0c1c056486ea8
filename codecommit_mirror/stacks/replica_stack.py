"""One mirror's stack: the replica, who may push to it, and the outputs that the CLI reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from aws_cdk import (
    CfnOutput,
    CfnParameter,
    CfnRule,
    CfnRuleAssertion,
    DefaultStackSynthesizer,
    Environment,
    Fn,
    PermissionsBoundary,
    Stack,
    Tags,
)
from constructs import Construct

from ..config.ci import PROVISIONED_FROM, REPLICA, SOURCE_METADATA, TEMPLATE, TEMPLATE_GENERATION
from ..config.identity import EarlierSignIn
from ..config.mirror import Mirror
from .credential_cleanup import CredentialCleanup
from .push_access import PushAccess
from .replica_repository import ReplicaRepository

QUALIFIER_KEY, BOUNDARY_KEY = "codecommit-mirror:qualifier", "codecommit-mirror:boundary"
"""Context of mirrors that are deployed with a bootstrap and a permissions boundary of their own (docs/ci.md)."""
_CDKS_BOUNDARY_KEY = "@aws-cdk/core:permissionsBoundary"
"""CDK's own context key for the boundary of all stacks."""


def _own_bootstrap(scope: Construct) -> dict[str, Any]:
    """Return what mirrors have of their own, so that the guard and CI's roles go on with the account's bootstrap."""
    qualifier, boundary = (scope.node.try_get_context(key) for key in (QUALIFIER_KEY, BOUNDARY_KEY))
    return {
        **({"synthesizer": DefaultStackSynthesizer(qualifier=qualifier)} if qualifier else {}),
        **({"permissions_boundary": PermissionsBoundary.from_name(boundary)} if boundary else {}),
    }


_OUTSIDE_THE_TEMPLATE = {"assume_role", "profile", "refs", "schedule"}
"""What a mirror has that its stack does not show."""


def _settings_tag(scope: Construct, mirror: Mirror, provisioned_from: str | None, earlier: EarlierSignIn | None) -> str:
    """Return the generation of the template, and a digest of all that decides it."""
    # What is not set is not shown either.
    source = mirror.azure.model_dump(mode="json", exclude_unset=True)
    context = [scope.node.try_get_context(key) for key in (QUALIFIER_KEY, BOUNDARY_KEY, _CDKS_BOUNDARY_KEY)]
    shown = mirror.model_dump(mode="json", exclude=_OUTSIDE_THE_TEMPLATE)
    settings = [shown, source, _engine(mirror), provisioned_from, asdict(earlier) if earlier else None, context]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{TEMPLATE_GENERATION}-{digest}"


def _engine(mirror: Mirror) -> dict[str, Any]:
    return mirror.shared_engine.model_dump(mode="json") if mirror.shared_engine else {}


def _source(mirror: Mirror) -> dict[str, Any]:
    """Return what a plan compares, and what deletes a mirror that is no longer in mirrors.yaml."""
    engine = _engine(mirror)
    return {
        "azure": mirror.azure.model_dump(exclude_unset=True),
        **({"engine": engine} if engine else {}),
        "source_auth": mirror.source_auth,
        "replica_auth": mirror.replica_auth,
    }


class ReplicaStack(Stack):
    """Composes one mirror's resources.

    Outputs: ``ReplicaUrl`` (HTTPS clone URL), ``ReplicaArn``, ``PushUserName`` or ``PushRoleArn`` with
    ``PushRoleSubjects`` (whose tokens it trusts, a line each), ``PushPolicyArn``.

    Args:
        mirror: the mirror.
        provisioned_from: the repository whose CI deploys the stack, and deletes it when the mirror is gone there.
        earlier: what the pipeline signed in with before it changed, which stays as well until that has been proved.
    """

    def __init__(
        self,
        scope: Construct,
        *,
        mirror: Mirror,
        provisioned_from: str | None = None,
        earlier: EarlierSignIn | None = None,
    ) -> None:
        tags = {**mirror.tags, "managed-by": "codecommit-mirror"}
        own = {REPLICA: mirror.name, TEMPLATE: _settings_tag(scope, mirror, provisioned_from, earlier)}
        super().__init__(
            scope,
            mirror.name,
            stack_name=mirror.stack_name,
            description=f"CodeCommit replica {mirror.name} of an Azure Repos repository",
            env=Environment(account=mirror.account, region=mirror.region),
            termination_protection=mirror.termination_protection,
            **_own_bootstrap(scope),
            tags={**tags, **own, **({PROVISIONED_FROM: provisioned_from} if provisioned_from else {})},
        )
        self.template_options.metadata = {SOURCE_METADATA: _source(mirror)}
        self._refuse_another_source(mirror)
        replica = ReplicaRepository(
            self,
            "Replica",
            name=mirror.name,
            description=mirror.replica_description,
            existing=mirror.existing,
            retain=mirror.on_destroy == "retain",
            tags=mirror.replica_tags_while_migrating(earlier) if earlier else mirror.replica_tags,
        )
        access = PushAccess(self, "PushAccess", repository_arn=replica.arn, mirror=mirror, earlier=earlier)
        if access.user:
            CredentialCleanup(self, "CredentialCleanup", user=access.user)
        # CloudFormation hands a stack's own tags on, but not to every type of resource.
        for key, value in tags.items():
            Tags.of(self).add(key, value)
        CfnOutput(self, "ReplicaUrl", value=replica.clone_url, description="HTTPS clone URL of the replica")
        CfnOutput(self, "ReplicaArn", value=replica.arn, description="ARN of the replica")
        if access.user:
            CfnOutput(self, "PushUserName", value=access.user.user_name, description="IAM user of the pipeline")
        if access.role:
            CfnOutput(self, "PushRoleArn", value=access.role.role_arn, description="IAM role of the pipeline")
            subjects = "\n".join(access.subjects)
            CfnOutput(self, "PushRoleSubjects", value=subjects, description="Pipelines whose tokens it trusts")
        CfnOutput(self, "PushPolicyArn", value=access.policy_arn, description="Policy that only allows GitPush")

    def _refuse_another_source(self, mirror: Mirror) -> None:
        """Let a deployment fail that names another source than the deployed stack.

        The CDK CLI keeps the values of a deployed stack's parameters (its option ``--previous-parameters``:
        https://github.com/aws/aws-cdk/issues/7576), so that the rule compares the deployed names with the new ones.
        """
        names = mirror.azure.names.lower()
        source = CfnParameter(self, "Source", default=names, description="Organization, project and repository")
        # It is shown by whatever failed, which may be plain cdk.
        remedy = (
            f"The replica {mirror.name} follows another source than {names}: if that is the same repository with new "
            f"names, run 'codecommit-mirror up {mirror.name}', which compares its id; else rename this mirror."
        )
        is_same = Fn.condition_equals(source.value_as_string, names)
        CfnRule(self, "SameSource", assertions=[CfnRuleAssertion(assert_=is_same, assert_description=remedy)])
