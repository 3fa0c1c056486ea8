"""A replica's refs are read by its name: of one repository, before and after."""

import itertools

import pytest

from codecommit_mirror.engine.failures import RetryableError
from codecommit_mirror.guard.replica import replicas
from codecommit_mirror.guard.replica.git_access import Advertised
from codecommit_mirror.guard.replica.replicas import Access, Replica, read_replica
from codecommit_mirror.guard.vault.ref_list import RefList

REPLICA = Replica("M", "arn:aws:codecommit:eu-west-1:111122223333:M", "user/x", 90)


def read(monkeypatch, found):
    """Read a replica of which each look-up finds the next id and time, and return how often its refs were listed."""
    looked_up, listed = iter(found), []
    monkeypatch.setattr(
        replicas,
        "open_replica",
        lambda *_: Access(None, lambda: None, **dict(zip(("id", "modified"), next(looked_up), strict=True))),
    )
    monkeypatch.setattr(replicas, "read_patiently", lambda *_: listed.append("") or Advertised(RefList()))
    access, _ = read_replica(None, None, REPLICA)
    return access.id, len(listed)


def test_a_repository_that_stays_is_listed_once(monkeypatch):
    assert read(monkeypatch, itertools.repeat(("a", 1))) == ("a", 1)


def test_one_that_was_changed_meanwhile_is_listed_again(monkeypatch):
    assert read(monkeypatch, [("a", 1), ("b", 2), ("a", 3), ("a", 3)]) == ("a", 3)


def test_whoever_pushes_all_the_time_stops_no_look(monkeypatch):
    """Whether a push counts as a modification is not recorded."""
    assert read(monkeypatch, (("a", time) for time in itertools.count())) == ("a", 5)


def test_another_repository_at_each_time_is_refused(monkeypatch):
    with pytest.raises(RetryableError, match="another repository has had the name M"):
        read(monkeypatch, itertools.cycle([("a", 1), ("b", 1)]))
