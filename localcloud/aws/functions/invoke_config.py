"""A function's settings for asynchronous invocations: without a qualifier, those of ``$LATEST``.

https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionEventInvokeConfig.html shows the ARN of ``$LATEST`` in an
answer to a request without a qualifier.
"""

from __future__ import annotations

from typing import Any

from ministack.services import lambda_svc

_LATEST = "$LATEST"


def install() -> None:
    """Let requests with ``$LATEST`` and without a qualifier be about the same settings."""
    get, put, delete = (
        lambda_svc._get_event_invoke_config,
        lambda_svc._put_event_invoke_config,
        lambda_svc._delete_event_invoke_config,
    )

    def get_latest(name: str, qualifier: str | None = None) -> Any:
        return get(name, qualifier or _LATEST)

    def put_latest(name: str, qualifier: str | None, data: dict[str, Any]) -> Any:
        return put(name, qualifier or _LATEST, data)

    def delete_latest(name: str, qualifier: str | None = None) -> Any:
        return delete(name, qualifier or _LATEST)

    lambda_svc._get_event_invoke_config = get_latest
    lambda_svc._put_event_invoke_config = put_latest
    lambda_svc._delete_event_invoke_config = delete_latest
