"""A mirror up, down, and with a new credential: the steps, each of which finds out for itself what is left to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pipeline_templates import mirror_sync

from ..aws import cdk, push_user
from ..aws import git_credentials as credentials
from ..aws.stack import (
    Missing,
    ReplicaStackState,
    deployed_deletion_policy,
    find_clone_url,
    find_stack,
    replica_outputs,
)
from ..azure import connection, held_credential, runs
from ..azure.connection import AZURE_SECRETS, Connection
from ..azure.http import AzureError
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..progress import Checklist
from . import credential_delivery as delivery
from . import preflight, verification
from . import rotate as rotation
from .context import Operator

Say = Callable[[str], None]
Confirm = Callable[[str], None]
"""Asks a person; raises MirrorError when the answer is no, or nobody can be asked."""

UP = ("Preflight", "cdk deploy", "Connect the pipeline", "Git credential", "Run and verify")
DOWN = ("Look at what there is", "Disconnect the pipeline", "Revoke the Git credentials", "cdk destroy")
ROTATE = (DOWN[0], *rotation.STEPS)
_TRIES = 3
_RUN_MINUTES = 150.0
_SETTLING_SECONDS = 30 * 60


def up(operator: Operator, checklist: Checklist, *, pull_request: bool = False) -> str:
    """Bring a mirror up, or the rest of it; return the last sentence.

    Raises:
        MirrorError: a step failed; running again goes on from there.
    """
    mirror = operator.mirror
    with checklist.step(UP[0]) as say:
        found = preflight.find_problems(operator)
        if found:
            raise MirrorError("\n".join(found))
        # A person is asked now, and not after minutes of work.
        _source_secrets(operator, connection.missing_secrets(mirror, look(operator)[1].definition))
        say("tools, tokens, account, names and the source are in order")
    with checklist.step(UP[1]) as say:
        _check_user_name(operator)
        _wait_until_settled(operator, say)
        cdk.run(operator.folder, ["deploy", mirror.name, "--require-approval", "never", *operator.context])
        outputs = replica_outputs(operator.aws, mirror)
        if push_user.restore(operator.iam, mirror, outputs):
            say(f"recreated the user {outputs.push_user_name}, which somebody had deleted")
        say(f"replica {outputs.replica_url}")
        say(f"user {outputs.push_user_name}, who may push to it and nothing else")
    with checklist.step(UP[2]) as say:
        there = connect(operator, outputs.replica_url, say, pull_request=pull_request)
    with checklist.step(UP[3]) as say:
        ensure_credential(operator, say)
    with checklist.step(UP[4]) as say:
        equal = prove(operator, outputs.replica_url, say)
    rest = f" Merge the pull request in {there.home.name!r}, so that pushes start runs." if there.proposal else ""
    return f"{mirror.name} is up: {mirror_sync.count(equal, 'ref')} are equal on both sides.{rest}"


def connect(
    operator: Operator, replica_url: str, say: Say, *, pull_request: bool = False, dry_run: bool = False
) -> Connection:
    """Connect the pipeline: tell the plan, then do it, and return what there is afterwards.

    Raises:
        MirrorError: something stands in the way; each in one sentence.
    """
    mirror, there = look(operator)
    found = connection.problems(mirror, there)
    if found:
        raise MirrorError("\n".join(found))
    for note in connection.notes(mirror, there):
        say(note)
    secrets = _source_secrets(operator, connection.missing_secrets(mirror, there.definition))
    plan = connection.plan(mirror, there, replica_url, secrets, pull_request=pull_request)
    for action in plan.actions or ("nothing to do: the pipeline is connected",):
        say(f"plan: {action}" if plan.actions else action)
    if dry_run:
        return there
    connection.apply(mirror, operator.azure, there, plan, pull_request=pull_request, say=say)
    return look(operator)[1]


def look(operator: Operator) -> tuple[Mirror, Connection]:
    """Return the mirror, at home in Azure DevOps, and what there is of it."""
    mirror, source, home = connection.at_home(operator.mirror, operator.azure)
    return mirror, connection.read(mirror, operator.azure, source, home)


def ensure_credential(operator: Operator, say: Say) -> None:
    """Make sure that the pipeline holds a Git credential of the replica."""
    delivery.ensure_credential(recipient(operator), say)


def recipient(operator: Operator) -> delivery.Recipient:
    """Return the mirror's pipeline and user.

    Raises:
        MirrorError: the mirror has no stack or no pipeline.
    """
    outputs = replica_outputs(operator.aws, operator.mirror)
    definition = look(operator)[1].definition
    if definition is None:
        raise MirrorError(_not_connected(operator))
    return delivery.Recipient(
        operator.azure,
        definition,
        operator.iam,
        outputs.push_user_name,
        outputs.replica_arn.split(":")[4],
        outputs.replica_url,
        operator.mirror.name,
    )


def prove_run(operator: Operator, say: Say) -> runs.Finished:
    """Run the pipeline and return its end.

    Raises:
        MirrorError: there is no pipeline, or its run failed.
    """
    finished = run(operator, say, branch=None, timeout_minutes=_RUN_MINUTES)
    if not finished.succeeded:
        raise MirrorError(
            f"run {finished.build.id} {finished.build.result}; its log is above: mend that, and run again."
        )
    return finished


def prove(operator: Operator, replica_url: str, say: Say) -> list[str]:
    """Run the pipeline until both sides are equal, and return the refs; a push in between takes one more run.

    What a run leaves to a person (succeeded with issues) is told, and stops nothing.

    Raises:
        MirrorError: a run failed, or the sides are not equal though it says so.
    """
    for number in range(_TRIES):
        if number:
            say("not equal yet: refs may have changed at the source meanwhile; one more run")
        finished = prove_run(operator, say)
        found = verification.compare(operator.mirror, replica_url, operator.aws, operator.token)
        if not found.different:
            say(f"{mirror_sync.count(found.source, 'ref')} are equal")
            return list(found.source)
    named = ", ".join(mirror_sync.shown(name) for name in found.different[:5])
    differ = f"{mirror_sync.count(found.different, 'ref')} of {len(found.source):,} differ ({named})"
    if finished.build.result == "partiallySucceeded":
        say(f"{differ}, which the run leaves to a person: see its summary in Azure DevOps")
        return [name for name in found.source if name not in found.different]
    raise MirrorError(f"{differ} after {_TRIES} runs; see the last run's summary in Azure DevOps for why.")


def run(operator: Operator, say: Say, *, branch: str | None, timeout_minutes: float) -> runs.Finished:
    """Queue a run of the mirror's pipeline and follow it to its end.

    Raises:
        MirrorError: there is no pipeline, or the run does not end in time.
    """
    mirror, there = look(operator)
    if there.definition is None:
        raise MirrorError(_not_connected(operator))
    chosen = branch or connection.run_branch(mirror, operator.azure, there)
    finished = runs.run(operator.azure, there.definition, chosen, say, timeout_minutes=timeout_minutes)
    if finished.summary:
        say(finished.summary)
    return finished


def rotate(operator: Operator, checklist: Checklist, confirm: Confirm) -> str:
    """Put a new credential into the pipeline, prove it, and delete the old one; return the last sentence.

    Raises:
        MirrorError: a step failed; running again goes on from there.
    """
    with checklist.step(ROTATE[0]) as say:
        to = recipient(operator)
        say(f"pipeline {to.definition.name!r}, user {to.user}")

    def proved(say: Say) -> None:
        prove(operator, to.replica_url, say)
        # Runs that began with the old credential need it to their end.
        for build in list(operator.azure.builds(to.definition, status="inProgress")):
            runs.follow(operator.azure, build, say, timeout_minutes=_RUN_MINUTES)

    rotation.rotate(to, step=checklist.step, prove=proved, confirm=confirm)
    return f"{operator.mirror.name} has a new credential, and the old one is gone."


def down(operator: Operator, checklist: Checklist, confirm: Confirm, *, pull_request: bool = False) -> str:
    """Take a mirror down, or the rest of it; return the last sentence.

    Raises:
        MirrorError: a step failed, or a person said no; running again goes on from there.
    """
    mirror = operator.mirror
    with checklist.step(DOWN[0]) as say:
        _wait_until_settled(operator, say)
        stack = find_stack(operator.aws, mirror)
        there = _look_if_there(operator)
        _check_place(operator, there, stack)
        going = [f"the pipeline {there.definition.name!r} with its runs"] if there and there.definition else []
        kept = False
        if stack:
            policy = deployed_deletion_policy(operator.aws, mirror)
            kept = policy != "Delete"
            if kept != mirror.keeps_replica:
                said = "existing: true" if mirror.existing else f"on_destroy: {mirror.on_destroy}"
                remedy = "correct mirrors.yaml" if mirror.existing else f"run 'cdk deploy {mirror.name}' first"
                if policy is None:
                    remedy = "set existing: true, since the stack only refers to it"
                raise MirrorError(
                    f"mirrors.yaml says {said}, but the deployed stack {'keeps' if kept else 'deletes'} the "
                    f"repository; {remedy}."
                )
            if not kept:
                going.append(f"the CodeCommit repository {mirror.name!r}{_contents(operator)}")
            say("the replica and its history stay" if kept else f"going: {going[-1]}")
        else:
            say(f"the stack {mirror.stack_name!r} is not in region {operator.aws.region_name} of this account")
        if there is None:
            going.append("the AWS side alone, since the repository in Azure DevOps is not there or not to be seen")
        if going:
            confirm(f"Delete {' and '.join(going)}? The source keeps its commits.")
    with checklist.step(DOWN[1]) as say:
        if there:
            connection.disconnect(mirror, operator.azure, there, pull_request=pull_request, say=say)
        else:
            name = mirror.azure.pipelines_repository or mirror.azure.repository
            say(f"there is no repository {name!r} to be seen; delete a pipeline that is left by hand")
    with checklist.step(DOWN[2]) as say:
        revoked = _revoke(operator, stack, there)
        for identifier in revoked:
            say(f"revoked {identifier}")
        if not revoked:
            say("there are none")
    with checklist.step(DOWN[3]) as say:
        if stack:
            cdk.run(operator.folder, ["destroy", mirror.name, "--force", *operator.context])
            say(f"deleted the stack {mirror.stack_name!r}")
        else:
            say("nothing to destroy")
    return f"{mirror.name} is down." + (" Its replica stays in CodeCommit." if kept else "")


def _check_user_name(operator: Operator) -> None:
    """Refuse a new user name while the old user has credentials, which the new role may not remove."""
    mirror, stack = operator.mirror, find_stack(operator.aws, operator.mirror)
    old = stack.outputs.get("PushUserName", mirror.user_name) if stack else mirror.user_name
    if old == mirror.user_name:
        return
    with contextlib.suppress(Missing):
        if credentials.list_credentials(operator.iam, old):
            raise MirrorError(
                f"the user is to be {mirror.user_name!r}, and {old!r} still has Git credentials, with which "
                f"CloudFormation cannot delete it; run 'codecommit-mirror credentials revoke {mirror.name} --all', "
                "then this again: the pipeline gets a new one."
            )


def _wait_until_settled(operator: Operator, say: Say) -> None:
    """Wait while CloudFormation still works on what an interrupted run has begun."""
    told, deadline = False, time.monotonic() + _SETTLING_SECONDS
    while (stack := find_stack(operator.aws, operator.mirror)) and stack.working:
        if not told:
            say(f"CloudFormation still works on the stack ({stack.status}); waiting for it")
            told = True
        if time.monotonic() > deadline:
            raise MirrorError(f"the stack {operator.mirror.stack_name!r} is {stack.status} for too long; look at it.")
        time.sleep(2)


def _look_if_there(operator: Operator) -> Connection | None:
    """Return what there is in Azure DevOps; None when the repository with the YAML is not to be found."""
    try:
        home = connection.home_of(operator.mirror, operator.azure)
    except AzureError as error:
        if error.status != 404:
            raise
        return None
    return connection.read(connection.on_default_branches(operator.mirror, home=home), operator.azure, None, home)


def _check_place(operator: Operator, there: Connection | None, stack: ReplicaStackState | None) -> None:
    """Refuse to take down the Azure side of a replica that lives elsewhere, or that may not be touched."""
    mirror, region = operator.mirror, operator.aws.region_name
    if stack and stack.protected:
        raise MirrorError(
            f"the stack {mirror.stack_name!r} has termination protection; set termination_protection: false in "
            f"mirrors.yaml, run 'cdk deploy {mirror.name}', then run this again."
        )
    wrong = connection.elsewhere(there, str(region), operator.account) if there and not stack else None
    if wrong:
        raise MirrorError(wrong)


def _contents(operator: Operator) -> str:
    url = find_clone_url(operator.aws, operator.mirror.name)
    if url is None:
        return ", which is gone already"
    refs = verification.replica_refs(operator.aws, url)
    archived = sum(name.startswith(mirror_sync.ARCHIVE) for name in refs)
    return f" with {mirror_sync.count(refs, 'ref')} ({archived:,} of them archived) and all history"


def _revoke(operator: Operator, stack: ReplicaStackState | None, there: Connection | None) -> list[str]:
    """Revoke every Git credential of the stack's user; without a stack, what the pipeline held and no other."""
    deployed = find_stack(operator.aws, operator.mirror)
    user = (deployed.outputs if deployed else {}).get("PushUserName", operator.mirror.user_name)
    definition = there.definition if there else None
    held = held_credential.of_variables(definition.variables) if definition else held_credential.HeldCredential()
    try:
        existing = credentials.list_credentials(operator.iam, user)
    except Missing:
        return []
    return [
        credential.id
        for credential in existing
        if (stack or credential.id in (held.id, held.replaces))
        and credentials.revoke(operator.iam, user, credential.id)
    ]


def _source_secrets(operator: Operator, missing: list[str]) -> dict[str, str]:
    """Return the source's Git credentials, from the environment or from a person, tried before they are stored."""
    if operator.mirror.source_auth == "job-token":
        return {}
    given = operator.source_secrets
    if not given and not missing:
        return {}
    for name in AZURE_SECRETS:
        if name in given:
            continue
        if operator.ask is None:
            raise MirrorError(connection.not_set(f"{name} is"))
        given[name] = operator.ask(name)
    connection.try_source(operator.mirror, given[AZURE_SECRETS[0]], given[AZURE_SECRETS[1]])
    return given


def _not_connected(operator: Operator) -> str:
    name = operator.mirror.name
    return f"the mirror {name!r} has no pipeline yet; run 'codecommit-mirror up {name}'."
