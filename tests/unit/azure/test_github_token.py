"""A GitHub job's own token in exchange for one of an Entra service principal; nothing is stored."""

from urllib.parse import parse_qs

import httpx
import pytest

from codecommit_mirror.azure.rest import token
from codecommit_mirror.errors import MirrorError

JOB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://github.example/token?v=1",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "canary-request",
    "AZURE_CLIENT_ID": "client",
    "AZURE_TENANT_ID": "tenant",
}


def services(asked, answer):
    def handle(request):
        asked.append(request)
        return (
            httpx.Response(200, json={"value": "canary-assertion"}) if request.url.host == "github.example" else answer
        )

    return httpx.MockTransport(handle)


def test_it_is_exchanged_for_a_bearer_token():
    asked = []
    answer = httpx.Response(200, json={"access_token": "canary-token"})
    found = token._token_of_github_job(JOB, services(asked, answer))
    assert (found.authorization, found.bearer) == ("Bearer canary-token", True)
    assert "canary" not in repr(found)
    first, second = asked
    assert first.url.params["audience"] == "api://AzureADTokenExchange"
    assert first.url.params["v"] == "1"
    assert first.headers["Authorization"] == "Bearer canary-request"
    assert str(second.url) == "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
    form = {name: value for name, (value,) in parse_qs(second.content.decode()).items()}
    assert form["client_assertion"] == "canary-assertion"
    assert (form["client_id"], form["grant_type"]) == ("client", "client_credentials")


@pytest.mark.parametrize("answer", [httpx.Response(401, json={"error": "canary"}), httpx.Response(200, text="canary")])
def test_a_refusal_is_one_sentence_without_any_token(answer):
    with pytest.raises(MirrorError, match="Entra gave this GitHub job no token") as failure:
        token._token_of_github_job(JOB, services([], answer))
    assert "canary" not in str(failure.value)


@pytest.mark.parametrize("changes", [{"AZURE_TENANT_ID": ""}, {"AZURE_AUTHORITY_HOST": "http://x"}])
def test_a_wrong_setting_is_refused_before_anything_is_sent(changes):
    asked = []
    with pytest.raises(MirrorError, match="AZURE_TENANT_ID"):
        token._token_of_github_job({**JOB, **changes}, services(asked, httpx.Response(200)))
    assert asked == []


def test_a_personal_access_token_comes_first():
    assert token.find_token({**JOB, "AZURE_DEVOPS_EXT_PAT": "pat"}).origin == "AZURE_DEVOPS_EXT_PAT"
