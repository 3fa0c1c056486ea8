"""Which IAM action a request to Lambda needs, where ministack names another one.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html
"""

from __future__ import annotations

from ministack.core import iam_actions

_ACTIONS = {
    ("concurrency", "GET"): "GetFunctionConcurrency",
    ("concurrency", "DELETE"): "DeleteFunctionConcurrency",
    ("event-invoke-config", "GET"): "GetFunctionEventInvokeConfig",
    ("event-invoke-config", "PUT"): "PutFunctionEventInvokeConfig",
    ("event-invoke-config", "POST"): "UpdateFunctionEventInvokeConfig",
    ("event-invoke-config", "DELETE"): "DeleteFunctionEventInvokeConfig",
}


def install() -> None:
    """Name the action of a function's concurrency and of its asynchronous invocations."""
    name = iam_actions._lambda_action

    def name_exactly(method: str, path: str) -> str | None:
        return _ACTIONS.get((path.rstrip("/").rpartition("/")[2], method)) or name(method, path)

    iam_actions._lambda_action = name_exactly
