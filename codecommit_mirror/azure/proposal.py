"""A pull request that adds mirrors to mirrors.yaml, as a scheduled job opens it."""

from __future__ import annotations

from ..errors import MirrorError
from ..progress import say
from .client import AzureDevOps

BRANCH = "codecommit-mirror/discover"
TITLE = "Mirror new repositories"
"""Of the pull request, and of the only commits that are ours to replace."""


def propose(azure: AzureDevOps, name: str, branch: str, path: str, text: str) -> None:
    """Propose a file's new text by a pull request; one that is open already is brought up to date.

    One with a commit by someone else is left alone.

    Args:
        azure: the project of the repository.
        name: the repository that holds mirrors.yaml.
        branch: the branch that is deployed.
        path: the file's path in the repository.
        text: its new text.

    Raises:
        MirrorError: the branch does not exist, or the service refuses.
    """
    repository = azure.repository(name)
    base = azure.tip(repository, branch)
    if base is None:
        raise MirrorError(f"{name!r} has no branch {branch!r}; correct ci.branch.")
    opened, tip = azure.pull_request(repository, BRANCH), azure.tip(repository, BRANCH)
    if tip and not opened:
        # Left by a pull request that was merged or abandoned.
        azure.set_branch(repository, BRANCH, old=tip, new=None)
        tip = None
    if tip is None:
        azure.set_branch(repository, BRANCH, old=None, new=base)
        tip = base
    elif opened and azure.commit_comment(repository, tip).strip() != TITLE:
        say(
            f"pull request {opened.id} into {branch!r} of {name!r} has a commit by someone else, so it was left "
            "unchanged; what it lacks is proposed once it is merged or abandoned"
        )
        return
    current = azure.file(repository, BRANCH, path)
    if current != text:
        azure.commit_file(repository, BRANCH, tip, path, text=text, exists=current is not None, comment=TITLE)
    description = f"Repositories found by codecommit-mirror; merging this pull request adds them to {path}."
    opened = opened or azure.open_pull_request(repository, BRANCH, branch, TITLE, description)
    say(f"pull request {opened.id} into {branch!r} of {name!r} is waiting to be merged")
