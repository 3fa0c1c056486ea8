"""Read ``mirrors.yaml``, or a CDK app's context, into validated mirrors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..errors import ConfigurationError, MirrorError
from . import azure_url, mirrors_file
from . import ci as ci_section
from . import guard as guard_section
from .ci import Ci
from .guard import Guard
from .identity import IDENTITY_STACK_NAME, IdentityProvider
from .mirror import (
    REPLICA_NAME,
    Mirror,
    SharedEngine,
    check_replica_name,
    default_pipeline_path,
    default_policy_name,
    default_user_name,
    derive_stack_name,
)
from .mirrors_file import MirrorsFile
from .validation_messages import sentences, unknown_keys

DEFAULT_FILE = "mirrors.yaml"
_MAX_LISTED_NAMES = 10


class Configuration(NamedTuple):
    """The contents of ``mirrors.yaml``."""

    mirrors: tuple[Mirror, ...]
    cis: tuple[Ci, ...] = ()
    """Which CI service provisions the mirrors of each account, if any."""
    guards: tuple[Guard, ...] = ()
    """What watches the replicas of each account and region, and keeps snapshots of them, if anything does."""

    def ci_of(self, account: str | None) -> Ci | None:
        """Return the section ``ci`` of an account; of a file with one section, that one."""
        if len(self.cis) == 1:
            return self.cis[0]
        return next((ci for ci in self.cis if ci.account == account), None)

    def guard_of(self, mirror: Mirror) -> Guard | None:
        """Return the guard that watches a mirror's replica; of a file with one guard, that one."""
        if len(self.guards) == 1:
            return self.guards[0]
        return next((guard for guard in self.guards if guard.covers(mirror)), None)

    def pinned_keys(self, mirror: Mirror) -> tuple[str, ...]:
        """Return the fingerprints of signing keys that the mirror's guard pins, if any.

        Raises:
            MirrorError: no section is known to be of the mirror's guard, and one of them pins keys.
        """
        guard = self.guard_of(mirror)
        if guard is None and any(one.keys for one in self.guards):
            raise ConfigurationError(
                f"{mirror.name} is in the account and region of no section 'guard' of mirrors.yaml, and one of them "
                "pins keys; give the mirror its 'account' and 'region', so that its snapshots are checked with the "
                "keys that are pinned for it."
            )
        return guard.keys if guard else ()


def takes_snapshots(configuration: Configuration, ci: Ci) -> bool:
    """Whether a guard of an account that CI deploys to takes snapshots, so that CI drills restoring them."""
    return any(guard.snapshots for guard in configuration.guards if guard.account in (None, ci.account))


def load(path: Path, only: str | None = None) -> Configuration:
    """Read ``mirrors.yaml`` and return its mirrors, or the one that ``only`` names.

    With ``only``, the whole file is parsed but just that mirror is validated in full, so that one mirror out of many
    takes no longer than one out of one.

    Raises:
        MirrorError: the file is missing or wrong; one line for each mistake.
    """
    file = mirrors_file.read(path)
    if only is not None and only not in file.mirrors:
        raise ConfigurationError(f"{path}: there is no mirror {only!r}; {_suggestion(only, list(file.mirrors))}")
    chosen = [only] if only is not None else list(file.mirrors)
    mistakes = [] if file.mirrors else _mistakes_in_defaults(file)
    mirrors: list[Mirror] = []
    cis: tuple[Ci, ...] = ()
    try:
        cis = ci_section.load_sections(file)
    except MirrorError as error:
        mistakes.append(str(error))
    guards: tuple[Guard, ...] = ()
    try:
        guards = guard_section.load_sections(file, cis)
    except MirrorError as error:
        mistakes.append(str(error))
    engine = None
    try:
        engine = _shared_engine(file)
    except MirrorError as error:
        mistakes.append(str(error))
    sections = Configuration((), cis, guards)
    for name in chosen:
        try:
            mirrors.append(_validated(file, name, cis).with_engine(engine))
        except MirrorError as error:
            mistakes.append(str(error))
            continue
        guard = sections.guard_of(mirrors[-1])
        if guard and (problem := guard_section.schedule_problem(guard, mirrors[-1])):
            mistakes.append(f"{file.where_value(name, ('schedule',))}: mirror {name!r}: {problem}")
    mistakes += _clashes(file, chosen)
    if mistakes:
        # A mistake in the defaults belongs to every mirror, and is reported once.
        lines = dict.fromkeys("\n".join(mistakes).splitlines())
        raise ConfigurationError("\n".join(sorted(lines, key=_line_number)))
    return sections._replace(mirrors=tuple(mirrors))


def load_mirrors(path: Path, only: str | None = None) -> tuple[Mirror, ...]:
    """Read ``mirrors.yaml`` like :func:`load`, returning only the mirrors."""
    return load(path, only).mirrors


def named_mirrors(path: Path, names: Sequence[str]) -> tuple[Mirror, ...]:
    """Read ``mirrors.yaml`` and return the mirrors of these names, in the file's order.

    Raises:
        MirrorError: the file is wrong, or has no mirror of one of the names.
    """
    if len(set(names)) == 1:
        return load_mirrors(path, names[0])
    mirrors_file = load_mirrors(path)
    known = [mirror.name for mirror in mirrors_file]
    if unknown := [name for name in names if name not in known]:
        lines = [f"{path}: there is no mirror {name!r}; {_suggestion(name, known)}" for name in unknown]
        raise ConfigurationError("\n".join(lines))
    return tuple(mirror for mirror in mirrors_file if mirror.name in names)


def single_mirror(
    name: str,
    azure_repo_url: str,
    *,
    region: str | None = None,
    account: str | None = None,
    default_branch: str | None = None,
) -> Mirror:
    """Return a mirror that is in no file, with every other option at its default.

    Raises:
        MirrorError: the name or the URL is wrong.
    """
    check_replica_name(name)
    azure = {
        **azure_url.parse_clone_url(azure_repo_url),
        **({"default_branch": default_branch} if default_branch else {}),
    }
    entry = {"name": name, "azure": azure, "region": region, "account": account}
    try:
        return Mirror.model_validate(entry)
    except ValidationError as error:
        lines = [f"mirror {name!r}: {text}" for _, text in sentences(error, Mirror)]
        raise ConfigurationError("\n".join(lines)) from None


def from_context(context: Callable[[str], Any]) -> Configuration:
    """Return the mirrors that a CDK app's context asks for.

    Keys: ``replica`` with ``azure_repo_url`` (and ``region``, ``account``) give one mirror without a file;
    ``mirror`` chooses one from the file; ``config`` is the file's path (default ``mirrors.yaml``).

    Raises:
        MirrorError: the context or the file is wrong.
    """
    replica, url = context("replica"), context("azure_repo_url")
    if replica or url:
        if not (replica and url):
            raise ConfigurationError("-c replica=NAME and -c azure_repo_url=URL go together; give both or neither.")
        mirror = single_mirror(replica, url, region=context("region"), account=context("account"))
        return Configuration((mirror,))
    return load(Path(context("config") or DEFAULT_FILE), context("mirror"))


def identity_providers(mirrors: Sequence[Mirror], cis: Sequence[Ci]) -> tuple[IdentityProvider, ...]:
    """Return the identity provider of each account that roles of mirrors and of CI need and no ``provider_arn`` names.

    Raises:
        MirrorError: an account needs several, for more than one organization.
    """
    wanted = [
        IdentityProvider(ci.trust.issuer, (ci.trust.audience,), ci.account, ci.region)
        for ci in cis
        if ci.azure and not ci.provider_arn
    ]
    wanted += [
        IdentityProvider(str(mirror.identity.issuer_url), (mirror.identity.audience,), mirror.account, mirror.region)
        for mirror in mirrors
        if mirror.replica_auth == "role" and not (mirror.identity.provider_arn or mirror.is_deployed_elsewhere)
    ]
    found: dict[str | None, IdentityProvider] = {}
    for other in wanted:
        known = found.setdefault(other.account, other)
        if known.issuer != other.issuer:
            raise ConfigurationError(
                f"the roles need identity providers for {known.issuer} and for {other.issuer} in account "
                f"{other.account or 'of the credentials'}, but there is one stack; create the second one by hand, and "
                "set identity.provider_arn for its mirrors."
            )
        found[other.account] = replace(known, audiences=tuple(dict.fromkeys(known.audiences + other.audiences)))
    return tuple(found.values())


def _line_number(sentence: str) -> int:
    """Return the line that a sentence is about, by which they are sorted."""
    match = re.search(r", line (\d+): ", sentence)
    return int(match[1]) if match else 0


def _suggestion(name: str, known: Sequence[str]) -> str:
    """Return what to do about a mirror name that is not in the file."""
    if close := difflib.get_close_matches(name, known, n=3):
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    if not known:
        return "the file has no mirrors; add one below 'mirrors:'."
    rest = f" and {len(known) - _MAX_LISTED_NAMES:,} more" if len(known) > _MAX_LISTED_NAMES else ""
    return f"the file has {', '.join(sorted(known)[:_MAX_LISTED_NAMES])}{rest}."


def _validated(file: MirrorsFile, name: str, cis: Sequence[Ci]) -> Mirror:
    """Return a mirror, with CI's account and region unless it has its own; these also apply to manual deployments."""
    where = file.where("mirrors", name)
    try:
        check_replica_name(name)
    except MirrorError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    try:
        entry = file.merged(name)
    except MirrorError as error:
        raise ConfigurationError(f"{file.where('mirrors', name, 'azure')}: mirror {name!r}: azure: {error}") from None
    try:
        mirror = Mirror.model_validate({**_from_ci(cis, entry), **entry, "name": name})
    except ValidationError as error:
        lines = []
        for key, sentence in sentences(error, Mirror):
            whose = f"mirror {name!r}" if file.is_own(name, key) else "defaults"
            lines.append(f"{file.where_value(name, key)}: {whose}: {sentence}")
        raise ConfigurationError("\n".join(lines)) from None
    if len(cis) > 1 and mirror.account is None:
        raise ConfigurationError(
            f"{where}: mirror {name!r}: account is missing, and the file has CI in several accounts; write its account."
        )
    return mirror


def _shared_engine(file: MirrorsFile) -> SharedEngine | None:
    """Return the section ``engine``, or None if the file has none."""
    if file.engine is None:
        return None
    try:
        return SharedEngine.model_validate(file.engine)
    except ValidationError as error:
        lines = [
            f"{file.where('engine', *key)}: engine: {sentence}" for key, sentence in sentences(error, SharedEngine)
        ]
        raise ConfigurationError("\n".join(lines)) from None


def _from_ci(cis: Sequence[Ci], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the section ``ci`` of its account says for a mirror."""
    defaults: dict[str, Any] = {}
    for ci in cis:
        if len(cis) == 1 or ci.account == entry.get("account"):
            defaults |= {"account": ci.account, "region": ci.region}
        azure = entry.get("azure")
        if ci.azure and isinstance(azure, dict) and azure.get("organization") == ci.azure.organization:
            defaults["identity"] = {"organization_id": ci.azure.organization_id, "issuer": ci.azure.issuer}
    return defaults


def _mistakes_in_defaults(file: MirrorsFile) -> list[str]:
    """Return the unknown keys below ``defaults``, which no mirror's validation would report."""
    mistakes = unknown_keys(file.defaults, Mirror)
    return [f"{file.where('defaults', *key)}: defaults: {sentence}" for key, sentence in mistakes]


def _clashes(file: MirrorsFile, chosen: Sequence[str]) -> list[str]:
    """Return one line for each name that two mirrors share, which would let one stack overwrite the other's resources.

    Works on the parsed file, so that choosing one mirror does not validate all of them.
    """
    mistakes: list[str] = []
    seen: dict[tuple[str, str], list[tuple[str, tuple[str | None, ...]]]] = {}
    for name in filter(REPLICA_NAME.fullmatch, file.mirrors):
        stack = f"{derive_stack_name(name).lower()}-"
        for taken, owner in (
            (f"{ci_section.PREFIX}-ci", "CI's"),
            (guard_section.STACK_NAME, "the guard's"),
            (guard_section.VAULT_STACK_NAME, "the vault's"),
            (IDENTITY_STACK_NAME, "the identity provider's"),
        ):
            if stack.startswith(f"{taken}-") and name in chosen:
                where = file.where("mirrors", name)
                mistakes.append(
                    f"{where}: mirror {name!r}: its stack would have the same name as {owner} own stack; rename the "
                    "mirror."
                )
        for kind, value, location, remedy in _identities(name, file.merged(name, understands_urls=False)):
            others = seen.setdefault((kind, value.lower()), [])
            for other, other_location in others:
                apart = any(a and b and a != b for a, b in zip(location, other_location, strict=True))
                if not apart and {name, other} & set(chosen):
                    mistakes.append(
                        f"{file.where('mirrors', name)}: mirror {name!r}: its {kind} {value!r} is also that of "
                        f"mirror {other!r}; {remedy}."
                    )
                    break
            others.append((name, location))
    return mistakes


def _identities(name: str, entry: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str | None, ...], str]]:
    """Yield what must be unique, its value, its (account, region) with None for unknown, and the remedy."""
    account, region = entry.get("account"), entry.get("region")
    key = "role_name" if entry.get("replica_auth") == "role" else "user_name"
    user = str(entry.get(key, default_user_name(name)))
    policy = str(entry.get("policy_name", default_policy_name(name)))
    yield "stack name", derive_stack_name(name), (account, region), "rename one of the two"
    # IAM is global, and compares names without case.
    yield key, user, (account,), f"give one of them a {key} of its own"
    yield "policy_name", policy, (account,), "give one of them a policy_name of its own"
    azure = entry.get("azure")
    if isinstance(azure, dict):
        repository = azure.get("pipelines_repository") or azure.get("repository")
        path = azure.get("pipeline_path") or default_pipeline_path(name, azure.get("pipelines_repository"))
        project = "/".join(str(azure.get(key, "")) for key in ("organization", "project"))
        server = str(azure.get("server") or azure_url.AZURE_DEVOPS_SERVICES).lower().rstrip("/")
        place = "" if server == azure_url.AZURE_DEVOPS_SERVICES else f"{server}/"
        yield "pipeline", f"{path} in {place}{project}/{repository}", (), "give one of them an azure.pipeline_path"
