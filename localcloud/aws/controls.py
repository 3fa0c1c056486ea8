"""What can be done to the embedded AWS that no API call does: switches for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]


class AwsControls:
    """The switches, as a test holds them; each goes to the cloud's process."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def deliver_events(self, how: str) -> None:
        """Deliver events to functions ``once``, ``twice``, ``late`` or ``shuffled``."""
        self._call("deliver_events", how)

    def undelivered(self) -> list[str]:
        """Return the functions that a service tried to invoke without permission."""
        return list(self._call("undelivered"))

    def replicate(self, when: str) -> None:
        """Let S3 replicate ``at once``, when it ``lags`` not before :meth:`catch_up`, or let it ``fails``."""
        self._call("replicate", when)

    def catch_up(self) -> None:
        """Replicate what has waited."""
        self._call("catch_up")

    def refuse_broken_replication(self, at_once: bool) -> None:
        """Refuse a replication that cannot work when it is configured, or let its objects fail: both are plausible."""
        self._call("refuse_broken_replication", at_once)

    def take_down(self, region: str) -> None:
        """Let a region answer nothing."""
        self._call("take_down", region)

    def bring_back(self, region: str) -> None:
        """Let a region answer again."""
        self._call("bring_back", region)

    def move_clock(self, *, days: float = 0, hours: float = 0) -> None:
        """Let time pass for locks, life cycles, alarms and pending e-mails."""
        self._call("move_clock", days * 24 + hours)

    def confirm_subscriptions(self, recipient: str | None = None) -> int:
        """Follow the links in SNS's e-mails, as their recipients do; return how many there were."""
        return int(self._call("confirm_subscriptions", recipient))
