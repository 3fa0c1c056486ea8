"""What pydantic finds wrong in ``mirrors.yaml``, as sentences for the one who wrote it."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

_SAYS_ITSELF = (("tags",), ("refs",), ("alarm",), ("github",), ("azure",))
"""Fields whose value is no text: the sentence does not begin with it."""


def sentences(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each mistake's place in the entry and its sentence.

    Args:
        error: what pydantic raised.
        model: what the entry should have been, which knows the keys that there are.
    """
    for mistake in error.errors():
        # A default that is derived from other values is not derived when one of them is wrong: no second mistake.
        if mistake["type"] != "default_factory_not_called":
            yield tuple(str(part) for part in mistake["loc"]), _sentence(mistake, model)


def _sentence(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        if not key:
            return f"{message}."
        shown = "" if error["loc"] in _SAYS_ITSELF else f"{error['input']!r} "
        return f"{key}: {shown}{message}."
    if error["type"] == "extra_forbidden":
        fields = _model_at(model, error["loc"][:-1]).model_fields.items()
        # A mirror's own name is no key of its entry.
        known = ", ".join(name for name, field in fields if name != "name" or not field.is_required())
        return f"{key} is not a known key; remove it or correct its spelling (known: {known})."
    remedy = _REMEDIES.get(error["type"])
    return f"{key} {remedy(error)}" if remedy else f"{key} is {error['input']!r}: {error['msg']}."


_REMEDIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda e: "is missing; add it here or under defaults.",
    "literal_error": lambda e: f"is {e['input']!r}; use {e['ctx']['expected']}.",
    **dict.fromkeys(
        ("int_parsing", "int_type", "greater_than_equal", "less_than_equal"),
        lambda e: f"is {e['input']!r}; write a number of days, from 0 to 36500.",
    ),
    "bool_parsing": lambda e: f"is {e['input']!r}; use true or false.",
    "string_type": lambda e: (
        "has no value of its own; write one line of text, or remove the key."
        if e["input"] is None
        else "holds a list or a mapping; write one line of text."
    ),
    "tuple_type": lambda e: f"is {e['input']!r}; write a list, like [heads, tags].",
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"),
        lambda e: "is not a mapping; write key: value pairs below it.",
    ),
}


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        model = next(_models_in(model.model_fields[str(part)].annotation))
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of an annotation, however it is wrapped: ``Annotated[Alarm, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
