"""``codecommit-mirror ci``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ..aws.session import session, session_in
from ..azure import parallel_jobs
from ..backup.origin import from_snapshots
from ..backup.restore import DrillResult
from ..backup.restore import drill as run_drill
from ..backup.snapshots import read_snapshots
from ..config.ci import Ci, Service
from ..config.load import load, named_mirrors
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..fleet import result as fleet_result
from ..progress import Board
from ..provisioning import summary as ci_summary
from ..provisioning.account import Account
from ..provisioning.pipelines import connect as connect_pipelines
from ..provisioning.pipelines import disconnect as disconnect_pipeline
from ..provisioning.pipelines import needs_no_secret
from ..provisioning.pipelines import verify as verify_runs
from ..provisioning.plan import Plan
from ..provisioning.render import SIGNATURE
from ..provisioning.render import render as render_ci
from .options import (
    config_option,
    confirmation,
    context_of,
    contexts_of,
    inside_repository,
    json_option,
    summary_option,
    yes_option,
)
from .output import append_summary, print_json, report_fleet, write_rendered

app_option = click.option(
    "--app",
    type=click.Path(path_type=Path),
    default="cdk.out",
    show_default=True,
    help="The output of 'cdk synth'.",
)


minutes_option = click.option(
    "--minutes", default=40.0, show_default=True, metavar="MINUTES", help="After how long nothing further is begun."
)


@click.group()
def ci() -> None:
    """Provision the mirrors of mirrors.yaml from CI, on AWS.

    The file's section 'ci' names the CI service; 'cdk deploy codecommit-mirror-ci' creates its roles.
    """


@ci.command()
@click.argument("service", type=click.Choice(["azure", "github"]))
@config_option
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(service: Service, config: Path, output: Path | None) -> None:
    """Print the pipeline for the repository that holds mirrors.yaml; it contains no secret."""
    section, _ = _section(config)
    guard = load(config).guard
    if section.service != service:
        raise MirrorError(f"the section ci of {config} is for {section.service}; replace that with {service}:.")
    write_rendered(
        render_ci(section, service, inside_repository(config), drill=bool(guard and guard.snapshots)), output, SIGNATURE
    )


@ci.command()
@config_option
@app_option
@click.option("--diff", is_flag=True, help="Add the output of 'cdk diff'.")
@summary_option
@json_option
def plan(config: Path, app: Path, diff: bool, summary: Path | None, as_json: bool) -> None:
    """Show what would be created, updated and removed, without changing anything.

    Exit status: 1 if an account's quotas forbid it, which it says.
    """
    account = _account(config, app)
    found = account.plan()
    problems = account.quota_problems(found)
    differences = account.diff(found.deploy) if diff else ""
    note = parallel_jobs.note(load(config).mirrors)
    append_summary(summary, ci_summary.of_plan(found, differences, problems, note))
    if as_json:
        print_json({**vars(found), "quotas": problems, "note": note})
    else:
        click.echo(_format_plan(found, "to create", "to update"))
        if differences:
            click.echo(f"\n{differences}")
    if note:
        _say(f"note: {note}")
    if problems:
        raise MirrorError("\n".join(problems))


@ci.command()
@config_option
@app_option
@minutes_option
@summary_option
@json_option
def deploy(config: Path, app: Path, minutes: float, summary: Path | None, as_json: bool) -> None:
    """Deploy the mirrors that are new or changed; remove nothing.

    Mirrors that are to be removed are listed; 'ci remove' removes them. One that fails does not stop the others. What
    there is no time for is left for the next run.
    """
    account = _account(config, app)
    found = account.plan()
    done = account.deploy(found.deploy, minutes=minutes)
    append_summary(summary, ci_summary.of_deployment(found, done))
    if as_json:
        print_json({**vars(found), "failed": done.failed, "left": done.left})
    else:
        click.echo(_format_plan(found, "created", "updated"))
    if done.left:
        _say(f"{len(done.left):,} mirrors are left for the next run: {', '.join(done.left)}")
    problems = [f"{name} was not deployed: {reason}" for name, reason in done.failed.items()]
    if found.moved:
        problems.append(
            f"the stacks of {', '.join(found.moved)} are still in another region or have another name: remove these "
            "mirrors from mirrors.yaml, deploy that and approve the removal, then add them again."
        )
    if found.foreign:
        problems.append(
            f"the stack names of {', '.join(found.foreign)} are taken by another repository's mirror or by something "
            "else, which is left alone; rename these mirrors."
        )
    if found.losing:
        problems.append(
            f"CloudFormation would delete the repositories of {', '.join(found.losing)}: their deployed stacks own "
            "them, and mirrors.yaml now says existing: true; replace it with on_destroy: retain, deploy, and then set "
            "existing: true."
        )
    if found.changing:
        problems.append(
            f"the pipelines of {', '.join(found.changing)} are to sign in in another way: run 'codecommit-mirror up "
            f"{' '.join(found.changing)}', which changes that without a gap."
        )
    if problems:
        raise MirrorError("\n".join(problems))


@ci.command()
@config_option
@minutes_option
@summary_option
@json_option
def connect(config: Path, minutes: float, summary: Path | None, as_json: bool) -> None:
    """Create and update the pipelines of mirrors that need no secret, and queue runs of those that need one.

    These are the mirrors with source_auth: job-token and replica_auth: role. It waits for no run, because with one
    parallel job they only begin once this job has ended; 'ci verify' waits for them. What there is no time for is left
    for the next run.
    """
    mirrors, section, _ = load(config)
    chosen = [one for one in mirrors if needs_no_secret(one) and (not section or one.account == section.account)]
    with Board(mirror.name for mirror in chosen) as board:
        queued, left = connect_pipelines(contexts_of(chosen, board), board, minutes=minutes)
    rows = [row for row in board.rows.values() if row.name not in left]
    append_summary(
        summary, fleet_result.summary("Pipelines", [row for row in rows if row.failed or row.name in queued])
    )
    if as_json:
        print_json({"mirrors": fleet_result.as_objects(rows), "queued": queued, "left": left})
    else:
        click.echo(f"{fleet_result.sentence(rows)} Runs were queued of: {', '.join(queued) or 'none'}.")
    if left:
        _say(f"{len(left):,} mirrors are left for the next run: {', '.join(left)}")
    click.get_current_context().exit(1 if any(row.failed for row in rows) else 0)


@ci.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@config_option
@click.option(
    "--patience",
    default=15.0,
    show_default=True,
    metavar="MINUTES",
    help="How long to wait with no run in progress.",
)
@summary_option
@json_option
def verify(names: tuple[str, ...], config: Path, patience: float, summary: Path | None, as_json: bool) -> None:
    """Wait for the last runs of mirrors, and compare both sides ref by ref.

    Exit status: 0 if every run succeeded and every replica is equal to its source, 1 otherwise.
    """
    with Board(dict.fromkeys(names)) as board:
        contexts = contexts_of(named_mirrors(config, names), board)
        verify_runs(contexts, board, patience_minutes=patience)
    report_fleet("First runs", board, summary, as_json)


@ci.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@config_option
@app_option
@click.option("--disconnect", is_flag=True, help="Delete the pipelines and YAML of those that need no secret first.")
@yes_option
@summary_option
@json_option
def remove(
    names: tuple[str, ...],
    config: Path,
    app: Path,
    disconnect: bool,
    yes: bool,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Delete the stacks of mirrors that are no longer in mirrors.yaml.

    Only stacks that were provisioned from it are deleted, each with its replica and history unless it was deployed with
    on_destroy: retain. A stack that is already gone is fine. Without --disconnect the Azure side stays: 'pipeline
    disconnect NAME' deletes it beforehand, or afterwards with --azure-repo-url.
    """
    account = _account(config, app)
    problems = {name: problem for name in names if (problem := account.removal_problem(name))}
    removable = [name for name in names if name not in problems]
    if removable:
        confirmation(yes)(f"Delete the stacks of {', '.join(removable)}?")
    removed: list[str] = []
    for name in removable:
        try:
            if disconnect:
                _disconnect(account.source_of(name), name)
            if account.remove(name):
                removed.append(name)
                click.echo(f"deleted {name}", err=True)
        except MirrorError as error:
            problems[name] = str(error)
    append_summary(summary, ci_summary.of_removal(removed, names))
    if problems:
        raise MirrorError("\n".join(problems.values()))
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"Removed: {', '.join(removed) or 'nothing, because all of them were already gone'}.")


@ci.command()
@config_option
@summary_option
@json_option
def drill(config: Path, summary: Path | None, as_json: bool) -> None:
    """Restore every mirror's last snapshot to a temporary folder, and check it.

    One that fails does not stop the others. Exit status: 0 if every snapshot is sound, 1 otherwise.
    """
    mirrors, section, _ = load(config)
    results: dict[str, DrillResult | str] = {}
    for mirror in mirrors:
        if section and mirror.account not in (None, section.account):
            continue
        click.echo(f"{mirror.name}: restoring", err=True)
        try:
            found = read_snapshots(session(mirror), mirror.name)
            results[mirror.name] = run_drill(from_snapshots(found, None), datetime.now(UTC), lambda line: None)
        except MirrorError as error:
            results[mirror.name] = str(error)
    failed = [name for name, result in results.items() if isinstance(result, str) or result.problem]
    text = ci_summary.of_drill(results)
    append_summary(summary, text)
    if as_json:
        details = [
            {"mirror": name, **({"problem": result} if isinstance(result, str) else vars(result))}
            for name, result in results.items()
        ]
        print_json({"mirrors": details})
    else:
        click.echo(text)
    click.get_current_context().exit(1 if failed else 0)


def _disconnect(mirror: Mirror | None, name: str) -> None:
    if mirror is None:
        _say(f"{name}: its pipeline is left alone; 'pipeline disconnect {name} --azure-repo-url URL' deletes it")
        return
    disconnect_pipeline(context_of(mirror), lambda line: _say(f"{name}: {line}"))


def _section(config: Path) -> tuple[Ci, list[str]]:
    """Return the section, and the names of all mirrors."""
    mirrors, section, _ = load(config)
    if section is None:
        raise MirrorError(f"{config} has no section ci; see docs/ci.md.")
    return section, [mirror.name for mirror in mirrors]


def _account(config: Path, app: Path) -> Account:
    section, mirrors = _section(config)
    return Account(session_in(section.region), section, mirrors, Path.cwd(), app, _say)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _format_plan(found: Plan, created: str, updated: str) -> str:
    return "\n".join(f"{label}: {mirrors}" for label, mirrors in ci_summary.rows(found, created, updated))
