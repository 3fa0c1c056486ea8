"""The JSON Schema of mirrors.yaml, for editors: https://json-schema.org/draft/2020-12."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .ci import Ci
from .guard import Guard
from .mirror import Mirror, SharedEngine
from .mirrors_file import FORMAT
from .validation_messages import models_in

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTIONS: dict[str, type[BaseModel]] = {"mirrors": Mirror, "ci": Ci, "guard": Guard, "engine": SharedEngine}
_URL = {"type": "string", "pattern": "/_git/", "description": "The source's clone URL, as Azure Repos shows it."}


def json_schema() -> dict[str, Any]:
    """Return the schema of the whole file.

    It knows every key, its type and its choices; what no schema can say (two mirrors with one name, a key that another
    one excludes) 'config validate' finds.
    """
    definitions: dict[str, Any] = {}
    mirror = _model(Mirror, definitions)
    del mirror["properties"]["name"]
    # What is missing in an entry may be under defaults.
    azure = _optional(definitions["AzureRepository"])
    definitions["AzureRepository"] = {"anyOf": [azure, _URL]}
    definitions["Mirror"] = _optional(mirror)
    return {
        "$schema": DIALECT,
        "title": "mirrors.yaml of codecommit-mirror",
        "type": "object",
        "additionalProperties": False,
        "required": ["mirrors"],
        "properties": {
            "format": {"const": int(FORMAT), "description": "The number of this file's format."},
            "defaults": {"$ref": "#/$defs/Mirror", "description": "What holds for mirrors that do not say otherwise."},
            "mirrors": {
                "type": "object",
                "description": "The mirrors, by the names of their replicas.",
                "additionalProperties": {"$ref": "#/$defs/Mirror"},
            },
            "ci": _one_or_several(_optional(_model(Ci, definitions)), "How CI provisions the mirrors."),
            "guard": _one_or_several(_model(Guard, definitions), "What watches the replicas and keeps snapshots."),
            "engine": {**_model(SharedEngine, definitions), "description": "Where one engine for every mirror is."},
        },
        "$defs": definitions,
    }


def _one_or_several(section: dict[str, Any], description: str) -> dict[str, Any]:
    """Return a section of which there may be one for each account."""
    return {"anyOf": [section, {"type": "array", "items": section}], "description": description}


def markdown_tables() -> dict[str, str]:
    """Return the tables of docs/configuration.md, by section: each key with its default, and what it is."""
    return {name: _table(model) for name, model in _SECTIONS.items()}


def _table(model: type[BaseModel]) -> str:
    rows = ["| Key | Default | What it is |", "|---|---|---|", *_rows(model, "")]
    return "".join(f"{row}\n" for row in rows)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    texts = _attribute_docstrings(model)
    for name, field in model.model_fields.items():
        if name in texts:
            text, _, default = texts[name].partition(" Default: ")
            key = "*name of the mirror*" if model is Mirror and name == "name" else f"`{prefix}{name}`"
            shown = default.removesuffix(".") or _shown_default(field)
            yield f"| {key} | {shown} | {text.removesuffix('.')} |".replace("``", "`")
        for nested in models_in(field.annotation):
            yield from _rows(nested, f"{prefix}{name}.")


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _model(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema, and add those of the models in it to the definitions."""
    schema = _described(model.model_json_schema(), model)
    models = {part.__name__: part for field in model.model_fields.values() for part in models_in(field.annotation)}
    for name, definition in schema.pop("$defs", {}).items():
        definitions[name] = _described(definition, models[name]) if name in models else definition
    return schema


def _described(schema: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema with the docstrings of its attributes, and without titles, which repeat the names."""
    texts = _attribute_docstrings(model)
    properties = {name: _untitled(value) for name, value in schema.get("properties", {}).items()}
    for name, value in properties.items():
        if name in texts:
            value["description"] = texts[name].replace("``", "")
    return {**_untitled(schema), "properties": properties}


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        before.target.id: " ".join(after.value.value.split())
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "required"}
