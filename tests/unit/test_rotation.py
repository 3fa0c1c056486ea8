"""Which credential a pipeline holds, and what a rotation does about it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.azure import held_credential
from codecommit_mirror.azure.held_credential import HeldCredential, Issuing
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.lifecycle import rotate as rotation

IDS = st.from_regex(r"ACCA[A-Z2-7]{17}", fullmatch=True)
HELD = st.one_of(
    st.builds(HeldCredential, st.none() | IDS, account=st.none() | st.from_regex(r"[0-9]{12}", fullmatch=True)),
    st.builds(
        HeldCredential,
        st.none() | IDS,
        st.builds(Issuing, st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)), st.frozensets(IDS, max_size=2)),
    ),
    st.builds(HeldCredential, IDS, st.none(), IDS, st.just("111122223333")),
)


def credential(identifier, days=0):
    return Credential(identifier, "u", "Active", datetime.now(UTC) - timedelta(days=days))


@given(HELD)
def test_what_is_written_is_read(held):
    assert held_credential.parse(held.text()) == held


@given(st.text())
def test_anything_else_says_nothing_of_what_is_under_way(text):
    held = held_credential.parse(text)
    assert held.id is None or held.id.isalnum() or held.issuing is not None or held.replaces is not None


def test_only_what_an_interrupted_run_issued_is_a_stray():
    mine, theirs, stray = credential("A", 9), credential("B", 1), credential("C")
    now = Issuing(datetime.now(UTC), frozenset("A"))
    assert held_credential.strays([mine, theirs], HeldCredential("A")) == []
    assert held_credential.strays([mine, theirs, stray], HeldCredential("A", now)) == [stray]
    assert held_credential.strays([mine, stray], HeldCredential("A", Issuing(now.since, frozenset("AC")))) == []


def plan(existing, held, has_secrets=True):
    return rotation.plan([credential(name) for name in existing], held, has_secrets, "user", "Mirror")


def test_a_rotation_replaces_what_the_pipeline_holds():
    assert plan("A", HeldCredential("A")) == rotation.Rotation("A", issue=True, sure=True)


def test_an_interrupted_rotation_is_finished_and_not_begun_anew():
    assert plan("AB", HeldCredential("B", replaces="A")) == rotation.Rotation("A", issue=False, sure=True)
    assert plan("B", HeldCredential("B", replaces="A")) == rotation.Rotation("A", issue=False, sure=True)


def test_a_new_credential_that_was_revoked_meanwhile_is_replaced():
    assert plan("A", HeldCredential("B", replaces="A")) == rotation.Rotation("A", issue=True, sure=True)


def test_secrets_that_were_typed_in_by_hand_need_a_persons_word():
    assert plan("A", HeldCredential()) == rotation.Rotation("A", issue=True, sure=False)
    assert plan("A", HeldCredential("GONE")) == rotation.Rotation("A", issue=True, sure=False)
    assert plan("A", HeldCredential(), has_secrets=False) == rotation.Rotation(None, issue=True, sure=True)


def test_somebody_elses_credential_is_in_the_way_and_is_named():
    with pytest.raises(MirrorError, match=r"revoke Mirror B' .the pipeline uses A"):
        plan("AB", HeldCredential("A"))
    with pytest.raises(MirrorError, match=r"revoke Mirror A' .a pipeline that uses it stops"):
        plan("AB", HeldCredential())


@given(
    st.sets(st.sampled_from("ABC"), max_size=2),
    st.none() | st.sampled_from("ABC"),
    st.none() | st.sampled_from("ABC"),
    st.booleans(),
)
def test_a_rotation_never_takes_out_what_it_cannot_replace(existing, held, replaced, has_secrets):
    held = HeldCredential(held, replaces=replaced if held != replaced else None)
    try:
        todo = plan(sorted(existing), held, has_secrets)
    except MirrorError:
        assert len(existing) == 2
        return
    if todo.issue:
        assert len(existing) < 2
    else:
        assert held.id in existing
        assert todo.old != held.id
    if todo.old in existing and todo.sure:
        assert todo.old in (held.id, held.replaces)
