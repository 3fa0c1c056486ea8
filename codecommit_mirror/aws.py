"""AWS as the companion sees it: a session, a stack's outputs, and failures as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from botocore import exceptions

from .config import Mirror
from .errors import MirrorError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN_KEY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


class Missing(MirrorError):
    """The stack or the IAM user that was looked for is not there."""


@dataclass(frozen=True)
class ReplicaOutputs:
    """The outputs of a ``ReplicaStack``."""

    replica_url: str
    replica_arn: str
    push_user_name: str
    push_policy_arn: str


def session(mirror: Mirror) -> boto3.Session:
    """Return a session in the mirror's region, or in the AWS configuration's own.

    Raises:
        MirrorError: there is no region, or the configured profile does not exist.
    """
    try:
        result = boto3.Session(region_name=mirror.region)
    except exceptions.ProfileNotFound as error:
        raise MirrorError(f"{error}; correct AWS_PROFILE.") from None
    if not result.region_name:
        raise MirrorError(f"mirror {mirror.name!r} has no region; write region: in mirrors.yaml, or set AWS_REGION.")
    return result


def replica_outputs(aws: boto3.Session, mirror: Mirror) -> ReplicaOutputs:
    """Read the stack's outputs with DescribeStacks.

    Raises:
        Missing: there is no such stack in this account and region.
        MirrorError: the stack is there without outputs, in another account, or the call failed.
    """
    where = f"region {aws.region_name}"
    with aws_failures(f"read the stack {mirror.stack_name}"):
        try:
            stack = aws.client("cloudformation").describe_stacks(StackName=mirror.stack_name)["Stacks"][0]
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise Missing(
                f"stack {mirror.stack_name!r} is not in {where} of this account; run 'cdk deploy {mirror.name}', "
                "or correct the region or the AWS profile."
            ) from None
    account = stack.get("StackId", "").split(":")[4:5]
    if mirror.account and account != [mirror.account]:
        raise MirrorError(
            f"mirror {mirror.name!r} belongs to account {mirror.account}, and the AWS credentials are for "
            f"{''.join(account)}; choose the other AWS profile."
        )
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    try:
        return ReplicaOutputs(
            outputs["ReplicaUrl"], outputs["ReplicaArn"], outputs["PushUserName"], outputs["PushPolicyArn"]
        )
    except KeyError as missing:
        raise MirrorError(
            f"stack {mirror.stack_name!r} in {where} is {stack['StackStatus']} and has no output {missing}; "
            f"run 'cdk deploy {mirror.name}'."
        ) from None


@contextmanager
def aws_failures(action: str) -> Iterator[None]:
    """Turn what AWS refuses into one sentence; let what is our own fault keep its traceback.

    Args:
        action: what was tried, as in "cannot ...".
    """
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
        raise MirrorError(
            f"cannot {action}: there are no AWS credentials; run 'aws sso login' or 'aws configure', or set "
            "AWS_PROFILE."
        ) from None
    except (exceptions.TokenRetrievalError, exceptions.SSOError):
        raise MirrorError(f"cannot {action}: the AWS sign-in has expired; run 'aws sso login'.") from None
    except (exceptions.EndpointConnectionError, exceptions.HTTPClientError) as error:
        raise MirrorError(
            f"cannot {action}: AWS cannot be reached ({error}); check the region, the network and AWS_ENDPOINT_URL."
        ) from None
    except exceptions.ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "NoSuchEntity":
            raise Missing(f"cannot {action}: {message.rstrip('.')}; run 'cdk deploy' to restore it.") from None
        if code in _EXPIRED:
            raise MirrorError(f"cannot {action}: the AWS credentials have expired; sign in again.") from None
        if code in _UNKNOWN_KEY:
            raise MirrorError(
                f"cannot {action}: AWS does not know these credentials ({code}); check AWS_PROFILE and "
                f"AWS_ACCESS_KEY_ID."
            ) from None
        if code in _DENIED:
            match = re.search(r"perform: (\S+)", message)
            needed = match.group(1) if match else error.operation_name
            raise MirrorError(
                f"cannot {action}: AWS denies {needed}; ask for that permission, or use another AWS profile."
            ) from None
        raise
