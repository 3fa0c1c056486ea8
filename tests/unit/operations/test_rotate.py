"""Which credential a pipeline holds, and what a rotation does about it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.azure.variables import HeldCredential, Issuing, parse_held_credential
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import rotate
from codecommit_mirror.operations.credential_delivery import undelivered_credentials
from codecommit_mirror.operations.rotate import RotationPlan

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
    assert parse_held_credential(held.to_json()) == held


@given(st.text())
def test_any_other_text_says_nothing(text):
    assert parse_held_credential(text) == HeldCredential()


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        '{"issuing": 1}',
        '{"issuing": {"since": "yesterday", "existing": []}}',
        '{"issuing": {"since": "2026-01-01T00:00:00", "existing": []}}',
        '{"id": ["A"]}',
        "[" * 100_000,
    ],
)
def test_json_of_another_form_says_nothing(text):
    assert parse_held_credential(text) == HeldCredential()


def test_only_what_an_interrupted_command_issued_is_undelivered():
    mine, theirs, stray = credential("A", 9), credential("B", 1), credential("C")
    now = Issuing(datetime.now(UTC), frozenset("A"))
    assert undelivered_credentials([mine, theirs], HeldCredential("A")) == []
    assert undelivered_credentials([mine, theirs, stray], HeldCredential("A", now)) == [stray]
    assert undelivered_credentials([mine, stray], HeldCredential("A", Issuing(now.since, frozenset("AC")))) == []


def plan(existing, held, has_secrets=True):
    return rotate.plan([credential(name) for name in existing], held, has_secrets, "user", "Mirror")


def test_a_rotation_replaces_what_the_pipeline_holds():
    assert plan("A", HeldCredential("A")) == RotationPlan("A", issue=True, certain=True)


def test_an_interrupted_rotation_is_finished_and_not_begun_anew():
    assert plan("AB", HeldCredential("B", replaces="A")) == RotationPlan("A", issue=False, certain=True)
    # Nothing shows that it was one, since the variable is plain: what the pipeline has is replaced.
    assert plan("B", HeldCredential("B", replaces="A")) == RotationPlan("B", issue=True, certain=True)


def test_a_rotation_does_not_keep_the_older_credential():
    both = [credential("A", days=1), credential("B")]
    assert rotate.plan(both, HeldCredential("B", replaces="A"), True, "user", "Mirror").issue is False
    with pytest.raises(MirrorError, match=r"revoke Mirror B' .the pipeline uses A"):
        rotate.plan(both, HeldCredential("A", replaces="B"), True, "user", "Mirror")


def test_a_new_credential_that_was_revoked_meanwhile_is_replaced():
    assert plan("A", HeldCredential("B", replaces="A")) == RotationPlan("A", issue=True, certain=True)


def test_secrets_that_were_typed_in_by_hand_need_a_persons_word():
    assert plan("A", HeldCredential()) == RotationPlan("A", issue=True, certain=False)
    assert plan("A", HeldCredential("GONE")) == RotationPlan("A", issue=True, certain=False)
    assert plan("A", HeldCredential(), has_secrets=False) == RotationPlan(None, issue=True, certain=True)


def test_somebody_elses_credential_is_in_the_way_and_is_named():
    with pytest.raises(MirrorError, match=r"revoke Mirror B' .the pipeline uses A"):
        plan("AB", HeldCredential("A"))
    with pytest.raises(MirrorError, match=r"revoke Mirror A' .a pipeline that uses it will stop working"):
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
    if todo.old in existing and todo.certain:
        assert todo.old in (held.id, held.replaces)
