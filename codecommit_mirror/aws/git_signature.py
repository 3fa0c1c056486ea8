"""Git access to CodeCommit with the user's AWS credentials: a signature in place of a password."""

from __future__ import annotations

import boto3

from .. import engine_api
from ..errors import MirrorError
from .session import aws_failures


def sign(aws: boto3.Session, url: str) -> tuple[str, str]:
    """Return a user name and a password for a clone URL; they are valid for 15 minutes.

    Raises:
        MirrorError: there are no AWS credentials.
    """
    with aws_failures("sign in to CodeCommit"):
        provider = aws.get_credentials()
        credentials = provider.get_frozen_credentials() if provider else None
    if credentials is None or not credentials.access_key or not credentials.secret_key:
        raise MirrorError("there are no AWS credentials; run 'aws sso login' or 'aws configure', or set AWS_PROFILE.")
    return engine_api.sign(url, str(aws.region_name), credentials.access_key, credentials.secret_key, credentials.token)
