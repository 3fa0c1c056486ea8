"""Templates of Azure Pipelines: typed parameters, expressions that are replaced before a run, and what is extended.

https://learn.microsoft.com/azure/devops/pipelines/process/templates and .../template-expressions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from . import expressions
from .unsupported import UnsupportedPipeline, check_keys

MAX_BYTES = 20 * 1024 * 1024
"""Of all YAML that a pipeline loads (Microsoft's page on templates, "Template limits")."""
ReadTemplate = Callable[[str, Mapping[str, Any]], str]
"""Returns the text of a template file, by its path and the resource that names its repository."""

_PARAMETER_KEYS = {"name", "displayName", "type", "default", "values"}
_TEMPLATE_KEYS = {"parameters", "jobs", "stages"}
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_CONDITION = re.compile(r"\$\{\{\s*if\s+(.*?)\s*\}\}", re.DOTALL)


def parameter_values(declared: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of parameters, which have the types that are declared.

    Args:
        declared: the YAML's ``parameters``.
        given: the values that are not to be the defaults.

    Raises:
        UnsupportedPipeline: a value is missing, has another type, or is for no such parameter.
    """
    values: dict[str, Any] = {}
    for parameter in declared:
        check_keys(parameter, _PARAMETER_KEYS, "parameter")
        name, kind = parameter["name"], parameter.get("type", "string")
        if name not in given and "default" not in parameter:
            raise UnsupportedPipeline(f"A value for the '{name}' parameter must be provided.")
        value = given.get(name, parameter.get("default"))
        match kind:
            case "boolean" if str(value).lower() in ("true", "false"):
                values[name] = str(value).lower() == "true"
            case "string" if isinstance(value, str) and value in parameter.get("values", [value]):
                values[name] = value
            case "object" if isinstance(value, dict | list):
                values[name] = value
            case _:
                raise UnsupportedPipeline(f"The value {value!r} of the parameter {name} is no valid {kind}.")
    if unknown := given.keys() - values.keys():
        raise UnsupportedPipeline(f"Unexpected parameter '{min(unknown)}'")
    return values


def extend(
    extended: Mapping[str, Any],
    resources: Sequence[Mapping[str, Any]],
    load: Callable[[str], Any],
    read: ReadTemplate | None,
    size: int,
) -> dict[str, Any]:
    """Return what a pipeline gets from the template that it extends.

    Args:
        extended: the YAML's ``extends``.
        resources: its ``resources.repositories``.
        load: parses YAML.
        read: reads a template file; None if there is nowhere to read from.
        size: the bytes of the YAML that extends it.

    Raises:
        UnsupportedPipeline: the template is not there, is too large, or has another form.
    """
    check_keys(extended, {"template", "parameters"}, "extends")
    path, _, alias = str(extended["template"]).partition("@")
    resource = next((resource for resource in resources if resource["repository"] == alias), None)
    if read is None or resource is None:
        raise UnsupportedPipeline(f"Unable to resolve the repository of the template {extended['template']}.")
    text = read(path, resource)
    if size + len(text.encode()) > MAX_BYTES:
        raise UnsupportedPipeline("The maximum size of YAML that a pipeline loads was exceeded.")
    template = load(text)
    check_keys(template, _TEMPLATE_KEYS, "template")
    values = parameter_values(template.pop("parameters", []), extended.get("parameters", {}))
    return dict(expand(template, values))


def expand(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return YAML's data with its template expressions replaced, which see parameters and nothing else."""
    if isinstance(value, dict):
        return _mapping(value, parameters)
    if isinstance(value, list):
        return [item for child in value for item in _items(child, parameters)]
    return _text(value, parameters) if isinstance(value, str) and "${{" in value else value


def _mapping(mapping: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        condition = _CONDITION.fullmatch(key) if isinstance(key, str) else None
        if condition is None:
            added = {expand(key, parameters): expand(value, parameters)}
        elif _evaluate(condition[1], parameters):
            added = expand(value, parameters)
        else:
            continue
        if twice := result.keys() & added.keys():
            raise UnsupportedPipeline(f"'{min(map(str, twice))}' is already defined")
        result |= added
    return result


def _items(child: Any, parameters: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(child, dict) and len(child) == 1 and (condition := _CONDITION.fullmatch(str(next(iter(child))))):
        if _evaluate(condition[1], parameters):
            yield from expand(next(iter(child.values())), parameters)
        return
    yield expand(child, parameters)


def _text(text: str, parameters: Mapping[str, Any]) -> Any:
    if (whole := _EXPRESSION.fullmatch(text)) and "${{" not in whole[1]:
        value = _evaluate(whole[1], parameters)
        return str(value) if isinstance(value, bool) else value
    return _EXPRESSION.sub(lambda match: str(_evaluate(match[1], parameters)), text)


def _evaluate(text: str, parameters: Mapping[str, Any]) -> Any:
    named = re.fullmatch(r"\s*parameters\.(\w+)\s*", text)
    if named and named[1] not in parameters:
        raise UnsupportedPipeline(f"there is no parameter {named[1]!r}")
    try:
        return expressions.evaluate(text, {"parameters": parameters}, {})
    except expressions.UnknownExpression as error:
        raise UnsupportedPipeline(f"expressions are not evaluated: ${{{{ {error}") from None
