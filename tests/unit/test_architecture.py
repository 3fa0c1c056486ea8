"""The rooms stay as they are: who may import whom, no circle, no room too full, no file and no function too long.

A room is a folder of modules; where a folder also has folders, each of its own modules is a room.
"""

import ast
import graphlib
import itertools
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from codecommit_mirror.engine import MODULES

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "codecommit_mirror", "demo", "localcloud", "release")
FILES = [path for package in (*PACKAGES, "tests") for path in sorted((ROOT / package).rglob("*.py"))]
FOLDERS = sorted({path.parent for path in FILES})
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")])

CLI = "codecommit_mirror"
AZURE = f"{CLI}.azure"
ENGINE = f"{CLI}.engine"
GUARD = f"{CLI}.guard"
STACKS = f"{CLI}.stacks"
CONSTRUCTS = f"{CLI}.constructs"
IMPORTS = {
    "benchmarks": f"{CLI}.backup {CLI}.engine_api {CLI}.rendering localcloud localcloud.aws.codecommit "
    f"localcloud.azure.service_connections localcloud.git_http localcloud.sample {ENGINE}.text {GUARD}.replica "
    f"{GUARD}.snapshot {GUARD}.vault",
    "demo": f"{CLI}.aws {AZURE}.rest {AZURE}.state {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.operations "
    f"{CLI}.progress localcloud localcloud.sample",
    "release": "",
    # The CLI and what it calls.
    CLI: "",
    f"{CLI}.__main__": f"{CLI}.cli",
    f"{CLI}.cli": f"{CLI}.actions {CLI}.aws {AZURE}.connection {AZURE}.files {AZURE}.pipeline {AZURE}.rest "
    f"{AZURE}.state {AZURE}.variables {CLI}.backup {CLI}.checks {CLI}.config {CLI}.deployment {CLI}.engine_api "
    f"{CLI}.errors {CLI}.markdown {CLI}.operations {CLI}.progress {CLI}.rendering",
    f"{CLI}.deployment": f"{AZURE}.pipeline {CLI}.config {CLI}.rendering",
    f"{CLI}.checks": f"{CLI}.aws {AZURE}.connection {AZURE}.pipeline {AZURE}.rest {AZURE}.state {AZURE}.variables "
    f"{CLI}.backup {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.guard_api {CLI}.markdown "
    f"{CLI}.operations",
    f"{CLI}.backup": f"{CLI}.aws {AZURE}.rest {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.guard_api "
    f"{CLI}.operations {CLI}.progress",
    f"{CLI}.operations": f"{CLI}.actions {CLI}.aws {AZURE}.connection {AZURE}.files {AZURE}.pipeline {AZURE}.rest "
    f"{AZURE}.runs {AZURE}.state {AZURE}.variables {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.progress",
    f"{CLI}.aws": f"{CLI}.actions {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.progress {GUARD}.names",
    AZURE: "",
    f"{AZURE}.connection": f"{CLI}.actions {AZURE}.definition {AZURE}.files {AZURE}.pipeline {AZURE}.rest "
    f"{AZURE}.state {AZURE}.variables {CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.progress",
    f"{AZURE}.definition": f"{AZURE}.state {AZURE}.variables {CLI}.config",
    f"{AZURE}.runs": f"{AZURE}.rest {CLI}.engine_api {CLI}.errors {CLI}.progress",
    f"{AZURE}.state": f"{AZURE}.files {AZURE}.pipeline {AZURE}.rest {AZURE}.variables {CLI}.config {CLI}.engine_api "
    f"{CLI}.errors",
    f"{AZURE}.files": f"{AZURE}.pipeline {AZURE}.rest {CLI}.errors {CLI}.progress",
    f"{AZURE}.pipeline": f"{AZURE}.variables {CLI}.config {CLI}.engine_api {CLI}.rendering",
    f"{AZURE}.variables": f"{AZURE}.rest {CLI}.config {CLI}.errors",
    f"{AZURE}.rest": f"{CLI}.config {CLI}.engine_api {CLI}.errors {CLI}.progress",
    f"{CLI}.rendering": f"{CLI}.config {CLI}.errors {CLI}.pipeline_templates {ENGINE}",
    f"{CLI}.pipeline_templates": "",
    f"{CLI}.actions": "",
    f"{CLI}.markdown": "",
    f"{CLI}.progress": f"{CLI}.engine_api",
    f"{CLI}.config": f"{CLI}.engine_api {CLI}.errors {GUARD}.names",
    f"{CLI}.guard_api": f"{GUARD}.replica {GUARD}.vault",
    f"{CLI}.engine_api": f"{CLI}.errors {ENGINE}.archive {ENGINE}.failures {ENGINE}.git {ENGINE}.plan "
    f"{ENGINE}.refs {ENGINE}.report {ENGINE}.run {ENGINE}.settings {ENGINE}.text {ENGINE}.version {ENGINE}.wire",
    f"{CLI}.errors": "",
    # What runs in a pipeline, and in the guard's function.
    GUARD: "",
    f"{GUARD}.handler": f"{ENGINE}.failures {ENGINE}.refs {GUARD}.changes {GUARD}.deployment {GUARD}.messages "
    f"{GUARD}.names {GUARD}.replica {GUARD}.snapshot {GUARD}.vault {GUARD}.watch",
    f"{GUARD}.watch": f"{GUARD}.changes {GUARD}.deployment {GUARD}.messages {GUARD}.replica {GUARD}.vault",
    f"{GUARD}.deployment": "",
    f"{GUARD}.messages": f"{ENGINE}.text {GUARD}.changes",
    f"{GUARD}.changes": f"{ENGINE}.archive {ENGINE}.plan {ENGINE}.refs {ENGINE}.text {GUARD}.names {GUARD}.replica "
    f"{GUARD}.vault",
    f"{GUARD}.snapshot": f"{ENGINE}.failures {ENGINE}.refs {ENGINE}.settings {ENGINE}.wire {GUARD}.kept "
    f"{GUARD}.replica {GUARD}.vault",
    f"{GUARD}.kept": f"{ENGINE}.refs {GUARD}.vault",
    f"{GUARD}.replica": f"{ENGINE}.archive {ENGINE}.confirmation {ENGINE}.failures {ENGINE}.plan {ENGINE}.refs "
    f"{ENGINE}.settings {ENGINE}.text {ENGINE}.wire {GUARD}.names {GUARD}.vault",
    f"{GUARD}.vault": f"{GUARD}.names",
    f"{GUARD}.names": "",
    ENGINE: "",
    f"{ENGINE}.run": f"{ENGINE}.archive {ENGINE}.confirmation {ENGINE}.failures {ENGINE}.plan {ENGINE}.refs "
    f"{ENGINE}.report {ENGINE}.settings {ENGINE}.text {ENGINE}.transfer {ENGINE}.wire",
    f"{ENGINE}.report": f"{ENGINE}.refs {ENGINE}.settings {ENGINE}.text",
    f"{ENGINE}.transfer": f"{ENGINE}.archive {ENGINE}.failures {ENGINE}.git {ENGINE}.plan {ENGINE}.refs "
    f"{ENGINE}.settings {ENGINE}.text {ENGINE}.wire",
    f"{ENGINE}.git": f"{ENGINE}.failures {ENGINE}.refs {ENGINE}.settings {ENGINE}.text {ENGINE}.wire",
    f"{ENGINE}.archive": f"{ENGINE}.failures {ENGINE}.plan {ENGINE}.refs {ENGINE}.settings {ENGINE}.text {ENGINE}.wire",
    f"{ENGINE}.confirmation": f"{ENGINE}.failures {ENGINE}.plan {ENGINE}.refs {ENGINE}.settings {ENGINE}.text "
    f"{ENGINE}.wire",
    f"{ENGINE}.plan": f"{ENGINE}.refs {ENGINE}.text",
    f"{ENGINE}.wire": f"{ENGINE}.failures {ENGINE}.refs {ENGINE}.settings {ENGINE}.text",
    f"{ENGINE}.settings": f"{ENGINE}.failures {ENGINE}.text {ENGINE}.version",
    f"{ENGINE}.refs": "",
    f"{ENGINE}.text": "",
    f"{ENGINE}.version": "",
    f"{ENGINE}.failures": "",
    # What lives in AWS.
    f"{CLI}.app": f"{CLI}.config {CLI}.errors {CLI}.feature_flags {STACKS}",
    f"{CLI}.feature_flags": "",
    STACKS: f"{CLI}.config {CONSTRUCTS}",
    # What other people's apps use, too.
    CONSTRUCTS: f"{CONSTRUCTS}.ci_roles {CONSTRUCTS}.guard {CONSTRUCTS}.identity_provider {CONSTRUCTS}.push_access "
    f"{CONSTRUCTS}.replica {CONSTRUCTS}.vault",
    f"{CONSTRUCTS}.replica": f"{CLI}.config {CLI}.errors {CONSTRUCTS}.credential_cleanup {CONSTRUCTS}.push_access "
    f"{GUARD}.names",
    f"{CONSTRUCTS}.push_access": f"{CLI}.config {CONSTRUCTS}.federated_role {CONSTRUCTS}.identity_provider "
    f"{CONSTRUCTS}.nag_suppressions",
    f"{CONSTRUCTS}.ci_roles": f"{CLI}.config {CONSTRUCTS}.federated_role {CONSTRUCTS}.identity_provider "
    f"{CONSTRUCTS}.nag_suppressions {CONSTRUCTS}.vault",
    f"{CONSTRUCTS}.guard": f"{CLI}.config {CLI}.errors {CONSTRUCTS}.nag_suppressions {CONSTRUCTS}.vault {GUARD}.names",
    f"{CONSTRUCTS}.vault": f"{CLI}.config {CONSTRUCTS}.nag_suppressions {GUARD}.names",
    f"{CONSTRUCTS}.credential_cleanup": f"{CONSTRUCTS}.nag_suppressions",
    f"{CONSTRUCTS}.identity_provider": f"{CLI}.config",
    f"{CONSTRUCTS}.credential_cleanup_handler": "",
    f"{CONSTRUCTS}.federated_role": "",
    f"{CONSTRUCTS}.nag_suppressions": "",
    # The embedded cloud, which knows the clouds and not this project.
    "localcloud": "localcloud.cloud",
    "localcloud.cloud": "localcloud.aws.codecommit localcloud.aws.controls localcloud.azure.controls "
    "localcloud.azure.repos",
    "localcloud.server": "localcloud.aws.cloudformation localcloud.aws.codecommit localcloud.aws.iam "
    "localcloud.aws.switchboard localcloud.azure.service localcloud.git_http localcloud.oidc",
    "localcloud.aws": "",
    "localcloud.aws.switchboard": "localcloud.aws.clock localcloud.aws.functions localcloud.aws.iam "
    "localcloud.aws.messages localcloud.aws.s3",
    "localcloud.aws.controls": "",
    "localcloud.aws.cloudformation": "localcloud.aws.iam localcloud.aws.rights",
    "localcloud.aws.codecommit": "localcloud.aws.iam localcloud.aws.messages localcloud.aws.rights "
    "localcloud.git_http localcloud.isolated_git",
    "localcloud.aws.functions": "localcloud.aws.rights",
    "localcloud.aws.iam": "localcloud.aws.rights",
    "localcloud.aws.messages": "localcloud.aws.clock localcloud.aws.rights",
    "localcloud.aws.s3": "localcloud.aws.clock localcloud.aws.rights localcloud.aws.xml",
    "localcloud.aws.rights": "localcloud.aws.xml",
    "localcloud.aws.clock": "",
    "localcloud.aws.xml": "",
    "localcloud.azure": "",
    "localcloud.azure.service": "localcloud.azure.definitions localcloud.azure.git localcloud.azure.pipelines "
    "localcloud.azure.repos localcloud.azure.rest_api localcloud.azure.service_connections localcloud.azure.tokens "
    "localcloud.git_http "
    "localcloud.oidc",
    "localcloud.azure.controls": "",
    "localcloud.azure.rest_api": "localcloud.azure.definitions localcloud.azure.pipelines localcloud.azure.refusals "
    "localcloud.azure.repos "
    "localcloud.azure.service_connections "
    "localcloud.azure.tokens localcloud.git_http",
    "localcloud.azure.pipelines": "localcloud.azure.agent localcloud.azure.definitions localcloud.azure.jobs "
    "localcloud.azure.repos localcloud.azure.service_connections localcloud.azure.tokens localcloud.azure.triggers",
    "localcloud.azure.jobs": "localcloud.azure.agent localcloud.azure.definitions localcloud.azure.repos "
    "localcloud.azure.service_connections localcloud.azure.tokens",
    "localcloud.azure.definitions": "localcloud.azure.agent localcloud.azure.repos",
    "localcloud.azure.git": "localcloud.azure.refusals localcloud.azure.repos localcloud.azure.tokens "
    "localcloud.git_http localcloud.isolated_git",
    "localcloud.azure.refusals": "localcloud.azure.tokens localcloud.git_http",
    "localcloud.azure.repos": "localcloud.isolated_git",
    "localcloud.azure.service_connections": "localcloud.oidc",
    "localcloud.azure.agent": "",
    "localcloud.azure.tokens": "",
    "localcloud.azure.triggers": "",
    "localcloud.git_http": "localcloud.isolated_git",
    "localcloud.isolated_git": "",
    "localcloud.oidc": "",
    "localcloud.sample": "localcloud.isolated_git",
}
"""Which rooms each room imports, and no others; where arrows go is read from the top down."""


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*PACKAGES)


def room_of(graph, module):
    """Return the room that a module is in."""
    if graph.find_children(module):
        return module
    parent = module.rpartition(".")[0]
    return module if any(graph.find_children(sibling) for sibling in graph.find_children(parent)) else parent


def imports_of_rooms(graph):
    imports = {room_of(graph, module): set() for module in graph.modules}
    for module in graph.modules:
        room = room_of(graph, module)
        imports[room] |= {room_of(graph, other) for other in graph.find_modules_directly_imported_by(module)} - {room}
    return imports


def test_each_room_imports_what_the_table_says_and_nothing_else(graph):
    assert imports_of_rooms(graph) == {room: set(others.split()) for room, others in IMPORTS.items()}


def test_a_forbidden_import_is_seen_between_any_two_rooms(graph):
    allowed = imports_of_rooms(graph)
    member = {room_of(graph, module): module for module in sorted(graph.modules)}
    for room, other in itertools.permutations(member, 2):
        if other not in allowed[room]:
            graph.add_import(importer=member[room], imported=member[other])
            seen = {room_of(graph, module) for module in graph.find_modules_directly_imported_by(member[room])}
            graph.remove_import(importer=member[room], imported=member[other])
            assert other in seen - allowed[room]


def test_arrows_go_down_only(graph):
    above = (f"{CLI}.app", STACKS, CONSTRUCTS, "localcloud")
    rooms = [room for room in IMPORTS if not room.startswith(above)]
    for room, others in IMPORTS.items():
        below = rooms[rooms.index(room) + 1 :] if room in rooms else rooms
        assert set(others.split()) & set(rooms) <= set(below)
    modules = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(graphlib.TopologicalSorter(modules).static_order())) == len(graph.modules)


def test_each_module_of_the_engine_imports_earlier_ones_in_the_order_of_reading(graph):
    for number, name in enumerate(MODULES):
        imported = graph.find_modules_directly_imported_by(f"{ENGINE}.{name}")
        assert {module.removeprefix(f"{ENGINE}.") for module in imported} <= set(MODULES[:number])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_room_has_more_than_a_dozen_files(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 12


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_and_no_function_is_long(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 500
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    # Tests that tell a story may take longer.
    limit = 65 if "tests" in file.parts else 50
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > limit] == []


def texts_without_owner(tree):
    """Return the lines of texts that describe nothing: neither first in what they are in, nor below an attribute."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    return [
        after.lineno
        for body in bodies
        for before, after in itertools.pairwise(body)
        if isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
        and not (isinstance(before, ast.Assign | ast.AnnAssign) and after.lineno == before.end_lineno + 1)
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_attribute_docstring_is_right_below_its_attribute(file):
    assert texts_without_owner(ast.parse(file.read_text())) == []


def test_a_docstring_without_an_attribute_is_seen():
    assert texts_without_owner(ast.parse('A = 1\n"""Of A."""\n')) == []
    assert texts_without_owner(ast.parse('A = 1\n"""Of A."""\n"""Of what was here."""\n')) == [3]
    assert texts_without_owner(ast.parse('class B:\n    """B."""\n    a: int\n\n    """Of a?"""\n')) == [5]


@pytest.mark.parametrize("file", MARKDOWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_markdown_is_wrapped(file):
    blocks = file.read_text().split("```")[::2]
    lines = [line for block in blocks for line in block.splitlines() if not line.lstrip().startswith("|")]
    # A link cannot be broken.
    assert [line for line in lines if len(line) > 128 and len(line.split()) > 2] == []


def test_help_imports_no_cloud():
    command = (
        "import sys; from codecommit_mirror.cli import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert not {"boto3", "httpx", "pydantic", "rich", "yaml", "jinja2"} & set(done.stdout.split())
