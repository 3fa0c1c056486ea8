"""Bring mirrors up: read both clouds, plan, show, and apply the plan stage by stage."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..aws import writer
from ..aws.repository import tag_replica
from ..aws.stack import ReplicaStackState, has_operation_in_progress
from ..aws.stack_plan import WantedStack
from ..azure import connection, runs
from ..azure.rest.objects import Build
from ..azure.variables import AZURE_SECRETS, missing_source_secrets, update_variables
from ..config.identity import EarlierSignIn
from ..errors import MirrorError
from ..progress import Board, Row, say, step
from . import batches, credential_delivery, preflight, state, verification
from .batches import Policy, Project, for_each_mirror
from .connect import PlannedMirror, commit, connect, planned_engine, record_pipeline, update_engines
from .context import MirrorContext, forget_lists
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
    needs_first_look,
    nothing_to_do,
    plan_up,
    summary,
    variables_left,
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
        confirm_plan(changed, board, policy)
        ready = for_each_mirror(changed, board, _ask_for_secrets, policy)
        ready = _deploy(ready, board, output, policy)
    connecting = {name: planned for name, planned in ready.items() if planned.state.azure and CONNECT in stages}
    for name in ready.keys() - connecting.keys():
        _end_after_deployment(prepared[name], board.rows[name], policy)
    connecting = update_engines(connecting, board, policy)
    connected = for_each_mirror(connecting, board, lambda planned, row: connect(planned, row, policy), policy)
    connected = commit(board.remaining(connected), board, policy)
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
    ours = [name for name in stacks if not contexts[name].mirror.is_deployed_elsewhere]
    if DEPLOY in stages and (ours or shared):
        earlier = {
            name: earlier_sign_in(contexts[name].mirror, stack.outputs) for name, stack in stacks.items() if stack
        }
        migrating = {name: sign_in for name, sign_in in earlier.items() if sign_in}
        wanted = batches.synthesize(project, output, ours, migrating)

    def read(context: MirrorContext, row: Row) -> MirrorState:
        stack = wanted.get(row.name)
        problems = shared.problems(stack, list(wanted.values())) if shared and stack else []
        with step(READ):
            current = _read(context, stacks[row.name], stack, policy)
            if problems := [*problems, *_problems(context, current, policy, stages)]:
                raise MirrorError("\n".join(dict.fromkeys(problems)))
        return current

    states = for_each_mirror({name: contexts[name] for name in stacks}, board, read, policy)
    prepared = _plan(contexts, states, policy, stages)
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
    section = project.section
    mirrors = [context.mirror for context in contexts.values() if context.mirror.account in (None, section.account)]
    needed = {mirror.region or section.region for mirror in mirrors}
    return state.read_shared(next(iter(contexts.values())).clients, section, needed)


def _find_stack(context: MirrorContext, row: Row, policy: Policy) -> ReplicaStackState | None:
    """Return the mirror's stack; leave the mirror if something else works on it and is not to be waited for."""
    if context.mirror.is_deployed_elsewhere and not policy.covers_azure(context.mirror):
        return None
    with step(READ):
        stack = state.settled_stack(context) if policy.waits else context.find_stack()
    if stack and has_operation_in_progress(stack.status):
        row.leave(f"CloudFormation is still working on its stack ({stack.status}); the next run deploys it")
    return stack


def _problems(context: MirrorContext, current: MirrorState, policy: Policy, stages: Collection[str]) -> list[str]:
    """Return what stops one mirror, one sentence each."""
    is_job = current.azure is not None and context.token.is_job
    problems = preflight.mirror_problems(current, policy, is_job=is_job)
    if (
        current.azure
        and current.outputs
        and current.mirror.is_deployed_elsewhere
        and (other := writer.other_rights(context.iam, current.mirror, current.outputs))
    ):
        problems.append(other)
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


def _plan(
    contexts: Mapping[str, MirrorContext], states: Mapping[str, MirrorState], policy: Policy, stages: Collection[str]
) -> dict[str, PlannedMirror]:
    """Decide what bringing each mirror up changes; the first of those that share an engine brings that up, too."""
    planned: dict[str, PlannedMirror] = {}
    engines: set[str] = set()
    for name, current in states.items():
        engine = planned_engine(current, policy) if CONNECT in stages else None
        if engine and str(engine.place) in engines:
            engine = None
        engines |= {str(engine.place)} if engine else set()
        is_proposed = policy.proposes(current.azure is not None and current.azure.is_protected)
        plan = plan_up(current, pull_request=is_proposed, waits=policy.waits, engine=engine)
        actions = {stage: done for stage, done in plan.actions.items() if stage in stages}
        planned[name] = PlannedMirror(contexts[name], current, UpPlan(actions), is_proposed=is_proposed, engine=engine)
    return planned


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


def confirm_plan(changed: Mapping[str, PlannedMirror], board: Board, policy: Policy) -> None:
    """Show what is going to change, and ask once, with where it is.

    Raises:
        MirrorError: the answer was no, or there is no one to ask.
    """
    if not changed:
        return
    actions = [(name, action) for name, planned in changed.items() for action in planned.plan.all_actions]
    for name, action in actions:
        board.rows[name].say(f"plan: {action}")
    first = next(iter(changed))
    mirrors = first if len(changed) == 1 else f"{len(changed):,} mirrors"
    places = ", and ".join(sorted({planned.state.place for planned in changed.values()}))
    policy.confirm(
        f"Make {len(actions):,} changes of {mirrors} in {places}?", typed=first if policy.change_source else None
    )


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
            current = state.reread_stack(planned.context, planned.state)
            if current.record and planned.state.record and current.record != planned.state.record:
                raise MirrorError(
                    f"the deployment of {row.name} changed which pipeline AWS's side records; run this again, and look "
                    "for who changed the stack's outputs before."
                )
            return replace(planned, state=_complete(planned.context, current, policy))

    # What has been deployed is completed, however late it is; minutes may have passed.
    remaining = board.remaining(prepared)
    forget_lists(planned.context for planned in remaining.values())
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
    record_pipeline(context, state.reread_stack(context, current))
    if mirror.existing:
        tag_replica(context.aws, current.replica_outputs().replica_arn, mirror.replica_tags)
    say(f"removed the {describe_earlier(mirror, earlier)} that the pipeline no longer needs")
