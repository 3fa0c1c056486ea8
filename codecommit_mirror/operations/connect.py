"""Connect mirrors' pipelines: the engine that they share, the definition, its record, and the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from ..aws import writer
from ..azure import connection
from ..azure.files import ENGINE, PlannedFile, reread
from ..azure.pipeline import pull_request_text, render_engine
from ..azure.state import runs_file_at
from ..azure.variables import AZURE_SECRETS, missing_source_secrets
from ..errors import AzureError, MirrorError
from ..progress import Board, Row, say, step
from . import batches, credential_delivery, preflight, state
from .batches import Policy, for_each_mirror
from .context import MirrorContext, forget_lists
from .plan import CONNECT, CREDENTIAL, DEPLOY, UpPlan, earlier_sign_in, lacks_user, wanted_record
from .state import MirrorState

_TRIES = 3
_CONFLICT = 409


@dataclass(frozen=True)
class PlannedMirror:
    """A mirror that is to be brought up: what both clouds have, and what was shown."""

    context: MirrorContext
    state: MirrorState
    plan: UpPlan
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The source's credentials that are to be stored; empty if none are."""
    is_proposed: bool = False
    """Whether pull requests bring the YAML in and out."""
    yaml: PlannedFile | None = None
    """The YAML, if it is to be committed."""
    former_yaml: PlannedFile | None = None
    """The file that the pipeline ran before, if it is to be removed."""
    engine: PlannedFile | None = None
    """The engine that mirrors share, if it is to be committed with this one."""
    moves: bool = False
    """Whether the pipeline runs another file after that."""

    @property
    def has_just_created_the_writer(self) -> bool:
        """Whether this deployment has created who pushes, under the name that was asked for."""
        creates = any(action.verb == "create" for action in self.plan.actions.get(DEPLOY, ())[:1])
        return creates and self.state.replica_outputs().writer == self.state.mirror.writer


def update_engines(prepared: Mapping[str, PlannedMirror], board: Board, policy: Policy) -> dict[str, PlannedMirror]:
    """Commit the engines that differ; return the mirrors that can go on: no YAML is valid without its engine."""
    files = {name: planned.engine for name, planned in prepared.items() if planned.engine}
    batches.commit_files(files, board, policy, CONNECT)
    committed = {str(file.place) for name, file in files.items() if not (file.is_proposed or board.rows[name].failed)}
    for name, planned in board.remaining(prepared).items():
        engine = planned.state.azure_side.engine
        if engine and engine.place.text is None and str(engine.place) not in committed:
            board.rows[name].hand_over(
                f"the engine is not at {engine.place} yet: merge its pull request, then run this again; the stack is "
                "already deployed."
            )
    for planned in prepared.values():
        planned.context.clients.forget_engines()
    return board.remaining(prepared)


def planned_engine(current: MirrorState, policy: Policy) -> PlannedFile | None:
    """Return the engine that mirrors share as it is to be committed; None if it is as it should be."""
    engine = current.azure.engine if current.azure else None
    if engine is None or engine.place.text == (text := render_engine()):
        return None
    is_proposed = policy.proposes(bool(engine.policies))
    if is_proposed and engine.place.text and engine.place.pull_request and engine.place.proposed_text == text:
        return None
    description = "This updates the engine of every mirror whose YAML extends it; it contains no secret."
    return PlannedFile(engine.azure, ENGINE, engine.place, text, is_proposed, description)


def connect(planned: PlannedMirror, row: Row, policy: Policy) -> PlannedMirror:
    """Create or update the pipeline; its YAML is committed later, together with that of others."""
    current, context = planned.state, planned.context
    if missing_source_secrets(current.mirror, current.azure_side.definition) and not planned.secrets:
        missing = [name for name in AZURE_SECRETS if name not in context.source_secrets]
        row.hand_over(f"{preflight.missing_secrets(missing)} Then run this again; the stack is already deployed.")
        return planned
    if lacks_user(current):
        with step(CONNECT):
            _restore_user(context, current)
    elif current.mirror.stores_secrets and not planned.has_just_created_the_writer:
        _check_writer(context, current)
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
                context.clients.forget_lists()
                current = state.reread_azure(context, current)
                continue
            return _connected(planned, replace(current, azure=replace(current.azure_side, definition=definition)), todo)
    raise MirrorError(f"the pipeline of {row.name} is being changed by something else; run this again later.")


def _check_writer(context: MirrorContext, current: MirrorState) -> None:
    """Refuse a user or role who may do more than push: whoever may deploy decides whom a stack names."""
    if other := writer.other_rights(context.iam, current.mirror, current.replica_outputs()):
        raise MirrorError(other)


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
        pull_request=planned.is_proposed,
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
    current = record_pipeline(context, replace(current, azure=azure))
    name, text = current.mirror.name, pull_request_text(current.mirror, current.account, current.region)
    proposed = planned.is_proposed
    yaml = PlannedFile(context.azure, name, azure.yaml, done.yaml, proposed, text) if done.commit else None
    former = PlannedFile(context.azure, name, done.leaves, None, proposed) if done.leaves else None
    return replace(planned, state=current, yaml=yaml, former_yaml=former, moves=done.moves)


def record_pipeline(context: MirrorContext, current: MirrorState) -> MirrorState:
    """Make sure that AWS's side records which pipeline pushes."""
    record, outputs = wanted_record(current), current.replica_outputs()
    if record is None or (record == current.record and not outputs.has_both_writers):
        return current
    writer.write_record(context.iam, outputs, record)
    return replace(current, record=record)


def commit(prepared: Mapping[str, PlannedMirror], board: Board, policy: Policy) -> dict[str, PlannedMirror]:
    """Commit the YAML of the mirrors that need it, and move their pipelines to it; return those that did not fail."""
    batches.commit_files(
        {name: planned.yaml for name, planned in prepared.items() if planned.yaml}, board, policy, CONNECT
    )
    former = {name: planned.former_yaml for name, planned in board.remaining(prepared).items() if planned.former_yaml}
    # What comes now may be on the branch that has just got a commit.
    forget_lists(planned.context for planned in prepared.values())
    former = for_each_mirror(former, board, lambda file, _: reread(file), policy)
    batches.commit_files(former, board, policy, CONNECT)

    def move(planned: PlannedMirror, row: Row) -> PlannedMirror:
        if not (planned.moves or (planned.yaml and planned.is_proposed)):
            return _with_committed_yaml(planned)
        with step(CONNECT):
            planned = replace(planned, state=state.reread_azure(planned.context, planned.state), yaml=None)
        return connect(replace(planned, moves=False, secrets={}), row, policy) if planned.moves else planned

    moved = for_each_mirror(board.remaining(prepared), board, move, policy)
    return board.remaining(moved)


def _with_committed_yaml(planned: PlannedMirror) -> PlannedMirror:
    if not planned.yaml:
        return planned
    azure = planned.state.azure_side
    azure = replace(azure, yaml=replace(azure.yaml, text=planned.yaml.text))
    return replace(planned, state=replace(planned.state, azure=azure), yaml=None)
