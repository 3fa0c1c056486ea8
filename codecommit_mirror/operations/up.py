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
class Prepared:
    """A mirror that is to be brought up: what both clouds have, and what was shown."""

    context: MirrorContext
    state: MirrorState
    plan: UpPlan
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The source's credentials that are to be stored; empty if none are."""
    yaml: connection.YamlFile | None = None
    """The YAML, if it is to be committed."""
    former_yaml: connection.YamlFile | None = None
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
        changed = {name: one for name, one in prepared.items() if one.plan.actions}
        under_way = {name for name, one in prepared.items() if one.state.proof and not one.state.proof.done}
        for name in prepared.keys() - changed.keys():
            board.rows[name].succeed(_nothing_to_do(prepared[name].state), unchanged=True)
        confirm_plan({name: one.plan for name, one in changed.items()}, board, policy)
        ready = for_each_mirror(changed, board, _ask_for_secrets, policy)
        ready = _deploy(ready, board, output, policy)
    connecting = {name: one for name, one in ready.items() if one.state.azure and CONNECT in stages}
    for name in ready.keys() - connecting.keys():
        _end_after_deployment(prepared[name], board.rows[name], policy)
    connected = for_each_mirror(connecting, board, lambda one, row: _connect(one, row, policy), policy)
    connected = _commit({name: one for name, one in connected.items() if name in board.open_rows}, board, policy)
    queued = for_each_mirror(connected, board, lambda one, row: _prove(one, row, project, policy, stages), policy)
    running = [name for name in contexts if name in under_way - changed.keys() or queued.get(name)]
    return UpResult(tuple(running), tuple(sorted(removed)))


def prepare(
    contexts: Mapping[str, MirrorContext],
    board: Board,
    project: Project,
    policy: Policy,
    output: Path,
    stages: Collection[str] = STAGES,
) -> tuple[dict[str, Prepared], list[str]]:
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
    stacks = for_each_mirror(contexts, board, lambda one, row: _find_stack(one, row, policy), policy)
    stacks = {name: stack for name, stack in stacks.items() if name in board.open_rows}
    wanted: dict[str, WantedStack] = {}
    if DEPLOY in stages and (stacks or shared):
        earlier = {
            name: earlier_sign_in(contexts[name].mirror, found.outputs) for name, found in stacks.items() if found
        }
        migrating = {name: sign_in for name, sign_in in earlier.items() if sign_in}
        wanted = batches.synthesize(project, output, list(stacks), migrating)

    def read(context: MirrorContext, row: Row) -> Prepared:
        stack = wanted.get(row.name)
        problems = shared.problems(stack, list(wanted.values())) if shared and stack else []
        with step(READ):
            found = _read(context, stacks[row.name], stack, policy)
            if problems := [*problems, *_problems(context, found, policy, stages)]:
                raise MirrorError("\n".join(dict.fromkeys(problems)))
        return _plan(context, found, policy, stages)

    prepared = for_each_mirror({name: contexts[name] for name in stacks}, board, read, policy)
    _check_accounts({name: one for name, one in prepared.items() if DEPLOY in one.plan.actions}, board)
    removed = list(shared.removed(list(wanted.values()))) if shared else []
    return {name: one for name, one in prepared.items() if name in board.open_rows}, removed


def _read(
    context: MirrorContext, stack: ReplicaStackState | None, wanted: WantedStack | None, policy: Policy
) -> MirrorState:
    azure = policy.covers_azure(context.mirror)
    found = state.read(context, stack, wanted=wanted, azure=azure, compare=policy.waits)
    for note in connection.notes(found.mirror, found.azure) if found.azure else ():
        say(note)
    return found


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


def _problems(context: MirrorContext, found: MirrorState, policy: Policy, stages: Collection[str]) -> list[str]:
    """Return what stops one mirror, one sentence each."""
    problems = preflight.mirror_problems(found)
    problems += preflight.secrets_problems(context, found)
    if found.outputs is None or found.outputs.push_role_arn is None:
        problems += preflight.provider_problems(context)
    if DEPLOY not in stages:
        try:
            found.replica_outputs()
        except MirrorError as error:
            problems.append(str(error))
    if not policy.waits and earlier_sign_in(found.mirror, found.outputs):
        name = found.mirror.name
        problems.append(
            f"the pipeline of {name} signs in otherwise from now on: run 'codecommit-mirror up {name}' once, which "
            "changes that without interrupting it."
        )
    return problems


def _plan(context: MirrorContext, found: MirrorState, policy: Policy, stages: Collection[str]) -> Prepared:
    planned = plan_up(found, pull_request=policy.pull_request, waits=policy.waits)
    actions = {stage: done for stage, done in planned.actions.items() if stage in stages}
    return Prepared(context, found, UpPlan(actions))


def _check_accounts(prepared: Mapping[str, Prepared], board: Board) -> None:
    """Fail the mirrors of an account and region that cannot be deployed to, and new ones that it has no room for."""
    places: dict[tuple[str | None, str | None], list[Prepared]] = {}
    for one in prepared.values():
        places.setdefault((one.context.mirror.account, one.context.mirror.region), []).append(one)
    for group in places.values():
        context = group[0].context
        states = {one.context.mirror.name: one.state for one in group}
        new = {name: found.wanted.template for name, found in states.items() if found.wanted and found.stack is None}
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
        MirrorError: the answer was no, or there is nobody to ask.
    """
    if not plans:
        return
    count = 0
    for name, one in plans.items():
        for action in one.all_actions:
            count += 1
            board.rows[name].say(f"plan: {action}")
    what = f"{count:,} changes of {next(iter(plans)) if len(plans) == 1 else f'{len(plans):,} mirrors'}"
    policy.confirm(f"Make {what}?")


def _ask_for_secrets(one: Prepared, _: Row) -> Prepared:
    """Return the mirror with the source's credentials that are to be stored, before anything is changed."""
    if one.state.azure is None:
        return one
    given, ask = one.context.source_secrets, one.context.ask
    unknown = [name for name in AZURE_SECRETS if name not in given]
    if not missing_source_secrets(one.state.mirror, one.state.azure.definition) or (unknown and ask is None):
        return one
    if ask and unknown:
        given.update({name: ask(name) for name in unknown})
        verification.check_source_credentials(one.state.mirror, *(given[name] for name in AZURE_SECRETS))
    return replace(one, secrets=given)


def _deploy(prepared: Mapping[str, Prepared], board: Board, output: Path, policy: Policy) -> dict[str, Prepared]:
    """Deploy the stacks that differ together; return the mirrors whose stacks are as they should be."""
    due = {name: one.context for name, one in prepared.items() if DEPLOY in one.plan.actions}
    deployed = set(batches.deploy(due, board, output, DEPLOY, policy))

    def complete(one: Prepared, row: Row) -> Prepared:
        if row.name not in deployed:
            return one
        with step(DEPLOY):
            return replace(one, state=_complete(one.context, state.reread_stack(one.context, one.state), policy))

    # What has been deployed is completed, however late it is.
    remaining = {name: one for name, one in prepared.items() if name in board.open_rows}
    return for_each_mirror(remaining, board, complete, replace(policy, minutes=math.inf))


def _end_after_deployment(one: Prepared, row: Row, policy: Policy) -> None:
    """End a mirror whose Azure side is left alone."""
    if one.state.stack is None and policy.azure == "without secrets":
        row.hand_over(f"is deployed; its pipeline stores secrets: run 'codecommit-mirror up {row.name}' once.")
    else:
        row.succeed(f"{row.name} is deployed.")


def _complete(context: MirrorContext, found: MirrorState, policy: Policy) -> MirrorState:
    """Tag a repository that the stack does not own, and read again what may have changed during the deployment."""
    mirror, outputs = found.mirror, found.replica_outputs()
    # A job may not tag a repository that has no tags yet.
    if mirror.existing and policy.azure == "all":
        earlier = earlier_sign_in(mirror, outputs)
        tags = mirror.replica_tags_while_migrating(earlier) if earlier else mirror.replica_tags
        tag_replica(context.aws, outputs.replica_arn, tags)
    who = outputs.push_role_arn if mirror.replica_auth == "role" else outputs.push_user_name
    say(f"replica {outputs.replica_url}, to which {who} may push")
    # Minutes may have passed since it was read.
    return state.reread_azure(context, found) if found.azure else found


def _connect(one: Prepared, row: Row, policy: Policy) -> Prepared:
    """Create or update the pipeline; its YAML is committed later, together with that of others."""
    found, context = one.state, one.context
    if missing_source_secrets(found.mirror, found.azure_side.definition) and not one.secrets:
        missing = [name for name in AZURE_SECRETS if name not in context.source_secrets]
        row.hand_over(f"{preflight.missing_secrets(missing)} The stack is deployed; then run this again.")
        return one
    if lacks_user(found):
        with step(CONNECT):
            _restore_user(context, found)
    migrates = earlier_sign_in(found.mirror, found.outputs) is not None
    if migrates and found.mirror.replica_auth == "user" and found.azure_side.definition:
        # Before the YAML that needs it.
        with step(CREDENTIAL):
            found = _ensure_credential(context, found)
    with step(CONNECT):
        for _ in range(_TRIES):
            todo = _plan_connection(found, one, policy)
            try:
                definition = connection.define(context.azure, found.azure_side, todo)
            except AzureError as error:
                if error.status != _CONFLICT:
                    raise
                found = state.reread_azure(context, found)
                continue
            return _connected(one, replace(found, azure=replace(found.azure_side, definition=definition)), todo)
    raise MirrorError(f"the pipeline of {row.name} is being changed by something else; run this again later.")


def _restore_user(context: MirrorContext, found: MirrorState) -> None:
    outputs = found.replica_outputs()
    if writer.restore(context.iam, found.mirror, outputs):
        say(f"recreated the user {outputs.push_user_name}, which had been deleted by hand")


def _plan_connection(found: MirrorState, one: Prepared, policy: Policy) -> connection.ConnectionPlan:
    outputs = found.replica_outputs()
    todo = connection.plan(
        found.mirror,
        found.azure_side,
        outputs.replica_url,
        one.secrets,
        pull_request=policy.pull_request,
        role_arn=outputs.push_role_arn,
    )
    if beyond := UpPlan({CONNECT: todo.actions}).beyond(one.plan):
        raise MirrorError(
            f"Azure DevOps has changed since the plan was made, which did not have '{beyond[0]}'; run this again."
        )
    return todo


def _connected(one: Prepared, found: MirrorState, done: connection.ConnectionPlan) -> Prepared:
    """Record the pipeline on AWS's side; return what is still to be committed."""
    context, azure = one.context, found.azure_side
    if azure.yaml.is_run_by(found.definition):
        azure = replace(azure, former_yaml=None)
    found = _record_pipeline(context, replace(found, azure=azure))
    yaml = connection.YamlFile(context.azure, found.mirror, azure.yaml, done.yaml) if done.commit else None
    former = connection.YamlFile(context.azure, found.mirror, done.leaves, None) if done.leaves else None
    return replace(one, state=found, yaml=yaml, former_yaml=former, moves=done.moves)


def _record_pipeline(context: MirrorContext, found: MirrorState) -> MirrorState:
    """Make sure that AWS's side records which pipeline pushes."""
    record, outputs = wanted_record(found), found.replica_outputs()
    has_both = outputs.push_user_name is not None and outputs.push_role_arn is not None
    if record is None or (record == found.record and not has_both):
        return found
    writer.write_record(context.iam, outputs, record)
    return replace(found, record=record)


def _commit(prepared: Mapping[str, Prepared], board: Board, policy: Policy) -> dict[str, Prepared]:
    """Commit the YAML of the mirrors that need it, and move their pipelines to it; return those that did not fail."""

    def open_ones() -> dict[str, Prepared]:
        return {name: one for name, one in prepared.items() if name in board.open_rows}

    batches.commit_yaml({name: one.yaml for name, one in prepared.items() if one.yaml}, board, policy, CONNECT)
    former = {name: one.former_yaml for name, one in open_ones().items() if one.former_yaml}
    # It may be on the branch that has just got a commit.
    former = for_each_mirror(former, board, lambda file, _: connection.reread(file), policy)
    batches.commit_yaml(former, board, policy, CONNECT)

    def move(one: Prepared, row: Row) -> Prepared:
        if not (one.moves or (one.yaml and policy.pull_request)):
            return _with_committed_yaml(one)
        with step(CONNECT):
            one = replace(one, state=state.reread_azure(one.context, one.state), yaml=None)
        return _connect(replace(one, moves=False, secrets={}), row, policy) if one.moves else one

    moved = for_each_mirror(open_ones(), board, move, policy)
    return {name: one for name, one in moved.items() if name in board.open_rows}


def _with_committed_yaml(one: Prepared) -> Prepared:
    if not one.yaml:
        return one
    azure = one.state.azure_side
    azure = replace(azure, yaml=replace(azure.yaml, text=one.yaml.text))
    return replace(one, state=replace(one.state, azure=azure), yaml=None)


def _prove(one: Prepared, row: Row, project: Project, policy: Policy, stages: Collection[str]) -> bool:
    """Deliver the Git credential, run the pipeline until both sides are equal, and remove the old sign-in.

    Returns whether a run was queued that is not waited for.
    """
    context, found = one.context, one.state
    with step(CREDENTIAL):
        found = _ensure_credential(context, found)
    outputs = found.replica_outputs()
    if RUN not in stages:
        row.succeed(f"{row.name} is connected.")
        return False
    if not policy.waits:
        build = context.azure.queue(found.definition, connection.run_branch(found.mirror, found.azure_side))
        row.succeed(f"queued run {build.id}")
        return True
    with step(RUN):
        comparison = run_until_equal(context, found)
        found = replace(found, comparison=comparison)
        earlier = earlier_sign_in(found.mirror, outputs)
        if earlier and found.azure_side.yaml.pull_request:
            say("after the pull request is merged, run this again: it removes what the pipeline then does not need")
    if earlier and not found.azure_side.yaml.pull_request:
        with step(FINISH):
            _finish_migration(context, found, project, earlier)
    row.succeed(summary(found))
    return False


def _ensure_credential(context: MirrorContext, found: MirrorState) -> MirrorState:
    """Make sure that the pipeline holds a Git credential for the replica, unless it acts as a role."""
    if found.mirror.replica_auth == "role":
        say(f"none is stored: the role trusts the tokens of {found.mirror.token_subject}")
        return found
    target = credential_delivery.target_of(context, found)
    if not credential_delivery.ensure_credential(target):
        return found
    return replace(found, azure=replace(found.azure_side, definition=context.azure.definition(target.definition.id)))


def _finish_migration(context: MirrorContext, found: MirrorState, project: Project, earlier: EarlierSignIn) -> None:
    """Take away what the pipeline no longer needs, once a run has succeeded without it.

    Runs that were queued or began with the old YAML end first.
    """
    mirror = found.mirror
    for status in ("notStarted", "inProgress"):
        for build in list(context.azure.builds(found.definition, status=status)):
            runs.follow(context.azure, build, timeout_minutes=RUN_MINUTES)
    if left := variables_left(mirror, earlier):
        update_variables(context.azure, found.definition, dict.fromkeys(left))
        say(f"removed the variables {', '.join(left)}")
    batches.deploy_alone(context, project)
    # CloudFormation may have set the tags anew.
    _record_pipeline(context, state.reread_stack(context, found))
    if mirror.existing:
        tag_replica(context.aws, found.replica_outputs().replica_arn, mirror.replica_tags)
    say(f"removed the {describe_earlier(mirror, earlier)} that the pipeline no longer needs")


def _nothing_to_do(found: MirrorState) -> str:
    if found.proof and not found.proof.done:
        return f"run {found.proof.id} has not ended yet"
    if found.comparison is None:
        return "nothing to do"
    return summary(found).replace(" is up: ", " is up: nothing to do, ", 1)
