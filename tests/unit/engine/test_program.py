"""The program that the pipeline carries: joined from the engine's modules, readable, and refused where it would lie."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from codecommit_mirror import engine
from codecommit_mirror.cli import cli
from codecommit_mirror.rendering import engine_program

PROGRAM = engine_program.program()
ROLE_PROGRAM = engine_program.program(role=True)


def test_it_is_python_3_8(tmp_path):
    ast.parse(ROLE_PROGRAM, feature_version=(3, 8))
    file = tmp_path / "program.py"
    file.write_text(ROLE_PROGRAM)
    vermin = [Path(sys.executable).parent / "vermin", "-t=3.8-", "--no-tips", "--violations", str(file)]
    found = subprocess.run(vermin, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_it_imports_only_the_standard_library():
    imports = [node for node in ast.walk(ast.parse(ROLE_PROGRAM)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {f"{'.' * node.level}{node.module}" for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("program", "limit", "left_out"), [(PROGRAM, 145_000, {"wire.role"}), (ROLE_PROGRAM, 155_000, set())]
)
def test_it_is_one_readable_text_below_the_limit(program, limit, left_out):
    assert len(program.encode()) < limit
    assert program.isascii()
    assert max(map(len, program.splitlines())) <= 120
    rules = [line for line in program.splitlines() if line.startswith("# ----")]
    assert [rule.split()[-1] for rule in rules] == [name for name in engine.MODULES if name not in left_out]


def test_it_holds_every_line_of_every_module():
    folder = Path(engine.__file__).parent
    files = {file: file.read_text() for file in folder.rglob("*.py") if file.name != "__init__.py"}
    assert {".".join(file.relative_to(folder).with_suffix("").parts) for file in files} == set(engine.MODULES)
    for module in files.values():
        tree = ast.parse(module)
        last_import = max((n.end_lineno for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)), default=1)
        assert "\n".join(module.splitlines()[last_import:]).strip() in ROLE_PROGRAM


def test_a_command_prints_it_for_auditors():
    assert CliRunner().invoke(cli, ["pipeline", "program"]).output == PROGRAM
    assert CliRunner().invoke(cli, ["pipeline", "program", "--role"]).output == ROLE_PROGRAM


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"a": "X = 1\n", "b": "X = 2\n"}, "a and b of the engine both define X"),
        ({"a": "def f(): ...\n", "b": "class f: ...\n"}, "a and b of the engine both define f"),
        ({"a": "from .b import X\n", "b": "X = 1\n"}, r"engine.a imports from b, which comes later"),
        ({"a": "X = 1\n", "b": "from .a import X as Y\n"}, "engine.b imports a name as another one"),
        ({"a": "import os.path as p\n"}, "engine.a imports a name as another one"),
    ],
)
def test_what_means_something_else_in_one_file_is_refused(texts, reason):
    with pytest.raises(AssertionError, match=reason):
        engine_program.join("A program.", texts)


def test_imports_are_merged():
    joined = engine_program.join(
        "A program.",
        {
            "a": '"""First."""\n\nimport re\nfrom typing import Dict\n\nX = re\n',
            "b": '"""Second,\n\nwith more."""\nimport re\nimport os\nfrom typing import Tuple\nfrom .a import X\n',
        },
    )
    assert "import os\nimport re\nfrom typing import Dict, Tuple\n" in joined
    assert joined.count("import re\n") == 1
    assert "# Second,\n#\n# with more.\n" in joined
    assert joined.endswith('if __name__ == "__main__":\n    sys.exit(main())\n')
