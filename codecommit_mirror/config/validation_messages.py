"""Validation errors of pydantic as sentences for the author of ``mirrors.yaml``."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..engine_api import sanitize

_NOT_TEXT = (("tags",), ("refs",), ("snapshots",), ("github",), ("azure",))
"""Fields that are not text, so that the sentence does not begin with the value."""


def sentences(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each mistake's place in the entry and its sentence.

    Args:
        error: what pydantic raised.
        model: the entry's model, which knows the valid keys.
    """
    for mistake in error.errors():
        # A default that is derived from other values is not derived when one of them is wrong: no second mistake.
        if mistake["type"] != "default_factory_not_called":
            yield tuple(str(part) for part in mistake["loc"]), _sentence(mistake, model)


def _sentence(error: Any, model: type[BaseModel]) -> str:
    key = _dotted(error["loc"])
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        if not key:
            return f"{message}."
        shown = "" if error["loc"] in _NOT_TEXT else f"{error['input']!r} "
        return f"{key}: {shown}{message}."
    if error["type"] == "extra_forbidden":
        return _unknown_key(error["loc"], _model_at(model, error["loc"][:-1]))
    remedy = _REMEDIES.get(error["type"])
    return f"{key} {remedy(error)}" if remedy else f"{key} is {error['input']!r}: {error['msg']}."


def unknown_keys(values: Mapping[str, Any], model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the place and the sentence of each key that a model does not know, without validating any value."""
    for key, value in values.items():
        if key not in model.model_fields:
            yield (key,), _unknown_key((key,), model)
            continue
        below = next(models_in(model.model_fields[key].annotation), None)
        if below and isinstance(value, Mapping):
            for inner in value:
                if inner not in below.model_fields:
                    yield (key, inner), _unknown_key((key, inner), below)


def _unknown_key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    # A mirror's name is not a key of its entry.
    known = [name for name, field in model.model_fields.items() if name != "name" or not field.is_required()]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"{_dotted(location)} is not a known key; did you mean {close[0]!r}?"
    return f"{_dotted(location)} is not a known key; remove it or correct its spelling (known: {', '.join(known)})."


def _dotted(location: tuple[int | str, ...]) -> str:
    """Return a key as people write it, on one line: YAML allows a key to have several."""
    return sanitize(".".join(str(part) for part in location))


_REMEDIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda _: "is missing; add it here or under defaults.",
    "literal_error": lambda e: f"is {e['input']!r}; use {e['ctx']['expected']}.",
    **dict.fromkeys(
        ("int_parsing", "int_type", "greater_than_equal", "less_than_equal"),
        lambda e: f"is {e['input']!r}; write a number of days, from 0 to 36500.",
    ),
    "bool_parsing": lambda e: f"is {e['input']!r}; use true or false.",
    "string_type": lambda e: (
        "has no value; write one line of text, or remove the key."
        if e["input"] is None
        else "holds a list or a mapping; write one line of text."
    ),
    "tuple_type": lambda e: f"is {e['input']!r}; write a list, like [heads, tags].",
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"),
        lambda _: "is not a mapping; write key: value pairs below it.",
    ),
}


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        model = next(models_in(model.model_fields[str(part)].annotation))
    return model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of an annotation, however it is wrapped: ``Annotated[Github, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)
