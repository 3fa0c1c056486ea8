"""One mirror's stack: the replica, who may push to it, and the outputs that the CLI reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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
    RemovalPolicy,
    Stack,
    Tags,
)
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_iam as iam
from constructs import Construct

from ..config.ci import (
    BOUNDARY_KEY,
    PROVISIONED_FROM,
    QUALIFIER_KEY,
    REPLICA,
    SOURCE_METADATA,
    TEMPLATE,
    TEMPLATE_GENERATION,
)
from ..config.identity import EarlierSignIn
from ..config.mirror import Mirror, source_metadata
from ..constructs import PipelineRole, PipelineUser, Replica

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
    context = [scope.node.try_get_context(key) for key in (QUALIFIER_KEY, BOUNDARY_KEY, _CDKS_BOUNDARY_KEY)]
    shown = mirror.model_dump(mode="json", exclude=_OUTSIDE_THE_TEMPLATE)
    settings = [shown, source_metadata(mirror), provisioned_from, asdict(earlier) if earlier else None, context]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{TEMPLATE_GENERATION}-{digest}"


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
        self.template_options.metadata = {SOURCE_METADATA: source_metadata(mirror)}
        self._refuse_another_source(mirror)
        replica = self._replica(mirror, earlier)
        # CloudFormation hands a stack's own tags on, but not to every type of resource.
        for key, value in tags.items():
            Tags.of(self).add(key, value)
        self._output(replica)

    def _replica(self, mirror: Mirror, earlier: EarlierSignIn | None) -> Replica:
        has_role = mirror.replica_auth == "role"
        # Whose tokens the role trusted before, if mirrors.yaml still says who signs them.
        trusted = earlier.subjects if earlier and mirror.identity.issuer_url else ()
        subjects = tuple(dict.fromkeys((*((mirror.token_subject,) if has_role else ()), *trusted)))
        find = codecommit.Repository.from_repository_name
        return Replica(
            self,
            "Replica",
            repository_name=mirror.name,
            repository=find(self, "Existing", mirror.name) if mirror.existing else None,
            description=mirror.replica_description,
            removal_policy=RemovalPolicy.RETAIN if mirror.on_destroy == "retain" else RemovalPolicy.DESTROY,
            archive_days=mirror.archive_days,
            user=self._user(mirror) if not has_role or (earlier and earlier.user) else None,
            role=self._role(mirror, subjects) if subjects else None,
            policy_name=mirror.policy_name,
        )

    @staticmethod
    def _user(mirror: Mirror) -> PipelineUser:
        return PipelineUser(mirror.user_name, in_group=mirror.policy_on == "group")

    def _role(self, mirror: Mirror, subjects: Sequence[str]) -> PipelineRole:
        identity = mirror.identity
        given = identity.provider_arn
        return PipelineRole(
            str(identity.issuer_url),
            identity.audience,
            subjects,
            iam.OidcProviderNative.from_oidc_provider_arn(self, "Provider", given) if given else None,
            mirror.role_name,
        )

    def _output(self, replica: Replica) -> None:
        repository, user, role = replica.repository, replica.user, replica.role
        outputs = {
            "ReplicaUrl": (repository.repository_clone_url_http, "HTTPS clone URL of the replica"),
            "ReplicaArn": (repository.repository_arn, "ARN of the replica"),
            **({"PushUserName": (user.user_name, "IAM user of the pipeline")} if user else {}),
        }
        if role:
            subjects = "\n".join(replica.token_subjects)
            outputs["PushRoleArn"] = role.role_arn, "IAM role of the pipeline"
            outputs["PushRoleSubjects"] = subjects, "Pipelines whose tokens it trusts"
        outputs["PushPolicyArn"] = replica.policy.managed_policy_arn, "Policy that only allows GitPush"
        for name, (value, description) in outputs.items():
            CfnOutput(self, name, value=value, description=description)

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
