"""``codecommit-mirror status``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pipeline_templates import mirror_sync

from ..azure.connection import LFS_NOTE
from ..config.mirror import Mirror, load_mirrors, single_mirror
from ..lifecycle import status as mirror_status
from .options import config_option, json_option, operator_of
from .table import print_json, print_table

_AT_ONCE = 16


@click.command()
@click.argument("name", required=False)
@config_option
@click.option("--azure-repo-url", metavar="URL", help="The source's clone URL, for a mirror that is in no file.")
@click.option(
    "--max-lag", default=60, show_default=True, metavar="MINUTES", help="How long a replica may be behind its source."
)
@click.option("--max-age", type=int, metavar="DAYS", help="How old a pipeline's Git credential may be.  [default: any]")
@json_option
def status(
    name: str | None, config: Path, azure_repo_url: str | None, max_lag: int, max_age: int | None, as_json: bool
) -> None:
    """Show how each mirror is, or the one that NAME names.

    Exit status: 0 when every mirror is well, 1 when one needs attention; for monitors.
    """
    if azure_repo_url:
        if not name:
            raise click.UsageError("--azure-repo-url needs a NAME.")
        mirrors: tuple[Mirror, ...] = (single_mirror(name, azure_repo_url),)
    else:
        mirrors = load_mirrors(config, name)
    operators = [operator_of(mirror) for mirror in mirrors]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(mirror_status.read, operators))
    now = datetime.now(UTC)
    reasons = [
        mirror_status.attention(one, now=now, longest_lag=timedelta(minutes=max_lag), oldest_days=max_age)
        for one in found
    ]
    if as_json:
        print_json([mirror_status.as_json(one, why, now) for one, why in zip(found, reasons, strict=True)])
    else:
        header = ("MIRROR", "STACK", "CREDENTIALS", "LAST RUN", "REFS", "BEHIND", "ATTENTION")
        print_table(header, [_row(one, why, now) for one, why in zip(found, reasons, strict=True)])
        for one in found:
            if one.lfs:
                click.echo(f"{one.name}: {LFS_NOTE}.")
            if one.carried:
                click.echo(f"{one.name}: {mirror_sync.carried_note(one.carried)}")
    click.get_current_context().exit(1 if any(reasons) else 0)


def _row(one: mirror_status.Status, reasons: list[str], now: datetime) -> tuple[str, ...]:
    run, lag = one.last_run, one.lag(now)
    age = "" if one.credential_age_days is None else f" ({one.credential_age_days} d)"
    ended = f" {mirror_status.duration(now - run.finished)} ago" if run and run.finished else ""
    refs = "-" if one.refs is None else f"{one.refs:,} equal" if not one.different else f"{one.different:,} differ"
    return (
        one.name,
        one.stack or "-",
        f"{one.credentials}{age}",
        f"{run.result or run.status}{ended}" if run else "-",
        refs,
        "-" if lag is None else mirror_status.duration(lag) if lag else "in sync",
        "; ".join(reasons) or "none",
    )
