"""``rotate``: stopped after every single effect, the pipeline still works, and the next one finishes."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

from codecommit_mirror.aws import git_credentials
from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.errors import AzureError, MirrorError
from codecommit_mirror.operations.credential_delivery import ensure_credential
from codecommit_mirror.operations.rotate import preview, replace_credential
from codecommit_mirror.operations.run import run_successfully
from codecommit_mirror.progress import Board, working_on
from localcloud import sample
from tests.e2e.conftest import ROOT, azure_environment, rotate_one

from .journeys import ROTATE, Killed, state_of, target_of


def test_rotate_does_this_and_no_more(quick):
    (old,) = quick.credentials
    assert quick.rotate() == ROTATE
    (new,) = quick.credentials
    assert new["ServiceSpecificCredentialId"] != old["ServiceSpecificCredentialId"]
    quick.assert_up()


def test_a_preview_of_a_rotation_changes_nothing(quick):
    (old,) = quick.credentials
    quick.effects.seen = []
    planned = [str(action) for action in preview(quick.context())]
    assert quick.effects.seen == []
    user, identifier = quick.mirror.user_name, old["ServiceSpecificCredentialId"]
    assert planned == [
        f"+ Git credential of {user!r}, stored in the pipeline's secret variables",
        "> pipeline, until both sides are equal: with the new credential",
        "> pipeline, until both sides are equal: without the old credential",
        f"- Git credential {identifier}",
    ]


@pytest.mark.parametrize("effect", range(1, len(ROTATE) + 1), ids=lambda n: f"{n} {ROTATE[n - 1]}")
def test_rotate_that_is_stopped_leaves_a_pipeline_that_works_and_is_finished_by_the_next(quick, effect):
    (old,) = quick.credentials
    with pytest.raises(Killed):
        quick.rotate(stop_after=effect)
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()
    assert quick.credentials[0]["ServiceSpecificCredentialId"] != old["ServiceSpecificCredentialId"]


def test_rotate_never_takes_a_credential_that_is_not_the_pipelines(quick):
    other = quick.issue_by_hand()
    with pytest.raises(MirrorError, match=f"credentials revoke {quick.name} {other}"):
        quick.rotate()
    assert len(quick.credentials) == 2
    assert quick.pipeline_works()


def test_a_new_credential_that_does_not_prove_itself_leaves_the_old_one(quick):
    (old,) = quick.credentials

    def fail():
        raise MirrorError("the run failed")

    target, board = target_of(quick.context()), Board([quick.name])
    with pytest.raises(MirrorError, match="the run failed"), working_on(board.rows[quick.name]):
        replace_credential(target, verify=fail, confirm=pytest.fail)
    assert old["ServiceSpecificCredentialId"] in [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    assert {c["Status"] for c in quick.credentials} == {"Active"}
    quick.rotate()
    quick.assert_up()


def test_an_update_by_somebody_else_in_between_is_not_lost(quick, monkeypatch):
    context = quick.context()
    definition = state_of(context).definition
    update = type(context.azure).update_definition
    raced = []

    def racing(azure, one, body):
        if not raced:
            raced.append(True)
            current = azure.definition(one.id)
            theirs = {**current.body, "variables": {**current.variables, "THEIRS": {"value": "1"}}}
            update(azure, current, theirs)
        return update(azure, one, body)

    monkeypatch.setattr(type(context.azure), "update_definition", racing)
    quick.rotate()
    assert quick.context().azure.definition(definition.id).variables["THEIRS"]["value"] == "1"
    quick.assert_up()


def test_rotate_survives_a_real_kill(swift):
    swift.up()
    environment = {**os.environ, **azure_environment(swift.cloud), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "codecommit_mirror", "rotate", swift.name, "--config", str(swift.config)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        swift.said += line
        if "issued " in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert len(swift.credentials) == 2
    assert swift.pipeline_works()
    swift.rotate()
    swift.assert_up()


def test_what_only_a_person_can_mend_stops_neither_up_nor_rotate(quick):
    run_successfully(quick.context(), state_of(quick.context()))
    sample.git(quick.source, "branch", "-m", "main", "trunk")
    sample.git(quick.source, "symbolic-ref", "HEAD", "refs/heads/trunk")
    quick.rotate()
    assert "until a person acts: see the run's summary" in quick.said
    (credential,) = quick.credentials
    assert credential["Status"] == "Active"


def test_an_answer_that_is_lost_on_the_way_costs_no_credential(quick, monkeypatch):
    update, lost = AzureDevOps.update_definition, []

    def losing(azure, definition, body):
        answer = update(azure, definition, body)
        if len(quick.credentials) == 2 and not lost:
            lost.append(definition.id)
            raise AzureError("cannot update: a gateway answered 504", 504)
        return answer

    monkeypatch.setattr(AzureDevOps, "update_definition", losing)
    with pytest.raises(MirrorError, match="504"):
        quick.rotate()
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()


def test_an_update_that_is_asked_for_twice_is_done_once(quick):
    """The update is applied, its answer is lost, and the client's second try meets its own new revision."""
    (old,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    context, lost = quick.context(), []

    class Losing(httpx.BaseTransport):
        def handle_request(self, request):
            answer = httpx.HTTPTransport().handle_request(request)
            if request.method == "PUT" and len(quick.credentials) == 2 and not lost:
                answer.read()
                lost.append(request.url.path)
                return httpx.Response(504)
            return answer

    context.azure = AzureDevOps(context.mirror.azure, context.token, lambda seconds: None, Losing())
    rotate_one(context)
    assert lost
    assert old not in [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    quick.assert_up()


def test_two_at_once_do_not_undo_each_other(quick, monkeypatch):
    issue = git_credentials.issue
    raced = []

    def racing(iam, user, mirror):
        issued = issue(iam, user, mirror)
        if not raced:
            raced.append(True)
            ensure_credential(target_of(quick.context()))
        return issued

    monkeypatch.setattr(git_credentials, "issue", racing)
    with pytest.raises(MirrorError, match="another 'up' or 'rotate' is working on"):
        quick.rotate()
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()


def test_a_hand_made_credential_in_place_of_the_pipelines_is_asked_about(quick):
    (held,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    iam = quick.cloud.client("iam")
    iam.delete_service_specific_credential(UserName=quick.mirror.user_name, ServiceSpecificCredentialId=held)
    theirs = quick.issue_by_hand()
    asked = []
    quick.rotate(confirm=lambda question, typed=None: asked.append(question))
    assert theirs in asked[0]
    quick.assert_up()
