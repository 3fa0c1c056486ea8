"""Git access to CodeCommit with AWS credentials: a signature in place of a password.

This is what ``aws codecommit credential-helper`` gives to git: Signature Version 4 of the pseudo-method ``GIT``, the
path and the host without its port (https://docs.aws.amazon.com/codecommit/latest/userguide/setting-up-https-unixes.html).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from ..errors import MirrorError
from .session import aws_failures


def sign(aws: boto3.Session, url: str, now: datetime | None = None) -> tuple[str, str]:
    """Return a user name and a password for a clone URL; they are valid for 15 minutes.

    Raises:
        MirrorError: there are no AWS credentials.
    """
    with aws_failures("sign in to CodeCommit"):
        provider = aws.get_credentials()
        credentials = provider.get_frozen_credentials() if provider else None
    if credentials is None or not credentials.access_key or not credentials.secret_key:
        raise MirrorError("there are no AWS credentials; run 'aws sso login' or 'aws configure', or set AWS_PROFILE.")
    parts = urlsplit(url)
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    canonical = f"GIT\n{parts.path}\n\nhost:{parts.hostname}\n\nhost\n"
    signer = SigV4Auth(credentials, "codecommit", aws.region_name)
    request = AWSRequest(method="GIT", url=url)
    request.context["timestamp"] = time
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{time}\n{signer.credential_scope(request)}\n{digest}"
    user = f"{credentials.access_key}%{credentials.token}" if credentials.token else credentials.access_key
    return user, f"{time}Z{signer.signature(text, request)}"
