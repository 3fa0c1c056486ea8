"""Decide what bringing a mirror up changes: a pure function of what both clouds have and of what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .. import engine_api
from ..actions import KNOWN_AFTER_APPLY, Action
from ..aws.stack import ReplicaOutputs
from ..aws.template_changes import template_changes
from ..aws.writer import PipelineRecord
from ..azure import connection
from ..azure.files import PlannedFile
from ..azure.pipeline import engine_in
from ..azure.variables import OF_ROLE, OF_USER, has_replica_secrets, held_credential, missing_source_secrets
from ..config.identity import EarlierSignIn
from ..config.mirror import Mirror
from .credential_delivery import keeps_credential
from .state import MirrorState
from .verification import differing_refs

DEPLOY, CONNECT, CREDENTIAL, RUN, FINISH = STAGES = (
    "Deploy",
    "Connect the pipeline",
    "Git credential",
    "Run and verify",
    "Remove the old sign-in",
)


@dataclass(frozen=True)
class UpPlan:
    """What bringing one mirror up changes, stage by stage."""

    actions: Mapping[str, tuple[Action, ...]] = field(default_factory=dict)
    """By the names of ``STAGES``; a stage without actions is missing."""

    @property
    def all_actions(self) -> tuple[Action, ...]:
        """The actions of all stages, in order."""
        return tuple(action for stage in STAGES for action in self.actions.get(stage, ()))

    def beyond(self, shown: UpPlan) -> list[Action]:
        """Return what is not in a plan that was shown; values may have become known since."""
        known = {(action.verb, action.subject) for action in shown.all_actions}
        return [action for action in self.all_actions if (action.verb, action.subject) not in known]


def earlier_sign_in(mirror: Mirror, deployed: ReplicaOutputs | None) -> EarlierSignIn | None:
    """Return what the deployed stack has that the pipeline will not sign in with any more; None if that is nothing."""
    if deployed is None:
        return None
    if mirror.replica_auth == "user":
        # A stack deployed with another version may not say whom its role trusts.
        subjects = deployed.push_role_subjects or (mirror.token_subject,)
        return EarlierSignIn(subjects=subjects) if deployed.push_role_arn else None
    subjects = tuple(subject for subject in deployed.push_role_subjects if subject != mirror.token_subject)
    earlier = EarlierSignIn(user=deployed.push_user_name is not None, subjects=subjects)
    return earlier if earlier.user or earlier.subjects else None


def variables_left(mirror: Mirror, earlier: EarlierSignIn) -> tuple[str, ...]:
    """Return the variables that a pipeline no longer needs once it signs in otherwise."""
    if mirror.replica_auth == "user":
        return OF_ROLE
    return OF_USER if earlier.user else ()


def describe_earlier(mirror: Mirror, earlier: EarlierSignIn) -> str:
    """Return what a pipeline signed in with before, in words."""
    if mirror.replica_auth == "user":
        return "role"
    return "user" if earlier.user else f"trust in {', '.join(earlier.subjects)}"


def plan_up(
    state: MirrorState, *, pull_request: bool = False, waits: bool = True, engine: PlannedFile | None = None
) -> UpPlan:
    """Decide what bringing a mirror up changes.

    Args:
        state: what both clouds have, and the stack that is wanted.
        pull_request: whether a pull request brings the YAML in.
        waits: whether runs are waited for; if not, one is only queued where none has shown yet that the pipeline works.
        engine: the engine that mirrors share, if it is committed with this one.
    """
    deploy = _stack_actions(state)
    if state.azure is None:
        return UpPlan({DEPLOY: tuple(deploy)} if deploy else {})
    outputs = state.outputs
    missing = missing_source_secrets(state.mirror, state.azure.definition)
    connect = connection.plan(
        state.mirror,
        state.azure,
        outputs.replica_url if outputs else KNOWN_AFTER_APPLY,
        dict.fromkeys(missing, ""),
        pull_request=pull_request,
        role_arn=(outputs.push_role_arn if outputs else None) or KNOWN_AFTER_APPLY,
    ).actions
    credential = _credential_actions(state)
    connect = (
        *_source_actions(state),
        *_user_actions(state),
        *_engine_actions(engine),
        *connect,
        *_record_actions(state),
    )
    changes = [*deploy, *connect, *credential]
    stages = {
        DEPLOY: deploy,
        CONNECT: connect,
        CREDENTIAL: credential,
        RUN: _run_actions(state, changes) if waits else _queue_actions(state, changes),
        FINISH: _finish_actions(state, pull_request=pull_request),
    }
    return UpPlan({stage: tuple(actions) for stage, actions in stages.items() if actions})


def _stack_actions(state: MirrorState) -> list[Action]:
    wanted, stack = state.wanted, state.stack
    if wanted is None or state.is_deployed:
        return []
    subject = f"stack {wanted.stack_name!r} in {state.place}"
    if stack is None or stack.outputs is None:
        return [Action("create", subject), *template_changes(None, wanted.template)]
    resources = template_changes(state.template, wanted.template) if state.template else []
    why = "" if resources else "only tags or termination protection change"
    why = why if state.template else "its template could not be read"
    return [Action("update", subject, None if stack.is_complete else stack.status, why or None), *resources]


def _source_actions(state: MirrorState) -> list[Action]:
    """Return what it means that the replica is to follow another source, which a person has to confirm by name."""
    if state.other_source is None:
        return []
    before = f"repository {state.record.source}" if state.record else None
    subject = f"source of the replica {state.mirror.name!r}"
    change = Action("replace", subject, before, f"repository {state.azure_side.source.id}", is_destructive=True)
    if state.comparison is None:
        return [change]
    source, replica = state.comparison.source, state.comparison.replica
    updated = sum(value != replica[name] for name, value in source.items() if name in replica)
    counts = (
        f"{len(source.keys() - replica.keys()):,} created, {updated:,} updated, "
        f"{len(replica.keys() - source.keys()):,} deleted"
    )
    return [change, Action("update", "refs of the replica", after=counts, is_destructive=True)]


def wanted_record(state: MirrorState) -> PipelineRecord | None:
    """Return what AWS's side is to record of a mirror's pipeline; None as long as there is none."""
    azure = state.azure_side
    if azure.definition is None:
        return None
    return PipelineRecord(azure.source.project_id, azure.definition.id, azure.source.id)


def _engine_actions(file: PlannedFile | None) -> list[Action]:
    """Return that the engine of every mirror that shares it becomes another one."""
    if file is None:
        return []
    way = f" by a pull request from {file.place.proposal!r}" if file.is_proposed else ""
    before, after = (str(engine_in(text or "") or "none") for text in (file.place.text, file.text))
    subject = f"engine of all mirrors, {file.place}{way}"
    return [Action("update", subject, before, after) if file.place.text else Action("create", subject, after=after)]


def _record_actions(state: MirrorState) -> list[Action]:
    wanted, record = wanted_record(state), state.record
    is_doubtful = record is not None and record.is_of_role and state.mirror.replica_auth == "user"
    if wanted and wanted == record and not is_doubtful:
        return []
    subject = f"record of the pipeline in the tags of {state.mirror.writer.replace('/', ' ')!r}"
    after = f"pipeline {wanted.definition}" if wanted else KNOWN_AFTER_APPLY
    if record:
        before = f"pipeline {record.definition}"
        return [Action("update", subject, f"{before}, which CI may have named" if is_doubtful else before, after)]
    return [Action("create", subject, after=after)]


def _credential_actions(state: MirrorState) -> list[Action]:
    if state.mirror.replica_auth == "role":
        return []
    variables, existing = state.azure_side.variables, state.credentials or ()
    held = held_credential(variables)
    if not held.issuing and keeps_credential(held, existing, has_secrets=has_replica_secrets(variables)):
        return []
    return [Action("create", f"Git credential of {_user(state)!r}, stored in the pipeline's secret variables")]


def _user_actions(state: MirrorState) -> list[Action]:
    return [Action("create", f"user {_user(state)!r}, which was deleted by hand")] if lacks_user(state) else []


def _user(state: MirrorState) -> str:
    return state.stack.user_name(state.mirror) if state.stack else state.mirror.user_name


def lacks_user(state: MirrorState) -> bool:
    """Whether the stack's user was deleted by hand, which CloudFormation does not notice."""
    outputs = state.stack.outputs if state.stack else None
    needs = state.mirror.replica_auth == "user" and outputs is not None and outputs.push_user_name is not None
    return needs and state.credentials is None


def _run_actions(state: MirrorState, changes: Collection[Action]) -> list[Action]:
    if changes:
        why = "to prove what was changed"
    elif state.last_run is None or state.last_run.result != "succeeded":
        why = "since its latest run has not succeeded"
    elif state.comparison is None or state.comparison.different:
        count = len(state.comparison.different) if state.comparison else 0
        why = f"since {differing_refs(count)}" if count else "to compare both sides"
    elif earlier_sign_in(state.mirror, state.outputs):
        why = "with the pipeline's new sign-in"
    else:
        return []
    return [Action("run", "pipeline, until both sides are equal", after=why)]


def needs_first_look(state: MirrorState) -> bool:
    """Whether a person has to see the first run: it could replace the history of a repository that was there before."""
    return state.mirror.existing and state.proof is None


def _queue_actions(state: MirrorState, changes: Collection[Action]) -> list[Action]:
    if needs_first_look(state) or (not changes and state.proof):
        return []
    return [Action("run", "pipeline, once", after="to prove what was changed" if changes else "for the first time")]


def _finish_actions(state: MirrorState, *, pull_request: bool) -> list[Action]:
    earlier = earlier_sign_in(state.mirror, state.outputs)
    if earlier is None or pull_request:
        return []
    left = [name for name in variables_left(state.mirror, earlier) if name in state.azure_side.variables]
    return [
        *(Action("delete", f"variable {name}") for name in left),
        Action("delete", f"{describe_earlier(state.mirror, earlier)} that the pipeline no longer needs"),
    ]


def summary(state: MirrorState) -> str:
    """Return the closing message of a mirror that is up."""
    refs = len(state.comparison.source) - len(state.comparison.different) if state.comparison else 0
    message = f"{state.mirror.name} is up: {engine_api.equal_refs(refs)} on both sides."
    azure = state.azure
    if azure and azure.yaml.pull_request and azure.former_yaml:
        message += (
            f" Merge the pull request in {azure.yaml.repository.name!r}, and run this again to move the pipeline."
        )
    elif azure and azure.yaml.pull_request:
        message += f" Merge the pull request in {azure.yaml.repository.name!r}, so that pushes start runs."
    return message


def nothing_to_do(current: MirrorState) -> str:
    """Return the closing message of a mirror with which nothing was to be done."""
    if current.proof and not current.proof.done:
        return f"run {current.proof.id} has not ended yet"
    if current.comparison is None:
        return "nothing to do"
    return summary(current).replace(" is up: ", " is up: nothing to do, ", 1)
