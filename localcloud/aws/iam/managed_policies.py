"""AWS's managed policies for CodeCommit: the parts that say who may read, push and delete.

Their parts about the console's other services (EventBridge, SNS, Lambda, CodeStar, CodeGuru, KMS) are left out, which
is stricter. https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSCodeCommitPowerUser.html,
AWSCodeCommitFullAccess.html and AWSCodeCommitReadOnly.html (versions 18, 17 and 14 of February 2026).
"""

from __future__ import annotations

import json
from typing import Any

from ministack.services import iam

_READING = [
    *(f"codecommit:{name}" for name in ("BatchGet*", "BatchDescribe*", "Describe*", "Get*", "List*", "GitPull")),
    "codecommit:EvaluatePullRequestApprovalRules",
]
_WRITING = [
    f"codecommit:{name}"
    for name in (
        "AssociateApprovalRuleTemplateWithRepository",
        "BatchAssociateApprovalRuleTemplateWithRepositories",
        "BatchDisassociateApprovalRuleTemplateFromRepositories",
        "Create*",
        "DeleteBranch",
        "DeleteFile",
        "DisassociateApprovalRuleTemplateFromRepository",
        "GitPush",
        "Merge*",
        "OverridePullRequestApprovalRules",
        "Post*",
        "Put*",
        "TagResource",
        "Test*",
        "UntagResource",
        "Update*",
    )
]
_OWN_USER = "arn:aws:iam::*:user/${aws:username}"
_OWN_READING = [
    f"iam:{name}"
    for name in ("ListAccessKeys", "ListSSHPublicKeys", "ListServiceSpecificCredentials", "GetSSHPublicKey")
]
_OWN_WRITING = [
    f"iam:{name}"
    for name in (
        "CreateServiceSpecificCredential",
        "DeleteSSHPublicKey",
        "DeleteServiceSpecificCredential",
        "ResetServiceSpecificCredential",
        "UpdateSSHPublicKey",
        "UpdateServiceSpecificCredential",
        "UploadSSHPublicKey",
    )
]
_LISTING_USERS: tuple[list[str], str] = (["iam:ListUsers"], "*")
POLICIES: dict[str, list[tuple[list[str], str]]] = {
    "AWSCodeCommitFullAccess": [(["codecommit:*"], "*"), _LISTING_USERS, (_OWN_READING + _OWN_WRITING, _OWN_USER)],
    "AWSCodeCommitPowerUser": [
        (_READING + _WRITING, "*"),
        _LISTING_USERS,
        (_OWN_READING + _OWN_WRITING, _OWN_USER),
    ],
    "AWSCodeCommitReadOnly": [(_READING, "*"), _LISTING_USERS, (_OWN_READING, _OWN_USER)],
}
"""Actions and resources of the statements, by the policy's name."""


def install() -> None:
    """Add the policies."""
    for name, statements in POLICIES.items():
        document = json.dumps({"Version": "2012-10-17", "Statement": [_allow(*rest) for rest in statements]})
        record = iam._make_aws_managed_record(name, document)
        iam._aws_managed_policies[record["Arn"]] = record


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}
