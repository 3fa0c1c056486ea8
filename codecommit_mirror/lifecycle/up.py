"""Bring a mirror up: each step finds out for itself what is left to do."""

from __future__ import annotations

import contextlib

from .. import engine
from ..aws import cdk, git_credentials, push_user
from ..aws.session import NotFoundError
from ..aws.stack import (
    ReplicaOutputs,
    find_stack,
    has_operation_in_progress,
    read_outputs,
    tag_replica,
    wait_until_settled,
)
from ..azure.state import read_state
from ..azure.variables import missing_source_secrets
from ..errors import MirrorError
from ..progress import Say, Steps
from . import preflight, replica_auth
from .connect import connect, ensure_pipeline_credential, source_secrets
from .context import MirrorContext
from .run import equal_refs, run_until_equal

STEPS = ("Preflight", "cdk deploy", "Connect the pipeline", "Git credential", "Run and verify")


def up(context: MirrorContext, steps: Steps, *, pull_request: bool = False) -> str:
    """Bring a mirror up, resuming where an earlier run stopped; return the closing message.

    Raises:
        MirrorError: a step failed; running again resumes from there.
    """
    with steps.step(STEPS[0]) as say:
        problems = preflight.find_problems(context)
        if problems:
            raise MirrorError("\n".join(problems))
        ask_for_secrets(context)
        say("tools, tokens, account, names and the source are in order")
    with steps.step(STEPS[1]) as say:
        outputs = deploy(context, say)
    return connect_and_run(context, steps, outputs, pull_request=pull_request)


def ask_for_secrets(context: MirrorContext) -> None:
    """Ask for what the pipeline needs to read the source, so that nobody has to answer after minutes of work.

    Raises:
        MirrorError: there is nobody to ask, or the source does not accept it.
    """
    _, state = read_state(context.mirror, context.azure)
    source_secrets(context, missing_source_secrets(context.mirror, state.definition))


def connect_and_run(
    context: MirrorContext, steps: Steps, outputs: ReplicaOutputs, *, pull_request: bool, always_run: bool = True
) -> str:
    """Do all that follows the deployment; return the closing message.

    Args:
        context: the mirror's.
        steps: shows the progress.
        outputs: the stack's.
        pull_request: whether a pull request brings the YAML in.
        always_run: whether to make a run also if nothing was changed and both sides are equal.

    Raises:
        MirrorError: a step failed; running again resumes from there.
    """
    is_changing = replica_auth.is_changing(context.mirror, outputs)
    with steps.step(STEPS[2]) as say, context.yaml_lock:
        if is_changing and read_state(context.mirror, context.azure)[1].definition:
            # Before the YAML that needs it.
            ensure_pipeline_credential(context, say)
        state, changed = connect(
            context, outputs.replica_url, say, role_arn=outputs.push_role_arn, pull_request=pull_request
        )
    with steps.step(STEPS[3]) as say:
        issued = ensure_pipeline_credential(context, say)
    with steps.step(STEPS[4]) as say:
        if not (always_run or changed or issued or is_changing):
            equal = equal_refs(context, outputs.replica_url, state)
            if equal is not None:
                return f"{context.mirror.name} is up: nothing to do, {engine.equal_refs(len(equal))} on both sides."
        equal = run_until_equal(context, outputs.replica_url, say)
        if is_changing and state.definition:
            if state.pull_request:
                say("after the pull request is merged, run this again: it removes what the pipeline then does not need")
            else:
                replica_auth.finish_change(context, state.definition, say)
    message = f"{context.mirror.name} is up: {engine.equal_refs(len(equal))} on both sides."
    if state.pull_request:
        message += f" Merge the pull request in {state.yaml_repository.name!r}, so that pushes start runs."
    return message


def deploy(context: MirrorContext, say: Say) -> ReplicaOutputs:
    """Deploy the mirror's stack, recreate its user if somebody deleted it, and return the stack's outputs.

    Raises:
        MirrorError: the deployment failed.
    """
    changing = prepare_deployment(context, say)
    changes = replica_auth.cdk_context([context.mirror.name] if changing else [])
    cdk.deploy(context.folder, context.mirror.name, (*context.cdk_context, *changes), say)
    return complete_deployment(context, say, changing=changing)


def prepare_deployment(context: MirrorContext, say: Say) -> bool:
    """Wait until the mirror's stack can be deployed; return whether the pipeline changes how it signs in.

    Raises:
        MirrorError: the deployment would fail.
    """
    _check_user_name(context)
    wait_for_stack(context, say)
    stack = find_stack(context.aws, context.mirror)
    return replica_auth.is_changing(context.mirror, stack.outputs if stack else None)


def complete_deployment(context: MirrorContext, say: Say, *, changing: bool) -> ReplicaOutputs:
    """Do what CloudFormation does not, and return the stack's outputs.

    Raises:
        MirrorError: a call failed.
    """
    mirror = context.mirror
    outputs = read_outputs(context.aws, mirror)
    if mirror.replica_auth == "user" and push_user.restore(context.iam, mirror, outputs):
        say(f"recreated the user {outputs.push_user_name}, which somebody had deleted")
    if mirror.existing:
        tags = mirror.replica_tags_while_changing if changing else mirror.replica_tags
        tag_replica(context.aws, outputs.replica_arn, tags)
    say(f"replica {outputs.replica_url}")
    if mirror.replica_auth == "role":
        say(f"role {outputs.push_role_arn}, which may push to it and do nothing else")
    else:
        say(f"user {outputs.push_user_name}, who may push to it and do nothing else")
    return outputs


def wait_for_stack(context: MirrorContext, say: Say) -> None:
    """Wait while CloudFormation is still working on the mirror's stack."""

    def in_progress() -> dict[str, str]:
        stack = find_stack(context.aws, context.mirror)
        if stack is None or not has_operation_in_progress(stack.status):
            return {}
        return {context.mirror.stack_name: stack.status}

    wait_until_settled(in_progress, say)


def _check_user_name(context: MirrorContext) -> None:
    """Refuse a new user name while the old user has credentials, which the new role may not remove."""
    mirror, stack = context.mirror, find_stack(context.aws, context.mirror)
    if mirror.replica_auth == "role":
        return
    old = stack.user_name(mirror) if stack else mirror.user_name
    if old == mirror.user_name:
        return
    with contextlib.suppress(NotFoundError):
        if git_credentials.list_credentials(context.iam, old):
            raise MirrorError(
                f"mirrors.yaml names the user {mirror.user_name!r}, but {old!r} still has Git credentials, which keep "
                f"CloudFormation from deleting it; run 'codecommit-mirror credentials revoke {mirror.name} --all', "
                "then run this again: the pipeline gets a new one."
            )
