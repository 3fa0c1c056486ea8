"""``codecommit-mirror ci``."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import click

from ..aws.session import session_in
from ..azure import parallel_jobs
from ..config.ci import Ci, Service
from ..config.load import load, named_mirrors
from ..errors import MirrorError
from ..fleet import result as fleet_result
from ..lifecycle.context import ClientPool, MirrorContext
from ..progress import Board
from ..provisioning import summary as ci_summary
from ..provisioning.account import Account
from ..provisioning.execution_policy import boundary_policy, execution_policy
from ..provisioning.pipelines import connect as connect_pipelines
from ..provisioning.pipelines import needs_no_secret
from ..provisioning.pipelines import verify as verify_runs
from ..provisioning.plan import Plan
from ..provisioning.removal import remove as remove_mirrors
from ..provisioning.render import SIGNATURE
from ..provisioning.render import render as render_ci
from .backup import drill_all
from .options import (
    config_option,
    confirmation,
    contexts_of,
    inside_repository,
    json_option,
    summary_option,
    yes_option,
)
from .output import append_summary, print_json, report_fleet, write_rendered

ACCOUNT_ID = r"[0-9]{12}"
app_option = click.option(
    "--app",
    type=click.Path(path_type=Path),
    default="cdk.out",
    show_default=True,
    help="The output of 'cdk synth'.",
)


def _minutes_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--minutes", default=40.0, show_default=True, metavar="MINUTES", help=f"After how long {what}.")


minutes_option = _minutes_option("nothing further is begun: AWS credentials of a CI job last an hour")


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
        _say(f"left for the next run: {', '.join(done.left)}")
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
    for the next time.
    """
    mirrors, section, _ = load(config)
    chosen = [one for one in mirrors if needs_no_secret(one) and (not section or one.account == section.account)]
    with Board(mirror.name for mirror in chosen) as board:
        running = connect_pipelines(contexts_of(chosen, board), board, minutes=minutes)
    rows = list(board.rows.values())
    shown = [row for row in rows if row.result != "succeeded" or row.name in running]
    append_summary(summary, fleet_result.summary("Pipelines", shown))
    if as_json:
        print_json({"mirrors": fleet_result.as_objects(rows), "running": running})
    else:
        click.echo(f"{fleet_result.sentence(rows)} Queued or in progress: {', '.join(running) or 'none'}.")
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
@_minutes_option("runs that have not ended are left")
@summary_option
@json_option
def verify(
    names: tuple[str, ...], config: Path, patience: float, minutes: float, summary: Path | None, as_json: bool
) -> None:
    """Wait for the last runs of mirrors, and compare both sides ref by ref.

    Exit status: 0 if every run succeeded and every replica is equal to its source, 1 otherwise, also if runs have not
    ended in time: run it again, or the job.
    """
    with Board(dict.fromkeys(names)) as board:
        contexts = contexts_of(named_mirrors(config, names), board)
        verify_runs(contexts, board, patience_minutes=patience, minutes=minutes)
    report_fleet("First runs", board, summary, as_json)


@ci.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@config_option
@app_option
@click.option("--disconnect", is_flag=True, help="Delete the pipelines and YAML of those that need no secret first.")
@yes_option
@minutes_option
@summary_option
@json_option
def remove(
    names: tuple[str, ...],
    config: Path,
    app: Path,
    disconnect: bool,
    yes: bool,
    minutes: float,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Delete the stacks of mirrors that are no longer in mirrors.yaml.

    Only stacks that were provisioned from it are deleted, each with its replica and history unless it was deployed with
    on_destroy: retain. A stack that is already gone is fine. Without --disconnect the Azure side stays: 'pipeline
    disconnect NAME' deletes it beforehand, or afterwards with --azure-repo-url. Exit status: 0 if all are gone, 1
    otherwise.
    """
    account, clients = _account(config, app), ClientPool(many=True)
    with Board(dict.fromkeys(names)) as board:
        if removable := [name for name in board.rows if not account.removal_problem(name)]:
            confirmation(yes, board)(f"Delete the stacks of {', '.join(removable)}?")
        removed = remove_mirrors(
            account,
            list(board.rows),
            board,
            (lambda mirror: MirrorContext(mirror, os.environ, Path.cwd(), clients=clients)) if disconnect else None,
            minutes=minutes,
        )
    report_fleet("Mirrors removed", board, summary, as_json, also={"removed": removed}, resumes=True)


@ci.command()
@click.argument("account", metavar="ACCOUNT")
@click.option("--boundary", is_flag=True, help="Print the boundary of what mirrors' stacks create in IAM.")
@click.option(
    "--partition",
    default="aws",
    show_default=True,
    type=click.Choice(["aws", "aws-cn"]),
    help="The account's partition.",
)
def policy(account: str, boundary: bool, partition: str) -> None:
    """Print the policy with which CloudFormation may deploy the mirrors of an account, and nothing else.

    It is for 'cdk bootstrap --cloudformation-execution-policies' in place of AdministratorAccess. docs/ci.md shows the
    commands.
    """
    if not re.fullmatch(ACCOUNT_ID, account):
        raise MirrorError(f"{account!r} is not the id of an AWS account; write its twelve digits.")
    document = (boundary_policy if boundary else execution_policy)(account, partition)
    click.echo(json.dumps(document, indent=2))


@ci.command()
@config_option
@minutes_option
@summary_option
@json_option
def drill(config: Path, minutes: float, summary: Path | None, as_json: bool) -> None:
    """Restore every mirror's last snapshot to a temporary folder, and check it.

    One that fails does not stop the others. The order is random, so that in a fleet that takes longer than --minutes no
    mirror is always left out. Exit status: 1 if a snapshot is not sound, 0 otherwise.
    """
    mirrors, section, _ = load(config)
    here = [mirror for mirror in mirrors if not section or mirror.account in (None, section.account)]
    drill_all(random.sample(here, len(here)), "snapshots", None, None, summary, as_json, minutes=minutes)


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
