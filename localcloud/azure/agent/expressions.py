"""Azure Pipelines' expressions, as far as conditions, variables and templates of a pipeline for mirrors use them.

https://learn.microsoft.com/azure/devops/pipelines/process/expressions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|([A-Za-z_][\w-]*)|([()\[\],.]))")


class UnknownExpression(Exception):
    """The text has something that is not evaluated here."""


def evaluate(text: str, context: Mapping[str, Any], status: Mapping[str, bool]) -> Any:
    """Return an expression's value.

    Args:
        text: the expression, without what encloses it.
        context: ``variables``, ``dependencies``, ``stageDependencies``; what is not there is an empty text.
        status: what ``succeeded()`` and ``canceled()`` say.
    """
    tokens = _tokens(text)
    value, rest = _parse(tokens, context, status)
    if rest:
        raise UnknownExpression(text)
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match:
            raise UnknownExpression(text)
        literal, name, mark = match.groups()
        tokens.append(("text", literal.replace("''", "'")) if literal is not None else ("name", name or mark))
        at = match.end()
    return tokens


_Tokens = Sequence[tuple[str, str]]


def _parse(tokens: _Tokens, context: Mapping[str, Any], status: Mapping[str, bool]) -> tuple[Any, _Tokens]:
    if not tokens:
        raise UnknownExpression("it ends too early")
    (kind, word), rest = tokens[0], tokens[1:]
    if kind == "text":
        return word, rest
    if rest[:1] == [("name", "(")]:
        arguments: list[Any] = []
        rest = rest[1:]
        while rest[:1] != [("name", ")")]:
            value, rest = _parse(rest, context, status)
            arguments.append(value)
            if rest[:1] == [("name", ",")]:
                rest = rest[1:]
        return _call(word, arguments, status), rest[1:]
    if word.lower() in ("true", "false"):
        return word.lower() == "true", rest
    if word not in context:
        raise UnknownExpression(word)
    value = context[word]
    while rest[:1] in ([("name", ".")], [("name", "[")]):
        if rest[0][1] == ".":
            key, rest = rest[1][1], rest[2:]
        else:
            key, rest = _parse(rest[1:], context, status)
            rest = rest[1:]
        value = value.get(key, "") if isinstance(value, Mapping) else ""
    return value, rest


def _call(name: str, arguments: Sequence[Any], status: Mapping[str, bool]) -> Any:
    known: dict[str, Callable[[], Any]] = {
        "and": lambda: all(arguments),
        "or": lambda: any(arguments),
        "not": lambda: not arguments[0],
        "eq": lambda: _same(*arguments),
        "ne": lambda: not _same(*arguments),
    }
    if name in status and not arguments:
        return status[name]
    if name not in known:
        raise UnknownExpression(f"{name}()")
    return known[name]()


def _same(one: Any, other: Any) -> bool:
    """Compare as the service does, which does not tell upper from lower case."""
    return str(one).lower() == str(other).lower()
