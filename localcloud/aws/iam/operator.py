"""The IAM user who runs ``cdk`` and the CLI; every request of theirs is checked.

ministack takes some access keys for the root user's and does not check their signatures; here no key is root's.
"""

from __future__ import annotations

from dataclasses import dataclass

from ministack.core import iam_evaluator, responses
from ministack.services import iam, sts

USER_NAME = "operator"


@dataclass(frozen=True)
class Operator:
    """An account's administrator, with an access key."""

    account: str
    region: str
    access_key_id: str
    secret_access_key: str


def install(operator: Operator) -> None:
    """Create the administrator, and let no request pass as root's."""
    create(operator)
    for module in (iam_evaluator, sts):
        module.is_root_access_key = lambda access_key_id: False


def create(operator: Operator) -> None:
    """Create an administrator in an account."""
    with responses.request_scope(operator.account, operator.region):
        iam._create_user({"UserName": USER_NAME})
        administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
        iam._attach_user_policy({"UserName": USER_NAME, "PolicyArn": administrator})
        iam._access_keys[operator.access_key_id] = {
            "UserName": USER_NAME,
            "AccessKeyId": operator.access_key_id,
            "SecretAccessKey": operator.secret_access_key,
            "Status": "Active",
            "CreateDate": iam._now(),
        }
