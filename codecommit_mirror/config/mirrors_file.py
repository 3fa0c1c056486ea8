"""``mirrors.yaml`` as text: parsed with the line of every value, and with every scalar kept as it was written.

YAML's own guesses (``no`` is false, ``0123`` is octal, the last of two equal keys wins) have no place in a file of
names and account ids, so scalars stay text and a duplicate key is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ..errors import ConfigurationError
from .azure_url import parse_clone_url

_MAX_VALUES = 200_000
"""Mappings, lists and scalars with every alias expanded; 10,000 mirrors have fewer."""

FORMAT = "1"
"""Of the file, as the key ``format`` has it: docs/formats.md."""
Location = tuple[str, ...]
_SECTIONS = ("defaults", "mirrors", "ci", "guard", "engine")
_LISTS = ("ci", "guard")
"""Sections that may be lists, with one for each account."""


class Section(NamedTuple):
    """One of the sections ``ci`` or ``guard``."""

    at: Location
    """Where it is in the file."""
    values: dict[str, Any]


@dataclass(frozen=True)
class MirrorsFile:
    """The file's mappings, and the line of each key."""

    path: Path
    defaults: dict[str, Any]
    mirrors: dict[str, dict[str, Any]]
    ci: tuple[Section, ...]
    guard: tuple[Section, ...]
    engine: dict[str, Any] | None
    lines: dict[Location, int]

    def where(self, *location: str) -> str:
        """Return ``path, line N`` of the nearest key that the file has on the way to ``location``."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return f"{self.path}, line {self.lines[location[:end]]}"
        return str(self.path)

    def where_value(self, mirror: str, key: Location) -> str:
        """Return the location of a mirror's value: in its own entry, or below ``defaults`` if it comes from there."""
        return self.where(*(("mirrors", mirror) if self.is_own(mirror, key) else ("defaults",)), *key)

    def is_own(self, mirror: str, key: Location) -> bool:
        """Whether a value is the mirror's own, or missing, and not one of the defaults."""
        return ("mirrors", mirror, *key) in self.lines or ("defaults", *key) not in self.lines

    def merged(self, mirror: str, *, understands_urls: bool = True) -> dict[str, Any]:
        """Return the mirror's entry over the defaults; ``azure`` and ``tags`` are merged key by key.

        Args:
            mirror: its name.
            understands_urls: whether a clone URL may stand for ``azure`` or for ``azure.repository``.

        Raises:
            MirrorError: such a URL is not one that Azure DevOps shows.
        """
        result = {**self.defaults}
        for key, value in self.mirrors[mirror].items():
            if key == "azure" and understands_urls:
                value = _without_urls(value)
            default = result.get(key)
            result[key] = {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
        return result


def _without_urls(azure: Any) -> Any:
    """Return the keys below ``azure``, where a clone URL was pasted in place of names."""
    if isinstance(azure, str) and "/_git/" in azure:
        return parse_clone_url(azure)
    if isinstance(azure, dict) and "/_git/" in str(azure.get("repository", "")):
        return {**azure, **parse_clone_url(str(azure["repository"]))}
    return azure


def read(path: Path) -> MirrorsFile:
    """Parse the file.

    Raises:
        MirrorError: it is missing, is not YAML, or does not have the form of its sections.
    """
    lines: dict[Location, int] = {}
    data = _parse(path, lines)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: it has no 'mirrors:' at the top level; see 'codecommit-mirror init'.")
    if (written := data.pop("format", FORMAT)) != FORMAT:
        raise ConfigurationError(
            f"{path}, line {lines[('format',)]}: this version reads format {FORMAT}, not {written!r}; install "
            "the version of codecommit-mirror that the file was written for."
        )
    for key in data:
        if key not in _SECTIONS:
            raise ConfigurationError(
                f"{path}, line {lines[(key,)]}: {key!r} is not a known key; the only sections are "
                f"{', '.join(_SECTIONS)}."
            )
    sections: dict[str, dict[str, Any]] = {}
    for section in _SECTIONS:
        value = data.get(section)
        if section in _LISTS and isinstance(value, list) and all(isinstance(one, dict) for one in value):
            continue
        if value is not None and not isinstance(value, dict):
            where = f"{path}, line {lines[(section,)]}"
            raise ConfigurationError(f"{where}: {section!r} is not a mapping; indent keys below it.")
        sections[section] = value or {}
    if "name" in sections["defaults"]:
        raise ConfigurationError(
            f"{path}, line {lines[('defaults', 'name')]}: 'name' is not a known key; a mirror's name is its key."
        )
    mirrors = {name: _entry(path, name, entry, lines) for name, entry in sections["mirrors"].items()}
    return MirrorsFile(
        path,
        sections["defaults"],
        mirrors,
        _each(data, "ci") if data.get("ci") else (),
        _each(data, "guard") if "guard" in data else (),
        sections["engine"] if "engine" in data else None,
        lines,
    )


def _each(data: Mapping[str, Any], name: str) -> tuple[Section, ...]:
    value = data[name] or {}
    if isinstance(value, dict):
        return (Section((name,), value),)
    return tuple(Section((name, str(index)), one) for index, one in enumerate(value))


def _entry(path: Path, name: str, entry: Any, lines: Mapping[Location, int]) -> dict[str, Any]:
    """Return a mirror's entry, empty if only its name is given."""
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise ConfigurationError(
            f"{path}, line {lines[('mirrors', name)]}: mirror {name!r} is not a mapping; indent its keys below it."
        )
    if "name" in entry:
        raise ConfigurationError(
            f"{path}, line {lines[('mirrors', name, 'name')]}: mirror {name!r}: 'name' is not a known key; "
            "a mirror's name is its key."
        )
    return entry


def _parse(path: Path, lines: dict[Location, int]) -> Any:
    """Return the file's data, and record the line of each key in ``lines``."""
    try:
        text = path.read_bytes().decode("utf-8")
        if lone := re.search(r"\r(?!\n)", text):
            number = text.count("\n", 0, lone.start()) + 1
            raise ConfigurationError(
                f"{path}, line {number}: a carriage return in it ends a line for YAML, and not for people who read the "
                "file; remove it."
            )
        root = YAML(typ="safe", pure=True).compose(text)
        if root is not None and _size(root, {}, ()) > _MAX_VALUES:
            raise ConfigurationError(
                f"{path}: with its aliases expanded, the file has more than {_MAX_VALUES:,} values; remove the nested "
                "aliases, or split the file."
            )
        return {} if root is None else _plain(path, root, (), lines, ())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist; run 'codecommit-mirror init' to create it, or name another file with --config "
            "(cdk: -c config=FILE)."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as UTF-8 text ({error}); check the file.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigurationError(
            f"{path}{line}: it is not valid YAML ({problem}); correct that line; quote text that contains ': '."
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{path}: it is nested too deeply; 'codecommit-mirror init' writes an example of the expected form."
        ) from None


def _size(node: Node, known: dict[Node, int], above: tuple[Node, ...]) -> int:
    """Return how many values a node has with every alias expanded, without expanding them.

    A few lines of nested aliases can stand for billions of values, and any pull request may contain them.
    """
    if node in above or isinstance(node, ScalarNode):
        return 1
    if node not in known:
        pairs = node.value if isinstance(node, MappingNode) else [(child,) for child in node.value]
        below = (*above, node)
        known[node] = 1 + sum(_size(child, known, below) for pair in pairs for child in pair)
    return known[node]


def _plain(path: Path, node: Node, at: Location, lines: dict[Location, int], above: tuple[Node, ...]) -> Any:
    if node in above:
        raise ConfigurationError(
            f"{path}, line {node.start_mark.line + 1}: the alias refers to what contains it; write it out."
        )
    above = (*above, node)
    if isinstance(node, ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" and not node.style else node.value
    if isinstance(node, SequenceNode):
        return [_plain(path, item, (*at, str(index)), lines, above) for index, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            where = f"{path}, line {line}"
            raise ConfigurationError(f"{where}: a key is a list or a mapping; write plain text before the colon.")
        key = str(key_node.value)
        if key in result:
            raise ConfigurationError(
                f"{path}, line {line}: {key!r} appears twice (first on line {lines[(*at, key)]}); remove one."
            )
        lines[(*at, key)] = line
        result[key] = _plain(path, value_node, (*at, key), lines, above)
    return result
