"""Where a restore puts a repository: a new folder, a Git server, or a repository in Azure DevOps that it creates."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .. import engine_api
from ..aws.git_signature import sign
from ..aws.session import session_in, sign_in_of
from ..azure.rest.client import AzureDevOps
from ..config.azure_url import AZURE_DEVOPS_SERVICES, parse_clone_url
from ..config.mirror import AzureRepository
from ..errors import AzureError, MirrorError
from ..operations.context import MirrorContext
from ..operations.state import read_record
from .origin import Origin
from .pushing import Push
from .repository import BareRepository

USERNAME, PASSWORD = "RESTORE_GIT_USERNAME", "RESTORE_GIT_PASSWORD"
"""Environment variables with the Git credentials for a server that is neither CodeCommit nor the source's."""
_RESERVED = ("refs/pull/", "refs/pull-requests/", "refs/merge-requests/", "refs/keep-around/")
"""What Azure DevOps, GitHub, Bitbucket and GitLab refuse to take, because they write it themselves."""
_CODECOMMIT = re.compile(r"git-codecommit(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?(?:/|$)")
"""A host; the embedded cloud has it at the beginning of the path."""


@dataclass
class Folder:
    """A bare repository in a new folder."""

    path: Path
    reserved: tuple[str, ...] = ()
    """No refs are kept for anybody."""
    exists: bool = False
    """It is complete, or not there."""

    @property
    def name(self) -> str:
        """What people see."""
        return str(self.path)

    def refs(self) -> Mapping[str, str]:
        """Return the refs that are there: none.

        Raises:
            MirrorError: the folder is not empty.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise MirrorError(f"{self.path} exists and is not empty; name a new folder, since nothing is overwritten.")
        return {}

    def restore(self, origin: Origin, refs: Mapping[str, str]) -> BareRepository:
        """Restore into a folder beside it, which takes its name at the very end: it is complete, or not there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
        except OSError as error:
            raise MirrorError(f"{self.path} cannot be created ({error.strerror}); name another folder.") from None
        try:
            repository = BareRepository(beside)
            origin.fetch(repository, refs)
            repository.set_refs(refs, origin.head)
            if self.path.exists():
                self.path.rmdir()
            beside.rename(self.path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        repository.path = self.path
        return repository

    def clear(self, tips: Collection[str]) -> None:
        """Do nothing: a folder is complete, or not there."""


@dataclass
class Server:
    """A repository on a Git server."""

    name: str
    endpoint: Callable[[], engine_api.Endpoint] = field(repr=False)
    """Returns the endpoint, with a new password where one lasts for minutes only; creates the repository if needed."""
    exists: bool = True
    """Whether it was there before, so that a person is to agree first: pushes start pipelines, and may reach others."""
    reserved: tuple[str, ...] = _RESERVED
    """The prefixes of the refs that only the server itself writes."""

    def refs(self) -> Mapping[str, str]:
        """Return the refs that are there.

        Raises:
            MirrorError: they cannot be read.
        """
        if not self.exists:
            return {}
        with engine_api.failures_as_mirror_errors():
            return engine_api.read_refs_patiently(self.endpoint(), "git-receive-pack").refs

    def restore(self, origin: Origin, refs: Mapping[str, str]) -> BareRepository:
        """Restore into a temporary folder, and push what the server lacks, the default branch first.

        Raises:
            MirrorError: the server refused a ref; it says which, and what was created stays.
        """
        with tempfile.TemporaryDirectory(prefix="restore-") as folder, engine_api.failures_as_mirror_errors():
            repository = BareRepository(Path(folder, "repository.git"))
            origin.fetch(repository, refs)
            present = dict(self.refs())
            if changed := [name for name, value in refs.items() if present.get(name, value) != value]:
                raise MirrorError(
                    f"{self.name} got other values for {engine_api.list_refs(changed)} meanwhile; nothing was pushed."
                )
            there = engine_api.ReplicaRefs({name: value for name, value in present.items() if name in refs})
            todo = engine_api.make_plan(engine_api.ReplicaRefs(dict(refs)), there, origin.head)
            push = Push(engine_api.Git(str(repository.path)), self.endpoint, self.name, present)
            refused = push.create([[command for command in batch if command.new] for batch in todo])
            push.clear(set(refs.values()))
        if refused:
            ref, why = min(refused.items())
            raise MirrorError(
                f"{self.name} refused {engine_api.list_refs(sorted(refused))} ({engine_api.sanitize(ref)}: {why}); the "
                f"other {len(refs) - len(refused):,} are there, and running this again tries only what is missing."
            )
        return repository

    def clear(self, tips: Collection[str]) -> None:
        """Delete the branches that a restore of some tips left when it was stopped.

        Raises:
            MirrorError: the server cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="restore-") as folder, engine_api.failures_as_mirror_errors():
            git = engine_api.Git(str(BareRepository(Path(folder, "repository.git")).path))
            Push(git, self.endpoint, self.name, self.refs()).clear(tips)


Target = Folder | Server


def find_target(text: str, context: MirrorContext) -> Target:
    """Return the target that ``--to`` names: ``source``, a folder, or a URL.

    Raises:
        MirrorError: it is none of these, or there are no credentials for it.
    """
    if text == "source":
        return _azure_repository(_source(context), context)
    if "://" not in text:
        if re.match(r"[^/]+@[^/]+:", text):
            raise MirrorError(f"--to {text!r} looks like an SSH address; give an HTTPS URL, or a folder.")
        return Folder(Path(text).absolute())
    with engine_api.failures_as_mirror_errors():
        url = engine_api.parse_repository_url("--to", text)
    host, path = urlsplit(url).hostname or "", urlsplit(url).path
    if match := _CODECOMMIT.match(f"{path.lstrip('/')}" if engine_api.is_loopback(host) else host):
        aws = session_in(match.group(1), sign_in_of(context.mirror))

        def sign_in() -> engine_api.Endpoint:
            user, password = sign(aws, url)
            return _endpoint(url, user, password, "your AWS credentials need codecommit:GitPush on this repository")

        return Server(url, sign_in, reserved=())
    servers = (AZURE_DEVOPS_SERVICES, context.named_server, context.mirror.azure.server)
    if any(server and url.startswith(f"{server}/") for server in servers):
        return _azure_repository(AzureRepository.model_validate(parse_clone_url(url)), context)
    user, password = (context.environment.get(name, "") for name in (USERNAME, PASSWORD))
    if not (user and password):
        raise MirrorError(f"{USERNAME} and {PASSWORD} are not set; export the Git credentials for {url}.")
    with engine_api.failures_as_mirror_errors():
        engine_api.check_credential(USERNAME, user)
        engine_api.check_credential(PASSWORD, password)
    return Server(url, lambda: _endpoint(url, user, password, f"check {USERNAME} and {PASSWORD}"))


def _source(context: MirrorContext) -> AzureRepository:
    """Return the source, which must be the one that the replica follows.

    Raises:
        MirrorError: it is gone, or another repository has its name.
    """
    place, stack = context.mirror.azure, context.find_stack()
    record = read_record(context, stack.outputs if stack else None)
    if record is None or record.is_of_role:
        raise MirrorError(
            f"nothing in AWS that CI could not have written says which repository the replica {context.mirror.name} "
            f"follows; name the one that you mean: --to {place.clone_url}, if it is that."
        )
    try:
        found = context.azure.repository(place.repository)
    except AzureError as error:
        if error.status != 404:
            raise
        raise MirrorError(
            f"the source {place.names} does not exist, or you may not read it; if it was renamed, correct "
            f"azure.repository; if it was deleted, create it again with --to {place.clone_url}."
        ) from None
    # What AWS's side says goes first: mirrors.yaml could name any repository, with its id.
    is_other = (record.project, record.source) != (found.project_id, found.id)
    if is_other or place.repository_id not in (None, found.id):
        raise MirrorError(
            f"{place.names} is another repository (id {found.id}) than the one that the replica follows (id "
            f"{record.source}); restore into a repository with a name of its own, by --to URL."
        )
    return place.model_copy(update={"repository": found.name})


def _azure_repository(place: AzureRepository, context: MirrorContext) -> Server:
    azure = AzureDevOps(place, context.token, transport=context.azure_transport)
    try:
        azure.repository(place.repository)
        exists = True
    except AzureError as error:
        if error.status != 404:
            raise
        exists = False
    server = Server(place.clone_url, lambda: _with_token(place.clone_url, context), exists)

    def create_first() -> engine_api.Endpoint:
        if not server.exists:
            azure.create_repository(place.repository)
            server.exists = True
        return _with_token(place.clone_url, context)

    server.endpoint = create_first
    return server


def _with_token(url: str, context: MirrorContext) -> engine_api.Endpoint:
    token = context.token
    token.check_writing()
    token.check_destination(url)
    return engine_api.make_endpoint(
        "target", url, "operator", token.secret, f"check {token.origin}", bearer=token.bearer
    )


def _endpoint(url: str, user: str, password: str, remedy: str) -> engine_api.Endpoint:
    return engine_api.make_endpoint("target", url, user, password, remedy)
