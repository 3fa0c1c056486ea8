"""Judge how a mirror is: a list of named checks, the same in text, JSON, HTML, Markdown and in the exit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import quote

from ..azure.connection import LFS_NOTE
from ..azure.pipeline import always_allows_deletions, engine_in, render, render_engine
from ..azure.rest.objects import WITH_ISSUES, Build, Definition
from ..backup.coverage import Subscriptions, Unguarded
from ..config.mirror import Mirror
from ..engine_api import count
from ..guard_api import parse_time
from ..operations.state import other_source
from ..operations.verification import differing_refs
from .reading import Readings

Verdict = Literal["ok", "warning", "failed", "not checked"]
WORST_FIRST: tuple[Verdict, ...] = ("failed", "warning", "ok", "not checked")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    message: str
    remedy: str | None = None
    """What to do, if anything."""
    link: str | None = None
    """Where to look at it."""


@dataclass(frozen=True)
class Limits:
    """What is still in order."""

    now: datetime
    longest_lag: timedelta
    oldest_days: int | None = None
    """How old a Git credential may be; None for any age."""
    unguarded: Unguarded | None = None
    """Why the guard does not watch the mirror, if mirrors.yaml has one that does not."""
    has_guard: bool = False
    subscriptions: Subscriptions | None = None
    """Who gets the guard's messages; None if it was not read, or the guard is not deployed."""


@dataclass(frozen=True)
class Judged:
    """A mirror with its checks."""

    readings: Readings
    checks: Sequence[Check] = field(default=())

    @property
    def name(self) -> str:
        """The mirror's name."""
        return self.readings.mirror.name

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        verdicts = {check.verdict for check in self.checks}
        return next(verdict for verdict in WORST_FIRST if verdict in verdicts)

    @property
    def notable(self) -> list[Check]:
        """What needs attention, the worst first."""
        checks = [check for check in self.checks if check.verdict in ("failed", "warning")]
        return sorted(checks, key=lambda check: WORST_FIRST.index(check.verdict))

    def lag(self, now: datetime) -> timedelta | None:
        """Return how long the replica has been behind: zero if the refs are equal, None if it is unknown."""
        comparison, since = self.readings.comparison, self.readings.since
        if comparison and not comparison.different:
            return timedelta()
        return now - since if since else None


def judge(readings: Readings, limits: Limits) -> Judged:
    """Return the checks of a mirror, as far as it could be read."""
    if readings.stack is None and readings.error is None:
        up = f"codecommit-mirror up {readings.mirror.name}"
        stack = Check("stack", "failed", "not deployed", up)
        return Judged(readings, [stack, *(Check(name, "not checked", "not deployed") for name in list(_CHECKS)[1:])])
    checks = [check(readings, limits) for check in _CHECKS.values()]
    if readings.error and not any(check.verdict == "failed" for check in checks):
        blind = next(number for number, check in enumerate(checks) if check.message == _UNREAD)
        checks[blind] = Check(checks[blind].name, "failed", readings.error)
    return Judged(readings, checks)


_UNREAD = "could not be read"


def _unread(name: str) -> Check:
    return Check(name, "not checked", _UNREAD)


def _stack(readings: Readings, limits: Limits) -> Check:
    stack = readings.stack
    if stack is None:
        return _unread("stack")
    if stack.is_elsewhere:
        return Check("stack", "ok", "another CDK app has it")
    link = _console(readings, f"cloudformation/home?region={readings.region}#/stacks")
    if stack.is_complete:
        return Check("stack", "ok", stack.status, link=link)
    return Check("stack", "failed", f"is {stack.status}", f"codecommit-mirror up {readings.mirror.name}", link)


def _drift(readings: Readings, limits: Limits) -> Check:
    stack = readings.stack
    if stack is None:
        return _unread("drift")
    status, checked = stack.drift
    if checked is None or status not in ("IN_SYNC", "DRIFTED"):
        return Check("drift", "not checked", "CloudFormation has not looked for drift")
    age = f"{duration(limits.now - checked)} ago"
    if status == "IN_SYNC" or not readings.drifted:
        return Check("drift", "ok", f"in sync, as of {age}")
    text = f"{', '.join(readings.drifted)} drifted, as of {age}"
    return Check("drift", "warning", text, f"cdk deploy {readings.mirror.name}")


def _permissions(readings: Readings, limits: Limits) -> Check:
    who = "role" if readings.acts_as_role else "user"
    if readings.foreign_rights is None:
        return Check("permissions", "not checked", "status NAME, or --deep, reads them")
    if not readings.foreign_rights:
        return Check("permissions", "ok", f"the {who} may push to the replica and do nothing else")
    return Check(
        "permissions",
        "warning",
        f"the {who} also has {', '.join(readings.foreign_rights)}",
        "remove that in IAM: the mirror needs its own policy only",
    )


def _source(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("source")
    source = readings.azure.source
    problem, _, remedy = (other_source(readings.mirror, readings.record, None, source.id) or "").partition("; ")
    if problem:
        return Check("source", "failed", problem, remedy)
    return Check("source", "ok", f"{source.name}, with the id {source.id}")


def _credential(readings: Readings, limits: Limits) -> Check:
    name = readings.mirror.name
    if readings.acts_as_role:
        return Check("credential", "ok", "none is stored: the pipeline acts as a role")
    if readings.azure is None:
        return _unread("credential")
    if readings.azure.definition is None:
        return Check("credential", "not checked", "there is no pipeline that could hold one")
    held, age = readings.held, readings.credential_age_days
    if not any(credential.status == "Active" and held in (credential.id, None) for credential in readings.credentials):
        why = "the pipeline's Git credential is gone or inactive"
        return Check("credential", "failed", why, f"codecommit-mirror up {name}")
    if limits.oldest_days is not None and (age or 0) > limits.oldest_days:
        return Check("credential", "warning", f"{age} days old", f"codecommit-mirror rotate {name}")
    return Check("credential", "ok", f"{age} days old")


def _pipeline(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("pipeline")
    up = f"codecommit-mirror up {readings.mirror.name}"
    definition = readings.azure.definition
    if definition is None:
        others = ", ".join(other.name for other in readings.azure.foreign_definitions)
        problem = f"none is recorded; {others} is not known to be this mirror's" if others else "there is none"
        return Check("pipeline", "failed", problem, up)
    link = pipeline_link(readings.mirror, definition)
    if not definition.is_enabled:
        return Check("pipeline", "failed", "is disabled or paused", up, link)
    return Check("pipeline", "ok", definition.name, link=link)


def _yaml(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("YAML")
    azure, up = readings.azure, f"codecommit-mirror up {readings.mirror.name}"
    place, pull_request = azure.yaml, azure.yaml.pull_request
    if place.text is None and pull_request:
        link = _azure_link(readings.mirror, f"_git/{quote(place.repository.name)}/pullrequest/{pull_request.id}")
        return Check("YAML", "warning", f"is in pull request {pull_request.id}", "merge it", link)
    if azure.former_yaml:
        return Check("YAML", "warning", f"the pipeline runs {azure.former_yaml}, not {place}", up)
    if place.text is None:
        return Check("YAML", "failed", f"{place} is not there", up)
    if always_allows_deletions(place.text):
        return Check("YAML", "warning", f"{place} lets every run delete most of the replica's refs", up)
    if place.text != render(readings.mirror):
        return Check("YAML", "warning", f"{place} is not what this version renders", up)
    return Check("YAML", "ok", str(place))


_REVIEW = (
    "require a reviewer there who neither made nor last pushed the change, and votes that end with each push: Repos, "
    "Branches, Branch policies"
)


def _engine(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("engine")
    azure, up = readings.azure, f"codecommit-mirror up {readings.mirror.name}"
    place = azure.engine.place if azure.engine else azure.yaml
    carried, ours = engine_in(place.text or ""), engine_in(render_engine() if azure.engine else render(readings.mirror))
    if carried is None and azure.engine:
        return Check("engine", "failed", f"{place} carries none", up)
    if carried is None or ours is None:
        return Check("engine", "not checked", "the YAML carries none")
    if carried.is_newer:
        remedy = f"install codecommit-mirror {carried.version}"
        return Check("engine", "warning", f"{carried} is newer than this, {ours}", remedy)
    if carried != ours:
        return Check("engine", "warning", f"{carried} is outdated: this is {ours}", up)
    if azure.engine and place.text != render_engine():
        return Check("engine", "warning", f"{place} is not what this version renders", up)
    if azure.engine and azure.engine.is_reviewed is None:
        return Check("engine", "ok", f"{carried}; this token may not see whether changes of it are reviewed")
    if azure.engine and not azure.engine.is_reviewed:
        why = f"{carried}, but whoever may push to {place.branch!r} of {place.repository.name!r} changes every mirror"
        return Check("engine", "warning", why, _REVIEW)
    return Check("engine", "ok", str(carried))


def _trigger(readings: Readings, limits: Limits) -> Check:
    definition = readings.azure.definition if readings.azure else None
    if definition is None:
        return _unread("trigger") if readings.azure is None else Check("trigger", "not checked", "there is no pipeline")
    from_yaml = {"triggerType": "continuousIntegration", "settingsSourceType": 2}
    if any(from_yaml.items() <= trigger.items() for trigger in definition.body.get("triggers") or []):
        return Check("trigger", "ok", "as the YAML says")
    up = f"codecommit-mirror up {readings.mirror.name}"
    return Check("trigger", "warning", "the pipeline overrides the YAML's trigger", up)


def _run(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("run")
    run, name = readings.last_run, readings.mirror.name
    if run is None:
        return Check("run", "failed", "it has never run", f"codecommit-mirror up {name}")
    link = run_link(readings.mirror, run)
    ended = f" {duration(limits.now - run.finished)} ago" if run.finished else ""
    if not run.done:
        return Check("run", "ok", f"run {run.id} is {run.status}", link=link)
    if run.result == "succeeded":
        return Check("run", "ok", f"run {run.id} succeeded{ended}", link=link)
    if run.result == WITH_ISSUES:
        return Check("run", "warning", f"run {run.id} succeeded with issues{ended}", "read the run's summary", link)
    return Check("run", "failed", f"run {run.id} {run.result}{ended}", "read the run's log", link)


def _replica(readings: Readings, limits: Limits) -> Check:
    link = replica_link(readings)
    if readings.replica_is_gone:
        return Check("replica", "failed", str(readings.error))
    if readings.comparison is None:
        return _unread("replica")
    count, different = len(readings.comparison.source), len(readings.comparison.different)
    if not different:
        return Check("replica", "ok", f"{count:,} refs are equal", link=link)
    return Check("replica", "ok", differing_refs(different), link=link)


def _lag(readings: Readings, limits: Limits) -> Check:
    if readings.comparison is None:
        return _unread("lag")
    lag = Judged(readings).lag(limits.now)
    if not readings.comparison.different:
        return Check("lag", "ok", "in sync")
    behind = differing_refs(len(readings.comparison.different))
    if lag is not None and lag <= limits.longest_lag:
        return Check("lag", "ok", f"{behind}, behind for {duration(lag)}")
    since = "" if lag is None else f", behind for {duration(lag)}"
    return Check("lag", "warning", f"{behind}{since}", f"codecommit-mirror pipeline run {readings.mirror.name}")


def _snapshot(readings: Readings, limits: Limits) -> Check:
    if limits.unguarded:
        return Check("snapshot", "warning", limits.unguarded.reason, limits.unguarded.remedy)
    if not limits.has_guard:
        return Check("snapshot", "not checked", "mirrors.yaml has no guard")
    if readings.snapshots is None:
        return Check("snapshot", "not checked", "status NAME, or --deep, reads them")
    if not readings.snapshots.complete:
        return Check("snapshot", "warning", "there is none yet", "the guard takes one within 'snapshots.every'")
    latest = parse_time(readings.snapshots.complete[-1].time)
    return Check("snapshot", "ok", f"the latest is {duration(limits.now - latest)} old")


def _drill(readings: Readings, limits: Limits) -> Check:
    return Check("drill", "not checked", f"'codecommit-mirror restore {readings.mirror.name} --drill' makes one")


def _subscription(readings: Readings, limits: Limits) -> Check:
    if not limits.has_guard:
        return Check("subscription", "not checked", "mirrors.yaml has no guard")
    subscriptions = limits.subscriptions
    if subscriptions is None:
        return Check("subscription", "not checked", "status NAME, or --deep, reads them")
    waiting = f"{subscriptions.pending:,} {'is' if subscriptions.pending == 1 else 'are'} not confirmed"
    if subscriptions.pending:
        return Check("subscription", "warning", waiting, "follow the link in the e-mail from SNS")
    if not subscriptions.confirmed:
        return Check("subscription", "warning", "the guard's messages have no subscriber", "subscribe to its topic")
    return Check("subscription", "ok", f"{count(subscriptions.confirmed, 'subscriber')} of the guard's messages")


def _lfs(readings: Readings, limits: Limits) -> Check:
    if readings.azure is None:
        return _unread("LFS")
    return Check("LFS", "warning", LFS_NOTE) if readings.azure.lfs else Check("LFS", "ok", "the source does not use it")


_CHECKS: dict[str, Callable[[Readings, Limits], Check]] = {
    "stack": _stack,
    "drift": _drift,
    "permissions": _permissions,
    "source": _source,
    "credential": _credential,
    "pipeline": _pipeline,
    "YAML": _yaml,
    "engine": _engine,
    "trigger": _trigger,
    "run": _run,
    "replica": _replica,
    "lag": _lag,
    "snapshot": _snapshot,
    "drill": _drill,
    "subscription": _subscription,
    "LFS": _lfs,
}
"""In the order in which they are shown."""


def pipeline_link(mirror: Mirror, definition: Definition) -> str:
    """Return the address of the mirror's pipeline."""
    return _azure_link(mirror, f"_build?definitionId={definition.id}")


def run_link(mirror: Mirror, run: Build) -> str:
    """Return the address of a run of the mirror's pipeline."""
    return _azure_link(mirror, f"_build/results?buildId={run.id}")


def replica_link(readings: Readings) -> str | None:
    """Return the address of the replica in the AWS console."""
    path = f"codesuite/codecommit/repositories/{readings.mirror.name}/browse?region={readings.region}"
    return _console(readings, path)


def _azure_link(mirror: Mirror, path: str) -> str:
    """Return the address of a page of the mirror's project in Azure DevOps."""
    azure = mirror.azure
    return f"{azure.server}/{quote(azure.organization)}/{quote(azure.project)}/{path}"


def _console(readings: Readings, path: str) -> str | None:
    """Return the address of a page of the AWS console in the mirror's region."""
    region = readings.region
    if region is None:
        return None
    host = "console.amazonaws.cn" if region.startswith("cn-") else "console.aws.amazon.com"
    return f"https://{region}.{host}/{path}"


def duration(length: timedelta) -> str:
    """Return a duration in its largest unit, like ``3 h``."""
    seconds = int(length.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
