"""``codecommit-mirror plan``, ``up``, ``down`` and ``rotate``."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..actions import SYMBOLS, Action
from ..aws.stack_plan import newly_named
from ..azure.connection import Allowed
from ..azure.rest.organization import schedule_note
from ..config.load import load
from ..config.mirror import Mirror
from ..engine_api import sanitize
from ..errors import ConfigurationError, MirrorError
from ..operations import down as downwards
from ..operations import rotate as rotation
from ..operations import up as upwards
from ..operations.batches import Policy, Project, for_each_mirror
from ..operations.context import ClientPool, MirrorContext
from ..operations.plan import DEPLOY, STAGES
from ..operations.preflight import check_ci
from ..progress import Board, Row
from .options import (
    cdk_context_of,
    change_source_option,
    confirmation,
    contexts_of,
    job_options,
    json_option,
    mirrors_argument,
    mirrors_argument_unless,
    narrowed,
    no_azure_option,
    policy_of,
    project_of,
    pull_request_option,
    replace_pipeline_option,
    section_of,
    summary_option,
    yes_option,
)
from .output import DIFFERS, FAILED, JSON_FORMAT, append_summary, echo, print_json, report_mirrors
from .results import markdown_plan

_MAX_NAMED = 10
"""The version of the JSON of a plan."""
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")


@click.command()
@mirrors_argument
@no_azure_option
@pull_request_option
@click.option("--exit-code", is_flag=True, help="Exit with 3 if anything would change.")
@summary_option
@json_option
def plan(
    mirrors: tuple[Mirror, ...],
    no_azure: bool,
    pull_request: bool,
    exit_code: bool,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Show what 'up' would change, on both sides; changes nothing.

    With --all, and a section 'ci' in mirrors.yaml, it also names the mirrors that 'down --removed' would take down.
    Exit status: 0, or with --exit-code 3 if anything would change; 1 if something would stop 'up', with the reason
    in the output.
    """
    policy = Policy(pull_request=pull_request, azure="none" if no_azure else "all", waits=not no_azure)
    _plan_up(mirrors, policy, summary, as_json, exit_code=exit_code)


@click.command()
@mirrors_argument
@click.option("--no-deploy", is_flag=True, help="Leave the deployed stack as it is, and do all that follows.")
@change_source_option
@replace_pipeline_option
@click.option(
    "--accept-settable-variables", is_flag=True, help="Work in a project that lets anyone set variables at queue time."
)
@pull_request_option
@dry_run_option
@yes_option
@job_options
@summary_option
@json_option
def up(
    mirrors: tuple[Mirror, ...],
    no_deploy: bool,
    change_source: bool,
    replace_pipeline: bool,
    accept_settable_variables: bool,
    pull_request: bool,
    dry_run: bool,
    yes: bool,
    job: bool,
    minutes: float | None,
    no_azure: bool,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Bring mirrors up: deploy, connect, issue the credential, run, verify.

    Run it in the project's folder, with AWS credentials as for cdk and with AZURE_DEVOPS_EXT_PAT. It shows its plan and
    asks once. It is safe to run again at any time: it resumes where an earlier run stopped, and changes nothing where
    nothing differs. A mirror that fails does not stop the others. With --job it queues a run for each
    pipeline that is new, was changed, or has never succeeded. Exit status: 0 if every mirror is up, 1 if one failed, 3
    if one needs a person.
    """
    stages = [stage for stage in STAGES if stage != DEPLOY or not no_deploy]
    if job:
        mirrors = _of_this_account(mirrors)
    with Board((mirror.name for mirror in mirrors), upwards.STEPS) as board:
        confirm = confirmation(yes, board, "changed")
        policy = policy_of(confirm, job=job, minutes=minutes, no_azure=no_azure, pull_request=pull_request)
        change_source = _may_change_source(change_source, mirrors, job=job)
        allowed = Allowed(replace_pipeline=replace_pipeline and not job, settable_variables=accept_settable_variables)
        policy = replace(policy, change_source=change_source, allowed=allowed)
        if not dry_run:
            if len(mirrors) > 1 and (note := schedule_note(mirrors)):
                board.say(f"note: {note}")
            contexts, project = contexts_of(mirrors, board), project_of(mirrors)
            in_azure = [context for context in contexts.values() if policy.covers_azure(context.mirror)]
            if job and project.section and contexts:
                context = (in_azure or list(contexts.values()))[0]
                check_ci(context, project.section, is_needed=bool(in_azure))
            result = upwards.up(contexts, board, project, policy, stages)
    if dry_run:
        _plan_up(mirrors, policy, summary, as_json, stages=stages)
    also = {"running": list(result.running), "removed": list(result.removed)}
    report_mirrors("Mirrors brought up", board, summary, as_json, also=also, resumes=True, may_leave=job)


@click.command()
@mirrors_argument_unless("removed")
@click.option("--removed", is_flag=True, help="The mirrors that are no longer in mirrors.yaml, in place of names.")
@click.option(
    "--approved",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --removed: the JSON of the plan that was approved; what it does not name is left alone.",
)
@click.option("--keep-stack", is_flag=True, help="Only delete the pipeline and its YAML; nothing in AWS changes.")
@pull_request_option
@dry_run_option
@yes_option
@job_options
@summary_option
@json_option
def down(
    mirrors: tuple[Mirror, ...],
    removed: bool,
    approved: Path | None,
    keep_stack: bool,
    pull_request: bool,
    dry_run: bool,
    yes: bool,
    job: bool,
    minutes: float | None,
    no_azure: bool,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Take mirrors down: disconnect, revoke, destroy.

    The source repositories only lose the pipelines' YAML. Run the command again to resume where an earlier run stopped.
    A mirror that fails does not stop the others. With --removed it deletes the stacks that were
    provisioned from mirrors.yaml and are no longer in it, each with its replica and history unless it was deployed with
    on_destroy: retain. Exit status: 0 if every mirror is down, 1 otherwise.
    """
    if approved and not removed:
        raise click.UsageError("--approved is for --removed.")
    if job and not (removed and approved):
        raise click.UsageError("a job only takes down what was approved: give --removed and --approved FILE.")
    options: dict[str, Any] = {"job": job, "minutes": minutes, "no_azure": no_azure, "pull_request": pull_request}
    if removed:
        _take_removed_down(approved, dry_run, yes, options, summary, as_json)
    steps = downwards.STEPS[:2] if keep_stack else downwards.STEPS
    with Board((mirror.name for mirror in mirrors), steps) as board:
        policy = policy_of(confirmation(yes, board), **options)
        contexts = contexts_of(mirrors, board)
        if dry_run:
            prepared = downwards.prepare(contexts, board, policy, keep_stack=keep_stack)
            plans = {name: planned.plan.actions for name, planned in prepared.items()}
        else:
            downwards.down(contexts, board, project_of(mirrors), policy, keep_stack=keep_stack)
    if dry_run:
        _report_plan(plans, board, summary, as_json)
    report_mirrors("Mirrors taken down", board, summary, as_json, resumes=True)


def _may_change_source(change_source: bool, mirrors: Sequence[Mirror], *, job: bool) -> bool:
    """Return whether a replica may follow another source.

    Raises:
        UsageError: it is not one mirror that a person names.
    """
    if change_source and (job or len(mirrors) != 1):
        raise click.UsageError("--change-source takes one NAME, and no --job: a person decides it.")
    return change_source


def _take_removed_down(
    approved: Path | None,
    dry_run: bool,
    yes: bool,
    options: Mapping[str, Any],
    summary: Path | None,
    as_json: bool,
) -> None:
    clients = ClientPool(many=True)
    given = click.get_current_context().params
    project = Project(Path.cwd(), cdk_context_of(()), section_of(load(given["config"])))
    with tempfile.TemporaryDirectory(prefix="cdk-") as folder:
        stacks = downwards.find_removed(clients, project, Path(folder, "cdk.out"))
    refused = sorted(stacks.keys() - _approved(approved)) if approved else []
    stacks = {name: stack for name, stack in stacks.items() if name not in refused}
    with Board(stacks, downwards.STEPS) as board:
        policy = policy_of(confirmation(yes, board), **options)
        if not dry_run:
            downwards.take_removed_down(
                stacks, lambda mirror: MirrorContext(mirror, os.environ, Path.cwd(), clients=clients), board, policy
            )
    if dry_run:
        deleted = {
            name: Action("delete", f"stack {stack.name!r}", is_destructive=True) for name, stack in stacks.items()
        }
        _report_plan({name: [action] for name, action in deleted.items()}, board, summary, as_json)
    if not stacks and not refused and not as_json:
        echo("Nothing to remove: every stack that was provisioned from this file is of a mirror in it.")
        click.get_current_context().exit(0)
    for name in refused:
        echo(f"{name} is not in {approved}, so it is left alone; approve a newer plan to remove it.", err=True)
    report_mirrors("Mirrors removed", board, summary, as_json, also={"refused": refused}, resumes=True)


def _approved(path: Path) -> set[str]:
    """Return the mirrors whose removal a person approved.

    Raises:
        ConfigurationError: the file is not the JSON of a plan.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan["format"] != JSON_FORMAT:
            raise ValueError
        return set(plan["removed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{path} is not the JSON of a plan in format {JSON_FORMAT}; write it with "
            "'codecommit-mirror plan --all --json'."
        ) from None


def _of_this_account(mirrors: Sequence[Mirror]) -> tuple[Mirror, ...]:
    """Return the mirrors of the account that CI provisions; another account's are its own CI's."""
    section = section_of(load(click.get_current_context().params["config"]))
    return narrowed(mirrors, section.account if section else None)


@click.command()
@mirrors_argument
@click.option("--source", is_flag=True, help="Replace the pipeline's credentials for the source instead, with yours.")
@dry_run_option
@yes_option
@summary_option
@json_option
def rotate(
    mirrors: tuple[Mirror, ...], source: bool, dry_run: bool, yes: bool, summary: Path | None, as_json: bool
) -> None:
    """Replace the pipelines' Git credentials, and verify the new ones with runs.

    A pipeline holds a working credential at all times. Run the command again to finish an interrupted rotation. With
    replica_auth: role there is nothing to rotate. With --source it stores AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD,
    from the environment or from a prompt, once it has checked that they work. Exit status: 0 if every rotation
    succeeded, 1 otherwise.
    """
    if dry_run:
        with Board((mirror.name for mirror in mirrors), (rotation.READ,)) as board:
            preview = rotation.preview_source if source else rotation.preview
            plans = for_each_mirror(contexts_of(mirrors, board), board, lambda context, _: preview(context), Policy())
        _report_plan(plans, board, summary, as_json)
        return
    steps = (rotation.READ, rotation.SOURCE, rotation.PROVE) if source else rotation.STEPS
    with Board((mirror.name for mirror in mirrors), steps) as board:
        policy = Policy(confirmation(yes, board))

        def work(context: MirrorContext, row: Row) -> None:
            message = rotation.rotate_source(context) if source else rotation.rotate(context, policy.confirm)
            row.succeed(message)

        for_each_mirror(contexts_of(mirrors, board), board, work, policy)
    report_mirrors("Credentials rotated", board, summary, as_json)


def _plan_up(
    mirrors: Sequence[Mirror],
    policy: Policy,
    summary: Path | None,
    as_json: bool,
    *,
    exit_code: bool = False,
    stages: Sequence[str] = STAGES,
) -> None:
    with (
        Board((mirror.name for mirror in mirrors), (upwards.READ,)) as board,
        tempfile.TemporaryDirectory(prefix="cdk-") as folder,
    ):
        output = Path(folder, "cdk.out")
        prepared, removed = upwards.prepare(
            contexts_of(mirrors, board), board, project_of(mirrors), policy, output, stages
        )
    plans = {name: planned.plan.all_actions for name, planned in prepared.items()}
    new = newly_named(
        {name: planned.state.wanted_places for name, planned in prepared.items()},
        [planned.state.deployed_places for planned in prepared.values()],
    )
    _report_plan(plans, board, summary, as_json, removed=removed, exit_code=exit_code, new=new)


def _named(new: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """Return the block of what the file names and no deployed stack does, which a reviewer should know."""
    by_kind: dict[str, list[str]] = {}
    for kind, name in new:
        by_kind.setdefault(kind, []).append(name)
    lines = []
    for kind, names in by_kind.items():
        more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
        lines.append(f"  {kind}: {sanitize(', '.join(names[:_MAX_NAMED]))}{more}")
    return ["named for the first time:", *lines] if lines else []


def _report_plan(
    plans: Mapping[str, Sequence[Action]],
    board: Board,
    summary: Path | None,
    as_json: bool,
    *,
    removed: Sequence[str] = (),
    exit_code: bool = False,
    new: Mapping[tuple[str, str], Sequence[str]] | None = None,
) -> None:
    """Print what would change, and exit: 1 if something would stop a mirror, 3 if that was asked for, 0 otherwise."""
    failed = {row.name: row.message for row in board.rows.values() if row.failed}
    counts = Counter(action.verb for actions in plans.values() for action in actions)
    shown = {name: [f"  {sanitize(str(action))}" for action in actions] for name, actions in plans.items() if actions}
    lines = [*_named(new or {}), *(line for name, actions in shown.items() for line in (name, *actions))]
    counted = ", ".join(f"{counts[verb]:,} to {verb}" for verb in SYMBOLS if counts[verb])
    unchanged = sum(not actions for actions in plans.values())
    verdict = f"{counted or 'Nothing would change'}{f'; {unchanged:,} unchanged' if counted and unchanged else ''}."
    gone = f"No longer in mirrors.yaml, for 'down --removed': {', '.join(sorted(removed))}." if removed else ""
    stopped = [f"{name}: {message}" for name, message in failed.items()]
    append_summary(summary, markdown_plan(lines, [verdict, *([gone] if gone else []), *stopped]))
    if as_json:
        print_json(
            {
                "actions": [action.as_object(name) for name, actions in plans.items() for action in actions],
                "newly_named": [
                    {"kind": kind, "name": name, "mirrors": list(mirrors)}
                    for (kind, name), mirrors in (new or {}).items()
                ],
                "counts": {verb: counts[verb] for verb in SYMBOLS},
                "removed": sorted(removed),
                "failed": failed,
            }
        )
    else:
        echo("\n".join([*lines, verdict, *([gone] if gone else [])]))
    if failed and not as_json:
        raise MirrorError("\n".join(failed.values()))
    status = FAILED if failed else DIFFERS if exit_code and (counts or removed) else 0
    click.get_current_context().exit(status)
