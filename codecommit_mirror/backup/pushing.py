"""Push refs to a server that lacks them: at once or, if it calls that too large, in increments of history."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from .. import engine
from ..progress import say

RESTORING_PREFIX = "refs/heads/codecommit-mirror/restoring-"
"""The branch that a large branch's history grows on, and which the last push deletes: the branch itself never moves."""
_COMMITS = (2000, 100, 5, 1)
"""How much history an increment has, from the first size that is tried to the last."""
_TOO_LARGE = re.compile(r"unpack|exceed|too large|TF402462|\b413\b|could not push|hung up|index-pack", re.IGNORECASE)
_OTHER_CAUSES = re.compile(r"resolve|connect to|timed out|Authentication|error: (40[0-7]|50[0-3])", re.IGNORECASE)
"""What servers and git say about a push that is too large, and of pushes that fail in small pieces as well."""
_TRIES = 3


class Push:
    """Creates refs on one server.

    Args:
        git: the repository that has the objects.
        endpoint: returns the server, with a new password where one lasts for minutes only.
        name: the server's name, for people.
        present: the refs that are there.
    """

    def __init__(
        self, git: engine.Git, endpoint: Callable[[], engine.Endpoint], name: str, present: Mapping[str, str]
    ) -> None:
        self._git, self._endpoint, self._name = git, endpoint, name
        self._present = dict(present)

    def create(self, batches: Sequence[Sequence[engine.Command]]) -> dict[str, str]:
        """Push each batch after the one before it; return the refused refs with the reasons.

        Raises:
            MirrorFailure, RetryableError: the server cannot be reached.
        """
        refused: dict[str, str] = {}
        for batch in batches:
            for commands in engine.batches_by_command_line(batch):
                say(f"pushing {engine.count(commands, 'ref')} to {self._name}")
                refused.update(self._create(commands))
        return refused

    def clear(self, tips: Collection[str]) -> None:
        """Delete the branches on which the history of some tips grew, or say that they stay."""
        grown = [f"{RESTORING_PREFIX}{tip}" for tip in tips]
        left = [engine.Command(ref, self._present[ref], None) for ref in grown if ref in self._present]
        for ref, why in self._push(left).items() if left else ():
            say(f"note: {ref} helped to push, and could not be deleted ({why}); delete it.")

    def _create(self, commands: Sequence[engine.Command]) -> Mapping[str, str]:
        refused = self._push(commands)
        if len(refused) < len(commands) or not all(map(_is_too_large, refused.values())):
            return refused
        say(f"{self._name} refuses a push of this size; pushing in increments of history")
        return {ref: why for command in commands for ref, why in self._in_increments(command).items()}

    def _in_increments(self, command: engine.Command) -> Mapping[str, str]:
        """Let a branch of our own grow until the server has so much that it accepts the ref itself."""
        growing = f"{RESTORING_PREFIX}{command.new}"
        refused = self._push([command])
        for size in _COMMITS:
            if not refused or not all(map(_is_too_large, refused.values())):
                break
            grown = engine.Command(growing, self._present.get(growing), command.new)
            for step in self._git.increments(grown, self._present.values(), size):
                say(f"pushing {engine.sanitize(command.ref)} in increments of {size:,} commits")
                if self._push([step]):
                    break
            refused = self._push([command])
        return refused

    def _push(self, commands: Sequence[engine.Command]) -> Mapping[str, str]:
        refused = self._push_patiently(commands)
        self._present.update({c.ref: c.new for c in commands if c.new and c.ref not in refused})
        return refused

    def _push_patiently(self, commands: Sequence[engine.Command]) -> Mapping[str, str]:
        for number in range(_TRIES):
            try:
                return self._git.push(self._endpoint(), commands)
            except engine.RetryableError as error:
                if number == _TRIES - 1:
                    raise
                time.sleep(engine.retry_delay(error, number))
        raise AssertionError("the last try returns or raises")


def _is_too_large(why: str) -> bool:
    return _TOO_LARGE.search(why) is not None and _OTHER_CAUSES.search(why) is None
