"""Push refs to a server that lacks them: at once or, if it calls that too large, in increments of history."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from .. import engine
from ..progress import say

RESTORING_PREFIX = "refs/heads/codecommit-mirror/restoring-"
"""The branch that a large branch's history grows on, and which the last push deletes: the branch itself never moves."""
_COMMITS = (2000, 100, 5, 1)
"""How much history an increment has, from the first size that is tried to the last."""
_TOO_LARGE = re.compile(r"unpack|exceed|too large|TF402462|\b413\b|could not push|hung up|index-pack", re.IGNORECASE)
"""What servers and git say about a push that is too large; the others of these causes fail in small pieces as well."""
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

    def _create(self, commands: Sequence[engine.Command]) -> Mapping[str, str]:
        refused = self._push(commands)
        if len(refused) < len(commands) or not all(map(_TOO_LARGE.search, refused.values())):
            return refused
        say(f"{self._name} refuses a push of this size; pushing in increments of history")
        return {ref: why for command in commands for ref, why in self._in_increments(command).items()}

    def _in_increments(self, command: engine.Command) -> Mapping[str, str]:
        """Let a branch of our own grow until the server has everything, then create the ref, and delete the branch."""
        growing = f"{RESTORING_PREFIX}{command.new}"
        for size in _COMMITS:
            grown = engine.Command(growing, self._present.get(growing), command.new)
            for step in self._git.increments(grown, self._present.values(), size):
                say(f"pushing {engine.sanitize(command.ref)} in increments of {size:,} commits")
                if self._push([step]):
                    break
                self._present[growing] = str(step.new)
            refused = self._push([command])
            if not refused or not all(map(_TOO_LARGE.search, refused.values())):
                break
        if not refused and growing in self._present:
            kept = self._push([engine.Command(growing, self._present[growing], None)])
            if kept:
                say(f"note: {growing} helped to push, and could not be deleted ({kept[growing]}); delete it.")
            else:
                del self._present[growing]
        return refused

    def _push(self, commands: Sequence[engine.Command]) -> Mapping[str, str]:
        for number in range(_TRIES):
            try:
                return self._git.push(self._endpoint(), commands)
            except engine.RetryableError as error:
                if number == _TRIES - 1:
                    return {command.ref: str(error) for command in commands}
                time.sleep(engine.retry_delay(error, number))
        raise AssertionError("the last try returns or raises")
