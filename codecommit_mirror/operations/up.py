"""Bring mirrors up: read both clouds, plan, show, and apply the plan stage by stage."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..aws import writer
from ..aws.stack import ReplicaStackState, has_operation_in_progress, tag_replica
from ..aws.stack_plan import WantedStack
from ..azure import connection, runs
from ..azure.files import PlannedFile, reread
from ..azure.objects import Build
from ..azure.state import runs_file_at
from ..azure.variables import AZURE_SECRETS, missing_source_secrets, update_variables
from ..config.identity import EarlierSignIn
from ..errors import AzureError, MirrorError
from ..progress import Board, Row, say, step
from . import batches, credential_delivery, preflight, state, verification
from .batches import Project
from .context import MirrorContext
from .loop import Policy, for_each_mirror
from .plan import (
    CONNECT,
    CREDENTIAL,
    DEPLOY,
    FINISH,
    RUN,
    STAGES,
    UpPlan,
    describe_earlier,
    earlier_sign_in,
    lacks_user,
    needs_first_look,
    nothing_to_do,
    plan_up,
    summary,
    variables_left,
    wanted_record,
)
from .run import RUN_MINUTES, run_until_equal
from .state import MirrorState, SharedState

READ = "Read both clouds"
STEPS = (READ, *STAGES[:-1])
_TRIES = 3
_CONFLICT = 409


@dataclass(frozen=True)
class UpResult:
    """What bringing mirrors up leaves to do."""

    running: tuple[str, ...]
    """The mirrors that have a run under way, which shows whether they work."""
    removed: tuple[str, ...]
    """Those that are no longer in mirrors.yaml; ``down --removed`` takes them down."""


@dataclass(frozen=True)
class PlannedMirror:
    """A mirror that is to be brought up: what both clouds have, and what was shown."""

    context: MirrorContext
    state: MirrorState
    plan: UpPlan
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The source's credentials that are to be stored; empty if none are."""
    yaml: PlannedFile | None = None
    """The YAML, if it is to be committed."""
    former_yaml: PlannedFile | None = None
    """The file that the pipeline ran before, if it is to be removed."""
    moves: bool = False
    """Whether the pipeline runs another file after that."""


def up(
    contexts: Mapping[str, MirrorContext],
    board: Board,
    project: Project,
    policy: Policy,
    stages: Collection[str] = STAGES,
) -> UpResult:
    """Bring mirrors up, resuming where earlier commands stopped; the board's rows say how each one ended.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        project: the CDK project.
        policy: who may be asked, and what is waited for.
        stages: which of ``STAGES`` to do; without DEPLOY the deployed stacks stay as they are.

    Raises:
        MirrorError: the answer was no, or something stops all of them.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-") as folder:
        output = Path(folder, "cdk.out")
        prepared, removed = prepare(contexts, board, project, policy, output, stages)
        changed = {name: planned for name, planned in prepared.items() if planned.plan.actions}
        under_way = {name for name, planned in prepared.items() if planned.state.proof and not planned.state.proof.done}
        for name in prepared.keys() - changed.keys():
            board.rows[name].succeed(nothing_to_do(prepared[name].state), unchanged=True)
        confirm_plan({name: planned.plan for name, planned in changed.items()}, board, policy)
        ready = for_each_mirror(changed, board, _ask_for_secrets, policy)
        ready = _deploy(ready, board, output, policy)
    connecting = {name: planned for name, planned in ready.items() if planned.state.azure and CONNECT in stages}
    for name in ready.keys() - connecting.keys():
        _end_after_deployment(prepared[name], board.rows[name], policy)
    connected = for_each_mirror(connecting, board, lambda planned, row: _connect(planned, row, policy), policy)
    connected = _commit(board.remaining(connected), board, policy)
    queued = for_each_mirror(
        connected, board, lambda planned, row: _credential_and_run(planned, row, project, policy, stages), policy
    )
    running = [name for name in contexts if name in under_way - changed.keys() or queued.get(name)]
    return UpResult(tuple(running), tuple(sorted(removed)))


def prepare(
    contexts: Mapping[str, MirrorContext],
    board: Board,
    project: Project,
    policy: Policy,
    output: Path,
    stages: Collection[str] = STAGES,
) -> tuple[dict[str, PlannedMirror], list[str]]:
    """Read both clouds and plan; changes nothing. Mirrors that something stops have failed.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        project: the CDK project.
        policy: what is waited for.
        output: where the CDK app writes.
        stages: which of ``STAGES`` are to be done.

    Returns:
        The mirrors, and the names of those that are no longer in mirrors.yaml.

    Raises:
        MirrorError: the CDK app failed, or something else stops all of them.
    """
    shared = _read_shared(contexts, project)
    stacks = for_each_mirror(contexts, board, lambda context, row: _find_stack(context, row, policy), policy)
    stacks = board.remaining(stacks)
    wanted: dict[str, WantedStack] = {}
    if DEPLOY in stages and (stacks or shared):
        earlier = {
            name: earlier_sign_in(contexts[name].mirror, stack.outputs) for name, stack in stacks.items() if stack
        }
        migrating = {name: sign_in for name, sign_in in earlier.items() if sign_in}
        wanted = batches.synthesize(project, output, list(stacks), migrating)

    def read(context: MirrorContext, row: Row) -> PlannedMirror:
        stack = wanted.get(row.name)
        problems = shared.problems(stack, list(wanted.values())) if shared and stack else []
        with step(READ):
            current = _read(context, stacks[row.name], stack, policy)
            if problems := [*problems, *_problems(context, current, policy, stages)]:
                raise MirrorError("\n".join(dict.fromkeys(problems)))
        return _plan(context, current, policy, stages)

    prepared = for_each_mirror({name: contexts[name] for name in stacks}, board, read, policy)
    _check_accounts({name: planned for name, planned in prepared.items() if DEPLOY in planned.plan.actions}, board)
    removed = list(shared.removed(list(wanted.values()))) if shared else []
    return board.remaining(prepared), removed


def _read(
    context: MirrorContext, stack: ReplicaStackState | None, wanted: WantedStack | None, policy: Policy
) -> MirrorState:
    azure = policy.covers_azure(context.mirror)
    current = state.read(context, stack, wanted=wanted, azure=azure, compare=policy.waits)
    for note in connection.notes(current.mirror, current.azure) if current.azure else ():
        say(note)
    return current


def _read_shared(contexts: Mapping[str, MirrorContext], project: Project) -> SharedState | None:
    """Read what concerns all mirrors of a file, if they are all brought up and CI provisions them."""
    if project.section is None or not contexts:
        return None
    mirrors = [context.mirror for context in contexts.values()]
    needed = {mirror.region or project.section.region for mirror in mirrors}
    return state.read_shared(next(iter(contexts.values())).clients, project.section, needed)


def _find_stack(context: MirrorContext, row: Row, policy: Policy) -> ReplicaStackState | None:
    """Return the mirror's stack; leave the mirror if something else works on it and is not to be waited for."""
    with step(READ):
        stack = state.settled_stack(context) if policy.waits else context.find_stack()
    if stack and has_operation_in_progress(stack.status):
        row.leave(f"CloudFormation is still working on its stack ({stack.status}); the next run deploys it")
    return stack


def _problems(context: MirrorContext, current: MirrorState, policy: Policy, stages: Collection[str]) -> list[str]:
    """Return what stops one mirror, one sentence each."""
    is_job = current.azure is not None and context.token.is_job
    problems = preflight.mirror_problems(current, policy, is_job=is_job)
    problems += preflight.secrets_problems(context, current)
    if current.outputs is None or current.outputs.push_role_arn is None:
        problems += preflight.provider_problems(context)
    if DEPLOY not in stages:
        try:
            current.replica_outputs()
        except MirrorError as error:
            problems.append(str(error))
    if not policy.waits and earlier_sign_in(current.mirror, current.outputs):
        name = current.mirror.name
        problems.append(
            f"mirrors.yaml changes how the pipeline of {name} signs in: run 'codecommit-mirror up {name}' once, "
            "which makes the change without interrupting it."
        )
    return problems


def _plan(context: MirrorContext, current: MirrorState, policy: Policy, stages: Collection[str]) -> PlannedMirror:
    plan = plan_up(current, pull_request=policy.pull_request, waits=policy.waits)
    actions = {stage: done for stage, done in plan.actions.items() if stage in stages}
    return PlannedMirror(context, current, UpPlan(actions))


def _check_accounts(prepared: Mapping[str, PlannedMirror], board: Board) -> None:
    """Fail the mirrors of an account and region that cannot be deployed to, and new ones that it has no room for."""
    places: dict[tuple[str | None, str | None], list[PlannedMirror]] = {}
    for planned in prepared.values():
        places.setdefault((planned.context.mirror.account, planned.context.mirror.region), []).append(planned)
    for group in places.values():
        context = group[0].context
        states = {planned.context.mirror.name: planned.state for planned in group}
        new = {
            name: current.wanted.template
            for name, current in states.items()
            if current.wanted and current.stack is None
        }
        checks = (
            (states, partial(preflight.account_problems, context)),
            (new, partial(preflight.quota_problems, context, new.values())),
        )
        for names, find_problems in checks:
            try:
                problems = find_problems() if names else []
            except MirrorError as error:
                problems = [str(error)]
            for name in names if problems else ():
                board.rows[name].fail("\n".join(problems))


def confirm_plan(plans: Mapping[str, UpPlan], board: Board, policy: Policy) -> None:
    """Show what is going to change, and ask once.

    Raises:
        MirrorError: the answer was no, or there is no one to ask.
    """
    if not plans:
        return
    count = 0
    for name, plan in plans.items():
        for action in plan.all_actions:
            count += 1
            board.rows[name].say(f"plan: {action}")
    changes = f"{count:,} changes of {next(iter(plans)) if len(plans) == 1 else f'{len(plans):,} mirrors'}"
    policy.confirm(f"Make {changes}?", typed=next(iter(plans)) if policy.change_source else None)


def _ask_for_secrets(planned: PlannedMirror, _: Row) -> PlannedMirror:
    """Return the mirror with the source's credentials that are to be stored, before anything is changed."""
    if planned.state.azure is None:
        return planned
    planned.context.token.check_writing()
    given, ask = planned.context.source_secrets, planned.context.ask
    unknown = [name for name in AZURE_SECRETS if name not in given]
    if not missing_source_secrets(planned.state.mirror, planned.state.azure.definition) or (unknown and ask is None):
        return planned
    if ask and unknown:
        given.update({name: ask(name) for name in unknown})
        verification.check_source_credentials(planned.state.mirror, given, planned.context.named_server)
    return replace(planned, secrets=given)


def _deploy(
    prepared: Mapping[str, PlannedMirror], board: Board, output: Path, policy: Policy
) -> dict[str, PlannedMirror]:
    """Deploy the stacks that differ together; return the mirrors whose stacks are as they should be."""
    due = {name: planned.context for name, planned in prepared.items() if DEPLOY in planned.plan.actions}
    deployed = set(batches.deploy(due, board, output, DEPLOY, policy))

    def complete(planned: PlannedMirror, row: Row) -> PlannedMirror:
        if row.name not in deployed:
            return planned
        with step(DEPLOY):
            return replace(
                planned, state=_complete(planned.context, state.reread_stack(planned.context, planned.state), policy)
            )

    # What has been deployed is completed, however late it is.
    remaining = board.remaining(prepared)
    return for_each_mirror(remaining, board, complete, replace(policy, minutes=math.inf))


def _end_after_deployment(planned: PlannedMirror, row: Row, policy: Policy) -> None:
    """End a mirror whose Azure side is left alone."""
    if planned.state.stack is None and policy.azure == "without secrets":
        row.hand_over(f"is deployed; its pipeline stores secrets: run 'codecommit-mirror up {row.name}' once.")
    else:
        row.succeed(f"{row.name} is deployed.")


def _complete(context: MirrorContext, current: MirrorState, policy: Policy) -> MirrorState:
    """Tag a repository that the stack does not own, and read again what may have changed during the deployment."""
    mirror, outputs = current.mirror, current.replica_outputs()
    # A job may not tag a repository that has no tags yet.
    if mirror.existing and policy.azure == "all":
        earlier = earlier_sign_in(mirror, outputs)
        tags = mirror.replica_tags_while_migrating(earlier) if earlier else mirror.replica_tags
        tag_replica(context.aws, outputs.replica_arn, tags)
    who = outputs.push_role_arn if mirror.replica_auth == "role" else outputs.push_user_name
    say(f"replica {outputs.replica_url}, to which {who} may push")
    # Minutes may have passed since it was read.
    return state.reread_azure(context, current) if current.azure else current


def _connect(planned: PlannedMirror, row: Row, policy: Policy) -> PlannedMirror:
    """Create or update the pipeline; its YAML is committed later, together with that of others."""
    current, context = planned.state, planned.context
    if missing_source_secrets(current.mirror, current.azure_side.definition) and not planned.secrets:
        missing = [name for name in AZURE_SECRETS if name not in context.source_secrets]
        row.hand_over(f"{preflight.missing_secrets(missing)} Then run this again; the stack is already deployed.")
        return planned
    if lacks_user(current):
        with step(CONNECT):
            _restore_user(context, current)
    migrates = earlier_sign_in(current.mirror, current.outputs) is not None
    if migrates and current.mirror.replica_auth == "user" and current.azure_side.definition:
        # Before the YAML that needs it.
        with step(CREDENTIAL):
            current = credential_delivery.deliver(context, current)
    source, outputs = current.azure_side.source, current.replica_outputs()
    announce = partial(writer.announce, context.iam, outputs, current.record, source.project_id, source.id)
    with step(CONNECT):
        for _ in range(_TRIES):
            todo = _plan_connection(current, planned, policy)
            try:
                definition = connection.define(context.azure, current.azure_side, todo, announce)
            except AzureError as error:
                if error.status != _CONFLICT:
                    raise
                current = state.reread_azure(context, current)
                continue
            return _connected(planned, replace(current, azure=replace(current.azure_side, definition=definition)), todo)
    raise MirrorError(f"the pipeline of {row.name} is being changed by something else; run this again later.")


def _restore_user(context: MirrorContext, current: MirrorState) -> None:
    outputs = current.replica_outputs()
    if writer.restore(context.iam, current.mirror, outputs, state.boundary_of_user(context, current)):
        say(f"recreated the user {outputs.push_user_name}, which had been deleted by hand")


def _plan_connection(current: MirrorState, planned: PlannedMirror, policy: Policy) -> connection.ConnectionPlan:
    if current.azure_side.source.id != planned.state.azure_side.source.id:
        raise MirrorError("the source has become another repository since the plan was made; run this again.")
    if problems := connection.find_problems(current.mirror, current.azure_side, policy.allowed):
        raise MirrorError("\n".join(problems))
    outputs = current.replica_outputs()
    todo = connection.plan(
        current.mirror,
        current.azure_side,
        outputs.replica_url,
        planned.secrets,
        pull_request=policy.pull_request,
        role_arn=outputs.push_role_arn,
    )
    if beyond := UpPlan({CONNECT: todo.actions}).beyond(planned.plan):
        raise MirrorError(
            f"Azure DevOps has changed since the plan was made, which did not include '{beyond[0]}'; run this again."
        )
    return todo


def _connected(planned: PlannedMirror, current: MirrorState, done: connection.ConnectionPlan) -> PlannedMirror:
    """Record the pipeline on AWS's side; return what is still to be committed."""
    context, azure = planned.context, current.azure_side
    if runs_file_at(current.definition, azure.yaml):
        azure = replace(azure, former_yaml=None)
    current = _record_pipeline(context, replace(current, azure=azure))
    yaml = PlannedFile(context.azure, current.mirror.name, azure.yaml, done.yaml) if done.commit else None
    former = PlannedFile(context.azure, current.mirror.name, done.leaves, None) if done.leaves else None
    return replace(planned, state=current, yaml=yaml, former_yaml=former, moves=done.moves)


def _record_pipeline(context: MirrorContext, current: MirrorState) -> MirrorState:
    """Make sure that AWS's side records which pipeline pushes."""
    record, outputs = wanted_record(current), current.replica_outputs()
    if record is None or (record == current.record and not outputs.has_both_writers):
        return current
    writer.write_record(context.iam, outputs, record)
    return replace(current, record=record)


def _commit(prepared: Mapping[str, PlannedMirror], board: Board, policy: Policy) -> dict[str, PlannedMirror]:
    """Commit the YAML of the mirrors that need it, and move their pipelines to it; return those that did not fail."""
    batches.commit_yaml(
        {name: planned.yaml for name, planned in prepared.items() if planned.yaml}, board, policy, CONNECT
    )
    former = {name: planned.former_yaml for name, planned in board.remaining(prepared).items() if planned.former_yaml}
    # It may be on the branch that has just got a commit.
    former = for_each_mirror(former, board, lambda file, _: reread(file), policy)
    batches.commit_yaml(former, board, policy, CONNECT)

    def move(planned: PlannedMirror, row: Row) -> PlannedMirror:
        if not (planned.moves or (planned.yaml and policy.pull_request)):
            return _with_committed_yaml(planned)
        with step(CONNECT):
            planned = replace(planned, state=state.reread_azure(planned.context, planned.state), yaml=None)
        return _connect(replace(planned, moves=False, secrets={}), row, policy) if planned.moves else planned

    moved = for_each_mirror(board.remaining(prepared), board, move, policy)
    return board.remaining(moved)


def _with_committed_yaml(planned: PlannedMirror) -> PlannedMirror:
    if not planned.yaml:
        return planned
    azure = planned.state.azure_side
    azure = replace(azure, yaml=replace(azure.yaml, text=planned.yaml.text))
    return replace(planned, state=replace(planned.state, azure=azure), yaml=None)


def _credential_and_run(
    planned: PlannedMirror, row: Row, project: Project, policy: Policy, stages: Collection[str]
) -> bool:
    """Do the stages from ``CREDENTIAL`` on; return whether a run was queued that is not waited for."""
    planned = _deliver_credential(planned)
    if RUN not in stages:
        row.succeed(f"{row.name} is connected.")
        return False
    if not policy.waits and needs_first_look(planned.state):
        row.hand_over(
            f"is connected to a repository that was there before: run 'codecommit-mirror up {row.name}' once."
        )
        return False
    if not policy.waits:
        row.succeed(f"queued run {_queue_run(planned).id}")
        return True
    planned = _run_and_verify(planned)
    _finish(planned, project)
    row.succeed(summary(planned.state))
    return False


def _deliver_credential(planned: PlannedMirror) -> PlannedMirror:
    with step(CREDENTIAL):
        return replace(planned, state=credential_delivery.deliver(planned.context, planned.state))


def _queue_run(planned: PlannedMirror) -> Build:
    current = planned.state
    return planned.context.azure.queue(current.definition, connection.run_branch(current.mirror, current.azure_side))


def _run_and_verify(planned: PlannedMirror) -> PlannedMirror:
    """Run the pipeline until both sides are equal."""
    with step(RUN):
        comparison = run_until_equal(planned.context, planned.state)
        current = replace(planned.state, comparison=comparison)
        if current.azure_side.yaml.pull_request and earlier_sign_in(current.mirror, current.outputs):
            say("after the pull request is merged, run this again: it removes what the pipeline no longer needs")
    return replace(planned, state=current)


def _finish(planned: PlannedMirror, project: Project) -> None:
    """Remove the old sign-in, if there is one that no merge has to come before."""
    current = planned.state
    earlier = earlier_sign_in(current.mirror, current.outputs)
    if earlier and not current.azure_side.yaml.pull_request:
        with step(FINISH):
            _finish_migration(planned.context, current, project, earlier)


def _finish_migration(context: MirrorContext, current: MirrorState, project: Project, earlier: EarlierSignIn) -> None:
    """Take away what the pipeline no longer needs, once a run has succeeded without it.

    Runs that were queued or began with the old YAML end first.
    """
    mirror = current.mirror
    for status in ("notStarted", "inProgress"):
        for build in list(context.azure.builds(current.definition, status=status)):
            runs.follow(context.azure, build, timeout_minutes=RUN_MINUTES)
    if left := variables_left(mirror, earlier):
        update_variables(context.azure, current.definition, dict.fromkeys(left))
        say(f"removed the variables {', '.join(left)}")
    batches.deploy_alone(context, project)
    # CloudFormation may have set the tags anew.
    _record_pipeline(context, state.reread_stack(context, current))
    if mirror.existing:
        tag_replica(context.aws, current.replica_outputs().replica_arn, mirror.replica_tags)
    say(f"removed the {describe_earlier(mirror, earlier)} that the pipeline no longer needs")
