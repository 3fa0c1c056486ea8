"""``codecommit-mirror status``."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click

from .. import engine_api
from ..azure.rest.objects import WITH_ISSUES
from ..backup.coverage import subscriptions_of, unguarded
from ..checks import status_page
from ..checks.judging import WORST_FIRST, Judged, Limits, duration, judge, pipeline_link, replica_link, run_link
from ..checks.reading import Readings, read
from ..config.load import Configuration, load, single_mirror
from ..operations.context import MirrorContext
from .options import complete_mirror, config_option, contexts_of, json_option, narrowed, summary_option
from .output import DIFFERS, FAILED, append_summary, echo, print_json, print_paragraph, print_table, write_text

_MAX_WORKERS = 16
_INDENT = "  "


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
@click.option(
    "--deep", is_flag=True, help="Also run the checks that need more calls for each mirror; always on for one NAME."
)
@click.option("--failing", is_flag=True, help="Show only mirrors that need attention.")
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
    deep: bool,
    failing: bool,
    html: Path | None,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Show the status of all mirrors, or of NAME.

    It is a list of checks, each ok, warning, failed or not checked, with its remedy. Exit status, for monitoring: 0 if
    nothing needs attention, 1 if a check of a mirror has failed, 3 if there are only warnings.
    """
    if azure_repo_url:
        if not name:
            raise click.UsageError("--azure-repo-url needs a NAME.")
        configuration = Configuration((single_mirror(name, azure_repo_url),))
    else:
        configuration = load(config, name)
    contexts = list(contexts_of(narrowed(configuration.mirrors)).values())
    look = partial(read, deep=deep or bool(name), guard_of=configuration.guard_of)
    with ThreadPoolExecutor(_MAX_WORKERS) as pool, _counted(len(contexts)) as count:
        readings = list(pool.map(lambda context: count(look(context)), contexts))
    limits = Limits(datetime.now(UTC), timedelta(minutes=max_lag), max_age, has_guard=bool(configuration.guards))
    judged = _judged(readings, limits, configuration, contexts, deep=deep or bool(name))
    lines = [_line(mirror, limits.now) for mirror in judged]
    append_summary(summary, status_page.summary(lines))
    if html:
        write_text(html, status_page.page(lines, limits.now), "--html")
    shown = [mirror for mirror in judged if mirror.notable] if failing else judged
    if as_json:
        print_json({"mirrors": [as_object(mirror, limits.now) for mirror in shown]})
    elif not judged:
        echo(f"{config} has no mirrors; 'codecommit-mirror discover --write' adds those of an organization.")
    elif not shown:
        echo(f"No mirror needs attention, out of {len(judged):,}.")
    elif name:
        _print_checks(judged[0])
    else:
        _print_overview(shown, limits.now)
    click.get_current_context().exit(exit_status(judged))


@contextlib.contextmanager
def _counted(number: int) -> Iterator[Callable[[Readings], Readings]]:
    """Yield a function that passes a mirror's readings on, and shows on a terminal how many have been read."""
    if number < _MAX_WORKERS or not sys.stderr.isatty():
        yield lambda readings: readings
        return
    with click.progressbar(length=number, label="Reading mirrors", file=sys.stderr) as bar:
        lock = threading.Lock()

        def count(readings: Readings) -> Readings:
            with lock:
                bar.update(1)
            return readings

        yield count


def exit_status(judged: Sequence[Judged]) -> int:
    """Return the exit status for what was found."""
    verdicts = {mirror.verdict for mirror in judged}
    return FAILED if "failed" in verdicts else DIFFERS if "warning" in verdicts else 0


def as_object(mirror: Judged, now: datetime) -> dict[str, object]:
    """Return what ``status --json`` prints about a mirror; what is unknown is null."""
    readings, lag = mirror.readings, mirror.lag(now)
    run, comparison, azure = readings.last_run, readings.comparison, readings.mirror.azure
    return {
        "mirror": mirror.name,
        "verdict": mirror.verdict,
        "checks": [vars(check) for check in mirror.checks],
        "account": readings.account,
        "region": readings.region,
        "organization": azure.organization,
        "project": azure.project,
        "repository": azure.repository,
        "repository_id": azure.repository_id,
        "last_run": run
        and {
            "id": run.id,
            "status": run.status,
            "result": run.result,
            "reason": run.reason,
            "finished": run.finished.astimezone(UTC).isoformat() if run.finished else None,
        },
        "refs": len(comparison.source) if comparison else None,
        "different": len(comparison.different) if comparison else None,
        "carried": comparison.carried if comparison else None,
        "credentials": len(readings.credentials),
        "credential_age_days": readings.credential_age_days,
        "lag_seconds": None if lag is None else int(lag.total_seconds()),
    }


def group_errors(judged: Sequence[Judged]) -> dict[str, list[str]]:
    """Return the mirrors that could not be read, by cause: a refused token is the same cause for all of them."""
    causes: dict[str, list[str]] = {}
    for mirror in judged:
        if mirror.readings.error:
            causes.setdefault(re.sub(r"^cannot [^:]*: ", "", mirror.readings.error), []).append(mirror.name)
    return causes


def group_notes(judged: Sequence[Judged]) -> dict[tuple[str, str], list[str]]:
    """Return what needs attention and its remedy, with the mirrors that it concerns; NAME stands for each of many."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for mirror in judged:
        for check in mirror.notable:
            if check.message != mirror.readings.error:
                text = f"{check.verdict}: {check.name}: {engine_api.sanitize(check.message)}"
                name = re.compile(rf"(?<![\w.-]){re.escape(mirror.name)}(?![\w-])")
                key = name.sub("NAME", text), name.sub("NAME", check.remedy or "")
                found.setdefault(key, []).append((mirror.name, text, check.remedy or ""))
    return {
        key if len(notes) > 1 else (notes[0][1], notes[0][2]): [name for name, _, _ in notes]
        for key, notes in found.items()
    }


def _subject(names: Sequence[str]) -> str:
    """Return the mirrors that a line is about."""
    return names[0] if len(names) == 1 else f"{len(names):,} mirrors"


def _print_checks(mirror: Judged) -> None:
    """Print where a mirror is, and all its checks."""
    readings, azure = mirror.readings, mirror.readings.mirror.azure
    place = f"account {readings.account}, {readings.region}" if readings.account else str(readings.region)
    echo(f"{mirror.name}: {azure.organization}/{azure.project}/{azure.repository} -> {place}")
    width = max(len(check.name) for check in mirror.checks)
    for check in mirror.checks:
        head = f"{_INDENT}{check.verdict:11}  {check.name:{width}}  "
        print_paragraph(engine_api.sanitize(check.message), first=head, rest=" " * len(head))
        for note in (check.remedy, check.link):
            if note:
                print_paragraph(note, first=_INDENT * 2, rest=_INDENT * 2)
    if readings.comparison and readings.comparison.carried:
        echo(engine_api.carried_note(readings.comparison.carried))


def _print_overview(judged: Sequence[Judged], now: datetime) -> None:
    """Print a line for each mirror, and below it what needs attention, with remedies."""
    print_table(("MIRROR", "STATUS", "REFS", "BEHIND", "LATEST RUN"), [_row(mirror, now) for mirror in judged])
    for cause, names in group_errors(judged).items():
        print_paragraph(f"{_subject(names)} could not be read: {cause}", rest=_INDENT)
    for (note, remedy), names in group_notes(judged).items():
        print_paragraph(f"{_subject(names)}: {note}", rest=_INDENT)
        if len(names) > 1:
            print_paragraph(", ".join(names), first=_INDENT * 2, rest=_INDENT * 2)
        if remedy:
            print_paragraph(remedy, first=_INDENT * 2, rest=_INDENT * 2)


def _row(mirror: Judged, now: datetime) -> tuple[str, ...]:
    lag = mirror.lag(now)
    return (
        mirror.name,
        mirror.verdict,
        _refs(mirror),
        "-" if lag is None else duration(lag) if lag else "in sync",
        _ended(mirror, lambda finished: f"{duration(now - finished)} ago"),
    )


def _ended(mirror: Judged, when: Callable[[datetime], str]) -> str:
    run = mirror.readings.last_run
    if run is None:
        return "-"
    result = "with issues" if run.result == WITH_ISSUES else run.result or run.status
    return f"{result}{f' {when(run.finished)}' if run.finished else ''}"


def _refs(mirror: Judged) -> str:
    comparison = mirror.readings.comparison
    if comparison is None:
        return "-"
    different = len(comparison.different)
    if different:
        return f"{different:,} {'differs' if different == 1 else 'differ'}"
    return f"{len(comparison.source):,} equal"


def _judged(
    all_readings: Sequence[Readings],
    limits: Limits,
    configuration: Configuration,
    contexts: Sequence[MirrorContext],
    *,
    deep: bool,
) -> list[Judged]:
    """Return the mirrors with their checks; what concerns many of them is asked for once in each region."""
    missing = unguarded(configuration, contexts)
    reached = subscriptions_of(contexts) if configuration.guards and deep else {}
    of_each = [
        replace(limits, unguarded=missing.get(readings.mirror.name), subscriptions=reached.get(readings.mirror.name))
        for readings in all_readings
    ]
    return [judge(readings, limits) for readings, limits in zip(all_readings, of_each, strict=True)]


def _line(mirror: Judged, now: datetime) -> status_page.Line:
    """Return a mirror's line of the page, with absolute times: it is read later."""
    readings, lag = mirror.readings, mirror.lag(now)
    run, definition = readings.last_run, readings.azure.definition if readings.azure else None
    why = "; ".join(
        f"{check.name}: {check.message}{f' ({check.remedy})' if check.remedy else ''}" for check in mirror.notable
    )
    ended = run.finished.isoformat() if run and run.finished else ""
    age = readings.credential_age_days
    pipeline = pipeline_link(readings.mirror, definition) if definition else None
    latest = run_link(readings.mirror, run) if run else None
    return status_page.Line(
        mirror.verdict,
        (
            status_page.Cell(mirror.name, mirror.name, pipeline),
            status_page.Cell(mirror.verdict, str(WORST_FIRST.index(mirror.verdict))),
            status_page.Cell(why, why),
            status_page.Cell(_ended(mirror, lambda finished: f"{finished:%Y-%m-%d %H:%M} UTC"), ended, latest),
            status_page.Cell(_refs(mirror), _refs(mirror).replace(",", ""), replica_link(readings)),
            status_page.Cell(
                "-" if lag is None else duration(lag) if lag else "in sync",
                str(int(lag.total_seconds()) if lag else 0),
            ),
            status_page.Cell("role" if readings.acts_as_role else "-" if age is None else f"{age} d", str(age or 0)),
        ),
    )
