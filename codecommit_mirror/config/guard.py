"""The section ``guard`` of ``mirrors.yaml``: what AWS keeps and watches of every replica of an account and region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigurationError
from .ci import PREFIX, Ci
from .fields import ACCOUNT, REGION, ROLE_ARN, hours, matching
from .mirror import Mirror
from .mirrors_file import MirrorsFile
from .schedule import longest_gap_minutes
from .validation_messages import sentences

STACK_NAME = f"{PREFIX}-guard"
"""The stack, its construct id, and the name of its function."""
VAULT_STACK_NAME = f"{PREFIX}-vault"
"""The stack of what outlives the guard, and the alias of its key."""
_MAX_STALE_HOURS = 366 * 24
_MAX_KEEP_HOURS = 100 * 366 * 24
"""S3 locks an object for at most 100 years (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html)."""

_STALE = BeforeValidator(lambda value: hours(value, _MAX_STALE_HOURS))
_EVERY = BeforeValidator(lambda value: hours(value, 31 * 24))
_KEEP = BeforeValidator(lambda value: hours(value, _MAX_KEEP_HOURS))


class SnapshotSchedule(BaseModel):
    """How often snapshots are taken, and for how long they are kept and locked; times are read as hours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: Annotated[int, _EVERY] = 24
    """How often the guard checks for changes. Default: ``1d``."""
    keep: Annotated[int, _KEEP] = 400 * 24
    """For how long a state can be restored after it was replaced. Default: ``400d``."""
    full_every: Annotated[int, _KEEP] = 30 * 24
    """After how long a chain of incremental snapshots starts anew. Default: ``30d``."""
    lock: Literal["compliance", "governance"] = "compliance"
    """``governance``: anyone with ``s3:BypassGovernanceRetention`` can delete snapshots before their time."""

    @model_validator(mode="after")
    def _fits(self) -> SnapshotSchedule:
        if self.full_every < self.every:
            raise ValueError("full_every is shorter than every; make it at least as long")
        return self


def _snapshots(value: object) -> object:
    if value is None or value == "on":
        return {}
    return None if value == "off" else value


class Guard(BaseModel):
    """The guard of one account and region; times are read as hours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: Annotated[str, ACCOUNT] | None = None
    """The account that the guard is in. Default: that of ``ci`` or under ``defaults``."""
    region: Annotated[str, REGION] | None = None
    """Where the guard is; it watches the replicas of that account and region. Default: that of ``ci`` or under
    ``defaults``."""
    email: (
        Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address", "write one like you@example.com")]
        | None
    ) = None
    """Who is notified; this or ``topic_arn`` is required. Default: none."""
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
    """An existing SNS topic, in place of ``email``. Default: none."""
    stale_after: Annotated[int, _STALE] = 48
    """After how long without a confirming run people are notified; not below any schedule's longest interval. Default:
    ``2d``."""
    snapshots: Annotated[SnapshotSchedule | None, BeforeValidator(_snapshots)] = Field(default_factory=SnapshotSchedule)
    """``off``, or the keys below. Default: on."""

    keys: tuple[
        Annotated[
            str,
            matching(
                "[0-9a-f]{64}",
                "the fingerprint of a signing key",
                "copy it from 'codecommit-mirror snapshots key NAME --json'",
            ),
        ],
        ...,
    ] = ()
    """The SHA-256 fingerprints of the signing keys that snapshots are read with, earlier vaults' too. Default: the key
    of the vault in AWS."""
    deployed_by: Annotated[str, ROLE_ARN] | None = None
    """The role that CloudFormation acts as when it deploys the vault and the guard: nobody else changes the bucket's
    settings, or disables the topic's key.
    Default: the execution role of CDK's bootstrap."""

    @model_validator(mode="after")
    def _has_one_recipient(self) -> Guard:
        if (self.email is None) == (self.topic_arn is None):
            raise ValueError("guard needs either email or topic_arn; write guard: {email: you@example.com}")
        region = self.topic_arn.split(":")[3] if self.topic_arn else self.region
        if self.region and region != self.region:
            raise ValueError(
                f"topic_arn is in {region}, but the guard is in {self.region}; both must be in the same region"
            )
        return self

    def covers(self, mirror: Mirror) -> bool:
        """Whether the mirror's replica is in the guard's account and region, as far as the file says."""
        return (self.account, self.region) == (mirror.account, mirror.region)


def load_sections(file: MirrorsFile, cis: Sequence[Ci]) -> tuple[Guard, ...]:
    """Return the sections ``guard``, one for each account and region; both default to those of the mirrors.

    Raises:
        MirrorError: a section is wrong; one line for each mistake.
    """
    location = {"account": cis[0].account, "region": cis[0].region} if len(cis) == 1 else {}
    inherited = {key: file.defaults[key] for key in ("account", "region") if key in file.defaults}
    found: list[Guard] = []
    for section in file.guard:
        try:
            found.append(Guard.model_validate({**location, **inherited, **section.values}))
        except ValidationError as error:
            lines = [f"{file.where(*section.at, *key)}: guard: {sentence}" for key, sentence in sentences(error, Guard)]
            raise ConfigurationError("\n".join(lines)) from None
        places = [(guard.account, guard.region) for guard in found]
        if len(file.guard) > 1 and (None in places[-1] or places[-1] in places[:-1]):
            raise ConfigurationError(
                f"{file.where(*section.at)}: guard: each of several guards needs an account and a region of its own; "
                "write both."
            )
    return tuple(found)


def stack_suffix(guard: Guard, guards: Sequence[Guard]) -> str:
    """Return what the ids of a guard's stacks end with in the CDK app, where a file has several guards."""
    return f"-{guard.account}-{guard.region}" if len(guards) > 1 else ""


def schedule_problem(guard: Guard, mirror: Mirror) -> str | None:
    """Return why a mirror would be called stale between two of its runs; None if it would not."""
    gap_hours = longest_gap_minutes(mirror.schedule) / 60
    if guard.stale_after >= gap_hours:
        return None
    return (
        f"schedule {mirror.schedule!r} can leave {gap_hours:,.0f} h between two runs, but guard.stale_after is "
        f"{guard.stale_after} h; use a longer stale_after or a more frequent schedule."
    )
