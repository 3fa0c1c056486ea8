"""What CloudFormation has to be allowed for mirrors deployed from CI, and what CI must not ask of CloudFormation.

``cdk bootstrap`` gives the role with which CloudFormation acts AdministratorAccess by default, so that anyone who may
merge into mirrors.yaml could create anything. This policy takes its place, in a bootstrap with a qualifier of its own.
It covers mirrors only, by the names that they get by default (a mirror with ``user_name``, ``role_name`` or
``policy_name`` needs them added): neither the guard nor the roles of CI, which a person deploys.

What a mirror's stack creates in IAM must have the boundary, which allows no more than such a user or role needs: else a
stack could create an administrator. A group has no boundary, so mirrors with ``policy_on: group`` are not covered
either: a principal that may attach a policy to a group and add a user to it can make anyone an administrator. Nor is a
policy changed once it is there: that of a mirror which a person deployed without the boundary could be made an
administrator's. https://docs.aws.amazon.com/cdk/v2/guide/customize-permissions-boundaries.html
"""

from __future__ import annotations

from typing import Any

from ..config.ci import PREFIX
from ..config.guard import STACK_NAME, VAULT_STACK_NAME
from ..config.identity import IDENTITY_STACK_NAME
from ..config.mirror import RECORD_TAGS, default_policy_name, default_user_name

BOUNDARY = "codecommit-mirror-boundary"
"""The name of the managed policy that is the boundary."""
_WRITERS, _PUSH_POLICIES = default_user_name("*"), default_policy_name("*")
_CLEANUP = "*ReplicaCleanup*"
"""In the names that CDK gives the clean-up's function, role and log group."""

_WITH_A_ROLE = "ContinueUpdateRollback CreateChangeSet CreateStack RollbackStack UpdateStack"
_WITHOUT_A_ROLE = "DeleteChangeSet ExecuteChangeSet SetStackPolicy UpdateTerminationProtection"
_REFACTORING = "CreateStackRefactor ExecuteStackRefactor"
"""CDK's bootstrap permits them, and they name no role."""
_BY_A_PERSON = (f"{PREFIX}-ci", f"{PREFIX}-ci-*", STACK_NAME, IDENTITY_STACK_NAME, VAULT_STACK_NAME)
"""The stacks that a person deploys."""
Document = dict[str, Any]


_IDENTITIES_WITHIN_THE_BOUNDARY = """
    AttachRolePolicy AttachUserPolicy CreateRole CreateUser DeleteRolePolicy DeleteUserPolicy DetachRolePolicy
    DetachUserPolicy PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary PutUserPolicy
    UpdateAssumeRolePolicy
"""
_IDENTITIES = """
    DeleteRole DeleteUser GetRole GetRolePolicy GetUser ListAttachedRolePolicies ListAttachedUserPolicies
    ListGroupsForUser ListRolePolicies ListUserPolicies TagRole TagUser UntagRole UntagUser UpdateRole
"""
_TAGGING = "TagRole TagUser UntagRole UntagUser"
_POLICIES = """
    CreatePolicy DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion ListPolicyVersions
"""
_REPOSITORIES = """
    CreateRepository DeleteRepository GetRepository ListTagsForResource TagResource UntagResource
    UpdateRepositoryDescription
"""
_FUNCTIONS = """
    CreateFunction DeleteFunction GetFunction InvokeFunction TagResource UntagResource UpdateFunctionCode
    UpdateFunctionConfiguration
"""
_LOGS = """
    CreateLogGroup DeleteLogGroup DescribeLogGroups ListTagsForResource PutRetentionPolicy TagResource UntagResource
"""


def execution_policy(account: str, partition: str = "aws") -> Document:
    """Return the policy for CloudFormation's execution role.

    Args:
        account: the account's id.
        partition: ``aws``, or ``aws-cn``.
    """
    iam = f"arn:{partition}:iam::{account}"

    def regional(service: str, resource: str) -> str:
        return f"arn:{partition}:{service}:*:{account}:{resource}"

    cleanup_role = f"{iam}:role/{_CLEANUP}"
    entities = [f"{iam}:user/{_WRITERS}", f"{iam}:role/{_WRITERS}", cleanup_role]
    bounded = {"StringEquals": {"iam:PermissionsBoundary": f"{iam}:policy/{BOUNDARY}"}}
    of_the_record = {"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": list(RECORD_TAGS)}}
    passed = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    return _document(
        _allow("Replicas", "codecommit", _REPOSITORIES, [regional("codecommit", "*")]),
        _allow("IdentitiesWithinTheBoundary", "iam", _IDENTITIES_WITHIN_THE_BOUNDARY, entities, bounded),
        _allow("Identities", "iam", _IDENTITIES, entities),
        _deny("NoRecordOfAPipeline", "iam", _TAGGING, ["*"], of_the_record),
        _allow("PushPolicies", "iam", _POLICIES, [f"{iam}:policy/{_PUSH_POLICIES}"]),
        _allow("TheCleanupsRole", "iam", "PassRole", [cleanup_role], passed),
        _allow("TheCleanup", "lambda", _FUNCTIONS, [regional("lambda", f"function:{_CLEANUP}")]),
        _allow("TheCleanupsLog", "logs", _LOGS, [regional("logs", f"log-group:{_CLEANUP}")]),
        _allow("TheBootstrapsVersion", "ssm", "GetParameters", [regional("ssm", "parameter/cdk-bootstrap/*")]),
    )


def boundary_policy(account: str, partition: str = "aws") -> Document:
    """Return the boundary of the users and roles that mirrors' stacks create: all that any of them needs.

    Args:
        account: the account's id.
        partition: ``aws``, or ``aws-cn``.
    """
    return _document(
        _allow("Push", "codecommit", "GitPush", [f"arn:{partition}:codecommit:*:{account}:*"]),
        _allow(
            "RemoveGitCredentials",
            "iam",
            "DeleteServiceSpecificCredential ListServiceSpecificCredentials UpdateServiceSpecificCredential",
            [f"arn:{partition}:iam::{account}:user/{_WRITERS}"],
        ),
        _allow(
            "WriteTheLog",
            "logs",
            "CreateLogStream PutLogEvents",
            [f"arn:{partition}:logs:*:{account}:log-group:{_CLEANUP}"],
        ),
    )


def deploy_policy(account: str, qualifier: str, partition: str = "aws") -> Document:
    """Return the policy that limits the bootstrap's deploy role, which CI assumes.

    CloudFormation goes on with the role that a stack was deployed with, for whoever may update the stack and passes no
    role (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-iam-servicerole.html): so nothing happens
    but as the bootstrap's execution role, and nothing to the stacks that a person deploys.

    Args:
        account: the account's id.
        qualifier: the bootstrap's.
        partition: ``aws``, or ``aws-cn``.
    """
    execution = f"arn:{partition}:iam::{account}:role/cdk-{qualifier}-cfn-exec-role-{account}-*"
    as_another = {"StringNotLike": {"cloudformation:RoleArn": execution}}
    # The CDK CLI names no role when it deletes a mirror's stack whose creation failed.
    of_another = {"StringNotEquals": {"aws:ResourceTag/managed-by": "codecommit-mirror"}}
    stack = f"arn:{partition}:cloudformation:*:{account}:stack"
    own = [f"{stack}/{name}/*" for name in _BY_A_PERSON]
    changes = f"{_WITH_A_ROLE} {_WITHOUT_A_ROLE} DeleteStack"
    return _document(
        _deny("OnlyAsTheExecutionRole", "cloudformation", _WITH_A_ROLE, ["*"], as_another),
        _deny("OnlyMirrorsAreDeleted", "cloudformation", "DeleteStack", ["*"], {**as_another, **of_another}),
        _deny("NothingThatAPersonDeploys", "cloudformation", changes, own),
        _deny("NoResourceMovesToAnotherStack", "cloudformation", _REFACTORING, ["*"]),
    )


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(sid: str, service: str, names: str, resources: list[str], condition: Document | None = None) -> Document:
    statement: Document = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": [f"{service}:{name}" for name in names.split()],
        "Resource": resources,
    }
    return {**statement, "Condition": condition} if condition else statement


def _deny(sid: str, service: str, names: str, resources: list[str], condition: Document | None = None) -> Document:
    return {**_allow(sid, service, names, resources, condition), "Effect": "Deny"}
