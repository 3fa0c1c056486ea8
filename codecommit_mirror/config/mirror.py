"""One mirror's configuration: read from ``mirrors.yaml``, checked once, then trusted everywhere as a ``Mirror``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import MirrorError
from . import azure_url, mirrors_file
from . import ci as ci_config
from .ci import Ci
from .fields import ACCOUNT, AZURE_NAME, BRANCH, PIPELINE_PATH, REGION, RefNamespace, cron, hours, matching, not_empty
from .fields import tags as check_tags
from .mirrors_file import MirrorsFile
from .validation_messages import sentences

DEFAULT_FILE = "mirrors.yaml"

DEFAULT_REFS = ("heads", "tags", "notes")
DEFAULT_PIPELINE_PATH = "azure-pipelines-mirror.yml"


# https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html#limits-repository-names
_REPLICA_NAME = re.compile(r"(?!-)(?!.*\.git$)[A-Za-z0-9_.-]{1,100}")
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names
_USER_NAME_LIMIT = 64


class AzureRepository(BaseModel):
    """The source: one Git repository in Azure DevOps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organization: Annotated[str, AZURE_NAME]
    project: Annotated[str, AZURE_NAME]
    repository: Annotated[str, AZURE_NAME]
    server: Annotated[str, AfterValidator(azure_url.check_server)] = azure_url.AZURE_DEVOPS_SERVICES
    default_branch: Annotated[str, BRANCH] = "main"
    """The source's default branch."""
    pipelines_repository: Annotated[str, AZURE_NAME] | None = None
    """The repository of the same project that holds the pipeline's YAML; None for the source itself."""
    pipelines_branch: Annotated[str, BRANCH] = "main"
    """The default branch of ``pipelines_repository``."""
    pipeline_path: Annotated[str, PIPELINE_PATH] | None = None

    @property
    def yaml_branch(self) -> str:
        """The branch that holds the pipeline's YAML; the schedule runs there."""
        return self.pipelines_branch if self.pipelines_repository else self.default_branch

    @property
    def clone_url(self) -> str:
        """The HTTPS clone URL, without ``user@``."""
        return azure_url.build_clone_url(self.server, self.organization, self.project, self.repository)


class Alarm(BaseModel):
    """Who is told when something is wrong with a replica: exactly one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address", "write one")] | None = None
    topic_arn: (
        Annotated[
            str,
            matching(
                r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}",
                "the ARN of an SNS topic",
                "write one like arn:aws:sns:eu-west-1:123456789012:alarms",
            ),
        ]
        | None
    ) = None


def _one_receiver(value: Alarm) -> Alarm:
    if (value.email is None) == (value.topic_arn is None):
        raise ValueError("needs one of email and topic_arn; write alarm: {email: you@example.com}")
    return value


class Mirror(BaseModel):
    """One source repository and the replica that follows it. Whatever receives a ``Mirror`` may trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The replica's name in CodeCommit, and the id for ``cdk deploy``."""
    azure: AzureRepository
    account: Annotated[str, ACCOUNT] | None = None
    region: Annotated[str, REGION] | None = None
    description: (
        Annotated[
            str, matching(r"[^\x00-\x1f]{1,1000}", "a description", "use 1 to 1,000 characters, no control characters")
        ]
        | None
    ) = None
    tags: Annotated[dict[str, str], AfterValidator(check_tags)] = Field(default_factory=dict)
    policy_name: Annotated[
        str, matching(r"[\w+=,.@-]{1,128}", "an IAM policy name", "use 1 to 128 letters, digits or _ + = , . @ -")
    ] = Field(default_factory=lambda data: _default_policy_name(data["name"]))
    user_name: Annotated[
        str, matching(r"[\w+=,.@-]{1,64}", "an IAM user name", "use 1 to 64 letters, digits or _ + = , . @ -")
    ] = Field(default_factory=lambda data: _default_user_name(data["name"]))
    source_auth: Literal["pat", "job-token"] = "pat"
    refs: Annotated[tuple[RefNamespace, ...], AfterValidator(not_empty)] = DEFAULT_REFS
    schedule: Annotated[str, AfterValidator(cron)] = Field(default_factory=lambda data: derive_schedule(data["name"]))
    archive_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """How long tips that a run deletes or overwrites stay reachable in the archive; 0 keeps none."""
    existing: bool = False
    """Whether the replica is a repository that is there already: the stack refers to it, and never deletes it."""
    on_destroy: Literal["delete", "retain"] = "delete"
    termination_protection: bool = False
    policy_on: Literal["user", "group"] = "user"
    alarm: Annotated[Alarm, AfterValidator(_one_receiver)] | None = None
    """Who is told when somebody other than the pipeline changes the replica."""
    stale_after: Annotated[int, BeforeValidator(hours)] | None = None
    """In hours; who is told when no run has confirmed the replica for so long."""

    @model_validator(mode="after")
    def _is_never_deleted(self) -> Mirror:
        if self.existing and self.on_destroy == "delete" and "on_destroy" in self.model_fields_set:
            raise ValueError("with existing: true the repository is never deleted; remove on_destroy: delete")
        return self

    @model_validator(mode="after")
    def _alarm_fits(self) -> Mirror:
        if self.stale_after and not self.alarm:
            raise ValueError("stale_after needs somebody to tell; add alarm: {email: you@example.com}")
        topic = self.alarm.topic_arn.split(":") if self.alarm and self.alarm.topic_arn else []
        if topic and self.region and topic[3] != self.region:
            raise ValueError(f"alarm.topic_arn is in {topic[3]}, and the replica in {self.region}; they go together")
        return self

    @property
    def stack_name(self) -> str:
        """The CloudFormation stack's name: letters, digits and hyphens, starting with a letter."""
        return derive_stack_name(self.name)

    @property
    def pipeline_path(self) -> str:
        """The path of the pipeline's YAML in its repository."""
        return self.azure.pipeline_path or _default_pipeline_path(self.name, self.azure.pipelines_repository)

    @property
    def pipeline_name(self) -> str:
        """The name of the pipeline in Azure DevOps."""
        return f"codecommit-mirror-{self.name}"

    @property
    def keeps_replica(self) -> bool:
        """Whether the repository stays when the stack goes."""
        return self.existing or self.on_destroy == "retain"

    @property
    def replica_description(self) -> str:
        """What the CodeCommit console shows for the replica."""
        return self.description or (
            f"Read-only replica of {self.azure.clone_url}. Do not push here: the next mirror run overwrites it."
        )


def derive_stack_name(replica: str) -> str:
    """Return the CloudFormation stack name for a replica's name.

    CloudFormation takes ``[a-zA-Z][-a-zA-Z0-9]*``, at most 128 characters (API_CreateStack).
    """
    name = re.sub(r"[^A-Za-z0-9]", "-", replica)
    return name if name[0].isalpha() else f"Replica-{name}"


def derive_schedule(replica: str) -> str:
    """Return the default schedule: every six hours, at a minute of the mirror's own, so that a fleet is spread."""
    return f"{int(hashlib.sha256(replica.encode()).hexdigest(), 16) % 60} */6 * * *"


def _default_pipeline_path(replica: str, pipelines_repository: str | None) -> str:
    return f"{replica}.yml" if pipelines_repository else DEFAULT_PIPELINE_PATH


def _default_policy_name(replica: str) -> str:
    return f"CodeCommit{replica}GitPush"


def _default_user_name(replica: str) -> str:
    name = f"azure-devops-pipeline-{replica}"
    if len(name) <= _USER_NAME_LIMIT:
        return name
    digest = hashlib.sha256(replica.encode()).hexdigest()[:8]
    return f"{name[: _USER_NAME_LIMIT - 9]}-{digest}"


def check_replica_name(name: str) -> str:
    """Return ``name`` when CodeCommit takes it as a repository's name.

    Raises:
        MirrorError: CodeCommit would refuse it.
    """
    if not _REPLICA_NAME.fullmatch(name):
        raise MirrorError(
            f"{name!r} is not a CodeCommit repository name; use 1 to 100 letters, digits or . _ -, "
            "without .git at the end, and without a hyphen in front, where cdk takes it for an option."
        )
    return name


class Configuration(NamedTuple):
    """What ``mirrors.yaml`` says."""

    mirrors: tuple[Mirror, ...]
    ci: Ci | None
    """Who provisions the mirrors, if not people alone."""


def load(path: Path, only: str | None = None) -> Configuration:
    """Read ``mirrors.yaml`` and return its mirrors, or the one that ``only`` names.

    The whole file is read each time, but with ``only`` just that mirror is validated in full, so that one
    mirror out of many costs what one out of one does.

    Raises:
        MirrorError: the file is missing or wrong; one line for each mistake.
    """
    file = mirrors_file.read(path)
    if only is not None and only not in file.mirrors:
        raise MirrorError(f"{path}: there is no mirror {only!r}; it has {', '.join(sorted(file.mirrors)) or 'none'}.")
    chosen = [only] if only is not None else list(file.mirrors)
    mistakes: list[str] = []
    mirrors: list[Mirror] = []
    for name in chosen:
        try:
            mirrors.append(_validated(file, name))
        except MirrorError as error:
            mistakes.append(str(error))
    mistakes += _clashes(file, chosen)
    ci = None
    try:
        ci = ci_config.of_file(file)
    except MirrorError as error:
        mistakes.append(str(error))
    if mistakes:
        # A mistake in the defaults is every mirror's, and is told once.
        raise MirrorError("\n".join(dict.fromkeys("\n".join(mistakes).splitlines())))
    return Configuration(tuple(_placed(mirror, ci) for mirror in mirrors), ci)


def _placed(mirror: Mirror, ci: Ci | None) -> Mirror:
    """Return the mirror where CI provisions it, unless it names a place of its own: for who works by hand, too."""
    if ci is None:
        return mirror
    return mirror.model_copy(update={"account": mirror.account or ci.account, "region": mirror.region or ci.region})


def load_mirrors(path: Path, only: str | None = None) -> tuple[Mirror, ...]:
    """Do as :func:`load`, for who needs the mirrors alone."""
    return load(path, only).mirrors


def single_mirror(
    name: str,
    azure_repo_url: str,
    *,
    region: str | None = None,
    account: str | None = None,
    default_branch: str | None = None,
) -> Mirror:
    """Return a mirror that is given without a file, every option at its default.

    Raises:
        MirrorError: the name or the URL is wrong.
    """
    check_replica_name(name)
    azure = {
        **azure_url.parse_clone_url(azure_repo_url),
        **({"default_branch": default_branch} if default_branch else {}),
    }
    entry = {"name": name, "azure": azure, "region": region, "account": account}
    try:
        return Mirror.model_validate(entry)
    except ValidationError as error:
        raise MirrorError("\n".join(f"mirror {name!r}: {text}" for _, text in sentences(error, Mirror))) from None


def from_context(context: Callable[[str], Any]) -> Configuration:
    """Return what a CDK app's context asks for.

    Keys: ``replica`` with ``azure_repo_url`` (and ``region``, ``account``) give one mirror without a file;
    ``mirror`` chooses one from the file; ``config`` is the file's path (default ``mirrors.yaml``).

    Raises:
        MirrorError: the context or the file is wrong.
    """
    replica, url = context("replica"), context("azure_repo_url")
    if replica or url:
        if not (replica and url):
            raise MirrorError("-c replica=NAME and -c azure_repo_url=URL go together; give both or neither.")
        mirror = single_mirror(replica, url, region=context("region"), account=context("account"))
        return Configuration((mirror,), None)
    return load(Path(context("config") or DEFAULT_FILE), context("mirror"))


def _validated(file: MirrorsFile, name: str) -> Mirror:
    where = file.where("mirrors", name)
    try:
        check_replica_name(name)
    except MirrorError as error:
        raise MirrorError(f"{where}: {error}") from None
    try:
        return Mirror.model_validate({**file.merged(name), "name": name})
    except ValidationError as error:
        lines = []
        for key, sentence in sentences(error, Mirror):
            whose = f"mirror {name!r}" if file.is_own(name, key) else "defaults"
            lines.append(f"{file.where_value(name, key)}: {whose}: {sentence}")
        raise MirrorError("\n".join(lines)) from None


def _clashes(file: MirrorsFile, chosen: Sequence[str]) -> list[str]:
    """Name what two mirrors of one file may not share: it would make one stack overwrite the other's resources.

    Works on the file's own text, so that choosing one mirror does not validate all of them.
    """
    mistakes: list[str] = []
    seen: dict[tuple[str, str], list[tuple[str, tuple[str | None, ...]]]] = {}
    for name in filter(_REPLICA_NAME.fullmatch, file.mirrors):
        if f"{derive_stack_name(name).lower()}-".startswith(f"{ci_config.PREFIX}-ci-") and name in chosen:
            where = file.where("mirrors", name)
            mistakes.append(f"{where}: mirror {name!r}: its stack would have the name of CI's own; rename it.")
        for what, value, place, remedy in _identities(name, file.merged(name)):
            others = seen.setdefault((what, value.lower()), [])
            for other, elsewhere in others:
                apart = any(a and b and a != b for a, b in zip(place, elsewhere, strict=True))
                if not apart and {name, other} & set(chosen):
                    mistakes.append(
                        f"{file.where('mirrors', name)}: mirror {name!r}: its {what} {value!r} is also that of "
                        f"mirror {other!r}; {remedy}."
                    )
                    break
            others.append((name, place))
    return mistakes


def _identities(name: str, entry: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str | None, ...], str]]:
    """Yield what must be unique, its value, where (account, region; None is not known), and the remedy."""
    account, region = entry.get("account"), entry.get("region")
    user = str(entry.get("user_name", _default_user_name(name)))
    policy = str(entry.get("policy_name", _default_policy_name(name)))
    yield "stack name", derive_stack_name(name), (account, region), "rename one of the two"
    # IAM is global, and does not tell upper from lower case when it compares names.
    yield "user_name", user, (account,), "give one of them a user_name of its own"
    yield "policy_name", policy, (account,), "give one of them a policy_name of its own"
    azure = entry.get("azure")
    if isinstance(azure, dict):
        home = azure.get("pipelines_repository") or azure.get("repository")
        path = azure.get("pipeline_path") or _default_pipeline_path(name, azure.get("pipelines_repository"))
        place = "/".join(str(azure.get(key, "")) for key in ("server", "organization", "project"))
        yield "pipeline", f"{path} in {place.lstrip('/')}/{home}", (), "give one of them an azure.pipeline_path"
