"""The rooms stay as they are: arrows go down only, no room is too full, no file and no function too long."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("codecommit_mirror", "localcloud", "mirror_engine", "stacks", "pipeline_templates", "tests", "benchmarks")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ROOMS = sorted({path.parent for path in FILES if "tests" not in path.parts})


def test_arrows_go_down_only():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_no_room_has_more_than_a_dozen_files(room):
    assert len(list(room.glob("*.py"))) <= 12


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_and_no_function_is_long(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 500
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    # Tests that tell a story may take longer.
    limit = 65 if "tests" in file.parts else 50
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > limit] == []


def test_help_imports_no_cloud():
    command = (
        "import sys; from codecommit_mirror.cli import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert not {"boto3", "httpx", "pydantic", "rich", "yaml", "jinja2"} & set(done.stdout.split())
