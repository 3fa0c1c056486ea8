"""The mirror engine against the blog post's pipeline, side by side on the same servers, in one run.

``make bench`` makes a source of about ``--megabytes``; ``make bench SOURCE=<path>`` takes that repository. Each case
starts each way from the replica that it made itself, and runs both in turn, several times; the best of each counts.
Bytes from the source are counted by the server, peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from codecommit_mirror import engine_api
from codecommit_mirror.engine.text import count, format_bytes
from codecommit_mirror.rendering import engine_program
from localcloud import sample
from localcloud.aws.codecommit.git_service import GitService, OtherRefs, create_repository
from localcloud.git_http import GitHttpServer, Host, Serve


@dataclass(frozen=True)
class Measurement:
    """One run of one way: seconds of wall time, bytes from the source, MB of peak memory, and its exit status."""

    seconds: float
    bytes: int
    megabytes: float
    status: int


# A small process between, since a child's peak memory counts that of the process that it was forked from.
LAUNCHER = """
import resource, subprocess, sys, time
started = time.monotonic()
with open(sys.argv[1], "wb") as output:
    code = subprocess.call(sys.argv[2:], stdout=output, stderr=output)
print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code)
"""


class Server:
    """A Git server in a process of its own, as it would be on a machine of its own."""

    def __init__(self, repository: Path, kind: str, delay: float = 0) -> None:
        self._pipe, child = multiprocessing.Pipe()
        arguments = (str(repository), kind, delay, child)
        multiprocessing.get_context("spawn").Process(target=_serve, args=arguments, daemon=True).start()
        self.url: str = self._pipe.recv()

    @property
    def bytes_out(self) -> int:
        self._pipe.send(None)
        return int(self._pipe.recv())


def _host(path: Path, kind: str) -> Host:
    if kind == "source":
        return lambda request: Serve(path)
    strict = GitService(OtherRefs.ABORTED)
    # What the blog post's push needs, which has every ref in it, and would not get from CodeCommit.
    generous = GitService(OtherRefs.ACCEPTED, max_updates=1_000_000)
    service = strict if kind == "replica" else generous
    return lambda request: service.answer(path, request)


def _serve(repository: str, kind: str, delay: float, pipe: Connection) -> None:
    server = GitHttpServer(_host(Path(repository), kind))
    server.delay_seconds = delay / 1000
    pipe.send(server.url)
    with contextlib.suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(server.bytes_out)


class Bench:
    """A source, a replica, and the two ways from one to the other."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder = folder
        self.source, self.replica = folder / "source.git", folder / "replica.git"
        self.source_server = Server(self.source, "source", delay)
        self.replica_server = Server(self.replica, "replica", delay)
        self.generous_server = Server(self.replica, "generous replica", delay)

    def ours(self) -> Measurement:
        """Run the engine, as the pipeline does."""
        environment = {
            "PATH": os.environ["PATH"],
            "AZURE_REPO_URL": f"{self.source_server.url}/o/p/_git/r",
            "AWS_REPO_URL": f"{self.replica_server.url}/r",
            **{f"{side}_GIT_{part}": "x" for side in ("AZURE", "AWS") for part in ("USERNAME", "PASSWORD")},
            "MIRROR_ALLOW_DELETIONS": "1",
        }
        program = self.folder / "program.py"
        program.write_text(engine_program.program())
        return self._measure([[sys.executable, str(program)]], environment)

    def blog_post(self) -> Measurement:
        """Clone a mirror of the source, and push the mirror."""
        clone = str(self.folder / "clone.git")
        shutil.rmtree(clone, ignore_errors=True)
        commands = [
            ["git", "clone", "--quiet", "--mirror", f"{self.source_server.url}/r", clone],
            ["git", "-C", clone, "push", "--quiet", "--mirror", f"{self.generous_server.url}/r"],
        ]
        return self._measure(commands, plain_environment())

    def git_in_batches(self) -> Measurement:
        """Clone a mirror of the source, and push it 2,000 refs at a time, as the limit of a push makes plain git do."""
        clone = str(self.folder / "clone.git")
        shutil.rmtree(clone, ignore_errors=True)
        first = ["git", "clone", "--quiet", "--mirror", f"{self.source_server.url}/r", clone]
        refs = sorted(name for name in sample.refs(self.source) if not name.startswith("refs/pull/"))
        pushes = [
            ["git", "-C", clone, "push", "--quiet", f"{self.generous_server.url}/r"]
            + [f"+{name}:{name}" for name in refs[start : start + 2000]]
            for start in range(0, len(refs), 2000)
        ]
        return self._measure([first, *pushes], plain_environment())

    def _measure(self, commands: list[list[str]], environment: dict[str, str]) -> Measurement:
        return measure_commands(self.source_server, self.folder / "output", commands, environment)

    def empty(self, path: Path, *, replica: bool = False) -> None:
        """Make a bare repository anew."""
        shutil.rmtree(path, ignore_errors=True)
        if replica:
            create_repository(path)
            return
        subprocess.run(["git", "init", "-q", "--bare", "--template=", "-b", "main", str(path)], check=True)
        for setting, value in (("http.receivepack", "true"), ("receive.denyDeleteCurrent", "ignore"), ("gc.auto", "0")):
            sample.git(path, "config", setting, value)

    def restore(self, saved: Path) -> None:
        """Put the replica back to a saved state."""
        shutil.rmtree(self.replica, ignore_errors=True)
        subprocess.run(["cp", "-a", str(saved), str(self.replica)], check=True)

    def check(self) -> None:
        """Fail unless both sides have the same branches, tags and notes."""
        namespaces = ("refs/heads/", "refs/tags/", "refs/notes/")
        replica = engine_api.ReplicaRefs(sample.refs(self.replica))
        if engine_api.by_original_name(replica, namespaces) != sample.refs(self.source, *namespaces):
            raise SystemExit("the replica is not equal to the source")


def measure_commands(
    server: Server, output: Path, commands: list[list[str]], environment: dict[str, str]
) -> Measurement:
    """Run commands one after the other, and measure them; their output is in a file."""
    before, seconds, peak, status = server.bytes_out, 0.0, 0.0, 0
    for command in commands:
        launch = [sys.executable, "-IS", "-c", LAUNCHER, str(output), *command]
        done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=True)
        elapsed, largest, code = done.stdout.split()
        seconds, peak, status = seconds + float(elapsed), max(peak, float(largest)), status or int(code)
    return Measurement(seconds, server.bytes_out - before, peak / 1000, status)


def plain_environment() -> dict[str, str]:
    """Return an environment without anybody's configuration of git."""
    return {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


def grow(repository: Path, megabytes: int, commits_in_a_pull_request: int) -> None:
    """Fill a repository with text, as teams with pull requests do.

    Each pull request rewrites three files of 4,096 in some commits, and is squashed into one commit on ``main``; Azure
    Repos keeps its commits at ``refs/pull/N/merge``. One commit in a pull request makes a source without such a rest.
    """
    generator = random.Random(1)  # noqa: S311
    words = [bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 12))) for _ in range(5000)]
    requests = megabytes * 58
    mark = 0

    def commit(ref: bytes, parents: list[int], paths: list[bytes]) -> Iterator[bytes]:
        nonlocal mark
        mark += 1
        yield b"commit %s\nmark :%d\n" % (ref, mark)
        yield b"committer A <a@example.com> %d +0000\ndata 7\nCommit\n\n" % (1_700_000_000 + mark)
        for number, parent in enumerate(parents):
            yield b"%s :%d\n" % (b"merge" if number else b"from", parent)
        for path in paths:
            text = b" ".join(generator.choices(words, k=1200))
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (path, len(text), text)

    def stream() -> Iterator[bytes]:
        main: list[int] = []
        for number in range(1, requests + 1):
            paths = [b"src/%d/%d.txt" % (generator.randrange(64), generator.randrange(64)) for _ in range(3)]
            parents, merge = main, b"refs/pull/%d/merge" % number
            for _ in range(commits_in_a_pull_request - 1):
                yield from commit(merge, parents, paths)
                parents = [mark]
            yield from commit(b"refs/heads/main", main, paths)
            main = [mark]
        for number in range(20):
            yield b"reset refs/heads/feature/%d\nfrom :%d\n\n" % (number, main[0])
            yield b"reset refs/tags/v%d\nfrom :%d\n\n" % (number, main[0])

    git = ["git", "-C", str(repository), "fast-import", "--quiet"]
    with tempfile.TemporaryFile() as file:
        file.writelines(stream())
        file.seek(0)
        subprocess.run(git, stdin=file, check=True)


def a_day(source: Path) -> None:
    """Change a source as developers do: branches, tags, a deletion, a force-push."""
    for number in range(5):
        tip = sample.commit(source, "main", f"commit {number}")
    sample.git(source, "update-ref", "refs/heads/new-branch", tip)
    sample.git(source, "tag", "-a", "-m", "a tag", "new-tag", tip)
    doomed, rewritten = sorted(sample.refs(source, "refs/heads/bench/"))[:2]
    sample.git(source, "update-ref", "-d", doomed)
    sample.commit(source, rewritten.removeprefix("refs/heads/"), "rewritten", parent="main~9")


def measure(
    bench: Bench, name: str, saved: tuple[Path, Path], other: Callable[[], Measurement], times: int
) -> tuple[str, Measurement, Measurement]:
    """Run both ways in turn, each from the replica that it made itself, and return the best of each."""
    ours: list[Measurement] = []
    theirs: list[Measurement] = []
    for _ in range(times):
        for way, results, start in ((other, theirs, saved[1]), (bench.ours, ours, saved[0])):
            bench.restore(start)
            results.append(way())
        bench.check()
        if ours[-1].status:
            raise SystemExit((bench.folder / "output").read_text())
    print(f"{name}: done", file=sys.stderr, flush=True)
    return name, min(ours, key=lambda m: m.seconds), min(theirs, key=lambda m: m.seconds)


def main() -> None:
    """Run every case and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="path of a Git repository to measure with")
    parser.add_argument(
        "--megabytes", type=int, default=140, help="size of the generated source's branches and tags (default: 140)"
    )
    parser.add_argument("--commits", type=int, default=2, help="commits in a pull request (default: 2)")
    parser.add_argument("--times", type=int, default=3, help="runs of each way in each case (default: 3)")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="how long a round trip to each side takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows, size = run(Path(folder), options)
    kind = options.source or f"generated, {count(options.commits, 'commit')} in a pull request"
    print(f"Source: {kind}, {format_bytes(size)} on disk. ", end="")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip() + ".")
    print("Best of " + ("one run" if options.times == 1 else f"{options.times} runs") + " of each, in turn", end="")
    print(f"; {options.delay:g} ms to each side.\n" if options.delay else ".\n")
    print(
        "| case | the engine | plain git | time, of plain git's "
        "| bytes from the source, of plain git's | peak memory, engine / plain git |"
    )
    print("|---|---|---|---|---|---|")
    for name, ours, theirs in rows:
        failed = f" (fails with {theirs.status})" if theirs.status else ""
        print(
            f"| {name} | {_row(ours)} | {_row(theirs)}{failed} | {ours.seconds / theirs.seconds:.1%} "
            f"| {ours.bytes / theirs.bytes:.2%} | {ours.megabytes:.0f} MB / {theirs.megabytes:.0f} MB |"
        )


def _row(measured: Measurement) -> str:
    return f"{measured.seconds:.2f} s, {format_bytes(measured.bytes)}"


def run(folder: Path, options: argparse.Namespace) -> tuple[list[tuple[str, Measurement, Measurement]], int]:
    """Prepare the source, run the cases, and return their rows and the source's size in bytes."""
    bench, source, times = Bench(folder, options.delay), options.source, options.times
    if source:
        subprocess.run(["git", "clone", "--quiet", "--mirror", "--no-hardlinks", source, str(bench.source)], check=True)
        branch = sample.git(bench.source, "symbolic-ref", "HEAD").strip()
        sample.git(bench.source, "update-ref", "refs/heads/main", branch)
    else:
        bench.empty(bench.source)
        grow(bench.source, options.megabytes, options.commits)
    tip = sample.git(bench.source, "rev-parse", "refs/heads/main").strip()
    for number in range(2):
        sample.git(bench.source, "update-ref", f"refs/heads/bench/{number}", tip)
        sample.commit(bench.source, f"bench/{number}", "on a branch of its own")
    if not source:
        sample.git(bench.source, "gc", "--quiet")
    size = sum(path.stat().st_size for path in bench.source.rglob("*") if path.is_file())
    nothing, saved = (folder / "nothing.git", folder / "nothing.git"), (folder / "ours.git", folder / "theirs.git")
    bench.empty(nothing[0], replica=True)
    rows = [measure(bench, "first mirror", nothing, bench.blog_post, times)]
    for way, path in ((bench.ours, saved[0]), (bench.blog_post, saved[1])):
        bench.restore(nothing[0])
        way()
        shutil.move(bench.replica, path)
    rows.append(measure(bench, "no change", saved, bench.blog_post, times))
    sample.commit(bench.source, "main", "one commit")
    rows.append(measure(bench, "one commit", saved, bench.blog_post, times))
    a_day(bench.source)
    rows.append(measure(bench, "mixed: branches, tags, deletion, force-push", saved, bench.blog_post, times))
    bench.empty(bench.source)
    sample.fill(bench.source)
    tip = sample.git(bench.source, "rev-parse", "main").strip()
    refs = "".join(f"create refs/{'heads' if n % 2 else 'tags'}/many/{n} {tip}\n" for n in range(10_000))
    sample.git(bench.source, "update-ref", "--stdin", stdin=refs.encode())
    rows.append(measure(bench, "10,000 refs, first mirror; pushes in batches", nothing, bench.git_in_batches, 1))
    return rows, size


if __name__ == "__main__":
    main()
