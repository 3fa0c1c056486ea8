"""The program that the pipeline carries, as a module: the end-to-end tests run what the pipeline runs."""

from __future__ import annotations

import linecache
import sys
import types

from codecommit_mirror.rendering import engine_program


def _load() -> types.ModuleType:
    name, path, text = "mirror_program", "<mirror_program>", engine_program.program()
    module = types.ModuleType(name)
    sys.modules[name] = module
    # So that tracebacks show its lines.
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    exec(compile(text, path, "exec"), module.__dict__)
    return module


program = _load()
