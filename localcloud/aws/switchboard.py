"""The other end of ``controls``: what the switches do, in the cloud's process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import functions, iam, messages, s3
from .clock import Clock
from .functions.event_queue import Delivery
from .s3.replication import Mode


@dataclass
class Switchboard:
    """What a test may change, through ``AwsControls``."""

    clock: Clock
    queue: functions.EventQueue
    replication: s3.Replication
    mailbox: messages.Mailbox
    regions_down: set[str]

    def deliver_events(self, how: str) -> None:
        """Choose how events are delivered."""
        self.queue.delivery = Delivery(how)

    def undelivered(self) -> list[str]:
        """Return the functions that nobody was allowed to invoke."""
        return list(self.queue.undelivered)

    def replicate(self, when: str) -> None:
        """Choose when S3 replicates."""
        self.replication.mode = Mode(when)

    def catch_up(self) -> None:
        """Replicate what has waited."""
        self.replication.release()

    def refuse_broken_replication(self, at_once: bool) -> None:
        """Choose when a replication that cannot work is refused."""
        self.replication.checks_at_once = at_once

    def take_down(self, region: str) -> None:
        """Take a region down."""
        self.regions_down.add(region)

    def bring_back(self, region: str) -> None:
        """Bring a region back, and replicate what has waited for it."""
        self.regions_down.discard(region)
        if self.replication.mode is Mode.AT_ONCE:
            self.replication.release()

    def move_clock(self, hours: float) -> None:
        """Let hours pass."""
        self.clock.move(hours)

    def confirm_subscriptions(self, recipient: str | None) -> int:
        """Confirm pending subscriptions."""
        return self.mailbox.confirm(recipient)

    def create_operator(self, *operator: str) -> None:
        """Create another account's administrator."""
        iam.operator.create(iam.Operator(*operator))


def install(
    credentials: iam.ServiceCredentials, administrator: iam.Operator, key_of: iam.KeyOf, root: Path
) -> Switchboard:
    """Make IAM, S3, Lambda and what tells people as strict as the services, and return the switches."""
    clock, regions_down = Clock(), set[str]()
    iam.install(credentials, administrator, key_of)
    replication = s3.install(clock, regions_down)
    queue = functions.install(root / "functions")
    return Switchboard(clock, queue, replication, messages.install(clock), regions_down)
