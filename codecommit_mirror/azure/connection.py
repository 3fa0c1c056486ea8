"""The Azure side of a mirror: its YAML in a repository, its pipeline, its variables. Planned, then applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_templates import mirror_sync

from ..config.mirror import Mirror
from ..errors import MirrorError
from ..lifecycle.credential_delivery import plain, secret
from ..lifecycle.verification import engine_failures
from . import held_credential, pipeline
from .client import AzureDevOps, Definition, PullRequest, Repository
from .http import AzureError

AZURE_SECRETS = ("AZURE_GIT_USERNAME", "AZURE_GIT_PASSWORD")
_SKIP_CI = "[skip ci]"
"""The commit starts no run of its own: the variables may not be there yet, and ``pipeline run`` is one word away."""
_COMMIT = "the pipeline that mirrors to CodeCommit"
"""What the comment of every commit of this program says."""
_NO_PUSH = "TF402455"
LFS_NOTE = "the source uses Git LFS: its large files are not in the replica, only the pointers to them"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Connection:
    """What there is in Azure DevOps of a mirror."""

    source: Repository
    home: Repository
    """The repository that holds the YAML: the source, or one for pipelines."""
    branch: str
    tip: str | None
    text: str | None
    """The YAML file as it is on that branch."""
    lfs: bool
    """Whether the source's default branch keeps files in Git LFS."""
    proposal: PullRequest | None
    proposed_tip: str | None
    proposed_text: str | None
    """The YAML file on this program's own branch, where one waits in a pull request."""
    proposed_by_us: bool
    """Whether the newest commit of that branch is this program's, so that the branch may go."""
    definition: Definition | None
    strangers: tuple[Definition, ...]
    """Pipelines that are not this mirror's, and have its pipeline's name or run a file at its path."""
    protected: bool | None
    """Whether the project protects access to repositories; None when that is not known or does not matter."""


def proposal_branch(mirror: Mirror) -> str:
    """Return the branch that a pull request of this program comes from."""
    return f"codecommit-mirror/{mirror.stack_name}"


def at_home(mirror: Mirror, azure: AzureDevOps) -> tuple[Mirror, Repository, Repository]:
    """Return the mirror with the repositories' own default branches, where mirrors.yaml names none, and both of them.

    Raises:
        MirrorError: a repository is not there, or the token is refused.
    """
    source = azure.repository(mirror.azure.repository)
    home = home_of(mirror, azure) if mirror.azure.pipelines_repository else source
    return on_default_branches(mirror, source=source, home=home), source, home


def home_of(mirror: Mirror, azure: AzureDevOps) -> Repository:
    """Return the repository that holds, or is to hold, the mirror's YAML."""
    return azure.repository(mirror.azure.pipelines_repository or mirror.azure.repository)


def on_default_branches(mirror: Mirror, *, home: Repository, source: Repository | None = None) -> Mirror:
    """Return the mirror with the repositories' own default branches, where mirrors.yaml names none."""
    if not mirror.azure.pipelines_repository:
        source = home
    found = {"pipelines_branch": home.default_branch, "default_branch": source and source.default_branch}
    known = {key: value for key, value in found.items() if value and key not in mirror.azure.model_fields_set}
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update=known)})


def read(mirror: Mirror, azure: AzureDevOps, source: Repository | None, home: Repository) -> Connection:
    """Return what there is; changes nothing.

    Args:
        mirror: with the default branches of ``on_default_branches``.
        azure: the project.
        source: None when only what is to be taken back matters.
        home: the repository that holds the YAML.
    """
    branch, path = mirror.azure.yaml_branch, mirror.pipeline_path
    proposed = proposal_branch(mirror)
    proposed_tip = azure.tip(home, proposed)
    tip = azure.tip(home, branch)
    text = azure.file(home, branch, path) if tip else None
    proposed_text = azure.file(home, proposed, path) if proposed_tip else None
    file_is_ours = any(written and pipeline.written_for(written) == mirror.name for written in (text, proposed_text))
    there = azure.definitions_of(home, path)
    ours = [d for d in there if file_is_ours or _marked_for(mirror, d)]
    near = {d.id: d for d in [*there, *azure.find_definitions(name=mirror.pipeline_name)]}
    return Connection(
        source=source or home,
        home=home,
        branch=branch,
        tip=tip,
        text=text,
        lfs=source is not None and uses_lfs(azure, source),
        proposal=azure.pull_request(home, proposed) if proposed_tip else None,
        proposed_tip=proposed_tip,
        proposed_text=proposed_text,
        proposed_by_us=proposed_tip is not None
        and (proposed_tip == tip or _COMMIT in azure.commit_comment(home, proposed_tip)),
        definition=min(ours, key=lambda d: d.id) if ours else None,
        strangers=tuple(d for d in near.values() if d not in ours),
        protected=azure.protects_repositories() if mirror.source_auth == "job-token" else None,
    )


def uses_lfs(azure: AzureDevOps, source: Repository) -> bool:
    """Return whether the .gitattributes of a repository's default branch names Git LFS."""
    text = azure.file(source, source.default_branch, ".gitattributes") if source.default_branch else None
    return text is not None and mirror_sync.names_lfs(text)


def _marked_for(mirror: Mirror, definition: Definition) -> bool:
    url = str((definition.variables.get("AWS_REPO_URL") or {}).get("value") or "")
    return held_credential.VARIABLE in definition.variables and url.endswith(f"/{mirror.name}")


def elsewhere(there: Connection, region: str, account: str) -> str | None:
    """Return a sentence when the pipeline mirrors to another region or account than these."""
    definition = there.definition
    if definition is None:
        return None
    url = str((definition.variables.get("AWS_REPO_URL") or {}).get("value") or "")
    if "git-codecommit" in url and f".{region}." not in url:
        return (
            f"the pipeline {definition.name!r} mirrors to {url}, which is not in region {region}; set region: in "
            "mirrors.yaml, or AWS_REGION."
        )
    held = held_credential.of_variables(definition.variables)
    if held.account and held.account != account:
        return (
            f"the pipeline {definition.name!r} mirrors to account {held.account}, and the AWS credentials are for "
            f"{account}; choose the other AWS profile."
        )
    return None


def problems(mirror: Mirror, there: Connection) -> list[str]:
    """Return what keeps the mirror from being connected, one sentence each."""
    found = []
    where = f"{mirror.pipeline_path!r} on {there.branch!r} of {there.home.name!r}"
    if there.source.default_branch is None:
        found.append(f"the repository {there.source.name!r} has no commit yet; push one first.")
    if there.home is not there.source and there.home.default_branch is None:
        found.append(f"the repository {there.home.name!r} has no commit yet; push one first.")
    elif there.tip is None and there.home.default_branch:
        key = "azure.pipelines_branch" if mirror.azure.pipelines_repository else "azure.default_branch"
        found.append(
            f"{there.home.name!r} has no branch {there.branch!r}; correct {key} (its default branch is "
            f"{there.home.default_branch!r})."
        )
    if there.text is not None and (owner := pipeline.written_for(there.text)) != mirror.name:
        whose = f"belongs to the mirror {owner!r}" if owner else "was not written by this program"
        found.append(f"{where} {whose} and is not overwritten; set azure.pipeline_path to another path.")
    if there.definition is None:
        found += [
            f"there is a pipeline {stranger.name!r} already, which runs {stranger.yaml_path!r}; rename or delete "
            "it, or set azure.pipeline_path to another path."
            for stranger in there.strangers
        ]
    if there.proposed_tip and not there.proposed_by_us:
        found.append(
            f"the branch {proposal_branch(mirror)!r} of {there.home.name!r} has commits of somebody else; delete or "
            "rename it."
        )
    if there.protected and not mirror.azure.pipelines_repository:
        found.append(
            "the project setting 'Protect access to repositories in YAML pipelines' keeps the job token from reading "
            "a repository that the pipeline does not check out; turn it off (Project settings, Pipelines, Settings), "
            "keep the YAML in an azure.pipelines_repository, or use source_auth: pat."
        )
    return found


def notes(mirror: Mirror, there: Connection) -> list[str]:
    """Return what a person should know, and what stops nothing."""
    notes = [LFS_NOTE] if there.lfs else []
    if mirror.source_auth == "job-token" and there.protected is None:
        notes.append(
            "not checked, since the token lacks the scope Project and team (read): the project setting 'Protect access "
            "to repositories in YAML pipelines', which can keep the job token from the source."
        )
    return notes


def not_set(names: str) -> str:
    """Return the sentence for Git credentials of the source that nobody gave."""
    return (
        f"{names} not set; export {' and '.join(AZURE_SECRETS)} (in Repos: Clone, Generate Git "
        "Credentials), or use source_auth: job-token, which needs none."
    )


def missing_secrets(mirror: Mirror, definition: Definition | None) -> list[str]:
    """Return the secret variables of the source that the pipeline does not have yet."""
    if mirror.source_auth == "job-token":
        return []
    present = definition.variables if definition else {}
    return [name for name in AZURE_SECRETS if name not in present]


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order: definition, authorization, check of the YAML, commit."""

    body: dict[str, Any]
    """The definition as it is to be."""
    commit: bool
    actions: tuple[str, ...]
    """What a person is told; empty when there is nothing to do."""


def plan(
    mirror: Mirror, there: Connection, replica_url: str, secrets: Mapping[str, str], *, pull_request: bool
) -> Plan:
    """Decide what connects the mirror.

    Args:
        mirror: the mirror.
        there: what Azure DevOps has of it.
        replica_url: the stack output ``ReplicaUrl``.
        secrets: values of secret variables that are to be set; others are kept.
        pull_request: whether the YAML goes in by a pull request.
    """
    yaml = pipeline.render(mirror)
    variables = _variables(mirror, there.definition, replica_url, secrets)
    actions = []
    existing = there.definition.body if there.definition else None
    body = _definition(mirror, there, existing, variables)
    if existing is None:
        actions.append(f"create the pipeline {mirror.pipeline_name!r} in {mirror.azure.project!r}")
    else:
        changed = [key for key in ("repository", "queueStatus", "triggers") if body.get(key) != existing.get(key)]
        if changed:
            actions.append(f"update {', '.join(changed)} of the pipeline {existing['name']!r}")
    for name, variable in variables.items():
        if name == held_credential.VARIABLE:
            continue  # A note of this program's own.
        if variable is None:
            actions.append(f"remove the variable {name}")
        else:
            kind = "secret variable" if variable.get("isSecret") else "variable"
            shown = "" if variable.get("isSecret") else f" to {variable['value']}"
            actions.append(f"set the {kind} {name}{shown}")
    if there.home is not there.source and existing is None:
        actions.append(f"let the pipeline use the repository {there.source.name!r}")
    commit = there.text != yaml and not (pull_request and there.proposal and there.proposed_text == yaml)
    if commit:
        verb = "change" if there.text is not None else "add"
        way = f" by a pull request from {proposal_branch(mirror)!r}" if pull_request else ""
        actions.append(f"{verb} {mirror.pipeline_path!r} on {there.branch!r} of {there.home.name!r}{way}")
    return Plan(body, commit, tuple(actions))


def apply(
    mirror: Mirror, azure: AzureDevOps, there: Connection, plan: Plan, *, pull_request: bool, say: Say
) -> Definition:
    """Do what the plan says, and return the pipeline.

    Raises:
        MirrorError: the service refuses; what was done stays, and running again goes on from there.
    """
    yaml = pipeline.render(mirror)
    definition = there.definition
    if definition is None:
        definition = azure.create_definition(plan.body)
        say(f"created the pipeline {definition.name!r}")
    elif plan.body != definition.body:
        definition = azure.update_definition(definition, plan.body)
        say(f"updated the pipeline {definition.name!r}")
    if there.home is not there.source:
        azure.authorize_repository(definition, there.source)
    if plan.commit:
        try:
            azure.validate(definition, yaml, there.branch)
        except AzureError:
            if there.definition is None:
                azure.delete_definition(definition)
            raise
        _commit(mirror, azure, there, yaml, pull_request, say)
    return definition


def run_branch(mirror: Mirror, azure: AzureDevOps, there: Connection) -> str:
    """Return the branch to run the pipeline on: the one with the YAML, which may still wait in a pull request."""
    if azure.file(there.home, there.branch, mirror.pipeline_path) is None:
        waiting = azure.file(there.home, proposal_branch(mirror), mirror.pipeline_path)
        if waiting is not None:
            return proposal_branch(mirror)
    return there.branch


def disconnect(mirror: Mirror, azure: AzureDevOps, there: Connection, *, pull_request: bool, say: Say) -> None:
    """Delete the pipeline, with whatever retains its runs, and the YAML that this program committed; nothing else."""
    if there.definition:
        leases = azure.leases(there.definition)
        for start in range(0, len(leases), 100):
            azure.delete_leases(leases[start : start + 100])
        azure.delete_definition(there.definition)
        say(f"deleted the pipeline {there.definition.name!r}, its runs and its variables")
    ours = there.text is not None and pipeline.written_for(there.text) == mirror.name
    if there.proposed_tip and not there.proposed_by_us:
        say(f"left the branch {proposal_branch(mirror)!r} alone, which has commits of somebody else")
    elif there.proposed_tip and not (ours and pull_request):
        if there.proposal:
            azure.abandon_pull_request(there.home, there.proposal)
        azure.set_branch(there.home, proposal_branch(mirror), old=there.proposed_tip, new=None)
        say(f"deleted the branch {proposal_branch(mirror)!r}")
    if ours:
        _commit(mirror, azure, there, None, pull_request, say)
    elif there.text is not None:
        say(f"left {mirror.pipeline_path!r} alone, which is not this mirror's")
    if not (there.definition or there.proposed_tip or ours):
        say("nothing to disconnect: it is gone already")


def try_source(mirror: Mirror, username: str, password: str) -> None:
    """Try the Azure Git credentials against the source.

    Raises:
        MirrorError: the source does not accept them.
    """
    remedy = "check AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD, which need the scope Code (read)"
    with engine_failures():
        for name, value in zip(AZURE_SECRETS, (username, password), strict=True):
            mirror_sync.check_credential(name, value)
        authorization = mirror_sync.basic(username, password)
        endpoint = mirror_sync.Endpoint("source", mirror.azure.clone_url, authorization, username, password, remedy)
        mirror_sync.read_refs_patiently(endpoint, "git-upload-pack")


def _variables(
    mirror: Mirror, definition: Definition | None, replica_url: str, secrets: Mapping[str, str]
) -> dict[str, Mapping[str, Any] | None]:
    """Return the variables that have to change."""
    present = definition.variables if definition else {}
    changes: dict[str, Mapping[str, Any] | None] = {}
    wanted = {variable.name: variable for variable in pipeline.variables(mirror, replica_url)}
    for name, variable in wanted.items():
        there = present.get(name)
        if not variable.secret:
            if there is None or there.get("isSecret") or there.get("value") != variable.value:
                changes[name] = plain(str(variable.value))
        elif name in secrets:
            changes[name] = secret(secrets[name])
        elif there is not None and not there.get("isSecret"):
            # Somebody typed it in without the lock.
            changes[name] = secret(str(there.get("value") or ""))
    for name in AZURE_SECRETS:
        if name in present and name not in wanted:
            changes[name] = None
    if held_credential.VARIABLE not in present:
        changes[held_credential.VARIABLE] = plain(held_credential.HeldCredential().text())
    return changes


def _definition(
    mirror: Mirror,
    there: Connection,
    existing: Mapping[str, Any] | None,
    changes: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, Any]:
    """Return the definition as it should be, and enabled; what else a person set on an existing one stays."""
    base: Mapping[str, Any] = existing or {
        "name": mirror.pipeline_name,
        "path": "\\",
        "type": "build",
        "quality": "definition",
        "process": {"type": 2, "yamlFilename": mirror.pipeline_path},
        # Where jobs run that name no pool; each of ours names one.
        "queue": {"name": "Azure Pipelines", "pool": {"name": "Azure Pipelines"}},
        "triggers": [],
    }
    from_yaml = {"triggerType": "continuousIntegration", "settingsSourceType": 2}
    triggers = list(base.get("triggers") or [])
    if not any(from_yaml.items() <= trigger.items() for trigger in triggers):
        triggers = [t for t in triggers if t.get("triggerType") != "continuousIntegration"] + [from_yaml]
    repository = {
        **(base.get("repository") or {}),
        "id": there.home.id,
        "name": there.home.name,
        "type": "TfsGit",
        "defaultBranch": f"refs/heads/{there.branch}",
    }
    variables = {name: value for name, value in (base.get("variables") or {}).items() if name not in changes}
    variables.update({name: dict(value) for name, value in changes.items() if value is not None})
    return {
        **base,
        "queueStatus": "enabled",
        "repository": repository,
        "triggers": triggers,
        "variables": variables,
    }


def _commit(
    mirror: Mirror, azure: AzureDevOps, there: Connection, text: str | None, pull_request: bool, say: Say
) -> None:
    verb = "Remove" if text is None else "Update" if there.text is not None else "Add"
    comment = f"{verb} {_COMMIT}"
    path, branch, base = mirror.pipeline_path, there.branch, str(there.tip)
    if not pull_request:
        try:
            azure.commit_file(
                there.home,
                branch,
                base,
                path,
                text=text,
                exists=there.text is not None,
                comment=f"{comment} {_SKIP_CI}",
            )
        except AzureError as error:
            if _NO_PUSH not in str(error):
                raise
            raise MirrorError(
                f"policies of the branch {branch!r} of {there.home.name!r} forbid a push; run again with "
                "--pull-request, or keep the YAML in an azure.pipelines_repository."
            ) from None
        say(f"{verb.lower().rstrip('e')}ed {path!r} on {branch!r} of {there.home.name!r}")
        return
    proposed = proposal_branch(mirror)
    tip, exists = there.proposed_tip, there.proposed_text is not None
    if tip and not there.proposal:
        # Left by a pull request that was merged, or by a run that was killed before it opened one.
        azure.set_branch(there.home, proposed, old=tip, new=None)
        tip = None
    if tip is None:
        azure.set_branch(there.home, proposed, old=None, new=base)
        tip, exists = base, there.text is not None
    if tip == base or there.proposed_text != text:
        azure.commit_file(there.home, proposed, tip, path, text=text, exists=exists, comment=f"{comment} {_SKIP_CI}")
    opened = there.proposal or azure.open_pull_request(
        there.home, proposed, branch, comment, "Made by codecommit-mirror; it holds no secret."
    )
    say(f"pull request {opened.id} into {branch!r} of {there.home.name!r} waits to be merged")
