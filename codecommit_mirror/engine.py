"""The one door to ``mirror_engine``: its public names, and its modules joined into the program that a pipeline carries.

A pipeline must be auditable, so the program is readable text and never an archive: the modules in reading order, each
below a ruled heading, with their imports merged at the top.
"""

from __future__ import annotations

import ast
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

from mirror_engine import MODULES
from mirror_engine.archive import archive_entries, dropped_tips
from mirror_engine.failures import MirrorFailure, PackRefused, RetryableError, SourceRefused
from mirror_engine.git import Git, batches_by_command_line, git_environment
from mirror_engine.plan import by_original_name, make_plan, mass_deletion, plan_refs, select, unmirrorable
from mirror_engine.refs import ARCHIVE_PREFIX, CARRIED_PREFIX, CONFIRMED_TAG, Advertisement, Command, ReplicaRefs
from mirror_engine.report import Outcome, carried_note, summary
from mirror_engine.run import foreign_history, hidden_refs, mirror, names_lfs, read_source
from mirror_engine.settings import (
    Endpoint,
    Settings,
    check_credential,
    is_loopback,
    make_endpoint,
    parse_repository_url,
    read_settings,
)
from mirror_engine.text import count, equal_refs, format_bytes, list_refs, sanitize
from mirror_engine.wire import protocol
from mirror_engine.wire.packs import fetch_pack, object_count
from mirror_engine.wire.role import role_replica, sign
from mirror_engine.wire.transport import MAX_ROUNDS, Traffic, retry_delay

from .errors import MirrorError

__all__ = [
    "ARCHIVE_PREFIX",
    "CARRIED_PREFIX",
    "CONFIRMED_TAG",
    "Command",
    "Endpoint",
    "Git",
    "MirrorFailure",
    "Outcome",
    "ReplicaRefs",
    "RetryableError",
    "Settings",
    "archive_entries",
    "batches_by_command_line",
    "by_original_name",
    "carried_note",
    "check_credential",
    "count",
    "dropped_tips",
    "equal_refs",
    "failures_as_mirror_errors",
    "foreign_history",
    "format_bytes",
    "git_environment",
    "hidden_refs",
    "is_loopback",
    "list_refs",
    "make_endpoint",
    "make_plan",
    "mass_deletion",
    "mirror",
    "names_lfs",
    "object_count",
    "parse_repository_url",
    "plan_refs",
    "program",
    "read_refs",
    "read_refs_patiently",
    "read_settings",
    "read_source_patiently",
    "retry_delay",
    "role_replica",
    "sanitize",
    "select",
    "sign",
    "summary",
    "unmirrorable",
    "whole_pack",
]

_MAIN = 'if __name__ == "__main__":\n    sys.exit({})\n'
_RULE_COLUMNS, _COLUMNS = 40, 120
_LOG = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@contextmanager
def failures_as_mirror_errors() -> Iterator[None]:
    """Raise the engine's failures as ``MirrorError``, which ends a command with one sentence."""
    try:
        yield
    except MirrorFailure as failure:
        raise MirrorError(str(failure)) from None
    except RetryableError as failure:
        raise MirrorError(f"{failure}; run again.") from None


def read_refs(endpoint: Endpoint, service: str) -> Advertisement:
    """Read a server's refs, once; logged as every request to a service is.

    Args:
        endpoint: the source or the replica.
        service: ``git-upload-pack``, or ``git-receive-pack`` for a user who may push but not fetch.

    Raises:
        MirrorFailure: it refuses.
        RetryableError: it cannot be reached.
    """
    advertised = protocol.read_refs(endpoint, service)
    _LOG.info("git %s of the %s -> %s refs", service, endpoint.side, len(advertised.refs))
    return advertised


def read_refs_patiently(endpoint: Endpoint, service: str, sleep: Callable[[float], None] = time.sleep) -> Advertisement:
    """Read a server's refs, with retries.

    Args:
        endpoint: the replica, or the target of a restore.
        service: ``git-upload-pack``, or ``git-receive-pack`` for a user who may push but not fetch.
        sleep: waits between tries.

    Raises:
        MirrorFailure: the server refuses, or every try failed.
    """
    return _patiently(lambda _: read_refs(endpoint, service), sleep)


def read_source_patiently(
    source: Endpoint, sleep: Callable[[float], None] = time.sleep
) -> tuple[Endpoint, Advertisement]:
    """Read the source's refs, with retries, and return them with the endpoint that shows them; see ``read_source``.

    Args:
        source: the source.
        sleep: waits between tries.

    Raises:
        MirrorFailure: the server refuses, or every try failed.
    """
    endpoint, advertised = _patiently(lambda failures: read_source(source, failures=failures), sleep)
    _LOG.info("git git-upload-pack of the source -> %s refs", len(advertised.refs))
    return endpoint, advertised


def _patiently(read: Callable[[int], _Found], sleep: Callable[[float], None]) -> _Found:
    for number in range(MAX_ROUNDS):
        try:
            return read(number)
        except RetryableError as error:
            if number == MAX_ROUNDS - 1:
                raise MirrorFailure(f"{error}; run again.") from None
            sleep(retry_delay(error, number))
    raise AssertionError("the last try returns or raises")


def whole_pack(endpoint: Endpoint, advertised: Sequence[str], wants: Sequence[str]) -> Iterator[bytes]:
    """Yield a pack of everything that some objects reach, and raise RetryableError at its end if it is damaged.

    Args:
        endpoint: the server.
        advertised: the capabilities that it advertised.
        wants: object ids.
    """
    try:
        yield from fetch_pack(endpoint, advertised, wants, [], Traffic())
    except (SourceRefused, PackRefused) as refusal:
        raise MirrorFailure(f"{endpoint} does not provide a pack: {refusal}.") from None


@cache
def program(*, role: bool = False) -> str:
    """Return the engine as one program for Python 3.8 and later.

    Args:
        role: whether it pushes to the replica as a role, without a stored password.

    Raises:
        AssertionError: the modules cannot be joined; see ``join``.
    """
    folder = resources.files("mirror_engine")
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    carried = [name for name in MODULES if role or name != "wire.role"]
    texts = {name: folder.joinpath(*_path(name)).read_text(encoding="utf-8") for name in carried}
    return join(str(docstring), texts, "main(role_replica)" if role else "main()")


def join(docstring: str, texts: Mapping[str, str], call: str = "main()") -> str:
    """Join modules into one program.

    Args:
        docstring: the program's.
        texts: source text by module name, in the order in which the modules build on each other.
        call: what it calls when it is run.

    Raises:
        AssertionError: a module imports from a later one, renames what it imports, or defines a name of another one.
    """
    modules = {name: _parse(name, text) for name, text in texts.items()}
    _check(modules)
    head = f'#!/usr/bin/env python3\n"""{docstring}\n"""\n\nfrom __future__ import annotations\n\n'
    sections = [head + "\n".join(_merged_imports(modules)) + "\n"]
    for number, (name, module) in enumerate(modules.items(), 1):
        heading = f" {number}. {name}"
        rule = f"# {'-' * (_RULE_COLUMNS - 2 - len(heading))}{heading}"
        sections.append(f"{rule}\n#\n{module.heading}\n\n\n{module.body}\n\n")
    return "\n".join([*sections, _MAIN.format(call)])


@dataclass(frozen=True)
class _Module:
    heading: str
    """Its docstring, as comment lines."""
    body: str
    """Everything after the imports."""
    imports: frozenset[str]
    """Modules of the standard library."""
    names: frozenset[tuple[str, str]]
    """Names imported from the standard library, as (module, name)."""
    needs: frozenset[str]
    """Modules of the same package."""
    defines: tuple[str, ...]


def _parse(name: str, text: str) -> _Module:
    tree = ast.parse(text)
    imports: set[str] = set()
    names: set[tuple[str, str]] = set()
    needs: set[str] = set()
    end = 0
    for node in tree.body:
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            needs.add(".".join([*name.split(".")[: -node.level], str(node.module)]))
        elif isinstance(node, ast.ImportFrom):
            names.update((str(node.module), alias.name) for alias in node.names if node.module != "__future__")
        else:
            continue
        if any(alias.asname for alias in node.names):
            raise AssertionError(f"mirror_engine.{name} imports a name as another one, which cannot be joined")
        end = int(node.end_lineno or 0)
    heading = [f"# {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines()]
    body = "\n".join(text.splitlines()[end:]).strip("\n")
    return _Module(
        "\n".join(heading), body, frozenset(imports), frozenset(names), frozenset(needs), tuple(_defined_in(tree))
    )


def _defined_in(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _path(name: str) -> list[str]:
    *folders, module = name.split(".")
    return [*folders, f"{module}.py"]


def _check(modules: Mapping[str, _Module]) -> None:
    """Refuse what would mean something else in one file than in several."""
    owner: dict[str, str] = {}
    seen: set[str] = set()
    for name, module in modules.items():
        if later := module.needs - seen:
            raise AssertionError(f"mirror_engine.{name} imports from {', '.join(sorted(later))}, which comes later")
        seen.add(name)
        for defined in module.defines:
            if defined in owner:
                raise AssertionError(f"{owner[defined]} and {name} of mirror_engine both define {defined}")
            owner[defined] = name


def _merged_imports(modules: Mapping[str, _Module]) -> Iterator[str]:
    yield from (f"import {name}" for name in sorted({n for module in modules.values() for n in module.imports}))
    names = sorted({pair for module in modules.values() for pair in module.names})
    for source in sorted({source for source, _ in names}):
        imported = [name for where, name in names if where == source]
        line = f"from {source} import {', '.join(imported)}"
        wrapped = [f"from {source} import (", *(f"    {name}," for name in imported), ")"]
        yield line if len(line) <= _COLUMNS else "\n".join(wrapped)
