"""Azure DevOps over HTTP: what each answer of the service becomes."""

import gzip
import json
from dataclasses import replace

import httpx
import pytest

from codecommit_mirror.azure.rest import token as azure_token
from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.http import TRIES, AzureHttp
from codecommit_mirror.azure.rest.objects import Repository
from codecommit_mirror.azure.rest.token import AzureToken, find_token
from codecommit_mirror.config import azure_url
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import AzureError, MirrorError

REPOSITORY = Repository("d8f2c7a0-0000-4000-8000-000000000001", "r", "p", "main")
TOKEN = AzureToken("canary-token", False, "AZURE_DEVOPS_EXT_PAT")
SIGN_IN = httpx.Response(203, html="<html>Sign In</html>")


def service(*answers):
    """An API whose server gives these answers in turn; returns it, the requests and the waits."""
    requests, waits, left = [], [], list(answers)

    def handle(request):
        requests.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = AzureHttp("https://dev.azure.com/o/p", TOKEN, sleep=waits.append, transport=httpx.MockTransport(handle))
    return http, requests, waits


def refused(status, message="", **headers):
    return httpx.Response(status, json={"message": message, "typeKey": "SomeException"}, headers=headers)


GOOD = httpx.Response(200, json={"id": 1})


@pytest.mark.parametrize(
    "answer", [SIGN_IN, httpx.Response(302, headers={"Location": "https://x/_signin"}), httpx.Response(200, html="<p>")]
)
def test_a_sign_in_page_is_a_bad_token(answer):
    http, requests, _ = service(answer)
    with pytest.raises(AzureError, match=r"recognise the token from AZURE_DEVOPS_EXT_PAT .*Code \(read & write\)"):
        http.get("x", "do it")
    assert len(requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_weak_token_is_told_the_scopes(status):
    http, _, _ = service(refused(status, "TF401027: no permission."))
    with pytest.raises(AzureError) as caught:
        http.get("x", "do it")
    assert "Code (read & write), Build (read & execute), and Project and team (read)" in str(caught.value)
    assert "TF401027: no permission" in str(caught.value)
    assert "canary-token" not in str(caught.value)


def test_the_services_own_message_is_the_error():
    http, _, _ = service(refused(400, "TF400: it is so."))
    with pytest.raises(AzureError, match=r"^cannot do it: TF400: it is so\.$") as caught:
        http.call("POST", "x", "do it", body={})
    assert (caught.value.status, caught.value.type_key) == (400, "SomeException")


def test_throttling_waits_as_long_as_it_is_asked_to():
    http, requests, waits = service(refused(429, **{"Retry-After": "7"}), GOOD)
    assert http.call("POST", "x", "do it", body={}) == {"id": 1}
    assert waits == [7.0]
    assert len(requests) == 2


def test_an_unreasonable_retry_after_is_bounded():
    http, _, waits = service(refused(429, **{"Retry-After": "Fri, 31 Dec 2999 23:59:59 GMT"}), GOOD)
    http.get("x", "do it")
    assert waits == [60.0]


@pytest.mark.parametrize("retry_after", ["", "soon", "-3"])
def test_a_useless_retry_after_is_none(retry_after):
    http, _, waits = service(refused(429, **{"Retry-After": retry_after}), GOOD)
    http.get("x", "do it")
    assert 0 < waits[0] <= 2


@pytest.mark.parametrize("failure", [refused(503), httpx.ReadTimeout("slow"), httpx.ConnectError("no route")])
def test_an_outage_is_tried_again_with_growing_pauses_and_then_told(failure):
    http, requests, waits = service(*[failure] * TRIES)
    with pytest.raises(AzureError, match="run again"):
        http.get("x", "do it")
    assert len(requests) == TRIES
    assert waits == sorted(waits)


def test_without_a_network_there_is_a_word_at_the_first_try(capsys):
    http, requests, _ = service(httpx.ConnectTimeout("timed out"), GOOD)
    http.get("x", "do it")
    assert capsys.readouterr().err == "dev.azure.com cannot be reached (timed out); trying again\n"
    assert requests[0].extensions["timeout"]["connect"] == 3
    assert requests[1].extensions["timeout"]["connect"] > 3


def test_a_connection_that_was_never_made_is_tried_again_for_a_post_too():
    http, requests, _ = service(httpx.ConnectTimeout("timed out"), GOOD)
    assert http.call("POST", "x", "do it", body={}) == {"id": 1}
    assert len(requests) == 2


@pytest.mark.parametrize("failure", [refused(503), httpx.ReadTimeout("slow")])
def test_what_may_have_been_done_is_not_posted_twice(failure):
    http, requests, _ = service(failure, GOOD)
    with pytest.raises(AzureError):
        http.call("POST", "x", "do it", body={})
    assert len(requests) == 1


def test_pages_follow_the_continuation_token():
    first = httpx.Response(200, json={"value": [{"n": 1}]}, headers={"x-ms-continuationtoken": "a b"})
    http, requests, _ = service(first, httpx.Response(200, json={"value": [{"n": 2}]}))
    assert list(http.pages("x", "list it")) == [{"n": 1}, {"n": 2}]
    assert requests[1].url.params["continuationToken"] == "a b"
    assert all(request.url.params["api-version"] == "7.1" for request in requests)


def test_time_outs_are_set():
    http, requests, _ = service(GOOD)
    http.get("x", "do it")
    timeout = requests[0].extensions["timeout"]
    assert all(0 < seconds <= 60 for seconds in timeout.values())


def test_no_json_is_a_sentence():
    http, _, _ = service(httpx.Response(200, text="hello"))
    with pytest.raises(AzureError, match=r"did not answer with JSON; check azure\.server"):
        http.get("x", "do it")


def test_tokens_are_sent_as_the_service_takes_them():
    assert find_token({"AZURE_DEVOPS_EXT_PAT": "p", "SYSTEM_ACCESSTOKEN": "j"}).authorization == "Basic OnA="
    assert find_token({"SYSTEM_ACCESSTOKEN": "j"}).authorization == "Bearer j"
    assert find_token({"AZURE_DEVOPS_ENTRA_TOKEN": "e", "SYSTEM_ACCESSTOKEN": "j"}).authorization == "Bearer e"
    assert "canary" not in repr(AzureToken("canary", True, "x"))


def test_a_jobs_own_token_reads_and_writes_nothing():
    http, requests, _ = service(GOOD)
    http._token = find_token({"SYSTEM_ACCESSTOKEN": "canary"})
    assert http.get("x", "do it") == {"id": 1}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(MirrorError, match="SYSTEM_ACCESSTOKEN is the token of a job, which also belongs"):
            http.call(method, "x", "do it")
    assert len(requests) == 1
    find_token({"AZURE_DEVOPS_ENTRA_TOKEN": "e"}).check_writing()


@pytest.mark.parametrize(("server", "goes"), [("https://tfs.example.com/tfs", False), ("http://127.0.0.1:8080", True)])
def test_a_token_of_entra_goes_to_no_other_server(server, goes):
    token = find_token({"AZURE_DEVOPS_ENTRA_TOKEN": "e", azure_url.SERVER_VARIABLE: server})
    token.check_destination("https://dev.azure.com/o/p")
    if goes:
        token.check_destination(f"{server}/o/p")
    else:
        with pytest.raises(MirrorError, match="gets no token"):
            token.check_destination(f"{server}/o/p")


@pytest.mark.parametrize("secret", ["can\nary", "can ary", "canäry"])
def test_what_is_no_token_is_not_sent_and_not_shown(secret):
    with pytest.raises(MirrorError, match="SYSTEM_ACCESSTOKEN is not a token") as caught:
        find_token({"SYSTEM_ACCESSTOKEN": secret})
    assert "ary" not in str(caught.value)


def test_an_address_and_a_proxy_that_cannot_be_used_are_sentences(monkeypatch):
    there = replace(TOKEN, server="https://dev..azure.com")
    with pytest.raises(MirrorError, match="cannot be reached"):
        AzureHttp("https://dev..azure.com/o/p", there, sleep=lambda s: None).get("x", "do it")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(MirrorError, match="ALL_PROXY"):
        AzureHttp("https://dev.azure.com/o/p", TOKEN)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://evil.example/o/p", None),
        ("https://dev.azure.com.evil.example/o/p", None),
        ("https://dev.azure.com@evil.example/o/p", None),
        ("http://dev.azure.com/o/p", None),
        ("https://tfs.contoso.com/tfs2/o/p", "https://tfs.contoso.com/tfs"),
    ],
)
def test_a_token_goes_to_no_server_that_only_a_file_names(url, named):
    with pytest.raises(MirrorError, match="gets no token or password") as refused:
        AzureHttp(url, replace(TOKEN, server=named))
    assert "canary" not in str(refused.value)
    environment = {"AZURE_DEVOPS_EXT_PAT": "p", azure_url.SERVER_VARIABLE: "https://tfs.contoso.com/tfs/"}
    AzureHttp("https://tfs.contoso.com/tfs/o/p", find_token(environment))
    AzureHttp("https://dev.azure.com/o/p", find_token(environment))


def test_logs_are_asked_for_as_text():
    http, requests, _ = service(httpx.Response(200, text="a log"))
    assert http.text("x", "read it") == "a log"
    assert requests[0].headers["accept"] == "text/plain"


def test_without_entra_the_sentence_names_the_scopes(monkeypatch):
    monkeypatch.setattr(azure_token.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MirrorError, match=r"AZURE_DEVOPS_EXT_PAT .*Code \(read & write\), Build"):
        find_token({})


def fake_az(folder, script):
    """Put an ``az`` on the PATH."""
    program = folder / "az"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_entra_sign_in_of_the_azure_cli_is_taken(tmp_path, monkeypatch):
    answer = {"accessToken": "entra-token", "expiresOn": "2999-01-01 00:00:00.000000", "expires_on": 32503680000}
    fake_az(tmp_path, f"echo '{json.dumps(answer)}'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    found = find_token({})
    assert (found.authorization, found.origin) == ("Bearer entra-token", "the Entra sign-in")


def test_no_entra_sign_in_is_a_sentence(tmp_path, monkeypatch):
    fake_az(tmp_path, "echo 'Please run az login' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    with pytest.raises(MirrorError, match="or run 'az login'"):
        find_token({})


def newest(version, asked="7.1"):
    message = (
        f"The requested REST API version of {asked} is out of range for this server. The latest REST API version this "
        f"server supports is {version}."
    )
    return httpx.Response(400, json={"message": message, "typeKey": "VssVersionOutOfRangeException"})


PREVIEW = httpx.Response(400, json={"message": "under preview", "typeKey": "VssInvalidPreviewVersionException"})


def test_an_older_server_is_asked_for_what_it_has():
    http, requests, waits = service(newest("6.0"), GOOD, PREVIEW, GOOD, GOOD)
    assert http.get("git/repositories/x", "do it") == {"id": 1}
    http.get("build/retention/leases", "do it")
    http.get("build/retention/leases", "do it")
    versions = [request.url.params["api-version"] for request in requests]
    assert versions == ["7.1", "6.0", "6.0", "6.0-preview", "6.0-preview"]
    assert waits == []
    assert http.is_older_than("7.0")


def test_requests_at_the_same_time_each_learn_what_the_server_has():
    """While the first one waits for its answer, the second one learns it."""
    asked = []

    def answer(request):
        version = request.url.params["api-version"]
        asked.append((request.url.path.rpartition("/")[2], version))
        if len(asked) == 1:
            http.get("second", "do it")
        return GOOD if version == "6.0" else newest("6.0")

    http = AzureHttp("https://dev.azure.com/o/p", TOKEN, transport=httpx.MockTransport(answer))
    assert http.get("first", "do it") == {"id": 1}
    assert asked == [("first", "7.1"), ("second", "7.1"), ("second", "6.0"), ("first", "6.0")]


def test_a_preview_of_an_older_server_is_one():
    http, requests, _ = service(newest("6.0"), GOOD)
    http.call("GET", "pipelines/checks/configurations", "do it", version="7.1-preview.1")
    assert requests[1].url.params["api-version"] == "6.0-preview.1"


def test_a_server_that_has_no_version_at_all_is_told():
    http, _, _ = service(newest("5.0"), newest("5.0", "5.0"))
    with pytest.raises(AzureError, match=r"The latest REST API version this server supports is 5\.0"):
        http.get("x", "do it")


def test_azures_own_reason_is_told_whatever_the_answer_is():
    page = "<html><head><title>VS403463: The conditional access policy has failed.</title></head></html>"
    explained = {"X-TFS-ServiceError": "Access%20Denied%3A%20The%20token%20has%20expired."}
    for answer, words in (
        (httpx.Response(403, html=page), "VS403463: The conditional access policy has failed"),
        (httpx.Response(401, headers=explained), "Access Denied: The token has expired"),
        (httpx.Response(401, content=("\ufeff" + '{"message": "TF400813: The user"}').encode()), "TF400813: The user"),
    ):
        http, _, _ = service(answer)
        with pytest.raises(AzureError) as caught:
            http.get("x", "do it")
        assert words in str(caught.value)


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch):
    """Anyone who may push a file to a path of ours decides how long the answer is."""
    monkeypatch.setattr("codecommit_mirror.azure.rest.http._MAX_ANSWER_BYTES", 10_000_000)
    read = []

    def parts():
        while True:
            read.append(1)
            yield b" " * 1_000_000

    http, _, _ = service(httpx.Response(200, content=parts(), headers={"content-type": "application/json"}))
    with pytest.raises(AzureError, match=r"^cannot do it: the answer has more than 10 MB\.$"):
        http.get("x", "do it")
    assert len(read) == 11


def test_a_compressed_answer_is_read():
    body = gzip.compress(b'{"id": 1}')
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    http, _, _ = service(httpx.Response(200, content=body, headers=headers))
    assert http.get("x", "do it") == {"id": 1}


def test_a_pull_request_from_a_fork_is_not_taken_for_ours():
    """Whoever may read a repository may have one, with a branch of any name."""
    forks, ours = {"pullRequestId": 7, "forkSource": {}}, {"pullRequestId": 3}

    def answer(request):
        asked = request.url.params.get("searchCriteria.sourceRepositoryId")
        # A server that does not know the parameter lists all of them.
        return httpx.Response(200, json={"value": [forks, ours] if asked == REPOSITORY.id else [forks]})

    azure = single_mirror("R", "https://dev.azure.com/o/p/_git/r").azure
    client = AzureDevOps(azure, TOKEN, transport=httpx.MockTransport(answer))
    assert client.pull_request(REPOSITORY, "ours", "main").id == 3
