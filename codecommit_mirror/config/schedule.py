"""Cron schedules of Azure Pipelines: their validation, and the longest time between two runs.

https://learn.microsoft.com/azure/devops/pipelines/process/scheduled-triggers#cron-syntax
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_WEEKDAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
_EXAMPLE = "'17 */6 * * *'"
_DAYS = 4 * 366
"""A period with every combination of month, day and weekday that matters, including 29 February."""
_MINUTES_PER_DAY = 24 * 60


class _Field(NamedTuple):
    name: str
    numbers: range
    words: tuple[str, ...] = ()

    def number(self, text: str) -> int | None:
        """Return the number that a text names, None if it names none."""
        if text.isdecimal() and int(text) in self.numbers:
            return int(text)
        for number, word in zip(self.numbers, self.words, strict=False):
            if text.lower() in (word, word[:3]):
                return number
        return None


_FIELDS = (
    _Field("minute", range(60)),
    _Field("hour", range(24)),
    _Field("day", range(1, 32)),
    _Field("month", range(1, 13), tuple(_MONTHS)),
    _Field("weekday", range(7), tuple(_WEEKDAYS)),
)


def check(value: str) -> str:
    """Return a schedule with its fields separated by single spaces.

    Raises:
        ValueError: it is not a cron schedule that Azure Pipelines accepts, or it never runs.
    """
    if not _run_days(*_parse(value)[2:]):
        raise ValueError(f"never runs, because no such day exists; write one like {_EXAMPLE}")
    return " ".join(value.split())


def longest_gap_minutes(value: str) -> int:
    """Return the longest time between two consecutive runs of a valid schedule, in minutes."""
    fields = _parse(value)
    minutes = sorted(hour * 60 + minute for hour in fields[1] for minute in fields[0])
    within_a_day = (later - earlier for earlier, later in pairwise(minutes))
    overnight = minutes[0] - minutes[-1]
    days = _run_days(*fields[2:])
    between_days = ((later - earlier) * _MINUTES_PER_DAY + overnight for earlier, later in pairwise(days))
    return max([*within_a_day, *between_days], default=_DAYS * _MINUTES_PER_DAY)


def runs_a_day(value: str) -> float:
    """Return how often a valid schedule runs in a day, on average."""
    minutes, hours, *days = _parse(value)
    return len(minutes) * len(hours) * len(_run_days(*days)) / _DAYS


def _parse(value: str) -> list[frozenset[int]]:
    """Return the numbers of each field."""
    texts = value.split()
    if len(texts) != len(_FIELDS):
        raise ValueError(f"is not a cron schedule; write minute, hour, day, month and weekday in UTC, like {_EXAMPLE}")
    return [_numbers(field, text) for field, text in zip(_FIELDS, texts, strict=True)]


def _numbers(field: _Field, text: str) -> frozenset[int]:
    result: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9][0-9]?))?", part)
        if not match:
            raise _refusal(field, part)
        first = field.numbers[0] if match[1] is None else field.number(match[1])
        last = first if match[2] is None else field.number(match[2])
        if match[1] is None or (match[2] is None and match[3]):
            last = field.numbers[-1]
        if first is None or last is None:
            raise _refusal(field, part)
        if first > last:
            raise ValueError(f"has the {field.name} {part!r}, whose range runs backwards; write the lower end first")
        result.update(range(first, last + 1, int(match[3] or 1)))
    return frozenset(result)


def _refusal(field: _Field, part: str) -> ValueError:
    words = f", or {field.words[0][:3].title()} to {field.words[-1][:3].title()}" if field.words else ""
    return ValueError(
        f"has the {field.name} {part!r}, which is not from {field.numbers[0]} to {field.numbers[-1]}{words}; write "
        f"a schedule like {_EXAMPLE}"
    )


@cache
def _run_days(days: frozenset[int], months: frozenset[int], weekdays: frozenset[int]) -> list[int]:
    """Return the days of a four-year period on which a schedule runs: day, month and weekday must all match."""
    first = date(2024, 1, 1)
    dates = ((number, first + timedelta(number)) for number in range(_DAYS))
    return [
        number
        for number, date in dates
        if date.day in days and date.month in months and date.isoweekday() % 7 in weekdays
    ]
