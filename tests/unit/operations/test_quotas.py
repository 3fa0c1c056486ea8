"""Quotas: what new mirrors need, and which account has no room for them."""

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.aws.quotas import REPOSITORIES, STACKS, Quota, needs_of, problems
from codecommit_mirror.azure.rest.organization import schedule_note
from codecommit_mirror.config.identity import Identity
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.config.schedule import runs_a_day
from codecommit_mirror.stacks import ReplicaStack

MIRROR = single_mirror("MyRepoReplica", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
ROLE = {"replica_auth": "role", "identity": Identity(organization_id="89abcdef-0123-4567-89ab-cdef01234567")}


ALWAYS = {STACKS: 2, "IAM policies": 2, "IAM roles": 2}
"""What two mirrors need: each has a role for the function that deletes credentials, or one for its pipeline."""


def template_of(**changes):
    mirror = MIRROR.model_copy(update=changes)
    return Template.from_stack(ReplicaStack(cdk.App(), mirror=mirror)).to_json()


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({}, {"IAM users": 2, REPOSITORIES: 2}),
        (ROLE, {REPOSITORIES: 2}),
        ({"policy_on": "group"}, {"IAM users": 2, "IAM groups": 2, REPOSITORIES: 2}),
        ({"existing": True}, {"IAM users": 2}),
        ({**ROLE, "existing": True}, {}),
    ],
)
def test_new_mirrors_need_what_their_templates_have(changes, others):
    template = template_of(**changes)
    assert needs_of([template, template]) == {**ALWAYS, **others}


def test_what_fits_exactly_is_no_problem_and_one_more_is():
    needs = needs_of([template_of(), template_of()])
    assert problems(needs, {"IAM policies": Quota(1498, 1500), STACKS: Quota(0, 2000)}) == []
    (problem,) = problems(needs, {"IAM policies": Quota(1499, 1500), STACKS: Quota(0, 2000)})
    assert problem.startswith("2 more IAM policies are needed, but the account has 1,499 and its quota allows 1,500;")
    assert problems({}, {"IAM policies": Quota(1500, 1500)}) == []


@pytest.mark.parametrize(
    ("schedule", "runs"), [("17 */6 * * *", 4), ("0 5 * * *", 1), ("*/30 * * * *", 48), ("0 5 * * Mon", 1 / 7)]
)
def test_schedules_are_counted(schedule, runs):
    assert runs_a_day(schedule) == pytest.approx(runs, rel=0.01)


def test_schedules_that_take_more_than_the_free_job_has_are_told():
    assert schedule_note([MIRROR] * 15) is None
    assert schedule_note([MIRROR] * 500).startswith(
        "the schedules make 2,000 runs a day, which at a minute each fill 1.4 parallel"
    )
