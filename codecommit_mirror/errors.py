"""The errors that a user can fix.

- ``MirrorError``
    - ``ConfigurationError``: mirrors.yaml or cdk.json, or what a command was given, is wrong
    - ``NotFoundError``: a stack, a repository or an IAM user does not exist
    - ``DeniedError``: AWS denies a call
    - ``UnsettledError``: CloudFormation takes too long
    - ``AzureError``: Azure DevOps refuses a call
    - ``ConcurrentRunError``: another command interfered

Everything else that is raised is a bug of ours, and keeps its traceback. The engine, which is a program of its own, has
its tree in ``engine/failures.py``.
"""


class MirrorError(Exception):
    """An error that the user can fix.

    Its text is what the user sees: the value, what is wrong, what to do. A command ends with exit status 1.
    """


class ConfigurationError(MirrorError):
    """Raised when a file of the user's, or what a command was given, is wrong; it ends with exit status 2."""


class NotFoundError(MirrorError):
    """Raised when a stack, a repository or an IAM user does not exist."""


class DeniedError(MirrorError):
    """Raised when AWS denies a call to these credentials."""


class UnsettledError(MirrorError):
    """Raised when CloudFormation works on a stack for longer than it was waited for."""


class AzureError(MirrorError):
    """Raised when Azure DevOps refuses a call; the sentence contains the service's own message."""

    def __init__(self, sentence: str, status: int, type_key: str = "") -> None:
        super().__init__(sentence)
        self.status, self.type_key = status, type_key

    @property
    def refused(self) -> bool:
        """Whether certainly nothing was done, which is unclear after a time-out or a gateway's answer."""
        return 400 <= self.status < 500 and self.status not in (408, 429)


class ConcurrentRunError(MirrorError):
    """Raised when another command has changed which credential the pipeline holds."""
