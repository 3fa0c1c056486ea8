"""Decide what bringing a mirror up changes: a pure function of what both clouds have and of what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .. import engine
from ..actions import KNOWN_AFTER_APPLY, Action
from ..aws.stack import ReplicaOutputs
from ..aws.template_changes import template_changes
from ..azure import connection
from ..azure.variables import OF_ROLE, OF_USER, has_replica_secrets, held_credential, missing_source_secrets
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
        known = {(action.verb, action.what) for action in shown.all_actions}
        return [action for action in self.all_actions if (action.verb, action.what) not in known]


def is_migrating(mirror: Mirror, deployed: ReplicaOutputs | None) -> bool:
    """Whether the pipeline changes how it signs in, so that the deployed stack has what it no longer needs then."""
    if deployed is None:
        return False
    old = deployed.push_user_name if mirror.replica_auth == "role" else deployed.push_role_arn
    return old is not None


def old_sign_in(mirror: Mirror) -> tuple[tuple[str, ...], str]:
    """Return the variables that a migrated pipeline no longer needs, and whose they are."""
    return (OF_USER, "user") if mirror.replica_auth == "role" else (OF_ROLE, "role")


def plan_up(state: MirrorState, *, pull_request: bool = False, waits: bool = True) -> UpPlan:
    """Decide what bringing a mirror up changes.

    Args:
        state: what both clouds have, and the stack that is wanted.
        pull_request: whether a pull request brings the YAML in.
        waits: whether runs are waited for; if not, one is only queued where none has shown yet that the pipeline works.
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
    what = f"stack {wanted.stack_name!r}"
    if stack is None or stack.outputs is None:
        return [Action("create", what), *template_changes(None, wanted.template)]
    resources = template_changes(state.template, wanted.template) if state.template else []
    why = "" if resources else "only tags or termination protection change"
    return [Action("update", what, None if stack.is_complete else stack.status, why or None), *resources]


def _credential_actions(state: MirrorState) -> list[Action]:
    if state.mirror.replica_auth == "role":
        return []
    variables, existing = state.azure_side.variables, state.credentials or ()
    held = held_credential(variables)
    if not held.issuing and keeps_credential(held, existing, has_secrets=has_replica_secrets(variables)):
        return []
    user = state.stack.user_name(state.mirror) if state.stack else state.mirror.user_name
    issued = Action("create", f"Git credential of {user!r}, stored in the pipeline's secret variables")
    return [Action("create", f"user {user!r}, which was deleted by hand"), issued] if lacks_user(state) else [issued]


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
    elif is_migrating(state.mirror, state.outputs):
        why = "with what the pipeline signs in with from now on"
    else:
        return []
    return [Action("run", "pipeline, until both sides are equal", after=why)]


def _queue_actions(state: MirrorState, changes: Collection[Action]) -> list[Action]:
    if not changes and state.proof:
        return []
    return [Action("run", "pipeline, once", after="to prove what was changed" if changes else "for the first time")]


def _finish_actions(state: MirrorState, *, pull_request: bool) -> list[Action]:
    if not is_migrating(state.mirror, state.outputs) or pull_request:
        return []
    gone, what = old_sign_in(state.mirror)
    return [
        *(Action("delete", f"variable {name}") for name in gone if name in state.azure_side.variables),
        Action("delete", f"{what} that the pipeline no longer needs"),
    ]


def summary(state: MirrorState) -> str:
    """Return the closing message of a mirror that is up."""
    refs = len(state.comparison.source) - len(state.comparison.different) if state.comparison else 0
    message = f"{state.mirror.name} is up: {engine.equal_refs(refs)} on both sides."
    if state.azure and state.azure.pull_request:
        message += f" Merge the pull request in {state.azure.yaml_repository.name!r}, so that pushes start runs."
    return message
