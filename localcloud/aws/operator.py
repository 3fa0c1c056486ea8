"""The IAM user who runs ``cdk`` and the CLI; every request of theirs is checked.

ministack takes some access keys for the root user's and does not check their signatures; here no key is root's.
"""

from __future__ import annotations

from ministack.core import iam_evaluator, responses
from ministack.services import iam, sts

USER_NAME = "operator"


def install(account: str, region: str, access_key_id: str, secret_access_key: str) -> None:
    """Create an administrator with this access key, and let no request pass as root's."""
    with responses.request_scope(account, region):
        iam._create_user({"UserName": USER_NAME})
        administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
        iam._attach_user_policy({"UserName": USER_NAME, "PolicyArn": administrator})
        iam._access_keys[access_key_id] = {
            "UserName": USER_NAME,
            "AccessKeyId": access_key_id,
            "SecretAccessKey": secret_access_key,
            "Status": "Active",
            "CreateDate": iam._now(),
        }
    for module in (iam_evaluator, sts):
        module.is_root_access_key = lambda access_key_id: False
