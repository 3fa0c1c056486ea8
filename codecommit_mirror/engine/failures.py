"""Why something did not work, by what can be done about it."""

from __future__ import annotations


class MirrorFailure(Exception):
    """Raised when the mirror cannot continue; its text is one sentence with the reason and the remedy."""


class AnswerTooLarge(MirrorFailure):
    """Raised when a server's answer is larger than is read."""


class RetryableError(Exception):
    """Raised when a retry may succeed: a connection broke, a server is busy, a ref moved."""

    def __init__(self, reason: str, wait_seconds: float = 0, status: int = 0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.status = status
        """The HTTP status; 0 when the connection broke."""


class PackRefused(Exception):
    """Raised when the replica refused a push as a whole; it may accept a simpler pack."""


class SourceRefused(Exception):
    """Raised when the source did not provide a pack; it may provide a simpler one, or one without a damaged ref."""


class TooLarge(Exception):
    """Raised when a push is too large; smaller pushes may succeed."""
