"""The guard: one for an account and region, whatever the number of mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from constructs import Construct

from ...config.guard import STACK_NAME
from ...errors import ConfigurationError
from ..vault.vault import Vault
from .function import GuardFunction
from .notifications import Notifications
from .self_watch import SelfWatch
from .triggers import Triggers


@dataclass(frozen=True)
class SnapshotTimes:
    """How often snapshots are taken, and for how long they are kept and locked; whole hours."""

    every: Duration = field(default_factory=lambda: Duration.days(1))
    """How often the guard checks for changes."""
    keep: Duration = field(default_factory=lambda: Duration.days(400))
    """For how long a state can be restored after it was replaced."""
    full_every: Duration = field(default_factory=lambda: Duration.days(30))
    """After how long a chain of incremental snapshots starts anew."""
    governance: bool = False
    """Whether anyone with ``s3:BypassGovernanceRetention`` can delete snapshots before their time."""


class Guard(Construct):
    """What AWS keeps and watches of every replica of an account and region.

    It finds the replicas by their tags and refers to no mirror's stack, so that either may be deployed first.

    Attributes:
        function: the guard's function.
        topic: where its messages go.

    Args:
        vault: where it keeps snapshots.
        email: who is notified; this or ``topic``. AWS asks the address to confirm once.
        topic: an existing topic, whose own policies must let CloudWatch and the guard's role publish.
        stale_after: after how long without a confirming run people are notified.
        snapshots: when snapshots are taken. Default: daily, kept for 400 days.
        takes_snapshots: whether any are taken.
        trusted_keys: the SHA-256 fingerprints of the signing keys that count. Default: the vault's key.
        function_name: the function's name, which the dashboard and the alarms begin with, too.

    Raises:
        MirrorError: it has no recipient, or two, or locks for longer than the vault allows.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vault: Vault,
        email: str | None = None,
        topic: sns.ITopic | None = None,
        stale_after: Duration | None = None,
        snapshots: SnapshotTimes | None = None,
        takes_snapshots: bool = True,
        trusted_keys: Sequence[str] = (),
        function_name: str = STACK_NAME,
    ) -> None:
        super().__init__(scope, construct_id)
        if (email is None) == (topic is None):
            raise ConfigurationError("the guard needs either email or topic; give one of them.")
        times = (snapshots or SnapshotTimes()) if takes_snapshots else None
        if times and (hours := times.keep.to_hours() + times.full_every.to_hours()) > vault.longest_hours:
            raise ConfigurationError(
                f"snapshots are locked for up to keep + full_every, {hours:,.0f} h, but the vault lets nobody lock for "
                f"more than {vault.longest_hours:,} h; give the vault a longer 'longest'."
            )
        notifications = Notifications(self, "Notifications", email=email, topic=topic, deployer=vault.deployer)
        environment = {
            "STALE_AFTER_HOURS": _hours(stale_after or Duration.hours(48)),
            **({"KEYS": " ".join(trusted_keys)} if trusted_keys else {}),
            **(_snapshot_variables(times) if times else {}),
        }
        guarded = GuardFunction(
            self, "Guard", name=function_name, environment=environment, vault=vault, notifications=notifications
        )
        triggers = Triggers(self, "Triggers", function=guarded.function, snapshots_every=times.every if times else None)
        SelfWatch(
            self,
            "SelfWatch",
            name=function_name,
            function=guarded.function,
            check=triggers.check,
            log=guarded.log,
            topic=notifications.topic,
        )
        self.function: lambda_.Function = guarded.function
        self.topic: sns.ITopic = notifications.topic


def _snapshot_variables(times: SnapshotTimes) -> dict[str, str]:
    return {
        "KEEP_HOURS": _hours(times.keep),
        "FULL_EVERY_HOURS": _hours(times.full_every),
        "EVERY_HOURS": _hours(times.every),
        "LOCK_MODE": "GOVERNANCE" if times.governance else "COMPLIANCE",
    }


def _hours(duration: Duration) -> str:
    return f"{duration.to_hours():.0f}"
