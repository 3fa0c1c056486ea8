"""A deployment repository: from a wheel in an empty folder to a mirror that is up, and an upgrade of its files."""

import hashlib
import json
import os
import re
import subprocess
import sys
import venv
import zipfile

import pytest

from codecommit_mirror.azure.pipeline import render_engine
from localcloud import sample

from ..conftest import ROOT, azure_environment, build_wheel
from ..test_documentation import DEMOS, GETTING_STARTED, blocks, commands

CONSTRUCTS = ROOT / "docs" / "constructs.md"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def constraints(tmp_path_factory):
    """The pinned versions, so that nothing newer is downloaded."""
    path = tmp_path_factory.mktemp("pins") / "constraints.txt"
    pins = re.findall(r"^[a-z0-9.-]+==[^\\\n]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    path.write_text("\n".join(pins) + "\n")
    return path


def shell(script, folder, **environment):
    """Run commands in a folder as a person does, who has this project nowhere."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    path = ":".join(part for part in kept["PATH"].split(":") if not part.startswith(str(ROOT)))
    return subprocess.run(
        ["bash", "-c", f"set -e\n{script}"],
        cwd=folder,
        env={**kept, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def with_server(page, cloud):
    """Return the mirrors.yaml of a page, on the embedded cloud."""
    (mirrors,) = blocks(page, "yaml")
    return mirrors.replace("azure: {organization", f'azure: {{server: "{cloud.azure_url}", organization')


@pytest.fixture(scope="module")
def started(cloud, tmp_path_factory, wheel, constraints):
    """An empty folder in which somebody did what getting started says, and what that printed."""
    folder = tmp_path_factory.mktemp("started")
    sample.fill(cloud.create_azure_repository("contoso", "Shop", "MyRepo"))
    (folder / "mirrors.yaml").write_text(with_server(GETTING_STARTED, cloud))
    lines = [line for line in commands(GETTING_STARTED) if line not in DEMOS]
    done = shell(
        "\n".join(lines).replace("ACCOUNT/REGION", f"{cloud.account}/{cloud.region}"),
        folder,
        **cloud.environment(),
        **azure_environment(cloud),
        CODECOMMIT_MIRROR_YES="1",
        PIP_CONSTRAINT=str(constraints),
        PIP_NO_COMPILE="1",
        PIP_FIND_LINKS=f"{os.environ.get('PIP_FIND_LINKS', '')} {wheel.parent}".strip(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_getting_started_is_done_as_it_is_written_from_a_wheel_in_an_empty_folder(cloud, started):
    tmp_path, done = started
    assert "MyRepoReplica is up: 16 refs are equal on both sides." in done.stdout
    assert "MyRepoReplica is down." in done.stdout
    # CI and colleagues install the same, each file by its hash.
    assert "codecommit-mirror==1.0.0 --hash=sha256:" in (tmp_path / "requirements.txt").read_text()
    ask = "import importlib.metadata as m; print(*m.files('codecommit-mirror'))"
    installed = shell(f'.venv/bin/python -c "{ask}"', tmp_path)
    assert {name.partition("/")[0] for name in installed.stdout.split()} == {
        "codecommit_mirror",
        "codecommit_mirror-1.0.0.dist-info",
        "..",
    }
    # A folder of this name beside cdk.json hides no library.
    (tmp_path / "constructs").mkdir()
    (tmp_path / "constructs" / "__init__.py").write_text("raise SystemExit('not this')")
    listed = shell(
        "PATH=$PWD/.venv/bin:$PWD/node_modules/.bin:$PATH cdk list --no-notices", tmp_path, **cloud.environment()
    )
    assert listed.stdout.split() == ["MyRepoReplica"], listed.stderr


def write_example(folder):
    """Write the files of the page about constructs, each named by its first line."""
    for code in blocks(CONSTRUCTS, "python")[:2]:
        path = folder / code.partition("\n")[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)


def test_a_replica_in_an_app_of_somebody_elses_is_connected(cloud, started, tmp_path):
    """The page's own app, with a folder of its own called stacks, in the environment that has the wheel only."""
    installed, _ = started
    sample.fill(cloud.create_azure_repository("contoso", "Shop", "orders"))
    write_example(tmp_path)
    (tmp_path / "mirrors.yaml").write_text(with_server(CONSTRUCTS, cloud))
    (tmp_path / "cdk.json").write_text('{"app": "python3 app.py"}')
    lines = [line for line in commands(CONSTRUCTS) if not line.startswith("pip install ")]
    binaries = f"PATH={installed}/.venv/bin:{installed}/node_modules/.bin:$PATH"
    script = f"export {binaries}\n" + "\n".join([*lines, "codecommit-mirror down orders"])
    environment = {**cloud.environment(), **azure_environment(cloud), "CODECOMMIT_MIRROR_YES": "1"}
    done = shell(script.replace("cdk deploy", "cdk deploy --require-approval never"), tmp_path, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "orders is up: 16 refs are equal on both sides." in done.stdout
    assert "orders is down. Its replica stays in CodeCommit." in done.stdout
    (stack,) = cloud.client("cloudformation").describe_stacks(StackName="source-replicas")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"


def test_the_example_is_clean_for_cdk_nag(tmp_path):
    write_example(tmp_path)
    # The clone has a package of that name.
    (tmp_path / "stacks" / "__init__.py").touch()
    (tmp_path / "look.py").write_text(
        f"import sys, aws_cdk\nfrom stacks.replicas import Replicas\nsys.path.append({str(ROOT)!r})\n"
        "from cdk_nag import AwsSolutionsChecks\nfrom tests.unit.stacks.test_stacks import findings\n"
        "print(findings(Replicas(aws_cdk.App(), 'source-replicas'), AwsSolutionsChecks))\n"
    )
    done = subprocess.run([sys.executable, "look.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_who_only_looks_needs_no_cdk(tmp_path, wheel, constraints):
    """Without the extra 'deploy' there is neither aws-cdk-lib nor constructs; one sentence says how to get them."""
    venv.create(tmp_path / ".venv", with_pip=True)
    install = f".venv/bin/pip install --quiet --no-compile -c {constraints} {wheel}"
    done = shell(install, tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "cdk.json").write_text('{"app": "python3 -P -m codecommit_mirror.app"}')
    done = shell(".venv/bin/python -m codecommit_mirror --version; .venv/bin/python -m codecommit_mirror.app", tmp_path)
    assert done.stdout == "codecommit-mirror, version 1.0.0\n"
    assert done.stderr == "the CDK app needs aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'\n"
    done = shell(".venv/bin/python -c 'import codecommit_mirror.stacks'", tmp_path)
    assert done.stderr.splitlines()[-1].endswith("aws-cdk-lib; run: pip install 'codecommit-mirror[deploy]'")


def init(folder, *arguments, check=True, **environment):
    command = [sys.executable, "-m", "codecommit_mirror", "init", str(folder), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode == 0) is check, done.stderr
    return done.stdout if check else done.stderr


def test_an_update_writes_again_what_is_ours_and_nothing_else(tmp_path, wheel):
    source = ("--source", "https://dev.azure.com/contoso/Shop/_git/Web", "--aws", "111122223333/eu-west-1")
    init(tmp_path, "--wheel", str(wheel), *source, "--ci", "github:contoso/mirrors")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert init(tmp_path).count(" is up to date") == 5
    workflow = tmp_path / ".github" / "workflows" / "mirrors.yml"
    for path in (workflow, tmp_path / "requirements.txt", tmp_path / "README.md"):
        path.write_text(path.read_text() + "# older\n")
    (tmp_path / "package.json").unlink()
    said = init(tmp_path)
    assert f"{workflow} is outdated: 'codecommit-mirror init --update' writes it again" in said
    assert f"wrote {tmp_path / 'package.json'}" in said
    assert f"updated {workflow}" in init(tmp_path, "--update")
    changed = {path for path, data in files.items() if path.read_bytes() != data}
    assert changed == {tmp_path / "README.md"}
    workflow.write_text("on: push\n")
    assert f"{workflow} is yours, and was left alone" in init(tmp_path, "--update")
    assert json.loads((tmp_path / "cdk.json").read_text()) == {"app": "python3 -P -m codecommit_mirror.app"}
    # Which one is meant must not depend on how the names sort.
    (tmp_path / "codecommit_mirror-1.0.0-1-py3-none-any.whl").touch()
    assert "has several wheels of codecommit-mirror 1.0.0 (" in init(tmp_path, "--update", check=False)


def test_an_engine_that_is_kept_here_is_upgraded_with_the_rest(tmp_path, wheel):
    """By the same pull request, for CI may not push to a protected branch."""
    (tmp_path / "mirrors.yaml").write_text(
        "engine: {repository: Platform/mirrors}\n"
        "ci:\n  account: '111122223333'\n  region: eu-west-1\n  azure: {organization: contoso, project: Platform,"
        " repository: mirrors, organization_id: 89abcdef-0123-4567-89ab-cdef01234567}\n"
        "mirrors:\n  Web: {azure: {organization: contoso, project: Shop, repository: Web}}\n"
    )
    init(tmp_path, "--wheel", str(wheel))
    engine = tmp_path / "mirror-engine.yml"
    assert engine.read_text() == render_engine()
    engine.write_text(engine.read_text().replace("#   engine:  1.", "#   engine:  0."))
    assert f"updated {engine}" in init(tmp_path, "--update")
    assert engine.read_text() == render_engine()


def test_what_cannot_be_written_is_one_sentence(tmp_path, wheel):
    assert "give --aws ACCOUNT/REGION" in init(tmp_path, "--ci", "github:a/b", check=False)
    assert "write none, azure:PROJECT/REPOSITORY or github:OWNER/NAME" in init(
        tmp_path, "--ci", "gitlab", "--aws", "111122223333/eu-west-1", check=False
    )
    assert "there is nothing to update" in init(tmp_path, "--update", check=False)
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    refused = init(tmp_path, check=False, **nowhere)
    assert refused.startswith("error: pip does not get codecommit-mirror 1.0.0 from its index (")
    assert refused.endswith("or give --wheel FILE.\n")
    assert list(tmp_path.iterdir()) == []
    # What runs here is a checkout, which no wheel on an index is known to be.
    exchanged = init(tmp_path, check=False, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent))
    assert "is not what runs here, so its hash is not written" in exchanged


def exchange(wheel, folder, **files):
    """Write a wheel of the same name with some files added or replaced, and a RECORD as it was."""
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | files
    folder.mkdir()
    with zipfile.ZipFile(folder / wheel.name, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def test_a_wheel_of_the_index_that_is_not_what_runs_here_is_refused(tmp_path, wheel):
    """Whoever has the package's name on an index would else decide what runs beside CI's role."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    about = "codecommit_mirror-1.0.0.dist-info"
    for number, files in enumerate(
        [
            {"codecommit_mirror/__main__.py": b"raise SystemExit('theirs')"},
            {"theirs.pth": b"import os"},
            {"theirs/__init__.py": b""},
            {f"{about}/entry_points.txt": b"[console_scripts]\ncodecommit-mirror = theirs:main\n"},
        ]
    ):
        exchange(wheel, tmp_path / f"index-{number}", **files)
        places = {"PYTHONPATH": str(site), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / f"index-{number}")}
        folder = tmp_path / f"folder-{number}"
        assert "is not what runs here, so its hash is not written" in init(folder, check=False, **places)
        assert list(folder.iterdir()) == []
    places["PIP_FIND_LINKS"] = str(wheel.parent)
    init(tmp_path / "folder", **places)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"codecommit-mirror==1.0.0 --hash=sha256:{digest}" in (tmp_path / "folder" / "requirements.txt").read_text()
