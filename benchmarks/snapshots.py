"""Snapshots and restores against plain git, side by side on the same servers, in one run.

The guard's own code takes the snapshots, in a process like the function's, from a replica on a server of its own to the
embedded S3. Plain git does ``git clone --mirror`` of the replica, and ``git bundle create`` for a snapshot. Bytes are
those that the replica's server sent; peak memory is that of the largest process. The guard's times leave out the start
of the process, which a function has once for many invocations; those of a restore are of the whole command.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from codecommit_mirror.engine.text import format_bytes
from codecommit_mirror.guard.vault.signer import Signer
from localcloud import LocalCloud, sample
from localcloud.aws.codecommit.git_service import create_repository

from .mirror import Measurement, Server, grow, measure_commands, plain_environment
from .snapshot_commands import NAME

_CHAIN = 30


class Bench:
    """A replica, its server, and a bucket."""

    def __init__(self, folder: Path, cloud: LocalCloud) -> None:
        self.folder, self.bucket = folder, "bench-snapshots"
        self.replica = folder / "replica.git"
        create_repository(self.replica)
        self.server = Server(self.replica, "replica")
        self._environment = {"PATH": os.environ["PATH"], **cloud.environment(), "PYTHONPATH": os.getcwd()}
        self._s3 = cloud.client("s3")
        self._s3.create_bucket(
            Bucket=self.bucket,
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": cloud.region},
        )
        kms = cloud.client("kms")
        made = kms.create_key(KeySpec="RSA_3072", KeyUsage="SIGN_VERIFY")
        self.key = made["KeyMetadata"]["Arn"]
        self.fingerprint = Signer(kms, self.key).public_key().fingerprint
        self._numbers = 0

    def snapshot(self) -> Measurement:
        """Take a snapshot."""
        measured = self._python("take", f"{self.server.url}/r", self.bucket, self.key)
        return replace(measured, seconds=float((self.folder / "output").read_text()))

    def look(self) -> Measurement:
        """Look at the replica."""
        measured = self._python("look", f"{self.server.url}/r")
        return replace(measured, seconds=float((self.folder / "output").read_text()))

    def stored(self) -> int:
        """Return the bytes in the vault, without the packs."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=f"snapshots/{NAME}/")
        versions = [one for page in pages for one in page.get("Versions", [])]
        bundles = [one["Key"] for one in versions if one["Key"].endswith(".bundle")]
        packs: int = sum(
            len(data) - data.index(b"\n\nPACK")
            for data in (self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in bundles)
        )
        return sum(int(one["Size"]) for one in versions) - packs

    def restore(self) -> Measurement:
        """Restore the last snapshot."""
        return self._python("restore", self.bucket, self.fingerprint, self._new_folder())

    def _python(self, *arguments: str) -> Measurement:
        command = [sys.executable, "-m", "benchmarks.snapshot_commands", *arguments]
        return self._measure([command], self._environment)

    def clone(self) -> Measurement:
        """Clone a mirror of the replica."""
        return self._measure([["git", "clone", "-q", "--mirror", f"{self.server.url}/r", self._new_folder()]])

    def clone_and_bundle(self) -> Measurement:
        """Clone a mirror of the replica, and make a bundle of it."""
        clone = self._new_folder()
        commands = [
            ["git", "clone", "-q", "--mirror", f"{self.server.url}/r", clone],
            ["git", "-C", clone, "bundle", "create", "-q", f"{clone}.bundle", "--all"],
        ]
        return self._measure(commands)

    def _measure(self, commands: list[list[str]], environment: dict[str, str] | None = None) -> Measurement:
        measured = measure_commands(self.server, self.folder / "output", commands, environment or plain_environment())
        if measured.status:
            raise SystemExit((self.folder / "output").read_text())
        return measured

    def _new_folder(self) -> str:
        self._numbers += 1
        return str(self.folder / f"clone-{self._numbers}.git")


def main() -> None:
    """Run every case and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=140, help="size of the replica (default: 140)")
    parser.add_argument("--refs", type=int, help="measure so many refs on commits of their own in place of megabytes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, LocalCloud() as cloud:
        bench = Bench(Path(folder), cloud)
        if options.refs:
            run_refs(bench, options.refs)
            return
        grow(bench.replica, options.megabytes, 1)
        sample.git(bench.replica, "gc", "--quiet")
        rows = run(bench)
    print("\n| case | the guard | plain git | time, of plain git's | bytes from the replica | peak memory |")
    print("|---|---|---|---|---|---|")
    for name, ours, theirs in rows:
        print(
            f"| {name} | {ours.seconds:.2f} s, {format_bytes(ours.bytes)} "
            f"| {theirs.seconds:.2f} s, {format_bytes(theirs.bytes)} | {ours.seconds / theirs.seconds:.1%} "
            f"| {ours.bytes / max(1, theirs.bytes):.2%} | {ours.megabytes:.0f} MB / {theirs.megabytes:.0f} MB |"
        )


def run(bench: Bench) -> list[tuple[str, Measurement, Measurement]]:
    """Run the cases in turn."""
    rows = []

    def row(name: str, ours: Callable[[], Measurement], theirs: Callable[[], Measurement], times: int = 1) -> None:
        their_best = min((theirs() for _ in range(2)), key=lambda m: m.seconds)
        rows.append((name, min((ours() for _ in range(times)), key=lambda m: m.seconds), their_best))
        print(f"{name}: done", file=sys.stderr, flush=True)

    row("snapshot, full", bench.snapshot, bench.clone_and_bundle)
    row("snapshot, nothing changed", bench.snapshot, bench.clone_and_bundle)
    sample.commit(bench.replica, "main", "one commit")
    row("snapshot, one commit", bench.snapshot, bench.clone_and_bundle)
    for number in range(_CHAIN - 2):
        sample.commit(bench.replica, "main", f"commit {number}")
        bench.snapshot()
    row(f"restore from a chain of {_CHAIN}", bench.restore, bench.clone, times=2)
    return rows


def run_refs(bench: Bench, number: int) -> None:
    """Measure a replica of many refs, and print a table in Markdown."""
    branch = "refs/heads/feature/team-%d/%d-what-it-is-about"
    lines = [
        f"commit {branch % (n % 50, n)}\nmark :{n}\ncommitter A <a@b> {1_700_000_000 + n} +0000\ndata 1\nx\n"
        f"{f'from :{n - 1}{chr(10)}' if n > 1 else ''}"
        for n in range(1, number + 1)
    ]
    sample.git(bench.replica, "fast-import", "--quiet", stdin="".join(lines).encode())
    sample.git(bench.replica, "pack-refs", "--all")
    sample.git(bench.replica, "update-ref", "refs/heads/main", branch % (number % 50, number))
    print(f"\n| {number:,} refs | seconds | peak memory | stored beside the pack |\n|---|---|---|---|")

    def row(name: str, measure: Callable[[], Measurement]) -> None:
        before = bench.stored()
        measured = measure()
        stored = format_bytes(bench.stored() - before)
        print(f"| {name} | {measured.seconds:.2f} s | {measured.megabytes:.0f} MB | {stored} |", flush=True)

    row("look", bench.look)
    row("snapshot, full", bench.snapshot)
    row("snapshot, nothing changed", bench.snapshot)
    sample.commit(bench.replica, "main", "one commit")
    row("snapshot, one commit", bench.snapshot)


if __name__ == "__main__":
    main()
