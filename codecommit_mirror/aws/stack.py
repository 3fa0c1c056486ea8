"""AWS as the companion sees it: a session, a stack's outputs, and failures as sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import boto3
import yaml
from botocore import exceptions

from ..config.ci import REPLICA
from ..config.mirror import Mirror
from ..errors import MirrorError

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN_KEY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
}
_BUSY = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


ServiceName = Literal["cloudformation", "codecommit", "iam", "ssm", "sts"]


class Missing(MirrorError):
    """The stack or the IAM user that was looked for is not there."""


class Denied(MirrorError):
    """AWS denies the call to these credentials."""


@dataclass(frozen=True)
class ReplicaOutputs:
    """The outputs of a ``ReplicaStack``."""

    replica_url: str
    replica_arn: str
    push_user_name: str
    push_policy_arn: str


def session(mirror: Mirror) -> boto3.Session:
    """Return a session in the mirror's region, or in the one that the ``cdk`` CLI would take.

    Raises:
        MirrorError: there is no region, the configured profile does not exist, or the credentials are for another
            account than the mirror's.
    """
    # boto3 knows AWS_DEFAULT_REGION alone; the CDK CLI goes by AWS_REGION first.
    result = session_in(mirror.region or os.environ.get("AWS_REGION") or None)
    if not result.region_name:
        raise MirrorError(f"mirror {mirror.name!r} has no region; set AWS_REGION, or write region: in mirrors.yaml.")
    if mirror.account:
        account = account_of(result)
        if account != mirror.account:
            raise MirrorError(
                f"mirror {mirror.name!r} belongs to account {mirror.account}, and the AWS credentials are for "
                f"{account}; choose the other AWS profile."
            )
    return result


def session_in(region: str | None) -> boto3.Session:
    """Return a session in a region, or in that of the AWS configuration.

    Raises:
        MirrorError: the configured profile does not exist.
    """
    try:
        return boto3.Session(region_name=region)
    except exceptions.BotoCoreError as error:
        remedy = "correct AWS_PROFILE" if isinstance(error, exceptions.ProfileNotFound) else "correct it"
        raise MirrorError(f"{str(error).rstrip('.')}; {remedy}.") from None


def account_of(aws: boto3.Session) -> str:
    """Return the account of the credentials."""
    with aws_failures("ask AWS whose credentials these are"):
        return str(client(aws, "sts").get_caller_identity()["Account"])


def client(aws: boto3.Session, service: ServiceName, region: str | None = None) -> Any:
    """Return a client, in the session's own region unless told; an endpoint that is no URL is a user's mistake."""
    try:
        return aws.client(service, region_name=region)
    except ValueError as error:
        raise MirrorError(f"{error}; correct AWS_ENDPOINT_URL and the AWS configuration.") from None


@dataclass(frozen=True)
class ReplicaStackState:
    """What CloudFormation says of a mirror's stack."""

    status: str
    protected: bool
    """Whether termination protection is on."""
    outputs: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)

    def is_of(self, mirror: Mirror) -> bool:
        """Whether it is this mirror's, as far as it is anybody's yet: stacks of other things may have such a name."""
        early = self.status == "REVIEW_IN_PROGRESS" or self.status.startswith("IMPORT_")
        replica = self.tags.get(REPLICA) or self.outputs.get("ReplicaArn", "").rpartition(":")[2]
        return replica == mirror.name or (early and not replica)

    @property
    def working(self) -> bool:
        """Whether CloudFormation is at work; a change set that nobody has executed yet is none."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"


def find_stack(aws: boto3.Session, mirror: Mirror) -> ReplicaStackState | None:
    """Return the mirror's stack (DescribeStacks), None when there is none in this account and region.

    Raises:
        MirrorError: there is a stack of that name, and it is something else's; or the call failed.
    """
    with aws_failures(f"read the stack {mirror.stack_name}"):
        try:
            stack = client(aws, "cloudformation").describe_stacks(StackName=mirror.stack_name)["Stacks"][0]
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    tags = {tag["Key"]: tag["Value"] for tag in stack.get("Tags", [])}
    found = ReplicaStackState(stack["StackStatus"], bool(stack.get("EnableTerminationProtection")), outputs, tags)
    if not found.is_of(mirror):
        raise MirrorError(
            f"the stack {mirror.stack_name!r} in region {aws.region_name} is not that of the mirror {mirror.name!r}; "
            "it is not touched: give the mirror another name."
        )
    return found


def deployed_template(cloudformation: Any, stack_name: str) -> Mapping[str, Any]:
    """Return the template that a stack was deployed with."""
    with aws_failures(f"read the template of the stack {stack_name}"):
        template = cloudformation.get_template(StackName=stack_name)["TemplateBody"]
    document: Mapping[str, Any] = yaml.safe_load(template) if isinstance(template, str) else template
    return document


def deletion_policy(template: Mapping[str, Any]) -> str | None:
    """Return what a template says of its repository's end, ``Delete`` or ``Retain``; None when it owns none."""
    repositories = [r for r in template.get("Resources", {}).values() if r.get("Type") == "AWS::CodeCommit::Repository"]
    return next((str(repository.get("DeletionPolicy", "Delete")) for repository in repositories), None)


def deployed_deletion_policy(aws: boto3.Session, mirror: Mirror) -> str | None:
    """Return the deployed stack's ``deletion_policy``, whatever mirrors.yaml says by now."""
    return deletion_policy(deployed_template(client(aws, "cloudformation"), mirror.stack_name))


def find_clone_url(aws: boto3.Session, name: str) -> str | None:
    """Return the HTTPS clone URL of a repository in the session's region (GetRepository); None when there is none."""
    codecommit = client(aws, "codecommit")
    with aws_failures(f"look for the repository {name}"):
        try:
            found = codecommit.get_repository(repositoryName=name)
        except codecommit.exceptions.RepositoryDoesNotExistException:
            return None
    return str(found["repositoryMetadata"]["cloneUrlHttp"])


def replica_outputs(aws: boto3.Session, mirror: Mirror) -> ReplicaOutputs:
    """Read the stack's outputs.

    Raises:
        Missing: there is no such stack in this account and region.
        MirrorError: the stack is there without outputs, in another account, or the call failed.
    """
    where = f"region {aws.region_name}"
    stack = find_stack(aws, mirror)
    if stack is None:
        raise Missing(
            f"stack {mirror.stack_name!r} is not in {where} of this account; run 'codecommit-mirror up "
            f"{mirror.name}' or 'cdk deploy {mirror.name}', or correct the region or the AWS profile."
        )
    outputs = stack.outputs
    try:
        found = ReplicaOutputs(
            outputs["ReplicaUrl"], outputs["ReplicaArn"], outputs["PushUserName"], outputs["PushPolicyArn"]
        )
    except KeyError as missing:
        raise MirrorError(
            f"stack {mirror.stack_name!r} in {where} is {stack.status} and has no output {missing}; "
            f"run 'cdk deploy {mirror.name}'."
        ) from None
    if not mirror.existing:
        return found
    url = find_clone_url(aws, mirror.name)
    if url is None:
        raise Missing(repository_is_gone(mirror))
    return replace(found, replica_url=url)


def repository_is_gone(mirror: Mirror) -> str:
    """Return the sentence for a deployed stack whose repository was deleted by hand."""
    if mirror.existing:
        return (
            f"mirrors.yaml says existing: true, but there is no CodeCommit repository {mirror.name!r} in this region; "
            f"create it with 'aws codecommit create-repository --repository-name {mirror.name}', or correct the name."
        )
    return (
        f"CloudFormation does not notice that the CodeCommit repository {mirror.name!r} of the stack "
        f"{mirror.stack_name!r} was deleted by hand; run 'codecommit-mirror down {mirror.name}' (or 'cdk destroy "
        f"{mirror.name}'), then 'codecommit-mirror up {mirror.name}', which copies everything that the source has."
    )


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
            raise Missing(f"cannot {action}: {message.rstrip('.')}; 'codecommit-mirror up' restores it.") from None
        if code in _EXPIRED:
            raise MirrorError(f"cannot {action}: the AWS credentials have expired; sign in again.") from None
        if code in _UNKNOWN_KEY:
            raise MirrorError(
                f"cannot {action}: AWS does not know these credentials ({code}); check AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from None
        if code in _DENIED:
            match = re.search(r"perform: (\S+)", message)
            needed = match.group(1) if match else error.operation_name
            raise Denied(
                f"cannot {action}: AWS denies {needed}; ask for that permission, or use another AWS profile."
            ) from None
        if code in _BUSY:
            raise MirrorError(f"cannot {action}: AWS is busy ({code}); run again in a minute.") from None
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise MirrorError(f"cannot {action}: AWS is out of order ({code}); run again in a few minutes.") from None
        if code == "LimitExceeded":
            raise MirrorError(f"cannot {action}: {message.rstrip('.')}; free a place first.") from None
        raise
    except exceptions.BotoCoreError as error:
        raise MirrorError(f"cannot {action}: {str(error).rstrip('.')}; check the AWS configuration.") from None
