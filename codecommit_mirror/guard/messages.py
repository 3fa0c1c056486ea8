"""What people are told: one message when something begins, and one when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..engine.text import sanitize
from .changes import Change, Verdict

_MAX_KEYS = 10
_MAX_SUBJECT = 99
"""Characters: SNS takes subjects of less than 100, and only printable ASCII (API_Publish)."""
_MAX_BODY = 200_000
"""Bytes; SNS takes at most 262,144 (API_Publish)."""


@dataclass(frozen=True)
class Message:
    """An e-mail."""

    subject: str
    body: str


def _message(subject: str, *lines: str) -> Message:
    short = subject.encode("ascii", "replace").decode()
    if len(short) > _MAX_SUBJECT:
        short = short[: _MAX_SUBJECT - 3] + "..."
    body = "\n".join(lines) + "\n"
    return Message(short, body.encode("utf-8", "replace")[:_MAX_BODY].decode("utf-8", "ignore"))


def changed(
    replica: str,
    region: str,
    change: Change,
    verdict: Verdict,
    snapshot: str | None,
    log_group: str,
    *,
    is_last: bool = False,
) -> Message:
    """Return the message about a change that no run made."""
    who = change.caller or "not known: CodeCommit's event does not name the caller"
    is_certain = verdict not in (Verdict.UNPROVED, Verdict.UNHEARD)
    doubt = "" if is_certain else "perhaps "
    lines = [
        f"The replica {replica} in {region} was changed, {doubt}by something other than its mirror pipeline.",
        "",
        f"who:   {sanitize(who)}",
        f"what:  {change.kind} {sanitize(change.ref)}",
        f"from:  {change.old or ('-' if change.kind == 'created' else 'not known')}",
        f"to:    {change.new or ('-' if change.kind == 'deleted' else 'not known')}",
        f"when:  {sanitize(change.time)}",
        f"why:   this change was {verdict.value}",
        "",
        "What happens next: the mirror's next run makes the replica equal to its source again, and archives what it",
        "overwrites. Further changes by the same principal until then are logged, but cause no message; one more",
        f"message follows when a run has confirmed the replica. The log group is {log_group}.",
    ]
    if verdict is Verdict.DESTRUCTIVE:
        lines += ["", *_how_to_stop(replica, who)]
    if is_last:
        lines += ["", "This is the last message about it: so many principals have changed the replica by now."]
    if snapshot:
        lines += [
            "",
            f"The last snapshot is from {snapshot}. To restore it:",
            f"  codecommit-mirror restore {replica} --from snapshots --to FOLDER",
        ]
    return _message(f"Replica {replica} was changed, {doubt or 'but '}not by its mirror", *lines)


def _how_to_stop(replica: str, writer: str) -> tuple[str, ...]:
    """Return what to do against an attacker who acts as the mirror's own user or role."""
    if ":assumed-role/" in writer:
        return (
            "The person who did it acted as the role of the mirror's pipeline: with the pipeline itself, or with one",
            "of the same name in another folder of its project. Look for a run at the time of CloudTrail's event",
            "AssumeRoleWithWebIdentity, and deny the person who started it permission to edit, create and run",
            "pipelines; the role's credentials are valid for an hour at most.",
        )
    return (
        "The person who did it knows the pipeline's Git credential. Replace it at once:",
        f"  codecommit-mirror rotate {replica}",
    )


def tags_changed(replica: str, region: str, before: str, now: str) -> Message:
    """Return the message that a replica's tags name another writer, or another time for its archive."""
    return _message(
        f"Tags of replica {replica} were changed",
        f"The tags by which the guard knows who writes to the replica {replica} in {region} were changed.",
        "",
        f"from:  {sanitize(before)}",
        f"to:    {sanitize(now)}",
        "",
        "'codecommit-mirror up' changes them when mirrors.yaml changes replica_auth, user_name, role_name or",
        "archive_days. If it was not that, somebody could now push to the replica without a message: look for who did",
        "TagResource in CloudTrail, and run:",
        f"  codecommit-mirror up {replica}",
    )


def archive_dropped(replica: str, region: str, when: str, entries: Sequence[str]) -> Message:
    """Return the message that archive entries are gone which no run deletes yet."""
    return _message(
        f"The archive of replica {replica} was changed",
        f"These refs of the archive of the replica {replica} in {region} were there {when}, and are gone or",
        "changed before their time:",
        *_listed(entries),
        "If archive_days was not changed since then, somebody has deleted them: look for who pushed to the replica in",
        "CloudTrail (GitPush). The snapshots have what they kept:",
        f"  codecommit-mirror snapshots list {replica}",
    )


def archive_crowded(replica: str, region: str, entries: int, remembered: int) -> Message:
    """Return the message that there are more archive entries than the guard remembers from one look to the next."""
    return _message(
        f"The archive of replica {replica} is crowded",
        f"The archive of the replica {replica} in {region} has {entries:,} refs. The guard remembers the newest",
        f"{remembered:,} of them from one hourly look to the next: that an older one was deleted is told by its event,",
        "or by the next snapshot. If no run deleted so many refs, look for who pushed to the replica in CloudTrail",
        "(GitPush), and delete what they made.",
    )


def created_again(replica: str, region: str) -> Message:
    """Return the message that a replica's repository was deleted, and another one created with its name."""
    return _message(
        f"Replica {replica} is another repository",
        f"The repository {replica} in {region} was deleted, and one of the same name was created. What it has now is",
        "saved beside the earlier snapshots, which stay. If it was not you who did that, look for who did",
        "DeleteRepository in CloudTrail, and restore the last snapshot from before:",
        f"  codecommit-mirror snapshots list {replica}",
    )


def another_head(replica: str, region: str, before: str, now: str) -> Message:
    """Return the message that a replica has another default branch."""
    return _message(
        f"Replica {replica} has another default branch",
        f"The default branch of the replica {replica} in {region} was changed, which no run does.",
        "",
        f"from:  {sanitize(before)}",
        f"to:    {sanitize(now) or '-'}",
        "",
        "If it was not you, look for who did UpdateDefaultBranch in CloudTrail.",
    )


def forgotten(replica: str, region: str) -> Message:
    """Return the message that the guard's notes on a replica are gone."""
    return _message(
        f"Notes on replica {replica} are gone",
        f"The guard kept the replica {replica} in {region}, and now finds none of its notes on it in the vault. What",
        "was changed since its last look at the replica may not have been reported, and snapshots may be gone: see",
        f"  codecommit-mirror snapshots verify {replica}",
        "Only the role that deploys the vault may delete there: look for who did DeleteObject in CloudTrail.",
    )


def begins(region: str, deployed: str) -> Message:
    """Return the message that the guard remembers no earlier look at itself."""
    return _message(
        "The guard begins its watch",
        f"The guard in {region} remembers no earlier look at what it consists of; its stacks were last deployed at",
        f"{deployed}. If that was for the first time, it begins its watch now, and later changes are reported.",
        "Otherwise its notes are gone from the vault, and what was changed since its last look is not known. Only the",
        "role that deploys the vault may delete there: look for who did DeleteObject in CloudTrail.",
    )


def unreadable(replica: str, region: str, problem: str) -> Message:
    """Return the message that a replica cannot be read."""
    return _message(
        f"Replica {replica} cannot be read",
        f"The guard could not read the replica {replica} in {region} at its last two looks:",
        f"  {sanitize(problem)}",
        "Until it can, no snapshot is taken, and changes of the replica may not be reported. One more message follows",
        "when it was read again.",
    )


def read_again(replica: str, region: str) -> Message:
    """Return the message that a replica was read again."""
    return _message(f"Replica {replica} was read again", f"The guard has read the replica {replica} in {region} again.")


def kept(region: str, names: Sequence[str]) -> Message:
    """Return the message that the guard has begun to keep replicas."""
    return _message(
        "The guard keeps more replicas",
        f"In {region} the guard now watches these, and keeps locked snapshots of them, because of their tags:",
        *_listed(names),
        "If you have not brought them up, somebody has tagged a repository as one: take its tags away, since snapshots",
        "cost money and cannot be deleted before their time.",
    )


def guard_changed(region: str, changes: Sequence[str], deployed: str) -> Message:
    """Return the message that something of which the guard consists is not as it was an hour ago."""
    return _message(
        "The guard itself was changed",
        f"Since its last look, this is different about the guard in {region}:",
        *_listed(changes),
        f"Its stacks were last deployed at {deployed}. If they were not deployed since the last look, or not by you,",
        "somebody tries to silence the guard: look for who did in CloudTrail, and deploy it again:",
        "  cdk deploy codecommit-mirror-guard",
    )


def unchanged_again(replica: str, region: str, since: str, confirmed: str) -> Message:
    """Return the message that a run has confirmed the replica after a change."""
    return _message(
        f"Replica {replica} is confirmed again",
        f"The replica {replica} in {region} was changed at {since} by something other than its mirror pipeline.",
        f"A run at {confirmed} has made it equal to its source again.",
        "What that run overwrote is in the archive on the replica.",
    )


def stale(replica: str, region: str, confirmed: str | None, limit: timedelta) -> Message:
    """Return the message that no run confirms the replica."""
    last = f"The last run that did was at {confirmed}." if confirmed else "No run has ever confirmed it."
    return _message(
        f"Replica {replica} is stale",
        f"No run has confirmed the replica {replica} in {region} for {hours(limit)}. {last}",
        "The pipeline may be disabled, its credential may be revoked, or its runs may fail. To find out more, run:",
        f"  codecommit-mirror status {replica}",
        "One more message follows when a run has confirmed the replica.",
    )


def fresh_again(replica: str, region: str, confirmed: str) -> Message:
    """Return the message that the replica is no longer stale."""
    return _message(
        f"Replica {replica} is up to date again",
        f"A run at {confirmed} has confirmed the replica {replica} in {region}. It is no longer stale.",
    )


def unsaved(replica: str, region: str, snapshot: str | None) -> Message:
    """Return the message that no snapshot of the replica is taken."""
    last = f"The last one is from {snapshot}." if snapshot else "There is none yet."
    return _message(
        f"Replica {replica} is not backed up",
        f"The guard takes no snapshots of the replica {replica} in {region}. {last}",
        "The schedule may be disabled, or the replica cannot be read; the guard's log group says which.",
        "One more message follows when a snapshot has been taken.",
    )


def saved_again(replica: str, region: str, snapshot: str) -> Message:
    """Return the message that snapshots are taken again."""
    return _message(
        f"Replica {replica} is backed up again",
        f"The guard has taken a snapshot of the replica {replica} in {region}, at {snapshot}.",
    )


def gone(replica: str, region: str, locked_until: str | None) -> Message:
    """Return the message that the guard no longer finds the replica."""
    kept = f"Its snapshots are locked until {locked_until}." if locked_until else "It has no snapshots."
    return _message(
        f"Replica {replica} is gone",
        f"There is no repository {replica} in {region} with the tags of a replica any longer: it was deleted,",
        f"its tags were removed, or the mirror was taken down. {kept} If that was intended, ignore this message.",
    )


def mended(replica: str, region: str, bucket: str, lost: Sequence[str]) -> Message:
    """Return the message that a chain was started anew, since something that the last one needs cannot be relied on."""
    return _message(
        f"Snapshots of {replica} were damaged",
        f"Of the last snapshots of the replica {replica} in {region}, these objects in the bucket {bucket}",
        "are gone, not locked any longer, or moved to an archive that no restore reads:",
        *_listed(lost),
        "The guard has taken a full snapshot, which needs none of them. What earlier snapshots need may be lost: see",
        f"  codecommit-mirror snapshots list {replica}",
        "Only the account's root user, or whoever may change the bucket's policy, could do this: look for who did in",
        "CloudTrail.",
    )


def foreign_objects(replica: str, region: str, bucket: str, keys: Sequence[str]) -> Message:
    """Return the message that there are objects which the guard did not sign."""
    return _message(
        f"Foreign objects in the snapshots of {replica}",
        f"Below the snapshots of the replica {replica} in {region}, the bucket {bucket} has new objects, versions or",
        "delete markers that belong to no snapshot with the guard's signature:",
        *_listed(keys),
        "They count for nothing: no snapshot builds on them, and no restore reads them. A snapshot that was",
        "interrupted leaves such objects, and so does one that was taken while the signing key was out of order.",
        "Otherwise somebody has changed the bucket's policy, since only the guard may write there: look for who did in",
        "CloudTrail.",
    )


def key_unusable(key: str, region: str, problem: str) -> Message:
    """Return the message that the signing key does not sign."""
    return _message(
        "The guard's signing key is out of order",
        f"The key {key} in {region}, with which the guard signs snapshots, does not sign ({problem}): it was disabled,",
        "is about to be deleted, or its policy was changed. If it is about to be deleted, cancel that at once:",
        f"  aws kms cancel-key-deletion --region {region} --key-id {key}",
        f"  aws kms enable-key --region {region} --key-id {key}",
        "Until then the guard goes on taking snapshots, but they are not signed, and this software does not restore",
        "them; git does. One more message follows when the key signs again.",
    )


def key_signs_again(key: str, region: str) -> Message:
    """Return the message that the signing key signs again."""
    return _message(
        "The guard's signing key is in order again",
        f"The key {key} in {region} signs again. The next snapshot of each replica has all that is new since the last",
        "signed one.",
    )


def _listed(keys: Sequence[str]) -> list[str]:
    more = [f"  and {len(keys) - _MAX_KEYS:,} more"] if len(keys) > _MAX_KEYS else []
    return [f"  {sanitize(key)}" for key in keys[:_MAX_KEYS]] + more


def hours(length: timedelta) -> str:
    """Return a duration in days, or else in hours."""
    number = round(length.total_seconds() / 3600)
    value, unit = (number // 24, "day") if number % 24 == 0 and number else (number, "hour")
    return f"{value} {unit}{'' if value == 1 else 's'}"


def readable(time: datetime) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")
