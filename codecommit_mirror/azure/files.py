"""Files of ours in Azure Repos: where each one belongs, what is there, and how it is committed or proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import AzureError, MirrorError
from ..progress import say
from .pipeline import written_by_newer, written_for
from .rest.client import AzureDevOps
from .rest.objects import FileChange, PullRequest, Repository

COMMIT_SUBJECT = "the pipeline that mirrors to CodeCommit"
"""What the comment of every commit of a mirror's YAML says."""
ENGINE_SUBJECT = "the engine that the mirrors share"
"""What the comment of every commit of the shared engine says."""
DISCOVERED = "Mirror new repositories"
"""The comment of commits that add mirrors to mirrors.yaml, and the title of their pull request."""
ENGINE = ""
"""Whose file the engine is that mirrors share: no single mirror's."""

_SKIP_CI = "[skip ci]"
"""Keeps the commit from starting a run: the variables may not be set yet."""
_NO_PUSH = "TF402455"
"""Azure's message number for a push that a branch policy refuses."""
_TRIES = 5
_CONFLICT = 409


@dataclass(frozen=True)
class FilePlace:
    """Where a file is, or belongs, and what is there."""

    repository: Repository
    branch: str
    path: str
    tip: str | None
    """The branch's newest commit; None if there is no such branch, or if nobody needs it: the file is as expected."""
    text: str | None
    """The file on that branch."""
    proposal: str
    """The branch that our pull requests come from."""
    pull_request: PullRequest | None
    """The open pull request that brings the file in or out."""
    proposed_tip: str | None
    """The newest commit of the branch that such pull requests come from."""
    proposed_text: str | None
    """The file on that branch."""
    proposed_by_us: bool
    """Whether that branch's newest commit was made by this project, so that the branch may be deleted."""

    def __str__(self) -> str:
        return f"{self.path!r} on {self.branch!r} of {self.repository.name!r}"

    @property
    def has_branch(self) -> bool:
        """Whether the branch exists."""
        return self.tip is not None or self.text is not None

    def has_file_of(self, owner: str) -> bool:
        """Whether the file was rendered for a mirror, or is the engine."""
        return self.text is not None and written_for(self.text) == owner


def read_place(
    azure: AzureDevOps,
    repository: Repository,
    branch: str,
    path: str,
    proposal: str,
    subject: str = COMMIT_SUBJECT,
    expected: str | None = None,
) -> FilePlace:
    """Return what is at a path of a branch.

    If that is what is expected, nobody needs to know what pull requests of ours would make of it.

    Args:
        azure: the repository's project.
        repository: the repository.
        branch: the branch.
        path: the path.
        proposal: the branch that our pull requests come from.
        subject: what the comments of our commits say.
        expected: the text that the file should have, if that is known.
    """
    text = azure.file(repository, branch, path, expected)
    if text is not None and text == expected:
        return FilePlace(repository, branch, path, None, text, proposal, None, None, None, False)
    proposed_tip, tip = azure.tip(repository, proposal), azure.tip(repository, branch)
    return FilePlace(
        repository=repository,
        branch=branch,
        path=path,
        tip=tip,
        text=text,
        proposal=proposal,
        pull_request=azure.pull_request(repository, proposal, branch) if proposed_tip else None,
        proposed_tip=proposed_tip,
        proposed_text=azure.file(repository, proposal, path) if proposed_tip else None,
        proposed_by_us=proposed_tip is not None
        and (proposed_tip == tip or subject in azure.commit_comment(repository, proposed_tip)),
    )


@dataclass(frozen=True)
class PlannedFile:
    """A file that is to be committed or removed."""

    azure: AzureDevOps
    owner: str
    """The mirror that it is for, or ``ENGINE``."""
    place: FilePlace
    text: str | None
    """None removes it."""
    is_proposed: bool = False
    """Whether a pull request brings it in or out."""
    description: str = ""
    """What that pull request says."""

    @property
    def change(self) -> FileChange:
        """The change as a commit makes it."""
        return FileChange(self.place.path, self.text, self.place.text is not None)

    @property
    def subject(self) -> str:
        """What the comment of its commit is about."""
        return COMMIT_SUBJECT if self.owner else ENGINE_SUBJECT


def reread(file: PlannedFile) -> PlannedFile:
    """Return a file whose place was read again, since another commit may have come to its branch."""
    place = file.place
    now = read_place(file.azure, place.repository, place.branch, place.path, place.proposal, file.subject)
    return replace(file, place=now)


def by_branch(files: Mapping[str, PlannedFile]) -> dict[str, dict[str, PlannedFile]]:
    """Return the files of each branch by mirror, each group by the name of its first mirror."""
    groups: dict[tuple[str, str, str], dict[str, PlannedFile]] = {}
    for name, file in files.items():
        branch = (file.azure.project, file.place.repository.id, file.place.branch)
        groups.setdefault(branch, {})[name] = file
    return {next(iter(group)): group for group in groups.values()}


def commit_group(files: Sequence[PlannedFile]) -> None:
    """Make one commit of all files of one branch; if the branch moves meanwhile, it is read again.

    Raises:
        MirrorError: policies forbid a push, or the branch moves all the time.
    """
    azure, place = files[0].azure, files[0].place
    place = place if place.tip else replace(place, tip=azure.tip(place.repository, place.branch))
    changes = [file.change for file in files]
    for _ in range(_TRIES):
        try:
            _commit(azure, place, changes, files[0].subject)
        except AzureError as error:
            if error.status != _CONFLICT:
                raise
            tip = azure.tip(place.repository, place.branch)
            texts = [azure.file(place.repository, place.branch, change.path) for change in changes]
            _check_owners(files, texts)
            place = replace(place, tip=tip)
            changes = [replace(c, exists=text is not None) for c, text in zip(changes, texts, strict=True)]
            continue
        return
    raise MirrorError(f"the branch {place.branch!r} is being changed by something else; run this again later.")


def _check_owners(files: Sequence[PlannedFile], texts: Sequence[str | None]) -> None:
    """Refuse to overwrite what came to the files' paths since they were read."""
    for file, text in zip(files, texts, strict=True):
        if text is not None and (written_for(text) != file.owner or written_by_newer(text)):
            raise MirrorError(f"{file.change.path!r} was changed by something else meanwhile; run this again.")


def _commit(azure: AzureDevOps, place: FilePlace, changes: Sequence[FileChange], subject: str) -> None:
    repository, branch = place.repository, place.branch
    try:
        azure.commit_files(repository, branch, str(place.tip), changes, f"{_comment(changes, subject)} {_SKIP_CI}")
    except AzureError as error:
        if _NO_PUSH not in str(error):
            raise
        raise MirrorError(
            f"policies of the branch {branch!r} of {repository.name!r} forbid a push; run again with "
            "--pull-request, or keep the YAML in an azure.pipelines_repository."
        ) from None
    for change in changes:
        done = "removed" if change.text is None else "updated" if change.exists else "added"
        say(f"{done} {change.path!r} on {branch!r} of {repository.name!r}")


def _comment(changes: Sequence[FileChange], subject: str) -> str:
    removed = all(change.text is None for change in changes)
    verb = "Remove" if removed else "Update" if any(change.exists for change in changes) else "Add"
    return f"{verb} {subject}"


def propose(file: PlannedFile) -> PullRequest:
    """Commit to the branch of a pull request, open one unless it is open already, and return it."""
    comment = _comment([file.change], file.subject)
    return _propose(file, f"{comment} {_SKIP_CI}", comment)


def propose_mirrors(azure: AzureDevOps, place: FilePlace, text: str) -> None:
    """Propose a new text of mirrors.yaml; a pull request with a commit by someone else is left alone.

    Args:
        azure: the project of the repository.
        place: where mirrors.yaml is.
        text: its new text.

    Raises:
        MirrorError: the branch does not exist, or the service refuses.
    """
    branch, name, opened = place.branch, place.repository.name, place.pull_request
    if place.tip is None:
        raise MirrorError(f"{name!r} has no branch {branch!r}; correct ci.branch.")
    if opened and not place.proposed_by_us:
        say(
            f"pull request {opened.id} into {branch!r} of {name!r} has a commit by someone else, so it was left "
            "unchanged; what it lacks is proposed once it is merged or abandoned"
        )
        return
    description = f"Repositories found by codecommit-mirror; merging this pull request adds them to {place.path}."
    _propose(PlannedFile(azure, ENGINE, place, text, True, description), DISCOVERED, DISCOVERED)


def _propose(file: PlannedFile, comment: str, title: str) -> PullRequest:
    azure, place, change = file.azure, file.place, file.change
    repository, branch, base = place.repository, place.proposal, str(place.tip)
    tip, exists = place.proposed_tip, place.proposed_text is not None
    if tip and not place.pull_request:
        # Left by a pull request that was merged, or by a command that was killed before it opened one.
        azure.set_branch(repository, branch, old=tip, new=None)
        tip = None
    if tip is None:
        azure.set_branch(repository, branch, old=None, new=base)
        tip, exists = base, place.text is not None
    if tip == base or place.proposed_text != change.text:
        proposed = FileChange(change.path, change.text, exists)
        azure.commit_files(repository, branch, tip, [proposed], comment)
    opened = place.pull_request or azure.open_pull_request(repository, branch, place.branch, title, file.description)
    say(f"pull request {opened.id} into {place.branch!r} of {repository.name!r} is waiting to be merged")
    return opened
