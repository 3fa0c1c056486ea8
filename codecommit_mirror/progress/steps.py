"""What journeys need of whatever shows their progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Say = Callable[[str], None]
"""Prints a line about what is happening."""
Confirm = Callable[[str], None]
"""Asks a person; raises MirrorError if the answer is no, or if there is nobody to ask."""


class Steps(Protocol):
    """Shows the steps of one mirror's journey."""

    def step(self, title: str) -> AbstractContextManager[Say]:
        """Do one step; yield a function that prints a line below it."""
        ...
