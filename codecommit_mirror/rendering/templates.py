"""Rendered YAML for CI services, which replace parts of it before any parser sees it."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from .. import pipeline_templates
from ..errors import MirrorError

EXPANDED = ("$(", "${{", "$[")
"""What Azure Pipelines replaces in the text of a YAML file: macros, template and runtime expressions."""


def load_template(name: str) -> Template:
    """Return a template of ``pipeline_templates``; its values go through the filters ``scalar`` and ``comment``.

    Its expressions stand in ``@{ }@``, since those of the CI services stand in ``${{ }}``.

    Args:
        name: the template's file name.
    """
    return _environment().get_template(name)


def render_text(template: str, values: Mapping[str, object]) -> str:
    """Return a template's text with values filled in, as ``load_template`` does it."""
    return _environment().from_string(template).render(values)


@cache
def _environment() -> Environment:
    """Return the environment, which keeps the templates that it has compiled."""
    environment = Environment(
        loader=FunctionLoader(_read),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (YAML, not HTML)
        variable_start_string="@{",
        variable_end_string="}@",
    )
    environment.filters.update(scalar=scalar, comment=comment)
    return environment


def _read(name: str) -> str:
    return (resources.files(pipeline_templates) / name).read_text(encoding="utf-8")


class _Yaml(YAML):
    """A writer that does not look through folders for plug-ins, as each new one would."""

    def official_plug_ins(self) -> list[str]:
        return []


def scalar(value: str) -> str:
    """Return a double-quoted YAML scalar, on one line, in which no CI service replaces anything.

    Raises:
        MirrorError: the value contains text that would be replaced.
    """
    for expanded in EXPANDED:
        if expanded in value:
            raise MirrorError(
                f"{value!r} contains {expanded!r}, which Azure Pipelines would replace; choose another name."
            )
    yaml = _Yaml()
    yaml.allow_unicode = False
    yaml.width = sys.maxsize
    written = io.StringIO()
    yaml.dump(DoubleQuotedScalarString(value), written)
    return written.getvalue().rstrip("\n")


def comment(value: str) -> str:
    """Return text for a comment, on one line."""
    return "".join(character if character.isprintable() else "?" for character in value)
