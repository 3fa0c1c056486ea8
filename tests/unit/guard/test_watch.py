"""When people are notified: once when something begins, and once when it is over."""

import tracemalloc
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from codecommit_mirror.engine.confirmation import confirmation
from codecommit_mirror.engine.settings import Settings, make_endpoint
from codecommit_mirror.engine.wire.packs import TAG, object_id, pack_of
from codecommit_mirror.guard import watch
from codecommit_mirror.guard.changes import Change, Verdict
from codecommit_mirror.guard.deployment import Deployment
from codecommit_mirror.guard.replica.confirmation import Confirmation, digest, find_tag, parse_confirmation
from codecommit_mirror.guard.vault.ref_list import RefList
from codecommit_mirror.guard.vault.state import State
from codecommit_mirror.guard.vault.store import Version

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHA = "5" * 64
CHANGE = Change("deleted", "refs/heads/main\n", "a" * 40, None, "arn:aws:iam::1:user/mallory", "2026-11-26T12:00:00Z")


def note(state, verdict=Verdict.BY_SOMEBODY_ELSE, now=NOW, change=CHANGE):
    return watch.note_change(state, change, verdict, replica="M", region="eu-west-1", log_group="/log", now=now)


def check(state, now=NOW, stale_after=2 * 24 * HOUR, sha256="0" * 64, saved_every=None):
    where = {"replica": "M", "region": "eu-west-1", "log_group": "/log"}
    limits = {"stale_after": stale_after, "saved_every": saved_every}
    return watch.check(state, refs_sha256=sha256, now=now, **where, **limits)


def confirm(state, tag, now):
    return watch.note_confirmation(state, tag, Confirmation(now, "https://dev.azure.com/x", SHA), now)


def test_a_change_is_told_once_until_a_run_confirms_the_replica():
    state, message = note(State(confirmed_id="1", confirmed_at="20261126T110000Z", first_seen="20261101T000000Z"))
    for words in ("mallory", "deleted refs/heads/main\\n", "a" * 40, "2026-11-26T12:00:00Z", "in eu-west-1", "/log"):
        assert words in message.body
    assert message.subject == "Replica M was changed, but not by its mirror"
    state, again = note(state)
    assert again is None
    state, messages = check(state, NOW + HOUR)
    assert messages == []
    confirmed = confirm(state, "2", NOW + 2 * HOUR)
    # It was changed again since.
    assert check(confirmed, NOW + 3 * HOUR)[1] == []
    state, messages = check(confirmed, NOW + 3 * HOUR, sha256=SHA)
    assert [one.subject for one in messages] == ["Replica M is confirmed again"]
    assert check(state, NOW + 3 * HOUR, sha256=SHA)[1] == []
    assert note(state, now=NOW + 4 * HOUR)[1] is not None


def test_another_stranger_after_the_first_is_told_too():
    state, first = note(State())
    other = replace(CHANGE, caller="arn:aws:iam::1:user/eve")
    state, second = note(state, change=other)
    assert ("mallory" in first.body, "eve" in second.body) == (True, True)
    assert [note(state, change=change)[1] for change in (CHANGE, other)] == [None, None]
    # The mirror's own writer, who is not a stranger, drops commits.
    state, third = note(state, Verdict.DESTRUCTIVE, change=other)
    assert "rotate" in third.body
    for number in range(20):
        state, _ = note(state, change=replace(CHANGE, caller=f"arn:aws:iam::1:user/{number}"))
    assert len(state.changed_by) == 10
    state, _ = check(confirm(state, "2", NOW + HOUR), NOW + HOUR, sha256=SHA)
    assert note(state, now=NOW + 2 * HOUR)[1] is not None


def test_other_tags_are_told_once():
    where = {"replica": "M", "region": "eu-west-1"}
    state, messages = watch.note_tags(State(), "writer user/a", **where)
    assert messages == []
    assert watch.note_tags(state, "writer user/a", **where) == (state, [])
    state, (message,) = watch.note_tags(state, "writer user/mallory", **where)
    assert ("user/a" in message.body, "user/mallory" in message.body) == (True, True)
    assert watch.note_tags(state, "writer user/mallory", **where) == (state, [])


def test_what_changes_of_the_guard_itself_is_told_once():
    def look(state, **parts):
        found = Deployment({"rule a": "1", "vault: policy": "2", **parts}, 1, "2026-11-26 12:00:00 UTC")
        return watch.note_deployment(state, found, region="eu-west-1")

    state, (message,) = look(State())
    assert message.subject == "The guard begins its watch"
    assert look(state) == (state, [])
    changed = {"rule a": "3", "vault: policy": "2", "rule b": "4"}
    state, (message,) = look(state, **changed)
    assert "rule a was changed\n  rule b is new\n" in message.body
    assert look(state, **changed) == (state, [])
    assert "rule b is gone" in look(state)[1][0].body


def test_what_a_run_does_is_not_told():
    assert note(State(), Verdict.BY_A_RUN) == (State(), None)


def test_the_pipelines_own_credential_is_to_be_replaced():
    message = note(State(snapshot_at="20261126T000000Z"), Verdict.DESTRUCTIVE)[1]
    assert "codecommit-mirror rotate M" in message.body
    assert "codecommit-mirror restore M --from snapshots --to FOLDER" in message.body
    assert "2026-11-26 00:00:00 UTC" in message.body
    assert "rotate" not in note(State())[1].body
    session = replace(CHANGE, caller="arn:aws:sts::1:assumed-role/azure-devops-pipeline-M/azure-pipelines")
    as_role = note(State(), Verdict.DESTRUCTIVE, change=session)[1].body
    assert "AssumeRoleWithWebIdentity" in as_role
    assert "rotate" not in as_role


def test_a_change_by_nobody_known_is_told_only_if_no_run_confirms_it():
    state, message = note(State(first_seen="20261126T000000Z"), Verdict.UNATTRIBUTED)
    assert message is None
    assert note(state, Verdict.UNATTRIBUTED, NOW + HOUR) == (state, None)
    earlier = replace(CHANGE, time="2026-11-26T11:00:00Z", ref="refs/heads/x")
    assert note(state, Verdict.UNATTRIBUTED, NOW + HOUR, earlier) == (state, None)
    assert check(state, NOW + HOUR)[1] == []
    confirmed, messages = check(confirm(state, "2", NOW + HOUR), NOW + 3 * HOUR)
    assert (messages, confirmed.unattributed_since) == ([], "")
    earlier = confirm(state, "2", NOW - timedelta(minutes=3))
    assert check(earlier, NOW + 3 * HOUR, sha256=SHA)[1] == []
    assert len(check(earlier, NOW + 3 * HOUR)[1]) == 1
    _, (told,) = check(state, NOW + 2 * HOUR)
    assert "deleted refs/heads/main" in told.body
    assert "does not name the caller" in told.body


def test_a_confirmation_of_the_same_second_accounts_only_for_what_it_lists():
    state, _ = note(State(first_seen="20261126T000000Z"), Verdict.UNATTRIBUTED)
    state = confirm(state, "2", NOW)
    assert check(state, sha256=SHA)[0].unattributed_since == ""
    assert check(state, sha256="0" * 64)[0].unattributed_since != ""


def test_a_difference_that_no_event_told_of_is_told_once_if_no_run_confirms_it():
    state, messages = check(confirm(State(), "1", NOW - HOUR), sha256="9" * 64)
    assert messages == []
    assert check(state, NOW + HOUR, sha256="9" * 64) == (state, [])
    confirmed, messages = check(confirm(state, "2", NOW + HOUR), NOW + 2 * HOUR, sha256=SHA)
    assert (messages, confirmed.unattributed_since) == ([], "")
    told, (message,) = check(state, NOW + 2 * HOUR, sha256="9" * 64)
    assert message.subject == "Replica M was changed, perhaps not by its mirror"
    assert "what:  differs from what the last run confirmed" in message.body
    assert "rotate" not in message.body
    assert check(told, NOW + 5 * HOUR, sha256="9" * 64) == (told, [])
    _, (message,) = check(confirm(told, "2", NOW + 6 * HOUR), NOW + 6 * HOUR, sha256=SHA)
    assert message.subject == "Replica M is confirmed again"


def test_what_nothing_shows_to_be_a_runs_is_told_as_that():
    _, message = note(State(), Verdict.UNPROVED)
    assert message.subject == "Replica M was changed, perhaps not by its mirror"
    assert "was changed, perhaps by something other than its mirror pipeline" in message.body


def test_a_confirmation_that_no_event_told_of_is_told_unless_one_comes():
    state = watch.note_unheard(confirm(State(), "1", NOW - HOUR), NOW)
    assert check(state, NOW + HOUR, sha256=SHA)[1] == []
    (message,) = check(state, NOW + 2 * HOUR, sha256=SHA)[1]
    assert "reported by no event" in message.body
    heard = confirm(state, "2", NOW - timedelta(minutes=1))
    assert check(heard, NOW + 3 * HOUR, sha256=SHA)[1] == []


def archived(state, names, **where):
    return watch.note_archive(state, RefList.of(dict.fromkeys(names, "a" * 40)), **where)


def test_archive_entries_that_go_between_two_looks_are_told_unless_an_event_did():
    prefix = "refs/tags/codecommit-mirror/archive"
    young, old = f"{prefix}/20261101T000000Z/heads/x", f"{prefix}/20260801T000000Z/heads/y"
    where = {"archive_days": 90, "replica": "M", "region": "eu-west-1", "now": NOW}
    state, messages = archived(State(), [old, young], **where)
    assert messages == []
    assert archived(state, [young], **where)[1] == []
    (message,) = archived(state, [old], **where)[1]
    assert young in message.body
    # A change of something else does not hide it, nor does one of another entry.
    assert archived(note(state)[0], [old], **where)[1] == [message]
    bait = replace(CHANGE, ref=f"{prefix}/20261102T000000Z/heads/z")
    assert archived(note(state, change=bait)[0], [old], **where)[1] == [message]
    told = note(state, change=replace(CHANGE, ref=young))[0]
    assert archived(told, [old], **where)[1] == []
    # An event of which nobody was told, since the same principal had been, hides nothing either.
    assert archived(note(told, change=replace(CHANGE, ref=old))[0], [], **where)[1] == []
    more = archived(told, [old, young], **where)[0]
    assert archived(note(more, change=replace(CHANGE, ref=young))[0], [old], **where)[1] == [message]


def test_a_crowd_of_archive_entries_hides_none_unheard(monkeypatch):
    monkeypatch.setattr(watch, "MAX_ENTRIES", 3)
    prefix = "refs/tags/codecommit-mirror/archive"
    entries = [f"{prefix}/202611{day:02}T000000Z/heads/x" for day in range(10, 15)]
    where = {"archive_days": 90, "replica": "M", "region": "eu-west-1", "now": NOW}
    state, messages = archived(State(), entries[:2], **where)
    assert messages == []
    state, (message,) = archived(state, entries, **where)
    assert "has 5 refs. The guard remembers the newest\n3 of them" in message.body
    state, messages = archived(state, entries, **where)
    assert messages == []
    # As many as are remembered, and then more.
    full = archived(State(), entries[:3], **where)[0]
    assert len(archived(full, entries, **where)[1]) == 1


def test_a_stale_replica_is_told_once_and_so_is_its_recovery():
    state, messages = check(State())
    assert (messages, state.first_seen) == ([], "20261126T120000Z")
    state, messages = check(state, NOW + 48 * HOUR)
    assert messages == []
    state, (message,) = check(state, NOW + 49 * HOUR)
    assert message.subject == "Replica M is stale"
    assert "for 2 days. No run has ever confirmed it." in message.body
    assert check(state, NOW + 60 * HOUR) == (state, [])
    state, (message,) = check(confirm(state, "1", NOW + 61 * HOUR), NOW + 61 * HOUR, sha256=SHA)
    assert message.subject == "Replica M is up to date again"
    state, (message,) = check(state, NOW + 120 * HOUR, sha256=SHA)
    assert "The last run that did was at 2026-11-29 01:00:00 UTC." in message.body


def test_a_forged_time_does_not_postpone_staleness():
    state = watch.note_confirmation(State(), "1", Confirmation(NOW + timedelta(days=900), "x", SHA), NOW)
    assert state.confirmed_at == "20261126T120000Z"
    assert watch.note_confirmation(state, "1", Confirmation(NOW + HOUR, "x", SHA), NOW + HOUR) == state
    assert watch.note_confirmation(State(), "2", None, NOW).confirmed_at == ""


def test_a_confirmation_by_somebody_else_confirms_nothing():
    state, _ = note(State(confirmed_id="1", confirmed_at="20261126T110000Z", first_seen="20261101T000000Z"))
    state = watch.disbelieve(state, "forged")
    assert confirm(state, "forged", NOW + HOUR) == state
    assert check(state, NOW + 2 * HOUR)[1] == []


def test_missing_snapshots_are_told_once_and_so_is_the_next_one():
    day = 24 * HOUR
    state, messages = check(State(), saved_every=day)
    assert messages == []
    state, (message,) = check(state, NOW + 49.1 * HOUR, stale_after=99 * day, saved_every=day)
    assert (message.subject, "There is none yet." in message.body) == ("Replica M is not backed up", True)
    assert check(state, NOW + 60 * HOUR, stale_after=99 * day, saved_every=day)[1] == []
    saved = replace(state, snapshot_at="20261129T000000Z")
    _, (message,) = check(saved, NOW + 61 * HOUR, stale_after=99 * day, saved_every=day)
    assert message.subject == "Replica M is backed up again"


def test_a_replica_that_is_gone_is_told_once():
    seen = State(first_seen="20261101T000000Z", locked_until="20280101T000000Z")
    state, message = watch.note_absence(seen, replica="M", region="eu-west-1", now=NOW)
    assert message.subject == "Replica M is gone"
    assert "locked until 2028-01-01 00:00:00 UTC" in message.body
    assert watch.note_absence(state, replica="M", region="eu-west-1", now=NOW)[1] is None
    assert check(state)[0].gone_since == ""


def test_a_subject_is_short_and_ascii():
    from codecommit_mirror.guard.messages import stale

    message = stale("é" + "M" * 99, "eu-west-1", None, HOUR)
    # SNS: "must be less than 100 characters long".
    assert len(message.subject) < 100
    assert message.subject.isascii()


def test_a_body_is_no_longer_than_sns_takes():
    from codecommit_mirror.guard.messages import unreadable

    assert len(unreadable("M", "eu-west-1", "\u20ac" * 300_000).body.encode()) < 262_144


def test_changes_whose_author_no_event_names_do_not_put_off_the_message_about_the_first():
    """Whoever may invoke the function forges one an hour."""
    state = State(first_seen="20261126T000000Z", confirmed_id="1", confirmed_at="20261126T110000Z")
    subjects = []
    for hour in range(4):
        now = NOW + hour * HOUR
        forged = replace(CHANGE, caller=None, ref=f"refs/heads/{hour}", time=now.isoformat())
        state, _ = note(state, Verdict.UNATTRIBUTED, now, forged)
        state, messages = check(state, now)
        subjects += [message.subject for message in messages]
    assert subjects[:1] == ["Replica M was changed, but not by its mirror"]


def test_runs_that_confirm_each_change_keep_later_ones_from_being_told():
    state = State(first_seen="20261126T000000Z")
    for hour in range(6):
        now = NOW + hour * HOUR
        change = replace(CHANGE, caller=None, time=now.isoformat())
        state, _ = note(state, Verdict.UNATTRIBUTED, now, change)
        # The run that made the change has not confirmed it yet when the guard looks.
        state, messages = check(state, now)
        assert messages == []
        state = confirm(state, str(hour), now + timedelta(minutes=1))


def test_the_confirming_tag_is_read_from_the_start_of_a_pack():
    source, replica = (
        make_endpoint(side, "https://dev.azure.com/c/S/_git/R", "", "", "") for side in ("source", "replica")
    )
    tag = confirmation(Settings(source, replica, source_id="an-id"), {"refs/heads/main": "a" * 40}, NOW.timestamp())
    name, pack = object_id(TAG, tag), pack_of([(TAG, tag)])
    assert find_tag(pack, name) == tag
    assert find_tag(pack, "0" * 40) is None
    assert find_tag(pack[:-30], name) is None
    bomb = zlib.compress(bytes(100 * 1024 * 1024))
    crafted = pack[:12] + b"\x30" + bomb + pack[12:]
    tracemalloc.start()
    assert find_tag(crafted, name) is None
    assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    tracemalloc.stop()
    listed = {"refs/heads/main": "a" * 40, "refs/tags/codecommit-mirror/confirmed": name}
    assert parse_confirmation(tag) == Confirmation(NOW, "https://dev.azure.com/c/S/_git/R", digest(RefList.of(listed)))
    assert parse_confirmation(b"object x\ntime: never\n") is None


def look_at_the_vault(state, lost=(), keys=(), new=False):
    foreign = [Version(key, "v", 1, "2026-11-29T00:00:00+00:00") for key in keys]
    return watch.note_vault(state, replica="M", region="eu-west-1", bucket="vault", lost=lost, foreign=foreign, new=new)


def test_foreign_objects_are_told_once_and_again_when_there_are_others():
    state, messages = look_at_the_vault(State())
    assert (state, messages) == (State(), [])
    state, (message,) = look_at_the_vault(state, keys=["snapshots/M/x\x1b[31m.json"])
    assert message.subject == "Foreign objects in the snapshots of M"
    assert "\x1b" not in message.body
    assert look_at_the_vault(state, keys=["snapshots/M/x\x1b[31m.json"]) == (state, [])
    state, (message,) = look_at_the_vault(state, keys=[f"snapshots/M/{number}" for number in range(12)])
    assert "and 2 more" in message.body
    assert look_at_the_vault(state)[0].foreign == ""


def test_a_damaged_chain_is_told_with_the_new_one():
    assert look_at_the_vault(State(), lost=["snapshots/M/a.bundle"])[1] == []
    (message,) = look_at_the_vault(State(), lost=["snapshots/M/a.bundle"], new=True)[1]
    assert message.subject == "Snapshots of M were damaged"
    assert "snapshots/M/a.bundle" in message.body


def look_at_the_key(state, problem, *, is_signed=True):
    return watch.note_key(state, problem, is_signed=is_signed, key="arn:key", region="eu-west-1", now=NOW)


def test_a_key_that_does_not_sign_is_told_once_and_when_it_does_again():
    state, (message,) = look_at_the_key(State(), "DisabledException")
    assert message.subject == "The guard's signing key is out of order"
    assert look_at_the_key(state, "DisabledException") == (state, [])
    again = look_at_the_key(state, None)
    assert (again[0], [one.subject for one in again[1]]) == (State(), ["The guard's signing key is in order again"])
    # What was noted while the key did not sign is not believed afterwards.
    assert [one.subject for one in look_at_the_key(State(), None, is_signed=False)[1]] == [again[1][0].subject]
    assert look_at_the_key(State(), None) == (State(), [])
