"""A function's role must exist and trust Lambda.

https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
"""

from __future__ import annotations

from typing import Any

from ministack.core import responses
from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners

from ..rights import acting

_WORDS = "The role defined for the function cannot be assumed by Lambda."


def install() -> None:
    """Refuse a role that Lambda cannot assume, from the API and from a template."""
    create, update = lambda_svc._create_function, lambda_svc._update_config
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    create_resource = handlers["create"]

    def create_checked(data: dict[str, Any]) -> Any:
        if not _assumable(data.get("Role", "")):
            return responses.error_response_json("InvalidParameterValueException", _WORDS, 400)
        return create(data)

    def update_checked(name: str, data: dict[str, Any]) -> Any:
        if "Role" in data and not _assumable(data["Role"]):
            return responses.error_response_json("InvalidParameterValueException", _WORDS, 400)
        return update(name, data)

    def create_resource_checked(logical_id: str, properties: dict[str, Any], stack_name: str) -> Any:
        if not _assumable(properties.get("Role", "")):
            raise ValueError(_WORDS)
        return create_resource(logical_id, properties, stack_name)

    lambda_svc._create_function, lambda_svc._update_config = create_checked, update_checked
    handlers["create"] = create_resource_checked


def _assumable(arn: str) -> bool:
    return acting.role_for(arn, "lambda.amazonaws.com") is not None
