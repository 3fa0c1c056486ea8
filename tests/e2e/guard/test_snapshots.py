"""Snapshots: what is kept, when, and that plain git and a person restore it."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codecommit_mirror.backup import snapshots
from codecommit_mirror.backup.origin import from_snapshots
from codecommit_mirror.backup.snapshots import problems, read_chain, read_snapshots
from codecommit_mirror.engine.failures import RetryableError
from codecommit_mirror.engine.refs import CONFIRMED_TAG
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.guard import snapshot
from codecommit_mirror.guard.snapshot import Retention
from codecommit_mirror.guard.vault.store import COLD_BYTES, PART_BYTES, Store
from codecommit_mirror.guard_api import Listing, parse_time
from localcloud import sample

from ..conftest import ROOT, documented_restore
from .conftest import RETENTION

pytestmark = pytest.mark.long("guard")


def run_git(folder, *arguments):
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def take(guarded, rig, **settings):
    return guarded.take(rig.name, **settings)


def sound(guarded, rig):
    """The last snapshot has what the replica has, and nothing is wrong with any."""
    found = read_snapshots(guarded.session(), rig.name)
    assert list(problems(found, datetime.now(UTC))) == []
    kept, there = dict(found.refs(found.at(None))), sample.refs(rig.replica)
    assert {**kept, CONFIRMED_TAG: ""} == {**there, CONFIRMED_TAG: ""}
    return found


def test_a_snapshot_is_full_then_unchanged_then_incremental(guarded, rig):
    assert guarded.snapshot(rig.name)["kind"] == "empty"
    sample.fill(rig.source)
    rig.run()
    assert guarded.snapshot(rig.name)["kind"] == "full"
    keys = guarded.keys(rig.name)
    assert [key.partition(".")[2] for key in keys] == ["bundle", "json", "json.sig", "refs.gz"]
    rig.run()
    assert guarded.snapshot(rig.name)["kind"] == "unchanged"
    assert guarded.keys(rig.name) == keys
    sample.commit(rig.source, "main", "one more")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    rig.run()
    second = guarded.snapshot(rig.name)
    assert (second["kind"], second["bytes"] < 5000) == ("incremental", True)
    sound(guarded, rig)


def download_as_documented(guarded, name, folder):
    """Run the documented commands up to the comparison of hashes, and return what they print."""
    text = (ROOT / "docs" / "backup.md").read_text()
    commands = re.search(r"```sh\n(aws cloudformation .*?# compare\n)", text, re.DOTALL)[1]
    commands = commands.replace("/MyRepoReplica/", f"/{name}/").replace("s3://BUCKET", f"s3://{guarded.bucket}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env={**os.environ, **guarded.cloud.environment(), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == guarded.bucket
    return done.stdout


def test_plain_git_and_openssl_restore_by_the_documented_commands(guarded, rig, command, tmp_path):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    for number in range(3):
        sample.commit(rig.source, "main", f"commit {number}")
        sample.git(rig.source, "tag", "-a", "-m", "a tag", f"more-{number}", "main")
        # A branch goes, and one below its name comes; its name is not ASCII.
        if number:
            sample.git(rig.source, "branch", "-D", f"f\u00fcr{'/deep' * (number - 1)}")
        sample.git(rig.source, "branch", f"f\u00fcr{'/deep' * number}", "main")
        rig.run()
        guarded.snapshot(rig.name)
    key = command("snapshots", "key", rig.name, "--azure-repo-url", rig.mirror.azure.clone_url)
    assert key.returncode == 0, key.stderr
    (tmp_path / "vault-key.pem").write_text(key.stdout)
    found = download_as_documented(guarded, rig.name, tmp_path)
    assert found.count("Verified OK\n") == 4
    full, *later = sorted(path.name for path in tmp_path.glob("*.bundle"))
    assert len(later) == 3
    # Each hash twice: from the manifest, and of the bundle.
    assert all(found.count(json.loads(path.read_text())["sha256"]) == 2 for path in tmp_path.glob("*.json"))
    assert re.findall(r'(\S+)\.json: *"prerequisites": \[\]', found) == [full.removesuffix(".bundle")]
    documented_restore(tmp_path, [Path(name).stem for name in (full, *later)])
    assert found.count('"complete": true') == 4
    restored = tmp_path / "repository.git"
    assert sample.refs(restored) == sample.refs(rig.replica)
    run_git(tmp_path, "clone", "--quiet", "repository.git", "checkout")
    # A list that somebody has exchanged, which the signatures are not about, is not believed.
    (tmp_path / full).with_suffix(".refs.gz").write_bytes(gzip.compress(f"{'a' * 40} refs/heads/main\n".encode()))
    with pytest.raises(subprocess.CalledProcessError):
        documented_restore(tmp_path, [Path(full).stem])


def test_one_broken_replica_does_not_stop_the_others(guarded, rig, cloud, stack_template):
    from ..conftest import Rig, counter

    other = Rig(cloud, f"replica-{next(counter)}", stack_template)
    for one in (rig, other):
        sample.fill(one.source)
        one.run()
    for path in (rig.replica / "objects" / "pack").glob("*.pack"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert guarded.invoke(task="snapshots")["replicas"] >= 2
    for _ in range(50):
        if guarded.keys(other.name):
            break
        guarded.mails(other.name)
    sound(guarded, other)
    assert guarded.keys(rig.name) == []
    assert "errorMessage" in guarded.invoke(task="snapshot", replica=guarded.arn(rig.name))
    cloud.client("codecommit").delete_repository(repositoryName=rig.name)


def test_after_an_interruption_the_next_attempt_goes_on_in_smaller_parts(guarded, rig, monkeypatch):
    """Of a server that does not tell distances, in parts of the refs."""
    sample.fill(rig.source)
    rig.run()

    def breaks_off(endpoint, advertised, part):
        yield b"PACK"
        raise RetryableError("the time is up")

    monkeypatch.setattr(snapshot, "can_be_sliced", lambda capabilities: False)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "_pack", breaks_off)
        for _ in range(2):
            with pytest.raises(RetryableError):
                take(guarded, rig)
    assert guarded.keys(rig.name) == []
    taken = take(guarded, rig)
    assert taken.kind == "full"
    *parts, last = [manifest.complete for manifest in sound(guarded, rig).manifests.values()]
    assert (last, any(parts), len(parts) > 2) == (True, False, True)
    assert guarded.open_vault().states.read(rig.name)[0].interrupted == 0


@pytest.mark.parametrize(("arrived", "counted"), [(4, 0), (PART_BYTES, 1)])
def test_an_incremental_attempt_is_counted_once_it_is_large(guarded, rig, monkeypatch, arrived, counted):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    sample.commit(rig.source, "main", "one more")
    rig.run()

    def breaks_off(endpoint, advertised, part):
        yield bytes(arrived)
        raise RetryableError("the time is up")

    monkeypatch.setattr(snapshot, "_pack", breaks_off)
    with pytest.raises(RetryableError):
        take(guarded, rig)
    assert guarded.open_vault().states.read(rig.name)[0].interrupted == counted


def test_a_bundle_of_one_part_is_locked_too_and_not_called_large(guarded):
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    told = []
    store = guarded.open_vault().store
    size, _, version = store.put_bundle(
        "snapshots/small/x.bundle",
        [bytes(PART_BYTES - 1), b"x"],
        ("COMPLIANCE", until),
        "STANDARD",
        lambda: told.append("large"),
    )
    assert (size, told) == (PART_BYTES, [])
    (put,) = store.listing("small").versions
    assert put.id == version
    assert store.lock_of(put) == ("COMPLIANCE", until)


def test_a_large_bundle_goes_up_in_checksummed_parts_and_is_locked(guarded):
    parts = (bytes([number]) * 1_000_000 for number in range(25))
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    told = []
    store = guarded.open_vault().store
    size, _, version = store.put_bundle(
        "snapshots/large/x.bundle", parts, ("COMPLIANCE", until), "GLACIER_IR", lambda: told.append("large")
    )
    assert (size, told) == (25_000_000, ["large"])
    assert size > 2 * PART_BYTES
    (put,) = store.listing("large").versions
    assert put.id == version
    assert store.lock_of(put) == ("COMPLIANCE", until)
    parts = guarded.s3.get_object_attributes(
        Bucket=guarded.bucket, Key="snapshots/large/x.bundle", ObjectAttributes=["ObjectParts", "Checksum"]
    )
    assert parts["ObjectParts"]["TotalPartsCount"] == 3
    assert "ChecksumSHA256" in parts["Checksum"]
    assert guarded.s3.head_object(Bucket=guarded.bucket, Key=put.key)["StorageClass"] == "GLACIER_IR"


@pytest.mark.parametrize(
    ("size", "keep", "storage"),
    [
        (COLD_BYTES + 1, 90, "GLACIER_IR"),
        (COLD_BYTES, 90, "STANDARD"),
        (COLD_BYTES + 1, 89, "STANDARD"),
    ],
)
def test_a_bundle_is_stored_where_it_costs_least(guarded, size, keep, storage):
    """GLACIER_IR is billed for at least 90 days and 128 KiB."""
    store, now = guarded.open_vault().store, datetime.now(UTC).replace(microsecond=0)
    retention = Retention(timedelta(days=1), timedelta(days=keep), timedelta(days=30), "COMPLIANCE")
    key = f"snapshots/cold/{size}-{keep}.bundle"
    lock = ("COMPLIANCE", now + timedelta(days=1))
    store.put_bundle(key, [bytes(size)], lock, retention.storage, lambda: None)
    # S3 leaves the header out for the class STANDARD.
    assert guarded.s3.head_object(Bucket=guarded.bucket, Key=key).get("StorageClass", "STANDARD") == storage


def test_two_at_a_time_do_no_harm(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    results = []

    def attempt():
        try:
            results.append(take(guarded, rig).kind)
        except RetryableError as error:
            results.append(type(error).__name__)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    take(guarded, rig)
    sound(guarded, rig)


@pytest.mark.usefixtures("without_policy")
def test_a_lock_lasts_as_long_as_a_snapshot_is_the_last_one(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    later = datetime.now(UTC) + timedelta(days=40)
    assert take(guarded, rig, clock=lambda: later).kind == "unchanged"
    found = read_snapshots(guarded.session(), rig.name)
    assert found.locked_until(found.at(None)) >= later + RETENTION.keep - timedelta(seconds=1)
    sample.commit(rig.source, "main", "one more")
    rig.run()
    assert take(guarded, rig, clock=lambda: later).kind == "full"
    found = read_snapshots(guarded.session(), rig.name)
    first, second = found.manifests.values()
    assert second.previous_sha256 == found.signed[first.key].sha256
    assert parse_time(second.locked_until) == later.replace(microsecond=0) + timedelta(days=430)


@pytest.mark.usefixtures("without_policy")
def test_an_incremental_snapshot_keeps_its_chain_locked(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    later = datetime.now(UTC) + timedelta(days=29, hours=23)
    sample.commit(rig.source, "main", "one more")
    rig.run()
    assert take(guarded, rig, clock=lambda: later).kind == "incremental"
    found = read_snapshots(guarded.session(), rig.name)
    for manifest in found.chain(found.complete[-1]):
        assert found.locked_until(manifest) >= later + RETENTION.keep - timedelta(seconds=1)


def test_a_restore_reads_the_wanted_chain_and_no_others(guarded, rig, monkeypatch):
    """It finds the same as a look at all manifests, at every time."""
    sample.fill(rig.source)
    began, days = datetime.now(UTC) - timedelta(days=80), (0, 1, 2, 31, 32, 63, 64)
    for day in days:
        sample.commit(rig.source, "main", f"day {day}")
        rig.run()
        take(guarded, rig, clock=lambda day=day: began + timedelta(days=day))
    everything = read_snapshots(guarded.session(), rig.name)
    assert len(everything.complete) == len(days)
    read, real = [], Store.read
    monkeypatch.setattr(snapshots, "_READERS", 2)
    monkeypatch.setattr(Store, "read", lambda self, version: read.append(version.key) or real(self, version))
    for day in days:
        at = began + timedelta(days=day, hours=1)
        read.clear()
        found = from_snapshots(read_chain(guarded.session(), rig.name, at), at)
        wanted = from_snapshots(everything, at)
        assert (found.refs, found.time, found.bytes) == (wanted.refs, wanted.time, wanted.bytes)
        assert [m.bundle for m in found.chain] == [m.bundle for m in wanted.chain]
        assert len({key for key in read if key.endswith(".json")}) <= len(wanted.chain) + 1
    latest = read_chain(guarded.session(), rig.name)
    assert latest.at(None).key == everything.at(None).key
    with pytest.raises(MirrorError, match="there is no snapshot of that time or before; the first one is from"):
        from_snapshots(read_chain(guarded.session(), rig.name, began - timedelta(days=1)), began - timedelta(days=1))


@pytest.mark.usefixtures("without_policy")
def test_the_last_complete_chain_stays_locked_while_a_later_one_is_in_parts(guarded, rig, monkeypatch):
    """Whoever makes attempts fail after a first part was kept would else wait until the locks before it end."""
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    (first,) = read_snapshots(guarded.session(), rig.name).complete
    sample.commit(rig.source, "main", "after a long time")
    rig.run()
    pack, packs = snapshot._pack, []

    def breaks_off_after(number):
        def breaks_off(*arguments):
            packs.append(arguments)
            if len(packs) > number:
                raise RetryableError("the time is up")
            yield from pack(*arguments)

        packs.clear()
        monkeypatch.setattr(snapshot, "_pack", breaks_off)

    began = datetime.now(UTC)
    for days, number in ((31, 0), (32, 1), (300, 0)):
        breaks_off_after(number)
        with pytest.raises(RetryableError):
            take(guarded, rig, clock=lambda days=days: began + timedelta(days=days))
    found = read_snapshots(guarded.session(), rig.name)
    assert [manifest.complete for manifest in found.manifests.values()] == [True, False]
    assert found.locked_until(first) - began > timedelta(days=300 + 399)


def test_a_snapshot_after_one_without_branches_is_full(guarded, rig):
    tip = sample.git(rig.replica, "hash-object", "-w", "--stdin", stdin=b"a file").strip()
    sample.git(rig.replica, "update-ref", "refs/tags/first", tip)
    assert take(guarded, rig).kind == "full"
    sample.git(rig.replica, "update-ref", "refs/tags/second", tip)
    assert take(guarded, rig).kind == "full"
    found = read_snapshots(guarded.session(), rig.name)
    assert [manifest.full for manifest in found.complete] == [True, True]


def test_a_shorter_retention_shortens_no_lock(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    (full,) = read_snapshots(guarded.session(), rig.name).complete
    sample.commit(rig.source, "main", "one more")
    rig.run()
    shorter = Retention(timedelta(days=1), timedelta(days=30), timedelta(days=30), "COMPLIANCE")
    assert take(guarded, rig, retention=shorter).kind == "incremental"
    found = read_snapshots(guarded.session(), rig.name)
    first, second = (found.locked_until(manifest) for manifest in found.complete)
    assert first == parse_time(full.locked_until)
    assert second <= datetime.now(UTC) + timedelta(days=60)


def test_a_flipped_bit_a_missing_lock_and_a_missing_manifest_are_found(guarded, rig, command, monkeypatch):
    sample.fill(rig.source)
    rig.run()
    guarded.snapshot(rig.name)
    sample.commit(rig.source, "main", "one more")
    rig.run()
    guarded.snapshot(rig.name)
    url = rig.mirror.azure.clone_url
    fine = command("snapshots", "verify", rig.name, "--azure-repo-url", url)
    assert fine.returncode == 0, fine.stderr
    assert "is sound: " in fine.stdout
    found = read_snapshots(guarded.session(), rig.name)
    last = found.at(None)
    data = b"".join(found.read_bundle(last))
    flipped = data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]
    monkeypatch.setattr(
        Store,
        "open",
        lambda self, version, start=0: io.BytesIO((flipped if version.key == last.bundle else data)[start:]),
    )
    from codecommit_mirror.backup.restore import drill

    assert drill(from_snapshots(found, None), datetime.now(UTC)).problem
    monkeypatch.undo()
    found = replace(found, listing=Listing([v for v in found.listing.versions if v.key != last.bundle]))
    assert [sentence for _, sentence in problems(found, datetime.now(UTC))] == [
        "it is not locked, or its bundle or its list of refs is missing"
    ]
    late = datetime.now(UTC) + timedelta(days=500)
    assert "its lock ended at" in next(sentence for _, sentence in problems(found, late))


@pytest.mark.usefixtures("without_policy")
def test_what_earlier_chains_lack_is_found_too(guarded, rig):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    sample.commit(rig.source, "main", "a month later")
    rig.run()
    assert take(guarded, rig, clock=lambda: datetime.now(UTC) + timedelta(days=31)).kind == "full"
    found = read_snapshots(guarded.session(), rig.name)
    first, last = found.complete
    assert list(problems(found, datetime.now(UTC))) == []
    found = replace(found, listing=Listing([v for v in found.listing.versions if v.key != first.bundle]))
    assert list(problems(found, datetime.now(UTC))) == [(first.key, "its bundle is missing")]
    at_first = list(problems(found, datetime.now(UTC), found.chain(first)))
    assert at_first == [(first.key, "it is not locked, or its bundle or its list of refs is missing")]
    # That it expired is no problem.
    assert first.key not in dict(problems(found, datetime.now(UTC) + timedelta(days=435)))
    assert last.full
