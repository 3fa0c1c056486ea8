"""One mirror's configuration: a frozen ``Mirror``, validated once and trusted everywhere."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from ..errors import ConfigurationError
from ..guard.names import ARCHIVE_DAYS_TAG, REPLICA_TAG, WRITER_TAG
from . import azure_url
from .fields import (
    ACCOUNT,
    AZURE_NAME,
    BRANCH,
    DEMAND,
    PIPELINE_PATH,
    PROFILE,
    REGION,
    REPOSITORY_ID,
    ROLE_ARN,
    SHARED_REPOSITORY,
    RefNamespace,
    matching,
    not_empty,
)
from .fields import tags as check_tags
from .identity import WHERE_THE_ID_IS, EarlierSignIn, Identity
from .schedule import check as check_schedule

DEFAULT_REFS = ("heads", "tags", "notes")
DEFAULT_PIPELINE_PATH = "azure-pipelines-mirror.yml"


# https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html#limits-repository-names
REPLICA_NAME = re.compile(r"(?!-)(?!\.{1,2}$)(?!.*\.git$)[A-Za-z0-9_.-]{1,100}")
_BOOTSTRAP_STACK = "CDKToolkit"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names
_USER_NAME_LIMIT = 64


PIPELINE_TAG, SOURCE_TAG = RECORD_TAGS = ("codecommit-mirror:pipeline", "codecommit-mirror:source")
"""The tags of a mirror's user or role that record the ids of its pipeline and of its source."""


class AgentPool(BaseModel):
    """An agent pool of the organization's own, whose agents run on Linux or macOS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AZURE_NAME]
    """The pool's name."""
    demands: tuple[Annotated[str, DEMAND], ...] = ()
    """What an agent must have: ``capability``, or ``capability -equals value``. Default: none."""


class AzureRepository(BaseModel):
    """The source: one Git repository in Azure DevOps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    organization: Annotated[str, AZURE_NAME]
    """The source's organization, as in its address."""
    project: Annotated[str, AZURE_NAME]
    """The source's project."""
    repository: Annotated[str, AZURE_NAME]
    """The source's name."""
    repository_id: Annotated[str, REPOSITORY_ID] | None = None
    """The source's id in Azure DevOps, which it keeps under another name. Default: the id that the source had when
    ``up`` connected the mirror."""
    server: Annotated[str, AfterValidator(azure_url.check_configured_server)] = azure_url.AZURE_DEVOPS_SERVICES
    """An Azure DevOps Server's address, which ``CODECOMMIT_MIRROR_AZURE_SERVER`` in your environment must name too."""
    default_branch: Annotated[str, BRANCH] = "main"
    """The source's default branch. Default: the source's own (``pipeline render``: ``main``)."""
    pipelines_repository: Annotated[str, AZURE_NAME] | None = None
    """A repository of the same project that holds the pipeline's YAML. Default: the source."""
    pipelines_branch: Annotated[str, BRANCH] = "main"
    """The default branch of ``pipelines_repository``. Default: that repository's own (``pipeline render``:
    ``main``)."""
    pipeline_path: Annotated[str, PIPELINE_PATH] | None = None
    """Where the YAML is; a file that this project did not write is never overwritten. Default:
    ``azure-pipelines-mirror.yml``, or ``<name>.yml`` in ``pipelines_repository``."""

    pool: AgentPool | None = None
    """The agents that run the pipeline, if they are your own. Default: Microsoft's; with ``server`` the pool
    ``Default``."""

    @property
    def agent_pool(self) -> AgentPool | None:
        """The pool of the organization's own that runs the pipeline; None for Microsoft's agents."""
        return self.pool or (AgentPool(name="Default") if self.is_on_server else None)

    @property
    def is_on_server(self) -> bool:
        """Whether the source is on an Azure DevOps Server (the embedded cloud stands for Azure DevOps Services)."""
        return self.server != azure_url.AZURE_DEVOPS_SERVICES and not azure_url.is_this_machine(self.server)

    @property
    def yaml_branch(self) -> str:
        """The branch that holds the pipeline's YAML; the schedule runs there."""
        return self.pipelines_branch if self.pipelines_repository else self.default_branch

    @property
    def names(self) -> str:
        """The names by which people know the source: ``organization/project/repository``."""
        return f"{self.organization}/{self.project}/{self.repository}"

    @property
    def clone_url(self) -> str:
        """The HTTPS clone URL, without ``user@``."""
        return azure_url.build_clone_url(self.server, self.organization, self.project, self.repository)


class SharedEngine(BaseModel):
    """Where one engine for every mirror is; without it, each mirror's YAML has the engine inside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Annotated[str, SHARED_REPOSITORY]
    """``PROJECT/REPOSITORY`` in the organization of the mirrors."""
    repository_id: Annotated[str, REPOSITORY_ID] | None = None
    """The repository's id in Azure DevOps, by which ``up`` and ``status`` refuse another one of its name. Default:
    none."""
    branch: Annotated[str, BRANCH] = "main"
    """The branch whose engine the pipelines run. Who may push to it decides what every pipeline does."""
    path: Annotated[str, PIPELINE_PATH] = "mirror-engine.yml"
    """Where the template with the engine is."""

    @property
    def project(self) -> str:
        """The repository's project."""
        return self.repository.partition("/")[0]

    @property
    def repository_name(self) -> str:
        """The repository's name in its project."""
        return self.repository.partition("/")[2]


class Mirror(BaseModel):
    """One source repository and the replica that follows it. Whatever receives a ``Mirror`` may trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The CodeCommit repository, and the id for ``cdk deploy``: 1 to 100 letters, digits or ``. _ -``, not starting
    with a hyphen, not ending in ``.git``."""
    azure: AzureRepository
    account: Annotated[str, ACCOUNT] | None = None
    """The 12 digits of the replica's account. Default: that of your AWS configuration."""
    profile: Annotated[str, PROFILE] | None = None
    """The AWS profile of ``account``, so that one command serves several accounts;
    ``CODECOMMIT_MIRROR_AWS_ACCOUNTS`` in your environment must name the account too. Default: that of your
    environment."""
    assume_role: Annotated[str, ROLE_ARN] | None = None
    """The ARN of a role in ``account`` that your credentials assume, likewise. Default: none."""
    region: Annotated[str, REGION] | None = None
    """Where the replica is. Default: that of your AWS configuration."""
    description: (
        Annotated[
            str,
            matching(
                r"[^\x00-\x1f]{1,1000}", "a valid description", "use 1 to 1,000 characters and no control characters"
            ),
        ]
        | None
    ) = None
    """The repository's description. Default: ``Read-only replica of URL. ...``."""
    tags: Annotated[dict[str, str], AfterValidator(check_tags)] = Field(default_factory=dict)
    """Tags of the mirror's resources, at most 44; ``managed-by: codecommit-mirror`` is always added. Default: none."""
    policy_name: Annotated[
        str,
        matching(r"[A-Za-z0-9_+=,.@-]{1,128}", "an IAM policy name", "use 1 to 128 letters, digits or _ + = , . @ -"),
    ] = Field(default_factory=lambda data: default_policy_name(data["name"]))
    """Unique in the account. Default: ``CodeCommit<Replica>GitPush``."""
    user_name: Annotated[
        str, matching(r"[A-Za-z0-9_+=,.@-]{1,64}", "an IAM user name", "use 1 to 64 letters, digits or _ + = , . @ -")
    ] = Field(default_factory=lambda data: default_user_name(data["name"]))
    """Unique in the account; before changing it on a deployed mirror, run ``credentials revoke NAME --all`` (``up``
    insists on it). Default: ``azure-devops-pipeline-<replica>``, shortened with a hash past 64 characters."""
    source_auth: Literal["pat", "job-token"] = "pat"
    """``job-token``: the pipeline's own token reads the source; four variables instead of six, and none that
    expires."""
    replica_auth: Literal["user", "role"] = "user"
    """``role``: the pipeline acts as a role that trusts its own tokens, in place of the user with its Git credentials;
    with ``source_auth: job-token`` nothing secret is stored anywhere."""
    role_name: Annotated[
        str, matching(r"[A-Za-z0-9_+=,.@-]{1,64}", "an IAM role name", "use 1 to 64 letters, digits or _ + = , . @ -")
    ] = Field(default_factory=lambda data: default_user_name(data["name"]))
    """With ``replica_auth: role``; unique in the account. Default: as ``user_name``."""
    identity: Identity = Identity()
    refs: Annotated[tuple[RefNamespace, ...], AfterValidator(not_empty)] = DEFAULT_REFS
    """Which namespaces below ``refs/`` are mirrored. Default: ``[heads, tags, notes]``."""
    schedule: Annotated[str, AfterValidator(check_schedule)] = Field(
        default_factory=lambda data: derive_schedule(data["name"])
    )
    """Cron, in UTC. Default: every six hours, at a minute that is derived from the mirror's name."""
    archive_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """How many days deleted and overwritten tips stay in the archive; ``0`` turns the archive off."""
    deployed: Literal["here", "elsewhere"] = "here"
    """``elsewhere``: another CDK app has the replica and who pushes to it (docs/constructs.md). ``up`` finds both by
    their tags and deploys nothing; what describes the stack, from ``user_name`` to ``policy_on``, has no effect."""
    existing: bool = False
    """``true``: the replica is an existing repository; the stack refers to it, and never deletes it."""
    on_destroy: Literal["delete", "retain"] = "delete"
    """``retain``: the repository and its history survive ``cdk destroy``."""
    termination_protection: bool = False
    """``true``: CloudFormation refuses to delete the stack."""
    policy_on: Literal["user", "group"] = "user"
    """``group``: the policy is attached to a single-member group, for rules that forbid policies on users."""
    _shared_engine: SharedEngine | None = PrivateAttr(default=None)

    @property
    def shared_engine(self) -> SharedEngine | None:
        """Where the engine is that the mirrors of the file share; None if the YAML has it inside."""
        return self._shared_engine

    def with_engine(self, engine: SharedEngine | None) -> Mirror:
        """Return the mirror with the engine that the mirrors of its file share."""
        mirror = self.model_copy()
        mirror._shared_engine = engine
        return mirror

    @model_validator(mode="after")
    def _signs_in_to_its_account(self) -> Mirror:
        if self.profile and self.assume_role:
            raise ValueError("profile and assume_role are two ways into an account; remove one of them")
        key = "profile" if self.profile else "assume_role"
        if (self.profile or self.assume_role) and self.account is None:
            raise ValueError(f"{key} needs account, so that no other one can be meant; write its 12 digits, in quotes")
        if self.assume_role and self.assume_role.split(":")[4] != self.account:
            raise ValueError(f"assume_role {self.assume_role!r} is in another account than {self.account}; correct one")
        return self

    @model_validator(mode="after")
    def _is_never_deleted(self) -> Mirror:
        if self.existing and self.is_deployed_elsewhere:
            raise ValueError("existing: true is for a stack that is deployed from here; remove it, or deployed")
        if self.existing and self.on_destroy == "delete" and "on_destroy" in self.model_fields_set:
            raise ValueError("with existing: true the repository is never deleted; remove on_destroy: delete")
        return self

    @model_validator(mode="after")
    def _role_has_an_issuer(self) -> Mirror:
        if self.replica_auth == "role":
            if self.identity.issuer_url is None:
                raise ValueError(f"replica_auth: role needs identity.organization_id; {WHERE_THE_ID_IS}")
            if self.policy_on == "group":
                raise ValueError("policy_on: group is for users, and a role has none; remove it")
            if self.azure.is_on_server:
                raise ValueError(
                    "replica_auth: role needs OpenID Connect tokens, which an Azure DevOps Server does not give its "
                    "jobs; use replica_auth: user"
                )
            if not re.fullmatch(r"[\x20-\xff]*", self.token_subject):
                raise ValueError(
                    f"replica_auth: role needs names that IAM accepts in a policy, and {self.token_subject!r} has "
                    "letters beyond \u00ff; use replica_auth: user"
                )
        return self

    @property
    def token_subject(self) -> str:
        """The subject of the tokens that the pipeline's own jobs get: its name, without its folder."""
        azure = self.azure
        return self.identity.subject or f"p://{azure.organization}/{azure.project}/{self.pipeline_name}"

    @property
    def stack_name(self) -> str:
        """The CloudFormation stack's name: letters, digits and hyphens, starting with a letter."""
        return derive_stack_name(self.name)

    @property
    def pipeline_path(self) -> str:
        """The path of the pipeline's YAML in its repository."""
        return self.azure.pipeline_path or default_pipeline_path(self.name, self.azure.pipelines_repository)

    @property
    def pipeline_name(self) -> str:
        """The name of the pipeline in Azure DevOps."""
        return pipeline_name(self.name)

    @property
    def keeps_replica(self) -> bool:
        """Whether the repository stays when the stack goes."""
        return self.existing or self.on_destroy == "retain" or self.is_deployed_elsewhere

    @property
    def is_deployed_elsewhere(self) -> bool:
        """Whether another CDK app deploys the replica."""
        return self.deployed == "elsewhere"

    @property
    def stores_secrets(self) -> bool:
        """Whether the mirror's pipeline stores any secret."""
        return (self.source_auth, self.replica_auth) != ("job-token", "role")

    @property
    def writer(self) -> str:
        """Who may push to the replica: the mirror's user or role, with its kind."""
        return f"role/{self.role_name}" if self.replica_auth == "role" else f"user/{self.user_name}"

    @property
    def replica_tags(self) -> dict[str, str]:
        """The tags of the repository by which the guard knows it as this mirror's replica."""
        return {
            REPLICA_TAG: self.name,
            WRITER_TAG: self.writer.replace(",", ":"),
            ARCHIVE_DAYS_TAG: str(self.archive_days),
        }

    def replica_tags_while_migrating(self, earlier: EarlierSignIn) -> dict[str, str]:
        """Return the same while what the pipeline signed in with before may still push."""
        has_both = earlier.user if self.replica_auth == "role" else bool(earlier.subjects)
        writers = f"user/{self.user_name} role/{self.role_name}" if has_both else self.writer
        return {**self.replica_tags, WRITER_TAG: writers.replace(",", ":")}

    @property
    def replica_description(self) -> str:
        """What the CodeCommit console shows for the replica."""
        return self.description or (
            f"Read-only replica of {self.azure.clone_url}. Do not push here: the next mirror run overwrites it."
        )


def source_metadata(mirror: Mirror) -> dict[str, Any]:
    """Return what a stack's template says of its source: a plan compares it, and it deletes a mirror that is gone."""
    engine = mirror.shared_engine.model_dump(mode="json") if mirror.shared_engine else {}
    return {
        "azure": mirror.azure.model_dump(mode="json", exclude_unset=True),
        **({"engine": engine} if engine else {}),
        "source_auth": mirror.source_auth,
        "replica_auth": mirror.replica_auth,
    }


def derive_stack_name(replica: str) -> str:
    """Return the CloudFormation stack name for a replica's name.

    CloudFormation takes ``[a-zA-Z][-a-zA-Z0-9]*``, at most 128 characters (API_CreateStack).
    """
    name = re.sub(r"[^A-Za-z0-9]", "-", replica)
    return name if name[0].isalpha() else f"Replica-{name}"


def pipeline_name(replica: str) -> str:
    """Return the name of a mirror's pipeline in Azure DevOps, which the subject of its tokens has."""
    return f"codecommit-mirror-{replica}"


def derive_schedule(replica: str) -> str:
    """Return the default schedule: every six hours, at a minute derived from the name, so that runs are spread out."""
    return f"{int(hashlib.sha256(replica.encode()).hexdigest(), 16) % 60} */6 * * *"


def default_pipeline_path(replica: str, pipelines_repository: str | None) -> str:
    """Return the path of the YAML: one of its own in a repository that several mirrors share."""
    return f"{replica}.yml" if pipelines_repository else DEFAULT_PIPELINE_PATH


def default_policy_name(replica: str) -> str:
    """Return the default name of the IAM policy."""
    return f"CodeCommit{replica}GitPush"


def default_user_name(replica: str) -> str:
    """Return the default name of the IAM user, shortened with a hash if IAM would refuse its length."""
    name = f"azure-devops-pipeline-{replica}"
    if len(name) <= _USER_NAME_LIMIT:
        return name
    digest = hashlib.sha256(replica.encode()).hexdigest()[:8]
    return f"{name[: _USER_NAME_LIMIT - 9]}-{digest}"


def check_replica_name(name: str) -> str:
    """Return ``name`` if CodeCommit and CDK accept it.

    Raises:
        MirrorError: CodeCommit would refuse it, or its stack would have the name of CDK's own.
    """
    if not REPLICA_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a CodeCommit repository name; use 1 to 100 letters, digits or . _ -, "
            "not ending in .git and not starting with a hyphen, which cdk would read as an option."
        )
    if name.lower() == _BOOTSTRAP_STACK.lower():
        raise ConfigurationError(f"{name!r} is the name of the stack of 'cdk bootstrap'; give the mirror another name.")
    return name
