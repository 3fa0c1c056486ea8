"""Who gets the guard's messages, and which mirrors are not guarded, for accounts that are signed in to differently."""

from types import SimpleNamespace

import pytest

from codecommit_mirror.backup import coverage
from codecommit_mirror.backup.coverage import Subscriptions
from codecommit_mirror.config.guard import Guard
from codecommit_mirror.config.load import Configuration, single_mirror
from codecommit_mirror.errors import NotFoundError


@pytest.fixture
def contexts(monkeypatch):
    """Two mirrors in one region and two accounts, of which only the first has a guard."""

    def context(name, profile):
        mirror = single_mirror(name, "https://dev.azure.com/o/p/_git/r")
        mirror = mirror.model_copy(update={"profile": profile, "account": "111122223333"})
        return SimpleNamespace(mirror=mirror, aws=SimpleNamespace(region_name="eu-west-1", profile_name=profile))

    def output(aws, stack, key):
        if aws.profile_name != "first":
            raise NotFoundError("there is no stack.")
        return "arn:topic"

    monkeypatch.setenv("CODECOMMIT_MIRROR_AWS_ACCOUNTS", "111122223333")
    monkeypatch.setattr(coverage, "stack_output", output)
    monkeypatch.setattr(coverage, "read_subscriptions", lambda aws: output(aws, "", "") and Subscriptions(1, 0))
    return [context("A", "first"), context("B", "second"), context("C", "first")]


def test_each_account_is_asked_for_its_own_guard(contexts):
    assert list(coverage.subscriptions_of(contexts)) == ["A", "C"]
    guard = Guard(account="111122223333", region="eu-west-1", email="a@example.com")
    assert list(coverage.unguarded(Configuration((), (), (guard,)), contexts)) == ["B"]
