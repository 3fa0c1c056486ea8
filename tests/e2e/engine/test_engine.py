"""The engine between a source and a replica of each make: equal refs, every object, nothing lost."""

import os
import subprocess
import sys

import pytest

from codecommit_mirror.rendering import engine_program
from localcloud import sample
from localcloud.aws.codecommit.git_service import OtherRefs

from . import servers
from .sides import Sides, grow


@pytest.fixture(scope="session")
def jgit_port(tmp_path_factory):
    classpath = servers.jgit_classpath()
    if classpath is None:
        pytest.skip("JGit is not on this machine (javac and its jars below ~/.m2)")
    classes = tmp_path_factory.mktemp("jgit")
    subprocess.run(["javac", "-cp", classpath, "-d", str(classes), str(servers.JGIT)], check=True)
    with servers.jgit_server(f"{classpath}{os.pathsep}{classes}") as port:
        yield port


@pytest.fixture(params=[*OtherRefs, "git", "dulwich", "jgit"], ids=lambda param: getattr(param, "value", param))
def any_replica(request, tmp_path):
    """Both sides, with each make of server as the replica."""
    sides = Sides(tmp_path, request.param if isinstance(request.param, OtherRefs) else OtherRefs.ACCEPTED)
    if request.param == "git":
        sides.use(servers.git_replica(sides.replica))
    elif request.param == "dulwich":
        sides.use(servers.dulwich_replica(sides.replica))
    elif request.param == "jgit":
        sides.use(servers.jgit_replica(sides.replica, request.getfixturevalue("jgit_port")))
    return sides


def test_the_life_of_a_mirror(any_replica):
    sides = any_replica
    sample.fill(sides.source, extra_branches=sample.HOSTILE_BRANCHES)
    first = sides.mirror()
    assert (first.result, first.created) == ("Succeeded", len(sides.refs()))
    sides.assert_equal()

    again = sides.mirror()
    assert (again.created, again.updated, again.deleted) == (0, 0, 0)
    assert again.confirmed

    sample.commit(sides.source, "main", "one commit")
    one = sides.mirror()
    assert (one.updated, one.archived) == (1, {})
    sides.assert_equal()

    old = sample.git(sides.source, "rev-parse", "main~50").strip()
    sample.git(sides.source, "update-ref", "refs/heads/from-an-old-commit", old)
    sample.git(sides.source, "tag", "-a", "-m", "tag of a tag", "nested", "v0.0")
    sample.git(sides.source, "tag", "tree", "main^{tree}")
    sample.git(sides.source, "tag", "blob", "feature/0:branch.txt")
    sample.git(sides.source, "update-ref", "-d", "refs/tags/light-1")
    for index in range(3):
        sample.commit(sides.source, f"new/{index}", "new branch", parent="main~7")
    mixed = sides.mirror()
    assert (mixed.created, mixed.deleted) == (7, 1)
    sides.assert_equal()


def test_a_force_push_whose_old_tip_is_gone_at_the_source(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    sides.mirror()
    lost = sample.git(sides.source, "rev-parse", "feature/1").strip()
    sample.commit(sides.source, "feature/1", "rewritten", parent="main~9")
    sample.git(sides.source, "reflog", "expire", "--expire=now", "--all")
    sample.git(sides.source, "gc", "--prune=now", "-q")
    outcome = sides.mirror()
    assert outcome.result == "Succeeded"
    sides.assert_equal()
    assert sides.archive() == {"refs/heads/feature/1": lost}


def test_a_renamed_default_branch(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    sides.mirror()
    sample.git(sides.source, "branch", "-m", "main", "trunk")
    outcome = sides.mirror()
    if outcome.result == "SucceededWithIssues":
        # CodeCommit does not delete its default branch: a person chooses another one.
        assert "update-default-branch" in outcome.needs_attention["refs/heads/main"]
        sample.git(sides.replica, "symbolic-ref", "HEAD", "refs/heads/trunk")
        sides.mirror()
    sides.assert_equal()


def test_a_branch_becomes_a_folder_and_back(any_replica):
    sides = any_replica
    sample.fill(sides.source)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    for before, after in [("topic", "topic/a"), ("topic/a", "topic")]:
        sample.git(sides.source, "update-ref", f"refs/heads/{before}", tip)
        sides.mirror()
        sample.git(sides.source, "update-ref", "-d", f"refs/heads/{before}")
        sample.git(sides.source, "update-ref", f"refs/heads/{after}", tip)
        assert sides.mirror().result == "Succeeded"
        sides.assert_equal()


def test_ten_thousand_refs(strict_sides):
    sides = strict_sides
    sample.fill(sides.source)
    tip = sample.git(sides.source, "rev-parse", "main").strip()
    names = [f"refs/{'heads' if n % 2 else 'tags'}/many/{n}" for n in range(10_000)]
    sample.git(sides.source, "update-ref", "--stdin", stdin="".join(f"create {n} {tip}\n" for n in names).encode())
    assert sides.mirror().created > 10_000
    sides.assert_equal()
    sample.git(sides.source, "update-ref", "--stdin", stdin="".join(f"delete {n}\n" for n in names[:4000]).encode())
    assert sides.mirror().deleted == 4000
    sides.assert_equal()


def test_a_hundred_megabytes_of_history(strict_sides):
    sides = strict_sides
    grow(sides.source, 100)
    first = sides.mirror()
    assert first.bytes_to_replica > 100_000_000
    sides.assert_equal()
    sample.commit(sides.source, "main", "one commit")
    assert sides.mirror().bytes_from_source < 100_000
    sides.assert_equal()


def peak_of_a_run(sides, tmp_path):
    """Run the program on its own, and return its exit status, its log and its peak memory in kilobytes."""
    environment = {
        "PATH": os.environ["PATH"],
        "AZURE_REPO_URL": f"{sides.source_url}/o/p/_git/r",
        "AWS_REPO_URL": f"{sides.replica_url}/r",
        **{f"{side}_GIT_{part}": "x" for side in ("AZURE", "AWS") for part in ("USERNAME", "PASSWORD")},
    }
    # A small process between, since a child's peak memory counts that of the process that it was forked from.
    launcher = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=2);"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    file = tmp_path / "program.py"
    file.write_text(engine_program.program())
    command = [sys.executable, "-c", launcher, sys.executable, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    status, kilobytes = map(int, done.stdout.split())
    return status, done.stderr, kilobytes


def test_memory_stays_below_a_hundred_megabytes(strict_sides, tmp_path):
    grow(strict_sides.source, 120)
    status, log, kilobytes = peak_of_a_run(strict_sides, tmp_path)
    assert status == 0, log
    assert kilobytes < 100_000
    strict_sides.assert_equal()


@pytest.mark.parametrize(("commits", "message"), [(150, 900_000), (120_000, 1)], ids=["large", "many"])
def test_memory_stays_bounded_whatever_a_push_contains(strict_sides, tmp_path, commits, message):
    """A pack of a megabyte can hold a gigabyte; what it does not show to be a fast-forward is archived."""
    sides = strict_sides
    sample.fill(sides.source, commits=3, branches=0, tags=0, pull_requests=0)
    sides.mirror()
    with subprocess.Popen(
        ["git", "-C", str(sides.source), "fast-import", "--quiet", "--force"], stdin=subprocess.PIPE
    ) as importer:
        for number in range(commits):
            start = b"from refs/heads/main^0\n" if number == 0 else b""
            importer.stdin.write(
                b"commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata %d\n%s\n%s\n"
                % (1_800_000_000 + number, message, b"a" * message, start)
            )
        importer.stdin.close()
    status, log, kilobytes = peak_of_a_run(sides, tmp_path)
    assert status == 0, log
    assert kilobytes < 110_000
    sides.assert_equal()
