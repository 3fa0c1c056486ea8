"""Push refs to a server that lacks them: at once or, if it calls that too large, in increments of history."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from .. import engine_api
from ..progress import say

GROWING = ("refs/heads/codecommit-mirror/restoring-", "refs/tags/codecommit-mirror/restoring-")
"""What a large branch's history grows on, with the id of its tip: the branch itself never moves. It is a branch where
there are others, because who creates one may delete it; elsewhere a tag, because the first branch becomes the default
one, which nobody can delete."""
_COMMITS = (2000, 100, 5, 1)
"""How much history an increment has, from the first size that is tried to the last."""
_TOO_LARGE = re.compile(r"unpack|exceed|too large|TF402462|\b413\b|hung up|disconnect|index-pack", re.IGNORECASE)
"""What servers and git say about a push that is too large."""
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
        self, git: engine_api.Git, endpoint: Callable[[], engine_api.Endpoint], name: str, present: Mapping[str, str]
    ) -> None:
        self._git, self._endpoint, self._name = git, endpoint, name
        self._present = dict(present)
        has_branches = any(ref.startswith("refs/heads/") for ref in present)
        self._growing = GROWING[0] if has_branches else GROWING[1]

    def create(self, batches: Sequence[Sequence[engine_api.Command]]) -> dict[str, str]:
        """Push each batch after the one before it; return the refused refs with the reasons.

        Raises:
            MirrorFailure, RetryableError: the server cannot be reached.
        """
        refused: dict[str, str] = {}
        for batch in batches:
            for commands in engine_api.batches_by_command_line(batch):
                say(f"pushing {engine_api.count(commands, 'ref')} to {self._name}")
                refused.update(self._create(commands))
        return refused

    def clear(self, tips: Collection[str]) -> None:
        """Delete what the history of some tips grew on, or say that it stays."""
        grown = [f"{prefix}{tip}" for prefix in GROWING for tip in tips]
        left = [engine_api.Command(ref, self._present[ref], None) for ref in grown if ref in self._present]
        for ref, why in self._push(left).items() if left else ():
            say(f"note: {ref} helped to push, and could not be deleted ({why}); delete it.")

    def _create(self, commands: Sequence[engine_api.Command]) -> Mapping[str, str]:
        refused = self._push(commands)
        if len(refused) < len(commands) or not _is_too_large(refused):
            return refused
        if len(commands) > 1:
            return {ref: why for command in commands for ref, why in self._create([command]).items()}
        say(f"{self._name} refuses a push of this size; pushing in increments of history")
        return self._in_increments(commands[0], refused)

    def _in_increments(self, command: engine_api.Command, refused: Mapping[str, str]) -> Mapping[str, str]:
        """Let the server's history grow until it accepts the ref itself; what is refused is tried in smaller pieces."""
        level, is_refused = 0, True
        while level < len(_COMMITS):
            pushed, is_next = self._grow(command, level)
            if is_next and (pushed or not is_refused):
                refused = self._push([command])
                if not refused or not _is_too_large(refused):
                    return refused
            is_refused = is_next or (is_refused and not pushed)
            level = max(level - 1, 0) if pushed else level + 1
        return refused

    def _grow(self, command: engine_api.Command, level: int) -> tuple[int, bool]:
        """Push pieces of one size, as many as a piece of the next size has.

        Returns:
            How many were pushed, and whether the ref itself comes next.
        """
        size, growing = _COMMITS[level], f"{self._growing}{command.new}"
        grown = engine_api.Command("refs/heads/x", self._present.get(growing), command.new)
        steps = self._git.increments(grown, self._present.values(), size)
        chosen = steps[: _COMMITS[level - 1] // size] if level else steps
        for number, step in enumerate(chosen):
            say(f"pushing {engine_api.sanitize(command.ref)} in increments of {size:,} commits")
            if self._push([step._replace(ref=growing)]):
                return number, False
        return len(chosen), len(chosen) == len(steps)

    def _push(self, commands: Sequence[engine_api.Command]) -> Mapping[str, str]:
        refused = self._push_patiently(commands)
        self._present.update({c.ref: c.new for c in commands if c.new and c.ref not in refused})
        return refused

    def _push_patiently(self, commands: Sequence[engine_api.Command]) -> Mapping[str, str]:
        try:
            return engine_api.patiently(lambda _: self._git.push(self._endpoint(), commands), time.sleep, _TRIES)
        except engine_api.RetryableError as error:
            refused = {command.ref: str(error) for command in commands}
            if _is_too_large(refused):
                return refused
            raise


def _is_too_large(refused: Mapping[str, str]) -> bool:
    return all(map(_TOO_LARGE.search, refused.values()))
