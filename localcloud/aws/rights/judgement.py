"""What the evaluator cannot judge is an error, and policy variables are replaced.

ministack takes a condition key that it does not know for one that the request lacks, and a principal that it does not
know for somebody else: a Deny with either never applies, and a test of it proves nothing. Here such a request fails
with ``EmbeddedCloudCannotJudge``, which names the key. Variables are replaced as in
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ministack.core import iam_actions, iam_evaluator, responses

CODE = "EmbeddedCloudCannotJudge"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_WITH_VARIABLES = "2012-10-17"
_NOTHING = "\0"
"""What a variable without a value is replaced by: it equals nothing."""
_KNOWN = frozenset(
    [
        "aws:calledvia",
        "aws:calledviafirst",
        "aws:calledvialast",
        "aws:currenttime",
        "aws:epochtime",
        "aws:multifactorauthpresent",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalisawsservice",
        "aws:principalorgid",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:resourceaccount",
        "aws:securetransport",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceip",
        "aws:sourceorgid",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:tagkeys",
        "aws:tokenissuetime",
        "aws:userid",
        "aws:username",
        "aws:viaawsservice",
        "cloudformation:rolearn",
        "codecommit:references",
        "iam:passedtoservice",
        "iam:permissionsboundary",
        "iam:policyarn",
        "kms:calleraccount",
        "kms:messagetype",
        "kms:signingalgorithm",
        "kms:viaservice",
        "s3:dataaccesspointarn",
        "s3:delimiter",
        "s3:if-match",
        "s3:if-none-match",
        "s3:max-keys",
        "s3:object-lock-legal-hold",
        "s3:object-lock-mode",
        "s3:object-lock-remaining-retention-days",
        "s3:object-lock-retain-until-date",
        "s3:objectcreationoperation",
        "s3:prefix",
        "s3:requestobjecttagkeys",
        "s3:resourceaccount",
        "s3:signatureversion",
        "s3:tlsversion",
        "s3:versionid",
        "s3:x-amz-acl",
        "s3:x-amz-content-sha256",
        "s3:x-amz-copy-source",
        "s3:x-amz-grant-full-control",
        "s3:x-amz-grant-read",
        "s3:x-amz-grant-read-acp",
        "s3:x-amz-grant-write",
        "s3:x-amz-grant-write-acp",
        "s3:x-amz-server-side-encryption",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:x-amz-storage-class",
        "sts:rolesessionname",
    ]
)
"""Keys that are given, or rightly absent: no request of this cloud comes from a VPC or from another organization."""
_KNOWN_PREFIXES = (
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "s3:existingobjecttag/",
    "s3:requestobjecttag/",
)
_TRUST_KEY = re.compile(r"[\w.-]+\.[a-z]+(/[^:]*)?:(aud|sub|amr|oaud|email)", re.IGNORECASE)
"""Of an OpenID Connect provider's tokens, in a role's trust policy."""
_PRINCIPAL_KINDS = frozenset({"AWS", "Service", "Federated"})

_request_keys: ContextVar[Mapping[str, Any]] = ContextVar("localcloud_request_keys", default=MappingProxyType({}))
"""Condition keys of the request that is being served, by lower-case name; every check that it causes sees them."""


@dataclass(frozen=True)
class Request:
    """What a condition key may be about."""

    action: str
    method: str
    headers: Mapping[str, str]
    query: Mapping[str, Any]
    body: bytes

    def parameter(self, name: str) -> str:
        """Return a parameter of a Query API call."""
        return str(iam_actions._query_param(self.query, name) or "")


Keys = Callable[[Request], dict[str, Any]]
_keys_of_service: dict[str, Keys] = {}


def give_keys(service: str, keys: Keys) -> None:
    """Let a function give the condition keys of a service's requests, by lower-case name."""
    _keys_of_service[service] = keys


Call = tuple[str, str, dict[str, Any]]
"""An action, the resource that it is about, and its condition keys."""
Needs = Callable[[Request], list[Call]]
_needs_of_service: dict[str, list[Needs]] = {}
_needs: ContextVar[Sequence[Call]] = ContextVar("localcloud_needs", default=())
"""The further rights that the request needs, until they are checked."""


def also_needs(service: str, needs: Needs) -> None:
    """Let a function name the rights that a service's requests need beside the action that they are."""
    _needs_of_service.setdefault(service, []).append(needs)


@contextmanager
def without_request() -> Iterator[None]:
    """Judge what a service does by itself, which has no request's keys and needs."""
    keys, needs = _request_keys.set({}), _needs.set(())
    try:
        yield
    finally:
        _request_keys.reset(keys)
        _needs.reset(needs)


class CannotJudgeError(Exception):
    """A Deny whose condition or principal the embedded cloud does not know."""


class DeniedError(Exception):
    """A call that the principal may not make, in the words that services pass on."""


def install(require: Callable[[str, str, str, Mapping[str, Any]], None]) -> None:
    """Replace variables, see the request's own keys, and refuse requests that cannot be judged.

    Args:
        require: checks one more call of a principal: access key, action, resource, condition keys.
    """
    _mark_versions()
    _replace_variables()
    _refuse_unknown_principals()
    _note_keys()
    enforce = iam_evaluator.enforce

    def enforced(
        access_key_id: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        keys = {**_of_every_request(service, access_key_id), **_request_keys.get(), **(service_context or {})}
        try:
            denied = enforce(access_key_id, action, service, region, resource_arn, keys)
            return denied or _first_denied(access_key_id, require)
        except CannotJudgeError as error:
            return iam_evaluator.AuthError(CODE, f"{action} on {resource_arn}: {error}")

    iam_evaluator.enforce = enforced


def _note_keys() -> None:
    """Note the keys of each request before anything is checked."""
    extract = iam_actions.extract_iam_action

    def extract_and_note(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Mapping[str, Any]
    ) -> Any:
        action = extract(service, method, path, headers, body, query)
        keys = _keys_of_service.get(service)
        request = Request(action or "", method, headers, query, body)
        _request_keys.set(keys(request) if keys else {})
        _needs.set([call for needs in _needs_of_service.get(service, []) for call in needs(request)])
        return action

    iam_actions.extract_iam_action = extract_and_note


def is_known(key: str) -> bool:
    """Whether the embedded cloud gives a condition key its value, or rightly has none."""
    lower = key.lower()
    return lower in _KNOWN or lower.startswith(_KNOWN_PREFIXES) or bool(_TRUST_KEY.fullmatch(key))


def _first_denied(access_key_id: str, require: Callable[[str, str, str, Mapping[str, Any]], None]) -> Any:
    """Check what the request needs beside its own action, once."""
    calls = _needs.get()
    _needs.set(())
    for action, arn, context in calls:
        try:
            require(access_key_id, action, arn, context)
        except DeniedError as error:
            return iam_evaluator.AuthError("AccessDenied", str(error))
    return None


def _of_every_request(service: str, access_key_id: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"aws:principalisawsservice": "false", "aws:viaawsservice": "false"}
    if service == "s3":
        # The endpoint stands for one with TLS, see ``localcloud.server``.
        keys |= {"s3:tlsversion": "1.3", "s3:signatureversion": "AWS4-HMAC-SHA256"}
    if service == "kms":
        account = responses._account_from_sts_session(access_key_id)
        keys["kms:calleraccount"] = account or iam_evaluator.find_iam_access_key_account(access_key_id)
    return keys


def _mark_versions() -> None:
    """Keep variables of documents of the older version as the text that they are there."""
    parse = iam_evaluator.parse_policy_document

    def parse_with_version(document: Any) -> Any:
        try:
            document = json.loads(document) if isinstance(document, str) else document
        except ValueError:
            return parse(document)
        if isinstance(document, dict) and document.get("Version", _WITH_VARIABLES) != _WITH_VARIABLES:
            document = json.loads(json.dumps(document).replace("${", "${$}{"))
        return parse(document)

    iam_evaluator.parse_policy_document = parse_with_version


def _replace_variables() -> None:
    """Replace variables in resources and conditions; what a request lacks matches nothing."""
    first_match, conditions_met = iam_evaluator._first_match, iam_evaluator._conditions_met

    def first_match_with_variables(context: Any, statements: Any, effect: str) -> Any:
        mine = [
            _with_values(statement, context) if "${" in f"{statement.resources}{statement.not_resources}" else statement
            for statement in statements
        ]
        if effect == "Deny":
            _refuse_unknown_keys(context, mine)
        return first_match(context, mine, effect)

    def conditions_met_with_variables(conditions: Any, context: Any) -> Any:
        return conditions_met(_conditions_with_values(conditions, context), context)

    iam_evaluator._first_match = first_match_with_variables
    iam_evaluator._conditions_met = conditions_met_with_variables


def _with_values(statement: Any, context: Any) -> Any:
    return replace(
        statement,
        resources=[_replaced(text, context) for text in statement.resources],
        not_resources=[_replaced(text, context) for text in statement.not_resources],
    )


def _conditions_with_values(conditions: Any, context: Any) -> Any:
    if "${" not in str(conditions):
        return conditions
    return {
        operator: {
            key: [_replaced(str(value), context) for value in ([values] if isinstance(values, str) else values)]
            for key, values in block.items()
        }
        for operator, block in conditions.items()
    }


def _replaced(text: str, context: Any) -> str:
    def value_of(match: re.Match[str]) -> str:
        name, _, default = (part.strip() for part in match[1].partition(","))
        if name in ("*", "?", "$"):
            return name
        value = iam_evaluator._resolve_condition_key(name, context)
        if value is None or isinstance(value, list):
            return default.strip("'") if default else _NOTHING
        return str(value)

    return _VARIABLE.sub(value_of, text)


def _refuse_unknown_keys(context: Any, statements: Any) -> None:
    """Stop at a Deny that would apply but for a condition key that nobody here gives a value."""
    for statement in statements:
        keys = [key for block in (statement.conditions or {}).values() for key in block]
        unknown = [key for key in keys if not is_known(key)]
        if unknown and statement.effect == "Deny" and _applies(statement, context):
            raise CannotJudgeError(f"a Deny has the condition key {unknown[0]}, which the embedded cloud does not know")


def _applies(statement: Any, context: Any) -> bool:
    """Whether a statement is about the request's action and resource."""
    return bool(
        iam_evaluator._action_matches(context.action, statement.actions, statement.not_actions)
        and iam_evaluator._resource_matches(context.resource_arn, statement.resources, statement.not_resources)
    )


def _refuse_unknown_principals() -> None:
    evaluate = iam_evaluator.evaluate_resource_policy

    def evaluate_known(document: Any, context: Any, *arguments: Any, **options: Any) -> Any:
        try:
            parsed = json.loads(document) if isinstance(document, str) else document
        except ValueError:
            parsed = None
        statements = parsed.get("Statement", []) if isinstance(parsed, dict) else []
        for statement in [statements] if isinstance(statements, dict) else statements:
            (parsed_statement,) = iam_evaluator.parse_policy_document({"Statement": statement}) or (None,)
            if parsed_statement and _applies(parsed_statement, context):
                _refuse_unknown_principal(statement)
        return evaluate(document, context, *arguments, **options)

    iam_evaluator.evaluate_resource_policy = evaluate_known


def _refuse_unknown_principal(statement: Mapping[str, Any]) -> None:
    if statement.get("Effect") != "Deny":
        return
    if "NotPrincipal" in statement:
        raise CannotJudgeError("a Deny has a NotPrincipal; use ArnNotEquals on aws:PrincipalArn")
    principal = statement.get("Principal", {})
    if isinstance(principal, dict) and (unknown := principal.keys() - _PRINCIPAL_KINDS):
        raise CannotJudgeError(f"a Deny has a principal of the kind {sorted(unknown)[0]}")
