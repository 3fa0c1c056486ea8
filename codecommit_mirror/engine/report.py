"""The report of a run: for people, for scripts, and for the build agent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from .refs import CARRIED_PREFIX, Refs
from .settings import Settings
from .text import equal_refs, format_bytes, sanitize, say


@dataclass
class Outcome:
    """What a run did, and how the two sides compare."""

    equal: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    archived: Refs = field(default_factory=dict)
    """What the run put into the archive: refs with the tips that they had."""
    expired: int = 0
    carried: int = 0
    """Refs outside branches and tags that the replica only has below ``CARRIED_PREFIX``."""
    confirmed: bool = False
    """Whether the confirming tag on the replica records this run."""
    lfs: bool = False
    """Whether the source keeps files in Git LFS, which are not mirrored."""
    needs_attention: dict[str, str] = field(default_factory=dict)
    """Refs that stay different until a person acts, each with the reason and the remedy."""
    broken: dict[str, str] = field(default_factory=dict)
    """Refs that should be equal but are not, each with the reason."""
    bytes_from_source: int = 0
    bytes_to_replica: int = 0
    seconds: float = 0

    @property
    def result(self) -> str:
        """``Succeeded``, ``SucceededWithIssues`` (refs need a person) or ``Failed``, as Azure Pipelines names them."""
        return "Failed" if self.broken else "SucceededWithIssues" if self.needs_attention else "Succeeded"


def summary(outcome: Outcome) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [
        f"Mirror {outcome.result}: {equal_refs(outcome.equal)}; {outcome.created:,} created, "
        f"{outcome.updated:,} updated, {outcome.deleted:,} deleted, {len(outcome.archived):,} archived, "
        f"{len(outcome.needs_attention) + len(outcome.broken):,} refused; "
        f"{format_bytes(outcome.bytes_from_source)} from the source, "
        f"{format_bytes(outcome.bytes_to_replica)} to the replica, {outcome.seconds:.1f} s."
    ]
    if outcome.carried:
        lines.append(carried_note(outcome.carried))
    if outcome.lfs:
        lines.append("The source uses Git LFS: its large files are not in the replica, only the pointers to them.")
    kept = {ref: f"was {value}" for ref, value in outcome.archived.items()}
    for heading, refs in (
        ("Not mirrored", outcome.broken),
        ("Needs attention", outcome.needs_attention),
        ("Deleted or overwritten, and kept in the archive", kept),
    ):
        if refs:
            lines += ["", f"{heading}:"]
            lines += [
                f"- `{sanitize(ref).replace('`', chr(39))}`: {sanitize(why)}" for ref, why in sorted(refs.items())[:100]
            ]
            if len(refs) > 100:
                lines.append(f"- and {len(refs) - 100:,} more")
    return lines


def carried_note(number: int) -> str:
    """Return the line about refs that the replica does not accept under their own names."""
    return f"Refs outside branches and tags that the replica keeps below {CARRIED_PREFIX}: {number:,}."


def agent_command(name: str, message: str, **properties: str) -> None:
    """Print a logging command for the build agent, if there is one (Azure Pipelines, "Logging commands")."""
    if os.environ.get("TF_BUILD"):
        escapes = [("%", "%AZP25"), ("\r", "%0D"), ("\n", "%0A"), (";", "%3B"), ("]", "%5D")]
        for character, escape in escapes:
            properties = {key: value.replace(character, escape) for key, value in properties.items()}
        for character, escape in escapes[:3]:
            message = message.replace(character, escape)
        fields = "".join(f"{key}={value};" for key, value in properties.items())
        print(f"##vso[{name} {fields}]{message}", flush=True)


def report(outcome: Outcome, settings: Settings, folder: str) -> None:
    """Print the report, and hand it to the build agent as the run's summary page, issues and result."""
    lines = summary(outcome)
    for line in lines:
        say(line)
    path = os.path.join(folder, "Mirror.md")
    with open(path, "w", encoding="utf-8") as stream:
        sides = [f"Source: {settings.source.url}", f"Replica: {settings.replica.url}", f"Engine: {settings.engine}"]
        stream.write("\n".join([*lines, "", *sides, ""]))
    agent_command("task.uploadsummary", path)
    for kind, refs in (("warning", outcome.needs_attention), ("error", outcome.broken)):
        for ref, reason in sorted(refs.items())[:10]:
            agent_command("task.logissue", f"{sanitize(ref)}: {sanitize(reason)}", type=kind)
    if outcome.result != "Succeeded":
        agent_command("task.complete", "", result=outcome.result)
