"""``codecommit-mirror snapshots`` and ``codecommit-mirror restore``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from .. import engine_api
from ..backup import restore as restoring
from ..backup.origin import Origin, from_replica, from_snapshots
from ..backup.snapshots import Snapshots, parse_at, problems, read_chain, read_snapshots, readable, signing_key
from ..backup.target import find_target
from ..checks.judging import duration
from ..config.load import Configuration
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..operations.batches import Policy, for_each_mirror, refuse
from ..operations.context import MirrorContext
from ..progress import Board, Row, step, working_on
from .options import (
    configuration,
    confirmation,
    context_of,
    contexts_of,
    json_option,
    minutes_option,
    mirror_argument,
    mirrors_argument,
    policy_of,
    summary_option,
)
from .output import echo, print_json, print_table, report_mirrors

_MAX_LISTED = 20
_LOOK = "look for refs that are not the source's"
_DRILLS = 2
"""How many repositories are restored at a time: an agent has two processors, and room for few."""

bucket_option = click.option(
    "--bucket", metavar="NAME", help="The bucket of the snapshots.  [default: that of the vault's stack]"
)


@click.group()
def snapshots() -> None:
    """List and verify the snapshots that AWS keeps of a replica."""


@snapshots.command("list")
@mirror_argument
@bucket_option
@json_option
def list_(mirror: Mirror, bucket: str | None, as_json: bool) -> None:
    """List a replica's snapshots, the oldest first, with the end of each lock."""
    snapshots = read_snapshots(context_of(mirror).aws, mirror.name, bucket, _pinned(mirror))
    rows = [(snapshot, snapshots.locked_until(snapshot)) for snapshot in snapshots.complete]
    if as_json:
        listed = [
            {
                "time": snapshot.time,
                "kind": "full" if snapshot.full else "incremental",
                "refs": snapshot.ref_count,
                "bytes": snapshot.size,
                "bundle": snapshot.bundle,
                "locked_until": until and until.isoformat(),
            }
            for snapshot, until in rows
        ]
        print_json({"bucket": snapshots.store.bucket, "snapshots": listed, "unsigned": list(snapshots.unsigned)})
        return
    _note_unsigned(snapshots)
    if not rows:
        echo(f"There are no snapshots of {mirror.name} in the bucket {snapshots.store.bucket}.")
        return
    cells = [
        (
            readable(snapshot.time),
            "full" if snapshot.full else "incremental",
            f"{snapshot.ref_count:,}",
            engine_api.format_bytes(snapshot.size),
            readable(until) if until else "not locked",
        )
        for snapshot, until in rows
    ]
    print_table(("SNAPSHOT", "KIND", "REFS", "SIZE", "LOCKED UNTIL"), cells)


@snapshots.command()
@mirror_argument
@click.option("--at", metavar="TIME", help="Verify the latest snapshot taken at or before TIME.  [default: now]")
@bucket_option
@json_option
def verify(mirror: Mirror, at: str | None, bucket: str | None, as_json: bool) -> None:
    """Read every byte of a snapshot's chain, and check hashes, locks and objects.

    Exit status: 0 if the snapshot can be restored and is locked, 1 if anything is wrong.
    """
    now = datetime.now(UTC)
    snapshots = read_snapshots(context_of(mirror).aws, mirror.name, bucket, _pinned(mirror))
    title = f"Restore and check a snapshot of {mirror.name}"
    with _working_on(mirror, title):
        origin = from_snapshots(snapshots, parse_at(at) if at is not None else None)
        wrong = [f"{key}: {sentence}" for key, sentence in problems(snapshots, now, origin.chain)]
        checked = restoring.drill(origin, now)
    wrong += [checked.problem] if checked.problem else []
    _report_snapshot(snapshots, origin, checked, wrong, as_json)
    click.get_current_context().exit(1 if wrong else 0)


def _report_snapshot(
    snapshots: Snapshots, origin: Origin, checked: restoring.DrillResult, wrong: Sequence[str], as_json: bool
) -> None:
    locks = [(snapshot, snapshots.locked_until(snapshot)) for snapshot in origin.chain]
    if as_json:
        chain = [
            {"bundle": snapshot.bundle, "bytes": snapshot.size, "locked_until": until and until.isoformat()}
            for snapshot, until in locks
        ]
        unsigned = list(snapshots.unsigned)
        print_json(
            {"sound": not wrong, "problems": list(wrong), "unsigned": unsigned, "refs": checked.refs, "chain": chain}
        )
        return
    _note_unsigned(snapshots)
    rows = [
        (snapshot.bundle, engine_api.format_bytes(snapshot.size), readable(until) if until else "not locked")
        for snapshot, until in locks
    ]
    print_table(("BUNDLE", "SIZE", "LOCKED UNTIL"), rows)
    for problem in wrong:
        echo(f"wrong: {problem}")
    verdict = "is NOT sound" if wrong else "is sound"
    echo(
        f"{origin.description[0].upper()}{origin.description[1:]} {verdict}: {engine_api.count(checked.refs, 'ref')}, "
        f"{engine_api.format_bytes(checked.bytes)}, {checked.objects:,} objects, {checked.seconds:.1f} s."
    )


def _note_unsigned(snapshots: Snapshots) -> None:
    if snapshots.unsigned:
        number = engine_api.count(snapshots.unsigned, "manifest")
        echo(f"note: {number} without a valid signature count for nothing; the first is {min(snapshots.unsigned)}")


@snapshots.command("key")
@mirror_argument
@json_option
def key_(mirror: Mirror, as_json: bool) -> None:
    """Print the public key that the snapshots of a replica's account and region are signed with.

    Keep it, or its fingerprint under guard.keys in mirrors.yaml, outside AWS: docs/backup.md shows how openssl checks a
    snapshot with it.
    """
    key = signing_key(context_of(mirror).aws)
    if as_json:
        print_json({"fingerprint": key.fingerprint, "public_key": key.pem})
        return
    click.echo(key.pem, nl=False)
    click.echo(f"fingerprint: {key.fingerprint}", err=True)


@click.command()
@mirrors_argument
@click.option("--at", metavar="TIME", help="Restore what was there at a time, like 2026-11-20 or 2026-11-20T08:30Z.")
@click.option(
    "--from",
    "source",
    type=click.Choice(["replica", "snapshots"]),
    help="Where from: the replica and its archive, or the snapshots.  [default: snapshots with --at, else the replica]",
)
@click.option(
    "--to",
    metavar="source|FOLDER|URL",
    help="Where to: back to the source, a new folder, or a Git server; in Azure DevOps it is created if need be.",
)
@click.option("--refs", "patterns", multiple=True, metavar="PATTERN", help="Only refs like 'release/*'; repeatable.")
@click.option(
    "--under",
    metavar="PREFIX",
    help="Restore below a prefix like refs/heads/restored/, beside what is there.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be created, and create nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before refs are created in a repository that is there.")
@click.option("--drill", is_flag=True, help="Restore to a temporary folder, check everything, and remove it.")
@bucket_option
@click.option("--job", is_flag=True, help="With --drill: for a job in CI; the mirrors come in random order.")
@minutes_option
@summary_option
@json_option
def restore(
    mirrors: tuple[Mirror, ...],
    at: str | None,
    source: str | None,
    to: str | None,
    patterns: tuple[str, ...],
    under: str | None,
    dry_run: bool,
    yes: bool,
    drill: bool,
    bucket: str | None,
    job: bool,
    minutes: float | None,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Restore a repository from the replica, its archive, or a snapshot.

    It creates what the target lacks, and never moves or deletes a ref: those of which the target has another value are
    listed, and --under gives them names of their own. Running it again creates only what is missing. Credentials: AWS
    credentials to read; to push, AZURE_DEVOPS_EXT_PAT for the source's server, AWS credentials for CodeCommit,
    RESTORE_GIT_USERNAME and RESTORE_GIT_PASSWORD for any other.
    """
    if drill == bool(to):
        raise click.UsageError("give either --to or --drill.")
    if (len(mirrors) > 1 or summary) and not drill:
        raise click.UsageError("several mirrors, and --summary, are for --drill.")
    chosen = source or ("snapshots" if at is not None or drill else "replica")
    if len(mirrors) > 1 or summary:
        policy = policy_of(refuse, job=job, minutes=minutes, no_azure=False)
        # So that every mirror is drilled eventually, even if not all fit into the time.
        order = random.sample(mirrors, len(mirrors)) if job else mirrors
        drill_all(order, chosen, at, bucket, summary, as_json, policy)
        return
    context = context_of(mirrors[0])
    origin = _origin(context, chosen, at, bucket, configuration(mirrors[0].name))
    _say_what_is_wrong(origin)
    if drill:
        _drill(mirrors[0], origin, as_json)
        return
    todo = restoring.plan(origin, find_target(str(to), context), patterns=patterns, under=under)
    if dry_run:
        _print_plan(todo, as_json)
        return
    if todo.target.exists:
        _ask(todo, yes=yes)
    _restore(mirrors[0], todo, as_json)


def _say_what_is_wrong(origin: Origin) -> None:
    if origin.is_confirmed is False:
        click.echo(f"note: no run of the mirror has confirmed what the replica has now: {_LOOK}", err=True)
    if origin.is_confirmed:
        click.echo(
            "note: that a run has confirmed what the replica has now is what a tag there says, which whoever may push "
            "to it can write; --from snapshots is out of their reach",
            err=True,
        )
    for note in origin.left_out:
        click.echo(f"note: {note}", err=True)


def _ask(todo: restoring.RestorePlan, *, yes: bool) -> None:
    """Show what is going to be created in a repository that is there, where pushes start pipelines, and ask."""
    if not todo.create:
        return
    if todo.origin.is_confirmed is None:
        click.echo(f"note: no run of the mirror is compared with this: {_LOOK}", err=True)
    for line in _listed([f"{value} {engine_api.sanitize(name)}" for name, value in sorted(todo.create.items())]):
        click.echo(line, err=True)
    number = engine_api.count(todo.create, "ref")
    confirmation(yes, done="created")(f"Create {number} in {todo.target.name}? What is pushed there starts pipelines.")


def _restore(mirror: Mirror, todo: restoring.RestorePlan, as_json: bool) -> None:
    origin, target = todo.origin, todo.target
    title = f"Restore {origin.description} to {target.name}"
    with _working_on(mirror, title):
        done = restoring.apply(todo)
    if as_json:
        print_json(
            {"from": origin.description, "to": target.name, **vars(done), "present": todo.present, **_kept(todo)}
        )
        return
    echo(
        f"Restored {origin.description} to {target.name}: {engine_api.count(done.created, 'ref')} created, "
        f"{todo.present:,} there already; {engine_api.format_bytes(done.bytes)}, {done.objects:,} objects, "
        f"{done.seconds:.1f} s."
    )
    _print_kept(todo)


@contextmanager
def _working_on(mirror: Mirror, title: str) -> Iterator[None]:
    """Show one mirror's only step."""
    with Board([mirror.name], [title]) as board, working_on(board.rows[mirror.name]), step(title):
        yield


def _origin(context: MirrorContext, source: str, at: str | None, bucket: str | None, file: Configuration) -> Origin:
    time = parse_at(at) if at is not None else None
    if source == "replica":
        return from_replica(context.aws, context.mirror.name, time)
    pinned = file.pinned_keys(context.mirror)
    name = context.mirror.name
    if bucket:
        # It may have snapshots of several vaults, which only all of them show.
        return from_snapshots(read_snapshots(context.aws, name, bucket, pinned), time)
    return from_snapshots(read_chain(context.aws, name, time, pinned), time)


def _pinned(mirror: Mirror) -> Sequence[str]:
    return configuration(mirror.name).pinned_keys(mirror)


def drill_all(
    mirrors: Sequence[Mirror],
    source: str,
    at: str | None,
    bucket: str | None,
    summary: Path | None,
    as_json: bool,
    policy: Policy,
) -> None:
    """Drill many mirrors, print how each one ended, and exit: 1 if one of them failed, 0 otherwise.

    Args:
        mirrors: the mirrors, in the order in which they are begun.
        source: ``replica`` or ``snapshots``.
        at: the time whose state is restored, as it was given; None for the last one.
        bucket: the bucket of the snapshots; None for the guard's.
        summary: the file of ``--summary``, if it was given.
        as_json: whether to print JSON.
        policy: for how long.
    """
    file = configuration()

    def work(context: MirrorContext, row: Row) -> restoring.DrillResult:
        with step("Restore to a temporary folder"):
            result = restoring.drill(_origin(context, source, at, bucket, file), datetime.now(UTC))
        if result.problem:
            row.fail(result.problem)
        else:
            row.succeed(_drilled(result))
        return result

    with Board(mirror.name for mirror in mirrors) as board:
        results = for_each_mirror(contexts_of(mirrors, board), board, work, replace(policy, workers=_DRILLS))
    details = {name: {"drill": vars(result)} for name, result in results.items()}
    report_mirrors("Restore drill", board, summary, as_json, details=details, may_leave=True)


def _drill(mirror: Mirror, origin: Origin, as_json: bool) -> None:
    title = f"Restore {origin.description} to a temporary folder"
    with _working_on(mirror, title):
        result = restoring.drill(origin, datetime.now(UTC))
    if as_json:
        print_json({"mirror": mirror.name, "sound": result.problem is None, **vars(result)})
        click.get_current_context().exit(1 if result.problem else 0)
    if result.problem:
        raise MirrorError(f"the drill of {mirror.name} failed: {result.problem}")
    echo(f"The drill of {mirror.name} succeeded: {_drilled(result)}; {result.seconds:.1f} s.")


def _drilled(result: restoring.DrillResult) -> str:
    age = duration(timedelta(seconds=result.age_seconds))
    contents = f"{engine_api.count(result.refs, 'ref')} and {result.objects:,} objects"
    return "; ".join([f"{result.description}, {age} old, has {contents}, all sound", *result.left_out])


def _print_plan(todo: restoring.RestorePlan, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "from": todo.origin.description,
                "to": todo.target.name,
                "confirmed": todo.origin.is_confirmed,
                "unread": list(todo.origin.unread),
                "create": dict(todo.create),
                **_kept(todo),
            }
        )
        return
    size = f", {engine_api.format_bytes(todo.origin.bytes)} to read" if todo.origin.bytes else ""
    echo(f"From {todo.origin.description} to {todo.target.name}{size}.")
    echo(f"Would create {engine_api.count(todo.create, 'ref')}; {todo.present:,} are there already.")
    _print_refs([f"{value} {engine_api.sanitize(name)}" for name, value in sorted(todo.create.items())])
    _print_kept(todo)


def _kept(todo: restoring.RestorePlan) -> dict[str, object]:
    """What stays as it is, for JSON."""
    return {"conflicts": dict(todo.conflicts), "left_out": list(todo.left_out)}


def _print_kept(todo: restoring.RestorePlan) -> None:
    if todo.conflicts:
        several = len(todo.conflicts) > 1
        echo(
            f"{engine_api.count(todo.conflicts, 'ref')} {'have other values' if several else 'has another value'} "
            f"there, and {'stay as they are' if several else 'stays as it is'}; --under restores beside:"
        )
        _print_refs([f"{value} {engine_api.sanitize(name)}" for name, value in sorted(todo.conflicts.items())])
    if todo.of_others:
        echo(
            f"Another restore left {engine_api.list_refs(todo.of_others)}, which helped to push: delete what no "
            "restore needs that is still going on."
        )
    if todo.left_out:
        echo(
            f"Left out, because the server writes {'them' if len(todo.left_out) > 1 else 'it'} itself: "
            f"{engine_api.list_refs(todo.left_out)}."
        )


def _print_refs(lines: Sequence[str]) -> None:
    for line in _listed(lines):
        echo(line)


def _listed(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MAX_LISTED
    rest = [f"  and {more:,} more; --dry-run --json lists them all"] if more > 0 else []
    return [*(f"  {line}" for line in lines[:_MAX_LISTED]), *rest]
