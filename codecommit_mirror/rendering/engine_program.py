"""The engine's modules, joined into the program that a pipeline carries.

A pipeline must be auditable, so the program is readable text and never an archive: the modules in reading order, each
below a ruled heading, with their imports merged at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from .. import engine

_MAIN = 'if __name__ == "__main__":\n    sys.exit({})\n'
_RULE_COLUMNS, _COLUMNS = 40, 120


@cache
def program(*, role: bool = False) -> str:
    """Return the engine as one program for Python 3.8 and later.

    Args:
        role: whether it can push to the replica as a role, without a stored password.

    Raises:
        AssertionError: the modules cannot be joined; see ``join``.
    """
    folder = resources.files(engine)
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    carried = [name for name in engine.MODULES if role or name != "wire.role"]
    texts = {name: folder.joinpath(*_path(name)).read_text(encoding="utf-8") for name in carried}
    return join(str(docstring), texts, "main(configured_replica)" if role else "main()")


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
            raise AssertionError(f"engine.{name} imports a name as another one, which cannot be joined")
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
            raise AssertionError(f"engine.{name} imports from {', '.join(sorted(later))}, which comes later")
        seen.add(name)
        for defined in module.defines:
            if defined in owner:
                raise AssertionError(f"{owner[defined]} and {name} of the engine both define {defined}")
            owner[defined] = name


def _merged_imports(modules: Mapping[str, _Module]) -> Iterator[str]:
    yield from (f"import {name}" for name in sorted({n for module in modules.values() for n in module.imports}))
    names = sorted({pair for module in modules.values() for pair in module.names})
    for source in sorted({source for source, _ in names}):
        imported = [name for where, name in names if where == source]
        line = f"from {source} import {', '.join(imported)}"
        wrapped = [f"from {source} import (", *(f"    {name}," for name in imported), ")"]
        yield line if len(line) <= _COLUMNS else "\n".join(wrapped)
