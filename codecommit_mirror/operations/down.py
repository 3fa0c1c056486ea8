"""Take mirrors down: read both clouds, decide what to delete, ask once, then delete."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import engine_api
from ..actions import Action
from ..aws import git_credentials, writer
from ..aws.repository import find_clone_url, untag_replica
from ..aws.session import client, session_in
from ..aws.stack import (
    ReplicaStackState,
    delete_stack,
    deletion_policy,
    read_template,
)
from ..aws.stack_plan import DeployedStack
from ..aws.writer import PipelineRecord
from ..azure import connection
from ..azure.files import PlannedFile, commit_group, reread
from ..azure.state import Remains, read_remains
from ..azure.variables import held_credential
from ..config.ci import SOURCE_METADATA
from ..config.mirror import Mirror
from ..errors import ConfigurationError, MirrorError
from ..progress import Board, Row, say, step
from . import batches, state, verification
from .batches import Policy, Project, for_each_mirror
from .context import ClientPool, MirrorContext, forget_lists

READ, DISCONNECT, REVOKE, DESTROY = STEPS = (
    "Read both clouds",
    "Disconnect the pipeline",
    "Revoke the Git credentials",
    "Destroy the stack",
)
_MAX_LISTED = 20


@dataclass(frozen=True)
class DeployedMirror:
    """What exists of a mirror in both clouds."""

    region: str
    account: str
    stack: ReplicaStackState | None
    template: Mapping[str, Any] | None = field(repr=False)
    """The deployed one; None without a stack."""
    repository: str
    """The contents of the CodeCommit repository in words; empty if the stack does not delete it."""
    record: PipelineRecord | None
    """Which pipeline is recorded on AWS's side."""
    azure: Remains | None
    """None if neither the repository with the YAML nor a recorded pipeline exists."""

    @property
    def deletion_policy(self) -> str | None:
        """What the deployed stack does with its repository; None if it owns none."""
        return deletion_policy(self.template) if self.template else None

    @property
    def is_ours(self) -> bool:
        """Whether there is a stack that is deleted."""
        return self.stack is not None and not self.stack.is_elsewhere

    @property
    def keeps_replica(self) -> bool:
        """Whether the repository outlives the stack."""
        return self.stack is not None and self.deletion_policy != "Delete"


@dataclass(frozen=True)
class DownPlan:
    """What is to be deleted."""

    actions: tuple[Action, ...]
    question: str | None
    """What to ask before anything is deleted; None if nothing needs a confirmation."""
    note: str
    """What happens to the replica."""


@dataclass(frozen=True)
class PlannedMirror:
    """A mirror that is to be taken down: what exists, and what was shown."""

    context: MirrorContext
    deployed: DeployedMirror
    plan: DownPlan


def down(
    contexts: Mapping[str, MirrorContext],
    board: Board,
    project: Project,
    policy: Policy,
    *,
    keep_stack: bool = False,
) -> None:
    """Take mirrors down, resuming where earlier commands stopped; the board's rows say how each one ended.

    Args:
        contexts: by the mirror's name.
        board: shows the progress.
        project: the CDK project.
        policy: who may be asked, once for all of them.
        keep_stack: whether only the pipelines and their YAML go.

    Raises:
        MirrorError: the answer was no, or something stops all of them.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-") as folder:
        output = Path(folder, "cdk.out")
        prepared = prepare(contexts, board, policy, keep_stack=keep_stack)
        stacks = {
            name: contexts[name] for name, planned in prepared.items() if planned.deployed.is_ours and not keep_stack
        }
        if stacks:
            # Before anything is deleted, since it fails where this is no CDK project.
            batches.synthesize(project, output, list(stacks))
        if questions := [planned.plan.question for planned in prepared.values() if planned.plan.question]:
            loses_commits = any(planned.deployed.repository for planned in prepared.values()) and not keep_stack
            named = next(iter(prepared)) if len(prepared) == 1 else f"{len(questions)} mirrors"
            policy.confirm(_question(questions), typed=named if loses_commits else None)

        _delete_azure_sides(prepared, board, policy)
        remaining = board.remaining(prepared)
        if keep_stack:
            for_each_mirror(remaining, board, _name_credential, policy)
            return
        revoked = for_each_mirror(remaining, board, lambda planned, _: _revoke(planned), policy)
        batches.destroy({n: contexts[n] for n in stacks if n in revoked}, board, output, DESTROY)
    for_each_mirror(board.remaining(prepared), board, _end, policy)


def _delete_azure_sides(prepared: Mapping[str, PlannedMirror], board: Board, policy: Policy) -> None:
    """Delete pipelines, and commit the deletion of their YAML."""

    def disconnect(planned: PlannedMirror, _: Row) -> list[PlannedFile]:
        return _disconnect(
            planned.context, policy, planned.deployed.record, was_visible=planned.deployed.azure is not None
        )

    # A person may have taken minutes to answer.
    forget_lists(planned.context for planned in prepared.values())
    removals = for_each_mirror(prepared, board, disconnect, policy)
    # A mirror that was being moved has two files, which may be on one branch.
    for number in range(2):
        files = {name: files[number] for name, files in removals.items() if len(files) > number}
        files = for_each_mirror(files, board, lambda file, _: reread(file), policy) if number else files
        batches.commit_files(files, board, policy, DISCONNECT)


def prepare(
    contexts: Mapping[str, MirrorContext], board: Board, policy: Policy, *, keep_stack: bool = False
) -> dict[str, PlannedMirror]:
    """Read what exists of mirrors, and decide what to delete; changes nothing. Those that must not be have failed."""

    def read(context: MirrorContext, _: Row) -> PlannedMirror:
        with step(READ):
            deployed = read_deployed(context)
            todo = plan(context.mirror, deployed, keep_stack=keep_stack)
            say(todo.note)
            return PlannedMirror(context, deployed, todo)

    return for_each_mirror(contexts, board, read, policy)


def read_deployed(context: MirrorContext) -> DeployedMirror:
    """Read what exists of a mirror; changes nothing.

    Raises:
        MirrorError: something cannot be read.
    """
    mirror = context.mirror
    stack = state.settled_stack(context)
    is_ours = stack is not None and not stack.is_elsewhere
    template = read_template(client(context.aws, "cloudformation"), mirror.stack_name) if is_ours else None
    owns = template is not None and deletion_policy(template) == "Delete"
    record = state.read_record(context, stack.outputs if stack else None)
    return DeployedMirror(
        region=str(context.aws.region_name),
        account=context.account,
        stack=stack,
        template=template,
        repository=_describe_repository(context) if owns else "",
        record=record,
        azure=read_remains(mirror, context.azure_of(record), record.definition if record else None),
    )


def plan(mirror: Mirror, deployed: DeployedMirror, *, keep_stack: bool = False) -> DownPlan:
    """Decide what to delete.

    Args:
        mirror: the mirror.
        deployed: what exists of it.
        keep_stack: whether only the pipeline and its YAML go.

    Raises:
        MirrorError: the stack is protected, the mirror lives elsewhere, or mirrors.yaml contradicts the stack.
    """
    _check_source(mirror, deployed)
    if not keep_stack:
        _check_location(mirror, deployed)
    deleted, actions = [], []
    if deployed.azure and deployed.azure.definition:
        name = deployed.azure.definition.name
        deleted.append(f"the pipeline {name!r} with its runs")
        actions.append(Action("delete", f"pipeline {name!r} with its runs", is_destructive=True))
    for place in deployed.azure.places if deployed.azure else ():
        if place.has_file_of(mirror.name):
            actions.append(Action("delete", f"YAML {place}"))
    note, goes, stack_actions = _of_stack(mirror, deployed, keep_stack=keep_stack)
    deleted += goes
    actions += stack_actions
    aside = "The source keeps its commits."
    if deployed.repository and not keep_stack:
        aside += " Snapshots stay."
    if deployed.azure is None:
        deleted = deleted or ["what remains in AWS"]
        aside = "Azure DevOps is left alone, because the repository there does not exist or is not visible."
    question = f"Delete {' and '.join(deleted)}? {aside}" if deleted else None
    return DownPlan(tuple(actions), question, note)


def _of_stack(mirror: Mirror, deployed: DeployedMirror, *, keep_stack: bool) -> tuple[str, list[str], list[Action]]:
    """Return what happens to the replica, what the question names, and the actions."""
    if keep_stack:
        return "the stack, the replica and the Git credential stay", [], []
    if mirror.is_deployed_elsewhere:
        return "the replica and who pushes to it stay, for another CDK app has them; its Git credentials go", [], []
    if deployed.stack is None:
        return f"the stack {mirror.stack_name!r} is not in region {deployed.region} of this account", [], []
    actions = [Action("delete", f"stack {mirror.stack_name!r}")]
    if deployed.keeps_replica:
        return "the replica and its history stay", [], actions
    what = deployed.repository
    actions.append(Action("delete", what.removeprefix("the "), is_destructive=True))
    return f"to be deleted: {what}", [what], actions


def _check_source(mirror: Mirror, deployed: DeployedMirror) -> None:
    """Refuse to delete the mirror of another source, which has the same name in another file."""
    source_id = deployed.azure.source_id if deployed.azure else None
    if other := state.other_source(mirror, deployed.record, deployed.template, source_id):
        raise MirrorError(other)


def _check_location(mirror: Mirror, deployed: DeployedMirror) -> None:
    """Refuse to delete what is protected, what belongs to another account or region, and what mirrors.yaml keeps."""
    if deployed.stack is None:
        azure = deployed.azure
        wrong = connection.wrong_replica(azure.definition, deployed.region, deployed.account) if azure else None
        if wrong:
            raise MirrorError(wrong)
        return
    if deployed.stack.protected:
        raise MirrorError(
            f"the stack {mirror.stack_name!r} has termination protection; set termination_protection: false in "
            f"mirrors.yaml, run 'cdk deploy {mirror.name}', then run this again."
        )
    if deployed.keeps_replica == mirror.keeps_replica:
        return
    configured = "existing: true" if mirror.existing else f"on_destroy: {mirror.on_destroy}"
    remedy = "correct mirrors.yaml" if mirror.existing else f"run 'cdk deploy {mirror.name}' first"
    if deployed.deletion_policy is None:
        remedy = "set existing: true, since the stack only refers to it"
    raise MirrorError(
        f"mirrors.yaml says {configured}, but the deployed stack {'keeps' if deployed.keeps_replica else 'deletes'} "
        f"the repository; {remedy}."
    )


def _describe_repository(context: MirrorContext) -> str:
    name = context.mirror.name
    url = find_clone_url(context.aws, name)
    if url is None:
        return f"the stack, whose CodeCommit repository {name!r} is already gone"
    refs = verification.replica_refs(context.aws, url)
    archived = sum(ref.startswith(engine_api.ARCHIVE_PREFIX) for ref in refs)
    return (
        f"the CodeCommit repository {name!r} with {engine_api.count(refs, 'ref')} ({archived:,} of them archived) and "
        "all history"
    )


def _question(questions: Sequence[str]) -> str:
    if len(questions) == 1:
        return questions[0]
    listed = "\n".join(f"- {question}" for question in questions[:_MAX_LISTED])
    more = f"\n- and {len(questions) - _MAX_LISTED:,} more" if len(questions) > _MAX_LISTED else ""
    return f"{listed}{more}\nDelete all of these ({len(questions):,} mirrors)?"


def _disconnect(
    context: MirrorContext, policy: Policy, record: PipelineRecord | None, *, was_visible: bool = True
) -> list[PlannedFile]:
    """Delete the pipeline; return the removals of its YAML, which are committed together with those of others."""
    mirror, azure = context.mirror, context.azure_of(record)
    with step(DISCONNECT):
        remains = read_remains(mirror, azure, record.definition if record else None) if was_visible else None
        if not remains:
            name = mirror.azure.pipelines_repository or mirror.azure.repository
            say(f"the repository {name!r} is not visible; delete any remaining pipeline by hand")
            return []
        return connection.disconnect(mirror, azure, remains, pull_request=policy.pull_request)


def _revoke(planned: PlannedMirror) -> None:
    with step(REVOKE):
        revoked = _revoked(planned.context, planned.deployed)
        for identifier in revoked:
            say(f"revoked {identifier}")
        if not revoked:
            say("there are no credentials to revoke")


def _revoked(context: MirrorContext, deployed: DeployedMirror) -> list[str]:
    """Revoke the credentials that the mirror leaves behind; return their ids."""
    outputs = deployed.stack.outputs if deployed.stack else None
    if outputs is None:
        # The user whom only mirrors.yaml names may belong to something else, and what a pipeline holds anybody writes.
        if note := _held_credential_note(context.mirror.name, deployed):
            say(note)
        return []
    user = outputs.push_user_name
    existing = git_credentials.find_credentials(context.iam, user) if user else None
    if user is None or not existing:
        return []
    if other := writer.other_rights(context.iam, context.mirror, outputs):
        say(f"left the Git credentials of {user!r} alone: {other}")
        return []
    return [credential.id for credential in existing if git_credentials.revoke(context.iam, user, credential.id)]


def _name_credential(planned: PlannedMirror, row: Row) -> None:
    note = _held_credential_note(row.name, planned.deployed)
    row.succeed(f"{row.name} is disconnected; the stack stays. {note}".rstrip())


def _held_credential_note(name: str, deployed: DeployedMirror) -> str:
    """Return how to revoke what the pipeline held; nothing if it held nothing."""
    held = held_credential(deployed.azure.variables).id if deployed.azure else None
    command = f"codecommit-mirror credentials revoke {name} {held}"
    return f"{held}, which the pipeline held, may still exist in IAM; revoke it with: {command}" if held else ""


def _end(planned: PlannedMirror, row: Row) -> None:
    if planned.deployed.is_ours and planned.deployed.keeps_replica:
        untag_replica(planned.context.aws, planned.context.mirror)
    kept = " Its replica stays in CodeCommit." if planned.deployed.keeps_replica else ""
    row.succeed(f"{row.name} is down.{kept}")


def find_removed(clients: ClientPool, project: Project, output: Path) -> dict[str, DeployedStack]:
    """Return the stacks of mirrors that are no longer in mirrors.yaml, in any region, by the mirrors' names.

    These are the stacks that have this file's tag (``orphans``) and whose mirrors it does not name any more
    (``SharedState.removed``). The command leaves out what was not approved; ``take_removed_down``, what is protected.

    Raises:
        MirrorError: the CDK app fails, the file has no section ci, or the credentials belong to another account.
    """
    if project.section is None:
        raise ConfigurationError(
            "mirrors.yaml has no section ci, which is needed to identify removed mirrors; see docs/ci.md."
        )
    wanted = list(batches.synthesize(project, output, ()).values())
    shared = state.read_shared(
        clients, project.section, {stack.region for stack in wanted if stack.account == project.section.account}
    )
    return shared.removed(wanted)


def take_removed_down(
    stacks: Mapping[str, DeployedStack],
    context_of: Callable[[Mirror], MirrorContext],
    board: Board,
    policy: Policy,
) -> None:
    """Delete the pipelines and stacks of mirrors that are no longer in mirrors.yaml; the rows say how each one ended.

    Args:
        stacks: by the mirrors' names.
        context_of: what to work with on a mirror.
        board: shows the progress.
        policy: who may be asked, once for all of them, and of which mirrors the Azure side goes as well.

    Raises:
        MirrorError: the answer was no.
    """

    def read(stack: DeployedStack, row: Row) -> tuple[DeployedStack, Mirror | None]:
        with step(READ):
            if stack.protected:
                raise MirrorError(
                    f"the stack {stack.name!r} has termination protection and is not deleted: put {row.name} back into "
                    "mirrors.yaml with termination_protection: false, deploy it, and remove it again."
                )
            template = read_template(client(session_in(stack.region), "cloudformation"), stack.name)
            mirror, stores_secrets = removed_mirror(row.name, template)
            covers = policy.azure == "all" or (policy.azure == "without secrets" and not stores_secrets)
            return stack, mirror if covers else None

    removed = for_each_mirror(stacks, board, read, policy)
    if removed:
        policy.confirm(f"Delete the stacks of {', '.join(removed)}?")

    def remove(stack_and_mirror: tuple[DeployedStack, Mirror | None], row: Row) -> None:
        stack, mirror = stack_and_mirror
        note = f"; 'down {row.name} --azure-repo-url URL' deletes its pipeline, if it has one"
        if mirror:
            context = context_of(mirror)
            for yaml in _disconnect(context, policy, state.read_record(context, stack.outputs)):
                with step(DISCONNECT):
                    commit_group([yaml])
            note = ""
        with step(DESTROY):
            delete_stack(client(session_in(stack.region), "cloudformation"), stack.name)
        row.succeed(f"deleted{note}")

    for_each_mirror(board.remaining(removed), board, remove, policy)


def removed_mirror(name: str, template: Mapping[str, Any]) -> tuple[Mirror | None, bool]:
    """Return a mirror that is no longer in mirrors.yaml, as far as its stack's template knows its source.

    Returns:
        The mirror, or None if the template names no source; and whether its pipeline stores secrets.
    """
    source = template.get("Metadata", {}).get(SOURCE_METADATA, {})
    stores_secrets = (source.get("source_auth"), source.get("replica_auth")) != ("job-token", "role")
    try:
        return Mirror.model_validate({"name": name, "azure": source.get("azure")}), stores_secrets
    except ValidationError:
        return None, stores_secrets
