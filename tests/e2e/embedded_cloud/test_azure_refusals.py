"""Azure DevOps refuses over Git and over its REST API as it was recorded, and has the repositories that trip others."""

import base64
import itertools
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

from localcloud import sample
from localcloud.isolated_git import isolated_environment

USER_DATA = "X-VSS-UserData"


class Azure:
    """A repository of its own in a project of its own, and requests to it with any token."""

    def __init__(self, cloud, name) -> None:
        self.cloud, self.project = cloud, f"P{name}"
        self.path = cloud.create_azure_repository("contoso", self.project, "r")
        sample.fill(self.path, commits=5, branches=2, tags=1, pull_requests=1)
        self.names = ("contoso", self.project, "r")

    def url(self, way=""):
        return f"{self.cloud.azure_url}/contoso/{self.project}/_git/{way}r"

    def ask(self, url, token, method="GET", body=None, *, bearer=False):
        request = urllib.request.Request(url, body and json.dumps(body).encode(), method=method)
        basic = base64.b64encode(f":{token}".encode()).decode()
        request.add_header("Authorization", f"Bearer {token}" if bearer else f"Basic {basic}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def refs(self, token, service="git-upload-pack", way="", **how):
        return self.ask(f"{self.url(way)}/info/refs?service={service}", token, **how)

    def api(self, path, token, method="GET", body=None, version="7.1", **how):
        separator = "&" if "?" in path else "?"
        url = f"{self.cloud.azure_url}/contoso/{self.project}/_apis/{path}{separator}api-version={version}"
        return self.ask(url, token, method, body, **how)

    def push(self, *refspecs):
        token = self.cloud.operator_token
        address = self.url().replace("http://", f"http://u:{token}@")
        return subprocess.run(
            ["git", "-C", str(self.path), "push", address, *refspecs],
            capture_output=True,
            text=True,
            env=isolated_environment(),
            check=False,
        )


numbers = itertools.count()


@pytest.fixture
def azure(cloud):
    return Azure(cloud, f"refusals{next(numbers)}")


def test_an_unknown_credential_gets_a_sign_in_page(azure):
    for status, headers, body in (azure.refs("nobody"), azure.api("git/repositories", "nobody")):
        assert status == 203
        assert headers["Content-Type"].startswith("text/html")
        assert b"Sign In" in body


def test_a_refused_credential_gets_401_without_a_body(azure):
    azure.cloud.azure.add_token("expired", ["vso.code"])
    azure.cloud.azure.expire_token("expired")
    status, headers, body = azure.refs("expired")
    assert (status, body) == (401, b"")
    assert headers["X-TFS-ServiceError"].startswith("Access%20Denied")
    # Without the scope there is no explanation.
    status, headers, body = azure.refs(azure.cloud.personal_access_token, "git-receive-pack")
    assert (status, body, headers["X-TFS-ServiceError"]) == (401, b"", None)
    assert azure.api("build/definitions", azure.cloud.personal_access_token)[::2] == (401, b"")


def test_an_entra_identity_that_the_organization_does_not_know(azure):
    azure.cloud.azure.add_token("entra-token", [], identity="app@contoso")
    answers = (azure.refs("entra-token", bearer=True), azure.api("git/repositories", "entra-token", bearer=True))
    for status, _, body in answers:
        assert status == 401
        assert body.startswith("\ufeff".encode())
        assert json.loads(body.decode("utf-8-sig"))["message"].startswith("TF400813: The user '")


@pytest.mark.parametrize("case", ["gone", "disabled", "not permitted"])
def test_one_answer_for_what_is_gone_disabled_or_not_permitted(azure, case):
    token, how, name = azure.cloud.operator_token, {}, "r"
    if case == "gone":
        azure.names, name = ("contoso", azure.project, "gone"), "gone"
        url = azure.url().removesuffix("r") + "gone"
        azure.url = lambda way="": url
    elif case == "disabled":
        azure.cloud.azure.disable_repository(*azure.names)
    else:
        azure.cloud.azure.add_token("entra-2", [], identity="ci@contoso")
        azure.cloud.azure.permit_identity("ci@contoso", "contoso", "Another")
        token, how = "entra-2", {"bearer": True}
    status, headers, body = azure.refs(token, **how)
    assert status == 404
    assert body.startswith(f"TF401019: The Git repository with name or identifier {name} does not exist".encode())
    assert headers[USER_DATA]


def test_a_disabled_repository_is_only_listed_and_can_be_enabled(azure):
    token = azure.cloud.manager_token
    assert azure.api("git/repositories/r", token, "PATCH", {"isDisabled": True})[0] == 200
    assert azure.api("git/repositories/r", token)[0] == 404
    listed = json.loads(azure.api("git/repositories", token)[2])["value"]
    assert [one["isDisabled"] for one in listed if one["name"] == "r"] == [True]
    assert azure.api("git/repositories/r/refs", token)[0] == 404
    assert azure.api("git/repositories/r", token, "PATCH", {"isDisabled": False})[0] == 200
    assert azure.refs(token)[0] == 200


def test_conditional_access_stops_everybody(azure):
    azure.cloud.azure.fail_conditional_access()
    try:
        token = azure.cloud.operator_token
        for status, headers, body in (azure.refs(token), azure.api("git/repositories", token)):
            assert (status, headers["Content-Type"].partition(";")[0]) == (403, "text/html")
            assert b"VS403463: The conditional access policy defined by your Microsoft Entra administrator" in body
    finally:
        azure.cloud.azure.fail_conditional_access(False)


def test_limited_refs_are_hidden_under_the_plain_url_and_shown_under_the_full_one(azure):
    azure.cloud.azure.limit_refs(*azure.names, ["refs/heads/main"])
    token = azure.cloud.personal_access_token
    tip = sample.refs(azure.path)["refs/heads/feature/0"].encode()
    for way, shown in (("", False), ("_optimized/", False), ("_full/", True)):
        assert (tip in azure.refs(token, way=way)[2]) is shown
    environment = {**isolated_environment(), "GIT_TERMINAL_PROMPT": "0"}
    for way, found in (("", 1), ("_full/", 3)):
        address = azure.url(way).replace("http://", f"http://u:{token}@")
        listed = subprocess.run(
            ["git", "ls-remote", "--heads", address], capture_output=True, env=environment, check=True
        ).stdout
        assert len(listed.splitlines()) == found


def test_refs_of_pull_requests_are_the_systems(azure):
    done = azure.push("main:refs/pull/9/merge", "main:refs/heads/new")
    assert "[remote rejected] main -> refs/pull/9/merge (The current action can only be performed by the system.)" in (
        done.stderr
    )
    assert "refs/heads/new" in sample.refs(azure.path)
    assert "refs/pull/9/merge" not in sample.refs(azure.path)


@pytest.mark.parametrize(
    ("form", "words"),
    [("each-ref", "[remote rejected] main -> big (TF402462"), ("the-pack", "remote unpack failed: TF402462")],
)
def test_a_push_that_is_too_large(azure, form, words):
    azure.cloud.azure.limit_pushes(0, form)
    try:
        sample.commit(azure.path, "main", "next")
        done = azure.push("main:refs/heads/big")
    finally:
        azure.cloud.azure.limit_pushes(5120)
    assert words in done.stderr
    assert "its size is greater than the 0 MB limit for pushes in this repository." in done.stderr
    assert "refs/heads/big" not in sample.refs(azure.path)


def test_a_repository_that_is_created_again_has_another_id(azure):
    token = azure.cloud.manager_token
    first = json.loads(azure.api("git/repositories/r", token)[2])["id"]
    assert azure.api("git/repositories/r", token, "DELETE")[0] == 204
    assert azure.api("git/repositories", token, "POST", {"name": "r"})[0] == 200
    assert json.loads(azure.api("git/repositories/r", token)[2])["id"] != first


def test_a_short_url_stands_for_the_repository_of_the_projects_name(azure):
    azure.cloud.create_azure_repository("contoso", azure.project, azure.project)
    url = f"{azure.cloud.azure_url}/contoso/_git/{azure.project}/info/refs?service=git-upload-pack"
    assert azure.ask(url, azure.cloud.personal_access_token)[0] == 200


def test_an_older_server_names_the_newest_version_that_it_has(azure):
    token = azure.cloud.operator_token
    azure.cloud.azure.set_api_version("6.0")
    try:
        status, _, body = azure.api("git/repositories", token)
        assert status == 400
        assert json.loads(body)["message"] == (
            "The requested REST API version of 7.1 is out of range for this server. The latest REST API version this "
            "server supports is 6.0."
        )
        assert azure.api("git/repositories", token, version="6.0")[0] == 200
        status, _, body = azure.api("build/generalsettings", token, version="6.0")
        assert (status, json.loads(body)["typeKey"]) == (400, "VssInvalidPreviewVersionException")
        assert azure.api("build/generalsettings", token, version="6.0-preview.1")[0] == 200
    finally:
        azure.cloud.azure.set_api_version("7.1")
