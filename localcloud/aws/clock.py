"""The clock of what AWS does by itself as days pass; a test moves it.

Requests, sessions and tokens go by the machine's own clock: only locks, life cycles, alarms and e-mails that nobody
confirmed go by this one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_DAY = timedelta(days=1)


class Clock:
    """The time that AWS's own work goes by."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._daily: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC) + self._ahead

    def iso(self) -> str:
        """Return the time as S3 writes it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def every_day(self, work: Callable[[], None]) -> None:
        """Do something each time a day has passed."""
        self._daily.append(work)

    def move(self, hours: float) -> None:
        """Let hours pass, and do what each day of them brings."""
        end = self._ahead + timedelta(hours=hours)
        while self._ahead < end:
            self._ahead = min(self._ahead + _DAY, end)
            for work in self._daily:
                work()
