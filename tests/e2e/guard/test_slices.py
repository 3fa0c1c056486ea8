"""Slices of history: what is too large for one attempt is saved by several, whatever happens meanwhile."""

import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codecommit_mirror.backup.snapshots import read_snapshots
from codecommit_mirror.engine.failures import RetryableError
from codecommit_mirror.guard import snapshot
from codecommit_mirror.guard.vault.store import PART_BYTES, Store
from localcloud import sample

from ..conftest import documented_restore
from .test_snapshots import sound, take

pytestmark = pytest.mark.long("guard")


def grow(repository, main="refs/heads/main", seed=1):
    """Give a repository a branch of 200 commits, with what nothing compresses and side branches that were merged."""
    random.seed(seed)
    lines, tips = [], {}
    for number in range(1, 201):
        is_side = number % 10 in (3, 4, 5)
        ref, text = "refs/heads/side" if is_side else main, random.randbytes(10_000).hex()
        lines += [f"commit {ref}\nmark :{number}\ncommitter A <a@b> {1_700_000_000 + number} +0000\ndata 1\nx\n"]
        parent = tips.get(ref) if number % 10 != 3 else tips[main]
        lines += [f"from :{parent}\n"] if parent else []
        lines += [f"merge :{tips['refs/heads/side']}\n"] if number % 10 == 8 else []
        lines += [f"M 100644 inline file{number}\ndata {len(text)}\n{text}\n"]
        tips[ref] = number
    sample.git(repository, "fast-import", "--quiet", "--force", stdin="".join(lines).encode())
    sample.git(repository, "update-ref", "-d", "refs/heads/side")


def too_large_above(monkeypatch, limit):
    """Interrupt each pack of more bytes than that."""
    pack, sizes = snapshot._pack, []

    def breaks_off(*arguments):
        size = 0
        for piece in pack(*arguments):
            size += len(piece)
            if size > limit:
                raise RetryableError("the time is up")
            yield piece
        sizes.append(size)

    monkeypatch.setattr(snapshot, "_pack", breaks_off)
    return sizes


def broken_off_after(monkeypatch, parts):
    """Interrupt an attempt after so many packs."""
    pack, begun = snapshot._pack, []

    def breaks_off(*arguments):
        begun.append(arguments)
        if len(begun) <= parts:
            return pack(*arguments)
        return too_late()

    def too_late():
        # As much as is counted.
        yield bytes(PART_BYTES)
        raise RetryableError("the time is up")

    monkeypatch.setattr(snapshot, "_pack", breaks_off)


def meanwhile_nothing(rig, attempt):
    """The replica stays as it is."""


def meanwhile_a_commit(rig, attempt):
    """What was saved survives commits, however many."""
    if attempt >= 4:
        sample.commit(rig.source, "main", f"meanwhile {attempt}")
        rig.run()


def meanwhile_another_history(rig, attempt):
    """Somebody rewrites the branch, so that nothing of what was saved is in it."""
    if attempt == 4:
        grow(rig.source, seed=2)
        rig.run()


def branches_everywhere(rig, attempt):
    """A branch on each twentieth commit of the default branch, and a history that only a tag has."""
    if attempt == 1:
        for number, line in enumerate(sample.git(rig.source, "rev-list", "main").splitlines()[::20]):
            sample.git(rig.source, "update-ref", f"refs/heads/release/{number}", line)
        grow(rig.source, "refs/heads/aside", seed=3)
        sample.git(rig.source, "tag", "-a", "-m", "kept", "kept", "aside")
        sample.git(rig.source, "update-ref", "-d", "refs/heads/aside")
        rig.run()


@pytest.mark.parametrize(
    "meanwhile", [meanwhile_nothing, meanwhile_a_commit, meanwhile_another_history, branches_everywhere]
)
def test_what_is_too_large_for_an_attempt_is_saved_in_slices_of_its_history(
    guarded, rig, monkeypatch, tmp_path, meanwhile
):
    grow(rig.source)
    rig.run()
    with pytest.raises(RetryableError, match="the time that an invocation has is up"):
        take(guarded, rig, seconds=0)
    assert guarded.open_vault().states.read(rig.name)[0].taking == ""
    sizes, attempts = too_large_above(monkeypatch, 300_000), 0
    while not (found := read_snapshots(guarded.session(), rig.name)).complete and attempts < 40:
        attempts += 1
        meanwhile(rig, attempts)
        with suppress(RetryableError):
            take(guarded, rig)
    sound(guarded, rig)
    assert attempts < 30
    assert 8 <= len(sizes) == len(found.manifests) <= 100
    state = guarded.open_vault().states.read(rig.name)[0]
    assert (state.interrupted, state.goals) == (0, ())
    # Of the slices' own refs, nothing is left.
    assert not any("slices" in name for name in found.refs(found.at(None)))
    for version in guarded.store.listing(rig.name).versions:
        (tmp_path / Path(version.key).name).write_bytes(guarded.store.read(version))
    documented_restore(tmp_path, sorted(path.stem for path in tmp_path.glob("*.bundle")))
    assert sample.refs(tmp_path / "repository.git") == sample.refs(rig.replica)
    sample.commit(rig.source, "main", "afterwards")
    rig.run()
    assert take(guarded, rig).kind == "incremental"
    sound(guarded, rig)


@pytest.mark.usefixtures("without_policy")
def test_what_is_lost_is_told_however_often_attempts_are_interrupted(guarded, rig, monkeypatch):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    (bundle,) = (key for key in guarded.keys(rig.name) if key.endswith(".bundle"))
    listing = Store.listing

    def without_bundle(store, name):
        found = listing(store, name)
        return replace(found, versions=[version for version in found.versions if version.key != bundle])

    monkeypatch.setattr(Store, "listing", without_bundle)
    for number, parts in enumerate((0, 1, 2, 99), 1):
        with monkeypatch.context() as patch, suppress(RetryableError):
            broken_off_after(patch, parts)
            later = datetime.now(UTC) + timedelta(days=2 * number)
            taken = guarded.take(rig.name, clock=lambda later=later: later)
    assert (taken.kind, taken.lost) == ("incremental", (bundle.replace(".bundle", ".json"),))
    assert guarded.take(rig.name, clock=lambda: later + timedelta(days=1)).lost == ()


def test_what_is_dropped_is_told_however_often_attempts_are_interrupted(guarded, rig, monkeypatch):
    sample.fill(rig.source)
    rig.run()
    entry = "refs/tags/codecommit-mirror/archive/20990101T000000Z/heads/x"
    sample.git(rig.replica, "update-ref", entry, "main")
    take(guarded, rig)
    sample.git(rig.replica, "update-ref", "-d", entry)
    for number in range(3):
        sample.commit(rig.source, "main", f"commit {number}")
        sample.git(rig.source, "branch", f"branch-{number}", "main")
    rig.run()
    for parts in (0, 1, 2, 99):
        with monkeypatch.context() as patch, suppress(RetryableError):
            broken_off_after(patch, parts)
            taken = take(guarded, rig)
    assert (taken.kind, taken.dropped) == ("incremental", (entry,))


@pytest.mark.usefixtures("without_policy")
@pytest.mark.parametrize(("attempts", "kind"), [((99,), "full"), ((0, 1, 99), "incremental")], ids=["one", "several"])
def test_what_no_snapshot_needs_any_longer_is_released(guarded, rig, monkeypatch, attempts, kind):
    sample.fill(rig.source)
    rig.run()
    take(guarded, rig)
    old = guarded.keys(rig.name)
    sample.commit(rig.source, "main", "one more")
    rig.run()
    lock_of, ended = Store.lock_of, ("COMPLIANCE", datetime(2026, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(Store, "lock_of", lambda self, it: ended if it.key in old else lock_of(self, it))
    for parts in attempts:
        with monkeypatch.context() as patch, suppress(RetryableError):
            broken_off_after(patch, parts)
            taken = guarded.take(rig.name, clock=lambda: datetime.now(UTC) + timedelta(days=31))
    assert taken.kind == kind
    for key in guarded.keys(rig.name):
        tags = guarded.s3.get_object_tagging(Bucket=guarded.bucket, Key=key)["TagSet"]
        assert bool(tags) == (key in old)
