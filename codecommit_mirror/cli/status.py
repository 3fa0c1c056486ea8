"""``codecommit-mirror status``."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from .. import engine
from ..azure.connection import LFS_NOTE
from ..backup.coverage import unguarded
from ..checks import status_page
from ..checks.status import Status, attention, duration, read
from ..config.load import load, single_mirror
from ..config.mirror import Mirror
from .options import complete_mirror, config_option, contexts_of, json_option, summary_option
from .output import append_summary, print_json, print_table, write_text

_MAX_WORKERS = 16
_NEEDS_ATTENTION, _UNKNOWN = 1, 3
"""Exit statuses; 3 is what monitoring plug-ins return for "unknown"."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_mirror)
@config_option
@click.option(
    "--azure-repo-url", metavar="URL", help="The source's clone URL, for a mirror that is not in mirrors.yaml."
)
@click.option(
    "--max-lag", default=60, show_default=True, metavar="MINUTES", help="How long a replica may be behind its source."
)
@click.option("--max-age", type=int, metavar="DAYS", help="How old a pipeline's Git credential may be.  [default: any]")
@click.option("--failing", is_flag=True, help="Show only mirrors that need attention or could not be read.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="A file for a page that can be sorted and filtered, for publishing."
)
@summary_option
@json_option
def status(
    name: str | None,
    config: Path,
    azure_repo_url: str | None,
    max_lag: int,
    max_age: int | None,
    failing: bool,
    html: Path | None,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Show the status of each mirror, or of the one that NAME names.

    Exit status, for monitoring: 0 if every mirror is healthy, 1 if one needs attention, 3 if none is known to need
    attention but one could not be read.
    """
    if azure_repo_url:
        if not name:
            raise click.UsageError("--azure-repo-url needs a NAME.")
        mirrors: tuple[Mirror, ...] = (single_mirror(name, azure_repo_url),)
        guard = None
    else:
        mirrors, _, guard = load(config, name)
    contexts = list(contexts_of(mirrors).values())
    with ThreadPoolExecutor(_MAX_WORKERS) as pool, _counted(len(contexts)) as count:
        found = list(pool.map(lambda context: count(read(context)), contexts))
    now, lag = datetime.now(UTC), timedelta(minutes=max_lag)
    missing = unguarded(guard, contexts)
    judged = [
        (one, attention(one, now=now, longest_lag=lag, oldest_days=max_age, unguarded=missing.get(one.name)))
        for one in found
    ]
    lines = [_line(one, reasons, now) for one, reasons in judged]
    append_summary(summary, status_page.summary(lines))
    if html:
        write_text(html, status_page.page(lines, now), "--html")
    shown = [(one, reasons) for one, reasons in judged if reasons or one.error] if failing else judged
    if as_json:
        print_json({"mirrors": [as_object(one, reasons, now) for one, reasons in shown]})
    elif not shown:
        click.echo(f"No mirror needs attention, out of {len(judged):,}.")
    else:
        header = ("MIRROR", "STACK", "CREDENTIALS", "LAST RUN", "REFS", "BEHIND", "ATTENTION")
        print_table(header, [_row(one, reasons, now) for one, reasons in shown])
        _print_notes([one for one, _ in shown])
    click.get_current_context().exit(exit_status(judged))


@contextlib.contextmanager
def _counted(number: int) -> Iterator[Callable[[Status], Status]]:
    """Yield a function that passes a mirror's status on, and shows on a terminal how many have been read."""
    if number < _MAX_WORKERS or not sys.stderr.isatty():
        yield lambda status: status
        return
    with click.progressbar(length=number, label="Reading mirrors", file=sys.stderr) as bar:
        lock = threading.Lock()

        def count(status: Status) -> Status:
            with lock:
                bar.update(1)
            return status

        yield count


def _line(one: Status, reasons: Sequence[str], now: datetime) -> status_page.Line:
    """Return a mirror's line of the page."""
    name, _, credentials, run, refs, behind, attention = _row(one, reasons, now)
    kind = "bad" if reasons else "unknown" if one.error else "good"
    state = {"bad": "needs attention", "unknown": "could not be read", "good": "healthy"}[kind]
    lag, ended = one.lag(now), one.last_run.finished if one.last_run else None
    sort_keys = (
        name,
        str(("bad", "unknown", "good").index(kind)),
        attention,
        ended.isoformat() if ended else "",
        str(one.refs or 0),
        str(int(lag.total_seconds()) if lag else 0),
        str(one.credential_age_days or 0),
    )
    why = {"bad": attention, "unknown": one.error or "", "good": ""}[kind]
    texts = (name, state, why, run, refs, behind, credentials)
    return status_page.Line(kind, tuple(map(status_page.Cell, texts, sort_keys)))


def exit_status(judged: Sequence[tuple[Status, Sequence[str]]]) -> int:
    """Return the exit status for mirrors and why they need attention."""
    if any(reasons for _, reasons in judged):
        return _NEEDS_ATTENTION
    return _UNKNOWN if any(one.error for one, _ in judged) else 0


def as_object(status: Status, reasons: Sequence[str], now: datetime) -> dict[str, object]:
    """Return what ``status --json`` prints about a mirror; what is unknown is null."""
    run, lag = status.last_run, status.lag(now)
    return {
        "mirror": status.name,
        "healthy": False if reasons else None if status.error else True,
        "attention": list(reasons),
        "error": status.error,
        "stack": status.stack,
        "acts_as_role": status.acts_as_role,
        "credentials": status.credentials,
        "credential_age_days": status.credential_age_days,
        "pipeline": status.pipeline,
        "last_run": run
        and {
            "id": run.id,
            "status": run.status,
            "result": run.result,
            "reason": run.reason,
            "finished": run.finished.astimezone(UTC).isoformat() if run.finished else None,
        },
        "refs": status.refs,
        "different": status.different,
        "carried": status.carried,
        "lfs": status.lfs,
        "lag_seconds": None if lag is None else int(lag.total_seconds()),
    }


def group_errors(statuses: Sequence[Status]) -> dict[str, list[str]]:
    """Return the mirrors that could not be read, by cause: a refused token is the same cause for all of them."""
    causes: dict[str, list[str]] = {}
    for one in statuses:
        if one.error:
            causes.setdefault(re.sub(r"^cannot [^:]*: ", "", one.error), []).append(one.name)
    return causes


def _print_notes(statuses: Sequence[Status]) -> None:
    """Print what does not fit into the table."""
    for cause, names in group_errors(statuses).items():
        what = names[0] if len(names) == 1 else f"{len(names):,} mirrors"
        click.echo(f"{what} could not be read: {cause}")
    for one in statuses:
        if one.lfs:
            click.echo(f"{one.name}: {LFS_NOTE}.")
        if one.carried:
            click.echo(f"{one.name}: {engine.carried_note(one.carried)}")


def _row(one: Status, reasons: Sequence[str], now: datetime) -> tuple[str, ...]:
    run, lag = one.last_run, one.lag(now)
    age = "" if one.credential_age_days is None else f" ({one.credential_age_days} d)"
    ended = f" {duration(now - run.finished)} ago" if run and run.finished else ""
    return (
        one.name,
        one.stack or "-",
        "role" if one.acts_as_role else f"{one.credentials}{age}",
        f"{run.result or run.status}{ended}" if run else "-",
        _refs(one),
        "-" if lag is None else duration(lag) if lag else "in sync",
        "; ".join([*reasons, *(["could not be read"] if one.error else [])]) or "none",
    )


def _refs(one: Status) -> str:
    if one.refs is None:
        return "-"
    return (
        f"{one.different:,} {'differs' if one.different == 1 else 'differ'}" if one.different else f"{one.refs:,} equal"
    )
