"""What exists on both clouds: of the account, and of each mirror.

Each object is read once, and again only where an effect changed it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..aws import git_credentials, writer
from ..aws.git_credentials import Credential
from ..aws.repository import find_clone_url, missing_repository, not_found_elsewhere
from ..aws.session import account_of, client, session_in
from ..aws.stack import (
    ReplicaOutputs,
    ReplicaStackState,
    deletion_policy,
    has_operation_in_progress,
    list_stacks,
    permissions_boundary,
    read_template,
    wait_until_settled,
)
from ..aws.stack_plan import DeployedStack, WantedStack, is_unchanged, orphans, places, places_of
from ..aws.writer import PipelineRecord
from ..azure.rest.objects import GOOD_RESULTS, Build, Definition
from ..azure.runs import recent
from ..azure.state import AzureState, read_state
from ..config.ci import PROVISIONED_FROM, SOURCE_METADATA, Ci
from ..config.mirror import Mirror
from ..errors import AzureError, DeniedError, MirrorError, NotFoundError
from . import verification
from .context import ClientPool, MirrorContext
from .verification import Comparison

_MAX_WORKERS = 16
_NOT_FOUND = 404


@dataclass(frozen=True)
class SharedState:
    """What concerns all mirrors of a file: the account's stacks in every region."""

    owner: str
    """The repository that holds the file."""
    account: str
    """Where the stacks are."""
    stacks: tuple[DeployedStack, ...]

    def removed(self, wanted: Sequence[WantedStack]) -> dict[str, DeployedStack]:
        """Return the stacks that were provisioned from the file and that no mirror wants any more, by mirror."""
        named = {stack.mirror for stack in wanted}
        gone = orphans(self._here(wanted), self.stacks, self.owner)
        return {name: stack for name, stack in gone.items() if name not in named}

    def _here(self, wanted: Sequence[WantedStack]) -> list[WantedStack]:
        return [stack for stack in wanted if stack.account == self.account]

    def problems(self, wanted: WantedStack, all_wanted: Sequence[WantedStack]) -> list[str]:
        """Return why a stack is not to be deployed where it is wanted, one sentence each."""
        if wanted.account != self.account:
            return []
        there = next((s for s in self.stacks if (s.region, s.name) == (wanted.region, wanted.stack_name)), None)
        if wanted.mirror in orphans(self._here(all_wanted), self.stacks, self.owner):
            return [
                f"the stack of {wanted.mirror} is still in another region or has another name: remove this mirror from "
                "mirrors.yaml, deploy that change and approve the removal, then add the mirror again."
            ]
        if there and there.tags.get(PROVISIONED_FROM, self.owner) != self.owner:
            return [
                f"the stack name {wanted.stack_name!r} is taken by another repository's mirror, which is left alone; "
                "rename this mirror."
            ]
        return []


@dataclass(frozen=True)
class MirrorState:
    """A mirror as both clouds have it."""

    mirror: Mirror
    """With the repositories' own default branches."""
    account: str
    region: str
    stack: ReplicaStackState | None
    wanted: WantedStack | None
    """The stack that the CDK app synthesised; None to leave the deployed one as it is."""
    template: Mapping[str, Any] | None = field(repr=False)
    """What the stack was deployed with; None without a stack, or if it is known to be as it is wanted."""
    clone_url: str | None
    """The replica's; None if CodeCommit has no repository of that name, or these credentials may not look."""
    may_read_repository: bool
    taken_names: tuple[str, ...]
    """What IAM has already of a mirror without a stack, one sentence each."""
    credentials: tuple[Credential, ...] | None = None
    """Those of the stack's user, oldest first; None without a user."""
    record: PipelineRecord | None = None
    """Which pipeline is recorded on AWS's side."""
    azure: AzureState | None = None
    """None if the Azure side is left alone."""
    last_run: Build | None = None
    proof: Build | None = None
    """The newest of the latest runs that succeeded, or else one that has not ended yet."""
    comparison: Comparison | None = None
    """Both sides' refs, which are only compared if the last run succeeded."""

    @property
    def place(self) -> str:
        """Where the replica is, for people."""
        return f"account {self.account}, {self.region}"

    @property
    def is_deployed(self) -> bool:
        """Whether nothing is to be deployed."""
        stack, wanted = self.stack, self.wanted
        if stack is None or stack.outputs is None:
            return False
        return wanted is None or is_unchanged(wanted, stack.status, stack.tags, protected=stack.protected)

    @property
    def owned(self) -> str | None:
        """What the deployed stack does with its repository when it is deleted; None if it owns none."""
        if self.stack is None or self.stack.is_elsewhere:
            return None
        template = self.template or (self.wanted and self.wanted.template)
        return deletion_policy(template) if template else None

    @property
    def wanted_places(self) -> frozenset[tuple[str, str]]:
        """Where the stack as it is wanted lets commits, tokens and rights go; nothing if it stays as it is."""
        wanted = self.wanted
        if self.mirror.is_deployed_elsewhere:
            return places_of(self.mirror, self.account, self.region)
        return places(self.mirror.name, wanted.template, self.account, self.region) if wanted else frozenset()

    @property
    def deployed_places(self) -> frozenset[tuple[str, str]]:
        """The same of the deployed stack."""
        if self.stack is None:
            return frozenset()
        if self.stack.is_elsewhere:
            # What its app deploys says nothing of the source's side, and mirrors.yaml must not vouch for itself.
            return frozenset()
        if self.template is None:
            # One that is known to be as it is wanted was not read; of one that could not be read, nothing is known.
            return self.wanted_places if self.is_deployed else frozenset()
        return places(self.mirror.name, self.template, self.account, self.region)

    @property
    def outputs(self) -> ReplicaOutputs | None:
        """The stack's outputs, with the clone URL of a repository that the stack does not own."""
        outputs = self.stack.outputs if self.stack else None
        return replace(outputs, replica_url=self.clone_url) if outputs and self.clone_url else outputs

    @property
    def azure_side(self) -> AzureState:
        """The Azure side, which must have been read."""
        if self.azure is None:
            raise LookupError(f"the Azure side of {self.mirror.name} was not read")
        return self.azure

    @property
    def definition(self) -> Definition:
        """The mirror's pipeline.

        Raises:
            MirrorError: there is none.
        """
        if self.azure is None or self.azure.definition is None:
            raise MirrorError(not_connected(self.mirror))
        return self.azure.definition

    @property
    def other_source(self) -> str | None:
        """Why mirrors.yaml's source is not the one that the replica follows; None if it is, or nothing is deployed."""
        source_id = self.azure.source.id if self.azure else None
        return other_source(self.mirror, self.record, self.template, source_id)

    def replica_outputs(self) -> ReplicaOutputs:
        """Return the outputs of a stack that must be there.

        Raises:
            MirrorError: there is no such stack, or its repository does not exist.
        """
        if self.stack is None and self.mirror.is_deployed_elsewhere:
            raise NotFoundError(not_found_elsewhere(self.mirror, self.region))
        if self.stack is None:
            raise NotFoundError(
                f"stack {self.mirror.stack_name!r} is not in region {self.region} of this account; run "
                f"'codecommit-mirror up {self.mirror.name}' or 'cdk deploy {self.mirror.name}', or correct the region "
                "or the AWS profile."
            )
        if self.outputs is None:
            raise MirrorError(
                f"stack {self.mirror.stack_name!r} in region {self.region} is {self.stack.status} and lacks outputs; "
                f"run 'cdk deploy {self.mirror.name}'."
            )
        if self.clone_url is None and self.may_read_repository:
            raise NotFoundError(missing_repository(self.mirror))
        return self.outputs


def other_source(
    mirror: Mirror, record: PipelineRecord | None, template: Mapping[str, Any] | None, source_id: str | None
) -> str | None:
    """Return why a mirror's source is not the one that its replica follows; None if it is, or if that is unknown.

    A source is its id: with another name it is the same one, and a new repository with its name is another one. The
    names that the stack carries decide where an id is unknown.

    Args:
        mirror: as mirrors.yaml describes it.
        record: what is recorded on AWS's side.
        template: the deployed one, if it was read.
        source_id: the id of the repository that has the source's name now, if it is known.
    """
    named = mirror.azure.names
    remedy = (
        f"if the replica is to follow it, run 'codecommit-mirror up {mirror.name} --change-source', which shows what "
        "becomes of its refs; if this is another team's mirror, give yours another name."
    )
    if record and source_id:
        if record.source == source_id:
            return None
        return (
            f"the replica {mirror.name!r} follows the repository with the id {record.source}, but {named} has the id "
            f"{source_id}, so it is another repository; {remedy}"
        )
    deployed = (template or {}).get("Metadata", {}).get(SOURCE_METADATA, {}).get("azure") or {}
    follows = "/".join(str(deployed.get(key)) for key in ("organization", "project", "repository"))
    if not deployed or follows.lower() == named.lower():
        return None
    return f"the replica {mirror.name!r} follows {follows}, but mirrors.yaml names {named}; {remedy}"


def boundary_of_user(context: MirrorContext, state: MirrorState) -> str | None:
    """Return the ARN of the permissions boundary that the stack gives its user.

    Raises:
        MirrorError: it is not known.
    """
    template = state.template or (state.wanted.template if state.wanted else {})
    partition = context.aws.get_partition_for_region(str(context.aws.region_name))
    return permissions_boundary(template, partition, state.account)


def read_shared(clients: ClientPool, section: Ci, needed: Collection[str]) -> SharedState:
    """Read the stacks of every region, including regions whose last mirror was removed.

    Args:
        clients: take the listings.
        section: the section ``ci`` of mirrors.yaml.
        needed: regions that must be readable.

    Raises:
        MirrorError: the credentials belong to another account, or a region that is needed cannot be listed.
    """
    aws = session_in(section.region)
    if (account := account_of(aws)) != section.account:
        raise MirrorError(f"ci.account is {section.account}, but the AWS credentials are for {account}.")
    everywhere = aws.get_available_regions("cloudformation", aws.get_partition_for_region(section.region))
    regions = sorted({section.region, *needed, *everywhere})

    def stacks_of(region: str) -> dict[str, ReplicaStackState]:
        try:
            return list_stacks(session_in(region))
        except MirrorError:
            if region in {section.region, *needed}:
                raise
            return {}  # A region that the account has not enabled, or that its organization forbids.

    with ThreadPoolExecutor(_MAX_WORKERS) as pool:
        by_region = dict(zip(regions, pool.map(stacks_of, regions), strict=True))
    clients.remember_stacks({region: by_region[region] for region in {section.region, *needed}})
    stacks = (
        DeployedStack(name, region, stack.status, stack.tags, stack.protected, stack.outputs)
        for region, listed in by_region.items()
        for name, stack in listed.items()
    )
    return SharedState(section.owner, section.account, tuple(stacks))


def read(
    context: MirrorContext,
    stack: ReplicaStackState | None,
    *,
    wanted: WantedStack | None = None,
    azure: bool = True,
    compare: bool = True,
) -> MirrorState:
    """Read what exists of a mirror; changes nothing.

    Args:
        context: the mirror's.
        stack: its stack, as ``settled_stack`` returns it.
        wanted: the stack that the CDK app synthesised; None to leave the deployed one as it is.
        azure: whether to read the Azure side.
        compare: whether to read both sides' refs as well.

    Raises:
        MirrorError: something cannot be read; one line for each cloud that fails.
    """
    failures: list[str] = []
    mirror, azure_state, state = context.mirror, None, None
    try:
        state = _read_aws(context, stack, wanted, with_azure=azure)
    except MirrorError as error:
        failures.append(str(error))
    try:
        if azure:
            # CloudFormation may take the record away with a deployment after which a command was stopped. But whoever
            # may deploy decides what the outputs say, so that no secret goes by a file.
            migrates = bool(state and state.outputs and state.outputs.is_migrating and not mirror.stores_secrets)
            mirror, azure_state = _read_azure(context, state.record if state else None, trusts_file=migrates)
    except MirrorError as error:
        failures.append(_name_renamed(context, state.record if state else None, error))
    if failures or state is None:
        raise MirrorError("\n".join(dict.fromkeys(failures)))
    if azure_state is None:
        return state
    builds = recent(context.azure, azure_state.definition) if azure_state.definition else []
    last_run = next(iter(builds), None)
    mirror = _with_its_writer(mirror, stack)
    state = replace(state, mirror=mirror, azure=azure_state, last_run=last_run, proof=_proof(builds))
    return compared(context, state) if compare else state


def _with_its_writer(mirror: Mirror, stack: ReplicaStackState | None) -> Mirror:
    """Return a mirror with the names of who pushes, which for one of another CDK app are not in mirrors.yaml."""
    outputs = stack.outputs if stack and stack.is_elsewhere else None
    if outputs is None:
        return mirror
    if outputs.push_role_arn:
        return mirror.model_copy(update={"role_name": outputs.push_role_arn.rpartition("/")[2]})
    return mirror.model_copy(update={"user_name": outputs.push_user_name})


def _name_renamed(context: MirrorContext, record: PipelineRecord | None, error: MirrorError) -> str:
    """Return an error; of a source that is not found, with the name that it has today."""
    named = context.mirror.azure.repository
    if record and isinstance(error, AzureError) and error.status == _NOT_FOUND:
        with suppress(AzureError):
            source = context.azure_of(record).repository(record.source)
            if source.name != named:
                return f"the repository {named!r} is now called {source.name!r}; set azure.repository to that."
    return str(error)


def _read_aws(
    context: MirrorContext, stack: ReplicaStackState | None, wanted: WantedStack | None, *, with_azure: bool
) -> MirrorState:
    state = MirrorState(
        mirror=_with_its_writer(context.mirror, stack),
        account=context.account,
        region=str(context.aws.region_name),
        stack=stack,
        wanted=wanted,
        template=None,
        clone_url=None,
        may_read_repository=False,
        taken_names=(),
    )
    if (state.is_deployed and wanted and not with_azure) or (context.mirror.is_deployed_elsewhere and stack is None):
        return state
    is_read = stack is not None and not stack.is_elsewhere and not (wanted and state.is_deployed)
    template = _read_template(context) if is_read else None
    clone_url, may_read = _read_clone_url(context)
    return replace(
        state,
        template=template,
        clone_url=clone_url,
        may_read_repository=may_read,
        taken_names=() if stack else tuple(writer.taken_names(context.mirror, context.aws, state.account)),
        credentials=_read_credentials(context, stack) if with_azure else None,
        record=read_record(context, stack.outputs if stack else None) if with_azure else None,
    )


def settled_stack(context: MirrorContext) -> ReplicaStackState | None:
    """Return the mirror's stack once CloudFormation has finished what an interrupted command, or a person, began.

    Raises:
        MirrorError: it takes too long, or the stack cannot be read.
    """
    stack = context.find_stack()

    def in_progress() -> dict[str, str]:
        nonlocal stack
        if stack is None or not has_operation_in_progress(stack.status):
            return {}
        status, stack = stack.status, context.find_stack(again=True)
        return {context.mirror.stack_name: status}

    wait_until_settled(in_progress)
    return stack


def reread_azure(context: MirrorContext, state: MirrorState) -> MirrorState:
    """Return the state with what Azure DevOps has now.

    Raises:
        MirrorError: it cannot be read.
    """
    known, record = state.azure.definition if state.azure else None, state.record
    if known:
        record = PipelineRecord("", known.id, "")
    return replace(state, azure=_read_azure(context, record)[1])


def read_azure(context: MirrorContext) -> AzureState:
    """Return what Azure DevOps has of a mirror, whose pipeline AWS's side records.

    Raises:
        MirrorError: something cannot be read.
    """
    stack = context.find_stack()
    record = read_record(context, stack.outputs if stack else None)
    return _read_azure(context, record)[1]


def _read_azure(
    context: MirrorContext, record: PipelineRecord | None, *, trusts_file: bool = False
) -> tuple[Mirror, AzureState]:
    recorded, pending = (record.definition, record.pending) if record else (None, "")
    mirror, state = read_state(context.mirror, context.azure, recorded, pending, trusts_file=trusts_file)
    return mirror, context.with_engine(state)


def read_record(context: MirrorContext, outputs: ReplicaOutputs | None) -> PipelineRecord | None:
    """Return which pipeline is recorded in the tags of a stack's user or role.

    Raises:
        MirrorError: it cannot be read.
    """
    return writer.read_record(context.iam, outputs) if outputs else None


def reread_stack(context: MirrorContext, state: MirrorState) -> MirrorState:
    """Return the state with what the deployment changed.

    Raises:
        MirrorError: it cannot be read.
    """
    clone_url, may_read = _read_clone_url(context)
    stack = context.find_stack(again=True)
    record = read_record(context, stack.outputs if stack else None) if state.azure else None
    reread = replace(state, stack=stack, template=None, clone_url=clone_url, may_read_repository=may_read)
    return replace(reread, record=record)


def compared(context: MirrorContext, state: MirrorState) -> MirrorState:
    """Return the state with both sides' refs, if the last run shows that the pipeline works, or the source changes."""
    succeeded = state.last_run is not None and state.last_run.result == "succeeded"
    if not (state.outputs and state.clone_url and (succeeded or state.other_source)):
        return state
    comparison = verification.compare(state.mirror, state.outputs.replica_url, context.aws, context.token)
    return replace(state, comparison=comparison)


def _proof(builds: Sequence[Build]) -> Build | None:
    """Return the run that shows that the pipeline works, or else the newest one that may still show it."""
    good = (build for build in builds if build.result in GOOD_RESULTS)
    return next(good, None) or next((build for build in builds if not build.done), None)


def not_connected(mirror: Mirror) -> str:
    """Return the sentence for a mirror without a pipeline."""
    return f"the mirror {mirror.name!r} has no pipeline yet; run 'codecommit-mirror up {mirror.name}'."


def _read_template(context: MirrorContext) -> Mapping[str, Any] | None:
    """Return the deployed template, or None if these credentials may not read it."""
    with suppress(DeniedError):
        return read_template(client(context.aws, "cloudformation"), context.mirror.stack_name)
    return None


def _read_clone_url(context: MirrorContext) -> tuple[str | None, bool]:
    """Return the replica's clone URL, and whether these credentials may look for it."""
    try:
        return find_clone_url(context.aws, context.mirror.name), True
    except DeniedError:
        return None, False


def _read_credentials(context: MirrorContext, stack: ReplicaStackState | None) -> tuple[Credential, ...] | None:
    if stack is None or context.mirror.replica_auth == "role":
        return None
    credentials = git_credentials.find_credentials(context.iam, stack.user_name(context.mirror))
    return None if credentials is None else tuple(credentials)
