"""Which changes no run makes, by events as they were recorded and by every plausible other shape of them."""

from datetime import UTC, datetime

import pytest

from codecommit_mirror.guard.changes import Verdict, from_event, judge, lost_entries
from codecommit_mirror.guard.replica.git_access import Advertised
from codecommit_mirror.guard.replica.replicas import Replica, from_tags
from codecommit_mirror.guard.vault.ref_list import RefList

ARN = "arn:aws:codecommit:eu-west-1:111122223333:MyRepoReplica"
USER = "arn:aws:iam::111122223333:user/azure-devops-pipeline-MyRepoReplica"
OTHER = "arn:aws:sts::111122223333:assumed-role/Admin/alice"
OLD, NEW = "34baa66383b3493507e5c626cbe0846c7b55f19a", "ec3a87304850ca25f8e57945c0262ea5c44001ed"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ARCHIVE = "refs/tags/codecommit-mirror/archive"
REPLICA = Replica("MyRepoReplica", ARN, "user/azure-devops-pipeline-MyRepoReplica", 90)
MERGE = {"baseCommitId": "3e5a9bf1", "sourceCommitId": "26a8f2", "mergeOption": "THREE_WAY_MERGE"}


def event(name="referenceUpdated", caller=USER, ref="refs/heads/main", old=OLD, new=NEW, **detail):
    """An event with the keys of those that were recorded in accounts, 2020 to 2023."""
    kind, short = ("tag" if "/tags/" in ref else "branch"), ref.split("/", 2)[2]
    ids = {"oldCommitId": None if name == "referenceCreated" else old}
    ids["commitId"] = None if name == "referenceDeleted" else new
    return {
        "version": "0",
        "id": "6bbfdb52-6dd3-ae11-32c5-f40ae9f369dd",
        "detail-type": "CodeCommit Repository State Change",
        "source": "aws.codecommit",
        "account": "111122223333",
        "time": "2026-11-26T11:59:56Z",
        "region": "eu-west-1",
        "resources": [ARN],
        "detail": {
            **({"callerUserArn": caller} if caller else {}),
            "event": name,
            "referenceFullName": ref,
            "referenceName": short,
            "referenceType": kind,
            "repositoryId": "de04b8fc-2214-4dc3-9d7a-2fa8c2ba748c",
            "repositoryName": "MyRepoReplica",
            **{key: value for key, value in ids.items() if value},
            **detail,
        },
    }


def verdict(given, refs=None, kept=False, replica=REPLICA, peeled=None, tips=None):
    def read():
        if refs is None:
            raise AssertionError("the replica was read")
        return Advertised(RefList.of(refs), (), RefList.of(peeled or {}))

    change = from_event(given)
    assert change
    is_kept = kept if callable(kept) else lambda old, new: kept
    return judge(change, replica, read, is_kept, lambda entry: (tips or {}).get(entry, {}), NOW)


def test_an_events_fields_are_bounded_for_whoever_may_invoke_the_function_writes_them():
    forged = event(ref="refs/heads/" + "x" * 300_000, caller="arn:" + "y" * 300_000, old="\ud800", new="z" * 300_000)
    change = from_event({**forged, "time": "t" * 300_000})
    assert change
    assert (change.old, change.new) == (None, None)
    assert max(map(len, (change.ref, change.caller, change.time))) <= 4096


@pytest.mark.parametrize("name", ["referenceCreated", "referenceUpdated", "referenceDeleted"])
@pytest.mark.parametrize("caller", [OTHER, f"{USER}2", "arn:aws:iam::111122223333:root", USER.replace("1111", "9999")])
def test_a_change_by_somebody_else_is_one_whatever_it_is(name, caller):
    for ref in ("refs/heads/main", "refs/tags/v1", f"{ARCHIVE}/20260101T000000Z/heads/x"):
        assert verdict(event(name, caller, ref, **MERGE)) is Verdict.BY_SOMEBODY_ELSE


def test_what_a_run_does_is_fine():
    kept = {f"{ARCHIVE}/20261126T115955Z/heads/main": OLD}
    assert verdict(event("referenceCreated")) is Verdict.BY_A_RUN
    assert verdict(event(), {"refs/heads/main": NEW}, kept=True) is Verdict.BY_A_RUN
    assert verdict(event(), kept) is Verdict.BY_A_RUN
    assert verdict(event("referenceDeleted"), kept) is Verdict.BY_A_RUN
    assert verdict(event("referenceDeleted"), {"refs/heads/other": OLD}) is Verdict.BY_A_RUN
    assert verdict(event(ref="refs/tags/codecommit-mirror/confirmed")) is Verdict.BY_A_RUN
    expired = f"{ARCHIVE}/20260801T000000Z/heads/x"
    assert verdict(event("referenceDeleted", ref=expired)) is Verdict.BY_A_RUN


@pytest.mark.parametrize("name", ["referenceUpdated", "referenceDeleted"])
def test_the_pipelines_credential_that_drops_a_tip_is_not_a_run(name):
    assert verdict(event(name), {"refs/heads/other": NEW}) is Verdict.DESTRUCTIVE
    entry = f"{ARCHIVE}/20261120T000000Z/heads/x"
    assert verdict(event(name, ref=entry), {}) is Verdict.DESTRUCTIVE
    assert verdict(event(name, ref=entry), {f"{ARCHIVE}/20261126T115900Z/x": OLD}) is Verdict.DESTRUCTIVE
    assert verdict(event(name, caller=None), {}) is Verdict.BY_SOMEBODY_ELSE


def test_an_overwrite_that_is_too_large_to_judge_is_told():
    assert verdict(event(), {"refs/heads/main": NEW}, kept=None) is Verdict.UNPROVED
    assert verdict(event(caller=None), {"refs/heads/main": NEW}, kept=None) is Verdict.UNPROVED


def test_a_fast_forward_that_was_followed_by_another_one_is_judged_by_that():
    later = "a" * 40
    asked = []

    def kept(old, new):
        asked.append((old, new))
        return True

    assert verdict(event(), {"refs/heads/main": later}, kept) is Verdict.BY_A_RUN
    assert verdict(event(), {f"{ARCHIVE}/20261126T115955Z/heads/main": later}, kept) is Verdict.BY_A_RUN
    assert asked == [(OLD, later), (OLD, later)]
    assert verdict(event(), {"refs/heads/other": later}, kept) is Verdict.DESTRUCTIVE
    assert verdict(event(), {"refs/heads/main": later}) is Verdict.DESTRUCTIVE


ENTRY, COMMON = "c" * 40, f"{ARCHIVE}/20261126T115955Z/cccccccccccccccc"


@pytest.mark.parametrize("name", ["referenceUpdated", "referenceDeleted"])
def test_a_common_entry_keeps_what_it_is_shown_to_keep(name):
    kept = {ENTRY: {"refs/heads/main": OLD, "refs/heads/other": NEW}}
    assert verdict(event(name), {COMMON: ENTRY}, tips=kept) is Verdict.BY_A_RUN
    assert verdict(event(name), {COMMON: ENTRY}, tips={ENTRY: {"refs/heads/main": NEW}}) is Verdict.DESTRUCTIVE
    assert verdict(event(name), {COMMON: ENTRY}) is Verdict.DESTRUCTIVE
    early = COMMON.replace("20261126", "20261124")
    assert verdict(event(name), {early: ENTRY}, tips=kept) is Verdict.DESTRUCTIVE


def test_without_the_old_id_a_common_entry_of_that_day_decides():
    lacks = event("referenceDeleted", old=None)
    assert verdict(lacks, {COMMON: ENTRY}, tips={ENTRY: {"refs/heads/main": NEW}}) is Verdict.BY_A_RUN
    assert verdict(lacks, {COMMON: ENTRY}, tips={ENTRY: {"refs/heads/other": NEW}}) is Verdict.DESTRUCTIVE


def test_what_an_update_kept_may_be_in_what_was_archived_later():
    later, kept = "a" * 40, {ENTRY: {"refs/heads/main": "a" * 40}}
    after = COMMON.replace("115955", "120500")
    assert verdict(event(), {after: ENTRY}, lambda old, new: new == later, tips=kept) is Verdict.BY_A_RUN


@pytest.mark.parametrize("stamp", ["20200101T000000Z", "20270101T000000Z", "99999999T999999Z"])
def test_an_archive_entry_of_another_time_is_no_runs(stamp):
    assert verdict(event("referenceCreated", ref=f"{ARCHIVE}/{stamp}/heads/x")) is Verdict.DESTRUCTIVE


@pytest.mark.parametrize("name", ["referenceUpdated", "referenceDeleted"])
def test_an_archive_entry_that_runs_may_take_away_keeps_nothing(name):
    expired = f"{ARCHIVE}/20260801T000000Z/heads/x"
    assert verdict(event(ref=expired), {expired: NEW}) is Verdict.DESTRUCTIVE
    assert verdict(event(name), {expired: OLD}) is Verdict.DESTRUCTIVE


def test_an_archive_entry_of_now_is_a_runs():
    assert verdict(event("referenceCreated", ref=f"{ARCHIVE}/20261126T115900Z/heads/x")) is Verdict.BY_A_RUN


def test_without_an_archive_a_run_may_drop_a_tip():
    replica = Replica("M", ARN, REPLICA.writer, 0)
    assert verdict(event("referenceDeleted"), replica=replica) is Verdict.BY_A_RUN
    assert verdict(event("referenceDeleted", OTHER), replica=replica) is Verdict.BY_SOMEBODY_ELSE


@pytest.mark.parametrize("name", ["referenceDeleted", "referenceUpdated"])
def test_an_archived_tag_is_kept_whether_the_event_names_it_or_its_commit(name):
    entry = f"{ARCHIVE}/20261126T115950Z/tags/v1"
    change = event(name, ref="refs/tags/v1")
    assert verdict(change, {entry: "f" * 40}, peeled={entry: OLD}) is Verdict.BY_A_RUN
    # Anybody can name an entry after a tag.
    assert verdict(change, {entry: "f" * 40}, peeled={entry: NEW}) is Verdict.DESTRUCTIVE
    expired = entry.replace("20261126", "20260801")
    assert verdict(change, {expired: "f" * 40}, peeled={expired: OLD}) is Verdict.DESTRUCTIVE


@pytest.mark.parametrize("own", ["confirmed", "source"])
@pytest.mark.parametrize("name", ["referenceDeleted", "referenceUpdated"])
def test_a_tag_that_every_run_may_move_keeps_no_commit(own, name):
    """Else whoever may push parks a tip there, drops its branch, and takes the tag away again, all unheard."""
    tag = f"refs/tags/codecommit-mirror/{own}"
    assert verdict(event(name), {tag: OLD, "refs/heads/other": NEW}) is Verdict.DESTRUCTIVE
    dropped = event(name, ref="refs/tags/v1")
    assert verdict(dropped, {tag: "f" * 40}, peeled={tag: OLD}) is Verdict.DESTRUCTIVE
    assert verdict(event(name), {"refs/heads/other": OLD}) is Verdict.BY_A_RUN
    # Nobody knows whether other refs have events.
    assert verdict(event(name), {"refs/parked/x": OLD, "refs/heads/other": NEW}) is Verdict.DESTRUCTIVE


def test_an_event_without_a_caller_is_judged_by_what_it_did():
    assert verdict(event("referenceCreated", None)) is Verdict.UNATTRIBUTED
    assert verdict(event(caller=None), {"refs/heads/main": NEW}, kept=True) is Verdict.UNATTRIBUTED


def test_without_the_old_id_an_archive_entry_of_that_day_decides():
    lacks = event("referenceDeleted", old=None)
    archived = {f"{ARCHIVE}/20261126T115950Z/heads/main": NEW}
    assert verdict(lacks, archived) is Verdict.BY_A_RUN
    assert verdict(lacks, {}) is Verdict.DESTRUCTIVE
    assert verdict(lacks, {f"{ARCHIVE}/20261120T000000Z/heads/main": NEW}) is Verdict.DESTRUCTIVE
    lacks["detail"].pop("callerUserArn")
    assert verdict(lacks, archived) is Verdict.UNATTRIBUTED
    assert verdict(lacks, {}) is Verdict.BY_SOMEBODY_ELSE
    nameless = event("referenceDeleted")
    del nameless["detail"]["referenceFullName"]
    assert from_event(nameless).ref == "refs/heads/main"


def test_archive_entries_that_are_gone_before_their_time_are_lost():
    young, old = f"{ARCHIVE}/20261101T000000Z/heads/x", f"{ARCHIVE}/20260801T000000Z/heads/y"
    assert lost_entries([young, old, "refs/heads/main"], 90, NOW) == [young]
    assert lost_entries([young], 0, NOW) == []


@pytest.mark.parametrize("name", ["unreferencedMergeCommitCreated", "commentOnCommitCreated", None])
def test_other_events_are_no_changes_of_refs(name):
    assert from_event(event(name)) is None
    assert from_event({}) is None


@pytest.mark.parametrize(
    ("writer", "caller", "expected"),
    [
        ("user/a", "arn:aws:iam::111122223333:user/a", True),
        ("user/a", "arn:aws:iam::111122223333:user/team/a", True),
        ("user/a", "arn:aws:iam::111122223333:user/ba", False),
        ("user/a", "arn:aws:iam::999922223333:user/a", False),
        ("user/a", "arn:aws:sts::111122223333:assumed-role/user/a", False),
        ("user/a:b", "arn:aws:iam::111122223333:user/a,b", True),
        ("role/r", "arn:aws:sts::111122223333:assumed-role/r/session", True),
        ("role/r", "arn:aws:sts::111122223333:assumed-role/rr/session", False),
        ("role/r", "arn:aws:iam::111122223333:role/r", False),
        ("user/a", "arn:aws-cn:iam::111122223333:user/a", True),
        ("user/a", "nonsense", False),
    ],
)
def test_the_writer_is_known_by_its_tag(writer, caller, expected):
    assert Replica("M", ARN, writer, 90).is_writer(caller) is expected


def test_a_repository_without_the_tags_is_no_replica():
    tags = {"codecommit-mirror:replica": "M", "codecommit-mirror:writer": "user/a"}
    assert from_tags(ARN, tags) == Replica("MyRepoReplica", ARN, "user/a", 0)
    assert from_tags(ARN, {**tags, "codecommit-mirror:archive-days": "30"}).archive_days == 30
    for key in tags:
        assert from_tags(ARN, {name: value for name, value in tags.items() if name != key}) is None


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "1999-12-31T23:59:59Z", "2026-11-26T11:59:56", "x"])
def test_a_time_that_no_event_has_is_none(time):
    change = from_event({**event(), "time": time})
    assert change
    assert change.moment is None
