"""AWS sessions and clients, and failures of AWS calls as sentences."""

from __future__ import annotations

import difflib
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.session import get_session

from ..config.mirror import Mirror
from ..errors import DeniedError, MirrorError, NotFoundError
from ..progress import say

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_codecommit import CodeCommitClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

_LOG = logging.getLogger(__name__)
_CONFIG = Config(retries={"mode": "adaptive", "max_attempts": 4}, max_pool_connections=32, connect_timeout=3)
"""Hundreds of mirrors share an account's rate limits; without a network there is a word after three seconds."""
_CLIENTS: WeakKeyDictionary[boto3.Session, dict[tuple[str, str | None], Any]] = WeakKeyDictionary()
_LOCK = threading.Lock()
"""A session makes one client at a time."""
_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN_KEY = {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
}
_BUSY = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""Where a role is assumed if no region is configured, by partition."""
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


class SignIn(NamedTuple):
    """How an account is signed in to: as the environment says, with a profile, or with a role that is assumed."""

    profile: str | None = None
    role: str | None = None


AS_THE_ENVIRONMENT_SAYS = SignIn()
ACCOUNTS_VARIABLE = "CODECOMMIT_MIRROR_AWS_ACCOUNTS"
"""Names the accounts that a file may sign a person in to."""


def sign_in_of(mirror: Mirror) -> SignIn:
    """Return how a mirror's account is signed in to.

    What AWS's side records decides which pipeline gets secrets, and where a restore pushes to; so a file must not
    choose whose AWS that is.

    Raises:
        MirrorError: the file says how, and the environment does not name that account.
    """
    sign_in = SignIn(mirror.profile, mirror.assume_role)
    named = re.split(r"[,\s]+", os.environ.get(ACCOUNTS_VARIABLE, ""))
    if sign_in != AS_THE_ENVIRONMENT_SAYS and mirror.account not in named:
        how = f"as {mirror.assume_role}" if mirror.assume_role else f"with the profile {mirror.profile!r}"
        raise MirrorError(
            f"mirror {mirror.name!r}: mirrors.yaml says to sign in to account {mirror.account} {how}, and your "
            f"environment does not name that account; if it is yours, export {ACCOUNTS_VARIABLE} with it (several are "
            "separated by commas), else find out who wrote it into the file."
        )
    return sign_in


def session(mirror: Mirror) -> boto3.Session:
    """Return a session in the mirror's region, or in the region that the CDK CLI would use.

    Raises:
        MirrorError: there is no region, the configured profile does not exist, or the credentials belong to another
            account than the mirror's.
    """
    # boto3 only knows AWS_DEFAULT_REGION; the CDK CLI reads AWS_REGION first.
    result = session_in(mirror.region or os.environ.get("AWS_REGION") or None, sign_in_of(mirror))
    if not result.region_name:
        raise MirrorError(f"mirror {mirror.name!r} has no region; set AWS_REGION, or write region: in mirrors.yaml.")
    _check_region(mirror, result)
    if mirror.account:
        account = account_of(result)
        if account != mirror.account:
            raise MirrorError(
                f"mirror {mirror.name!r} belongs to account {mirror.account}, but the AWS credentials are for "
                f"{account}; use an AWS profile for the mirror's account."
            )
    return result


def _check_region(mirror: Mirror, aws: boto3.Session) -> None:
    """Refuse a region that looks like a typing error; one that is newer than boto3 passes."""
    partitions = aws.get_available_partitions()
    known = [name for part in partitions for name in aws.get_available_regions("sts", part)]
    region = str(aws.region_name)
    if region not in known and (close := difflib.get_close_matches(region, known, n=1, cutoff=0.85)):
        raise MirrorError(f"mirror {mirror.name!r} is in region {region!r}, which AWS does not have; use {close[0]!r}.")


def session_in(region: str | None, sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS) -> boto3.Session:
    """Return a session in a region, or in the region of the AWS configuration.

    Raises:
        MirrorError: the configured profile does not exist.
    """
    try:
        core = _core(sign_in)
        core.register_component("data_loader", _loader())
        core.register_component("credential_provider", _SharedCredentials(sign_in))
        core.get_scoped_config()
        result = boto3.Session(region_name=region, botocore_session=core)
    except exceptions.BotoCoreError as error:
        key = "profile" if sign_in.profile else "AWS_PROFILE"
        remedy = f"correct {key}" if isinstance(error, exceptions.ProfileNotFound) else "correct it"
        raise MirrorError(f"{str(error).rstrip('.')}; {remedy}.") from None
    result.events.register("after-call", _log_call)
    result.events.register("needs-retry", _say_unreachable)
    return result


class _SharedCredentials:
    """Gives all sessions the same credentials, so that a profile which asks for a code does so once."""

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    def load_credentials(self) -> Any:
        return _credentials(_configuration(), self._sign_in)


def _core(sign_in: SignIn) -> Any:
    """Return botocore's own session."""
    core = get_session()
    if sign_in.profile:
        core.set_config_variable("profile", sign_in.profile)
    return core


def _configuration() -> tuple[tuple[str, str], ...]:
    """Return what of the environment decides which credentials are found."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "HOME"))))


@cache
def _credentials(of: tuple[tuple[str, str], ...], sign_in: SignIn) -> Any:
    core = _core(sign_in)
    if sign_in.role is None:
        return core.get_credentials()
    own = _credentials(of, AS_THE_ENVIRONMENT_SAYS)
    if own is None:
        return None
    region = (
        core.get_config_variable("region") or os.environ.get("AWS_REGION") or _REGIONS.get(sign_in.role.split(":")[1])
    )
    fetcher = AssumeRoleCredentialFetcher(
        partial(core.create_client, region_name=region), own, sign_in.role, {"RoleSessionName": "codecommit-mirror"}
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def environment_for_cdk(sign_in: SignIn = AS_THE_ENVIRONMENT_SAYS) -> dict[str, str | None]:
    """Return the variables that give the CDK CLI the credentials of an account; None removes one.

    Those for which a person was asked are handed over: the CLI would ask again, and there is nobody at its input.

    Raises:
        MirrorError: there are no credentials.
    """
    with aws_failures("sign in to AWS"):
        if sign_in.role is None and not _asks_a_person(sign_in):
            return {**_without_credentials(sign_in), "AWS_PROFILE": sign_in.profile} if sign_in.profile else {}
        found = _credentials(_configuration(), sign_in)
        if found is None:
            raise exceptions.NoCredentialsError()
        return {**_without_credentials(sign_in), **dict(zip(_KEYS, found.get_frozen_credentials(), strict=False))}


def _without_credentials(sign_in: SignIn) -> dict[str, str | None]:
    """Return the variables that take other credentials away, and keep the region that the profile may have named."""
    removed = dict.fromkeys((*_KEYS, "AWS_CREDENTIAL_EXPIRATION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"))
    region = os.environ.get("AWS_REGION") or _core(sign_in).get_config_variable("region")
    return {**removed, **({"AWS_REGION": region} if region else {})}


def _asks_a_person(sign_in: SignIn) -> bool:
    """Whether the profile, or one that it builds on, wants the code of an MFA device."""
    core = _core(sign_in)
    profiles = core.full_config.get("profiles", {})
    name: str | None = core.profile or "default"
    seen: set[str] = set()
    while name and name not in seen and "mfa_serial" not in profiles.get(name, {}):
        seen.add(name)
        name = profiles.get(name, {}).get("source_profile")
    return bool(name) and name not in seen


@cache
def _loader() -> Any:
    """Return the loader of what botocore knows about services, so that the sessions of many regions read it once."""
    return get_session().get_component("data_loader")


def _say_unreachable(attempts: int, endpoint: Any, caught_exception: BaseException | None = None, **_: Any) -> None:
    """Say at the first try that a service cannot be reached; botocore tries again by itself."""
    unreachable = (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError)
    if attempts == 1 and isinstance(caught_exception, unreachable):
        say(f"{urlsplit(endpoint.host).netloc} cannot be reached; trying again")


def _log_call(http_response: Any, model: Any, **_: Any) -> None:
    """Log a call without its parameters and its answer, which can hold secrets."""
    headers = {str(name).lower(): value for name, value in http_response.headers.items()}
    request = headers.get("x-amzn-requestid") or headers.get("x-amz-request-id") or "unknown"
    service, status = model.service_model.service_name, http_response.status_code
    _LOG.info("%s %s -> %s (request %s)", service, model.name, status, request)


def account_of(aws: boto3.Session) -> str:
    """Return the account of the credentials.

    Raises:
        MirrorError: the call failed.
    """
    with aws_failures("ask AWS which account the credentials belong to"):
        return client(aws, "sts").get_caller_identity()["Account"]


@overload
def client(
    aws: boto3.Session, service: Literal["cloudformation"], region: str | None = None
) -> CloudFormationClient: ...
@overload
def client(aws: boto3.Session, service: Literal["codecommit"], region: str | None = None) -> CodeCommitClient: ...
@overload
def client(aws: boto3.Session, service: Literal["iam"], region: str | None = None) -> IAMClient: ...
@overload
def client(aws: boto3.Session, service: Literal["s3"], region: str | None = None) -> S3Client: ...
@overload
def client(aws: boto3.Session, service: Literal["ssm"], region: str | None = None) -> SSMClient: ...
@overload
def client(aws: boto3.Session, service: Literal["sts"], region: str | None = None) -> STSClient: ...
@overload
def client(aws: boto3.Session, service: Literal["kms", "sns"], region: str | None = None) -> Any: ...
def client(aws: boto3.Session, service: Any, region: str | None = None) -> Any:
    """Return a client, by default in the session's own region; all threads share one for each service.

    Raises:
        MirrorError: an endpoint in the environment is not a URL.
    """
    with _LOCK:
        known = _CLIENTS.setdefault(aws, {})
        if (service, region) not in known:
            known[service, region] = _new_client(aws, service, region)
        return known[service, region]


def _new_client(aws: boto3.Session, service: Any, region: str | None) -> Any:
    try:
        return aws.client(service, region_name=region, config=_CONFIG)
    except ValueError as error:
        raise MirrorError(f"{error}; correct AWS_ENDPOINT_URL and the AWS configuration.") from None


@contextmanager
def aws_failures(action: str) -> Iterator[None]:
    """Raise failures of AWS calls as one sentence each; our own mistakes keep their tracebacks.

    Args:
        action: what was tried, as in "cannot ...".
    """
    try:
        yield
    except exceptions.CredentialRetrievalError as error:
        raise MirrorError(
            f"cannot {action}: the AWS profile's own way to credentials failed ({str(error).rstrip('.')}); run it by "
            "hand, or use another AWS profile."
        ) from None
    except exceptions.MissingDependencyException:
        raise MirrorError(
            f"cannot {action}: this AWS profile needs a package that is not installed; run pip install 'botocore[crt]'."
        ) from None
    except FileNotFoundError as error:
        raise MirrorError(
            f"cannot {action}: {error.filename} is not there, which the AWS configuration names (for a web identity: "
            "AWS_WEB_IDENTITY_TOKEN_FILE); correct it."
        ) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
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
        raise _known_failure(action, error) from None
    except exceptions.BotoCoreError as error:
        raise MirrorError(f"cannot {action}: {str(error).rstrip('.')}; check the AWS configuration.") from None


def _known_failure(action: str, error: exceptions.ClientError) -> MirrorError:
    """Return AWS's error as a sentence."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code == "NoSuchEntity":
        return NotFoundError(f"cannot {action}: {message.rstrip('.')}; 'codecommit-mirror up' restores it.")
    if code in _DENIED and "MultiFactorAuthentication" not in message:
        return _denial(action, message, error.operation_name)
    if code == "LimitExceeded":
        return MirrorError(f"cannot {action}: {message.rstrip('.')}; delete one first.")
    if why := _credentials_problem(code, message):
        return MirrorError(f"cannot {action}: {why}.")
    if code in _BUSY:
        return MirrorError(f"cannot {action}: AWS is busy ({code}); run again in a minute.")
    metadata = error.response.get("ResponseMetadata", {})
    if metadata.get("HTTPStatusCode", 0) >= 500:
        return MirrorError(f"cannot {action}: AWS has an outage ({code}); run again in a few minutes.")
    request = metadata.get("RequestId", "unknown")
    return MirrorError(f"cannot {action}: AWS answered {code}: {message.rstrip('.')} (request {request}).")


def _denial(action: str, message: str, operation: str) -> DeniedError:
    match = re.search(r"perform: (\S+)", message)
    needed = match.group(1) if match else operation
    if found := re.search("explicit deny in a (service control policy|resource control policy)", message):
        return DeniedError(
            f"cannot {action}: a {found[1]} of your AWS organization denies {needed}; ask who administers it."
        )
    return DeniedError(f"cannot {action}: AWS denies {needed}; ask for that permission, or use another AWS profile.")


def _credentials_problem(code: str, message: str) -> str | None:
    """Return what is wrong with the credentials, or with the clock that signs with them, and what to do."""
    if code in _SKEWED or re.search("not yet current|Signature expired", message):
        return f"the clock of this machine is wrong, says AWS ({code}); set it, and run again"
    if "MultiFactorAuthentication" in message:
        return "AWS did not accept the code of your MFA device; run again with a new one"
    if code in _EXPIRED:
        return "the AWS credentials have expired; sign in again"
    if code in _UNKNOWN_KEY:
        return (
            f"AWS does not recognise these credentials ({code}); check AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    return None
