"""The mirror program's settings, what it prints, and what it lets out."""

import base64
import email.utils
import http.client
import time
import urllib.parse

import pytest

from codecommit_mirror.engine.failures import MirrorFailure
from codecommit_mirror.engine.git import git_environment
from codecommit_mirror.engine.report import agent_command
from codecommit_mirror.engine.run import names_lfs
from codecommit_mirror.engine.settings import Endpoint, read_settings
from codecommit_mirror.engine.text import error_name, sanitize
from codecommit_mirror.engine.wire.connection import open_connection, proxy_for
from codecommit_mirror.engine.wire.retries import retry_after_seconds
from codecommit_mirror.engine.wire.transport import access_problem

ENVIRONMENT = {
    "AZURE_REPO_URL": "https://dev.azure.com/contoso/Shop/_git/MyRepo",
    "AZURE_GIT_USERNAME": "contoso",
    "AZURE_GIT_PASSWORD": "canary-azure",
    "AWS_REPO_URL": "git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyRepoReplica",
    "AWS_GIT_USERNAME": "user-at-111122223333",
    "AWS_GIT_PASSWORD": "canary-aws+/=",
}


@pytest.mark.parametrize("variable", sorted(ENVIRONMENT))
@pytest.mark.parametrize("value", [None, "", "  ", "$({variable})"])
def test_a_variable_that_is_not_set_is_named(variable, value):
    environment = {k: v for k, v in ENVIRONMENT.items() if k != variable}
    if value is not None:
        environment[variable] = value.format(variable=variable)
    with pytest.raises(MirrorFailure, match=f"variable {variable} is not set; add it under Edit, Variables"):
        read_settings(environment)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("host.example/v1/repos/r", "https://host.example/v1/repos/r"),
        ("https://host.example/v1/repos/r/", "https://host.example/v1/repos/r"),
        ("https://user@host.example/r", "https://host.example/r"),
        ("https://user:canary@host.example:8443/r", "https://host.example:8443/r"),
        ("user:p@ss@host.example/r", "https://host.example/r"),
        ("https://dev.azure.com/o/My Shop/_git/Zoë", "https://dev.azure.com/o/My%20Shop/_git/Zo%C3%AB"),
        ("https://dev.azure.com/o/My%20Shop/_git/r", "https://dev.azure.com/o/My%20Shop/_git/r"),
        ("http://127.0.0.1:9/r", "http://127.0.0.1:9/r"),
        ("http://localhost:9/r", "http://localhost:9/r"),
        ("http://[::1]:9/r", "http://[::1]:9/r"),
    ],
)
def test_urls_are_normalised_and_lose_what_is_secret(given_url, url):
    assert read_settings({**ENVIRONMENT, "AZURE_REPO_URL": given_url}).source.url == url


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AZURE_REPO_URL", "https://dev.azure.com/contoso/Shop/_git/Other", "AZURE_REPO_URL is https://dev.azure.com/"),
        ("AZURE_REPO_URL", "https://dev.azure.com.example/contoso/Shop/_git/MyRepo", "this pipeline's YAML is for"),
        ("AWS_REPO_URL", "git-codecommit.eu-west-1.amazonaws.com/v1/repos/Other", "names the repository Other, but"),
        ("AWS_REPO_URL", "git.example/v1/repos/MyRepoReplica", "names git.example, which is not CodeCommit"),
        ("AWS_REPO_URL", "git-codecommit.eu-west-1.amazonaws.com.example/v1/repos/MyRepoReplica", "is not CodeCommit"),
        ("AWS_REPO_URL", "x.vpce.amazonaws.com/v1/repos/MyRepoReplica", "is not CodeCommit"),
    ],
)
def test_a_variable_that_is_not_what_the_yaml_names_is_refused_before_anything_is_sent(variable, value, words):
    literals = {"MIRROR_SOURCE": ENVIRONMENT["AZURE_REPO_URL"], "MIRROR_REPLICA": "MyRepoReplica"}
    read_settings({**ENVIRONMENT, **literals})
    with pytest.raises(MirrorFailure, match=words) as caught:
        read_settings({**ENVIRONMENT, **literals, variable: value})
    assert "canary" not in str(caught.value)


def test_a_vpc_endpoint_of_codecommit_is_codecommit():
    host = "vpce-0a-1b.git-codecommit.eu-west-1.vpce.amazonaws.com"
    settings = read_settings({**ENVIRONMENT, "AWS_REPO_URL": f"{host}/v1/repos/MyRepoReplica"})
    assert settings.replica.url == f"https://{host}/v1/repos/MyRepoReplica"


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/r",
        "ftp://host.example/r",
        "file:///etc",
        "https://",
        "https://h",
        "user:a@b/canary=@git.example/v1",
        "https://me:tok/canary@git.example/v1",
        "https://host:canary/r",
        "https://host:99999/r",
        "https://host..example/r",
        f"https://{'a' * 64}.example/r",
        "https://[canary/r",
        "https://host/r?token=canary",
    ],
)
def test_urls_that_cannot_be_used_are_refused_and_not_repeated(url):
    with pytest.raises(MirrorFailure, match="AWS_REPO_URL") as caught:
        read_settings({**ENVIRONMENT, "AWS_REPO_URL": url})
    assert "canary" not in str(caught.value)


def test_the_job_token_replaces_the_azure_credentials():
    environment = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("AZURE_GIT_")}
    source = read_settings({**environment, "SYSTEM_ACCESSTOKEN": "canary-job"}).source
    assert source.authorization == "Bearer canary-job"
    with pytest.raises(MirrorFailure, match="AZURE_GIT_USERNAME"):
        read_settings({**environment, "SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"})


@pytest.mark.parametrize(
    "variable", ["AZURE_GIT_USERNAME", "AZURE_GIT_PASSWORD", "AWS_GIT_PASSWORD", "SYSTEM_ACCESSTOKEN"]
)
@pytest.mark.parametrize(
    "value", ["canary\nX-Injected: 1", "canary\rX", "canary\x00", b"canary\xff".decode("utf-8", "surrogateescape")]
)
def test_a_credential_that_cannot_be_sent_is_refused_at_the_door_and_not_repeated(variable, value):
    with pytest.raises(MirrorFailure, match=f"^{variable} contains a line break or another character") as caught:
        read_settings({**ENVIRONMENT, variable: value})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("token", ["canary-Ω", "canary two", "canary\u00e9"])
def test_a_bearer_token_is_visible_ascii(token):
    with pytest.raises(MirrorFailure, match=r"^SYSTEM_ACCESSTOKEN contains") as caught:
        read_settings({**ENVIRONMENT, "SYSTEM_ACCESSTOKEN": token})
    assert "canary" not in str(caught.value)
    assert read_settings({**ENVIRONMENT, "AZURE_GIT_PASSWORD": token}).source.password == token


@pytest.mark.parametrize("error", [http.client.BadStatusLine("canary"), ValueError("canary"), OSError("canary")])
def test_the_http_librarys_own_words_are_not_printed(error):
    assert "canary" not in error_name(error)
    assert error_name(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"


@pytest.mark.parametrize(
    "proxy",
    ["http://me:canary@proxy.example:port", "http://me:pa\u2100ss-canary@proxy:8080", "http://me:canary[@proxy:1"],
)
def test_a_proxy_that_is_no_url_is_a_sentence(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(MirrorFailure, match="is not the URL of an HTTP proxy") as caught:
        open_connection(urllib.parse.urlsplit("https://dev.azure.com/r"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*.psd filter=lfs diff=lfs merge=lfs -text\n", True),
        ("a\n*.bin filter=lfs", True),
        ("# *.psd filter=lfs\n", False),
        ("* text=auto\n", False),
        ("*.x filter=lfsx", False),
    ],
)
def test_git_lfs_is_recognised_in_gitattributes(text, expected):
    assert names_lfs(text) is expected


def test_settings_do_not_show_passwords():
    assert "canary" not in repr(read_settings(ENVIRONMENT))


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("refs/heads/main", "refs/heads/main"),
        ("##vso[task.complete result=Failed;]", "# #vso[task.complete result=Failed;]"),
        ("####", "# # # #"),
        ("a\nb\rc\x1b[31m", "a\\nb\\rc\\x1b[31m"),
        ("ünïcödé-分支", "ünïcödé-分支"),
        (b"\xff".decode("utf-8", "surrogateescape"), "\\xff"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_names_are_printed_so_that_nothing_obeys_them(name, printed):
    assert sanitize(name) == printed
    assert "##" not in sanitize(name)


def test_agent_commands_cannot_be_broken_out_of(monkeypatch, capsys):
    monkeypatch.setenv("TF_BUILD", "True")
    agent_command("task.logissue", "a\n##vso[x]100%", type="error;]x")
    assert capsys.readouterr().out == "##vso[task.logissue type=error%3B%5Dx;]a%0A##vso[x]100%AZP25\n"


def test_agent_commands_are_for_agents_alone(monkeypatch, capsys):
    monkeypatch.delenv("TF_BUILD", raising=False)
    agent_command("task.complete", "", result="Failed")
    assert capsys.readouterr().out == ""


def test_git_gets_one_sides_credentials_and_nothing_of_the_machines():
    endpoint = Endpoint("replica", "https://h/r", "Basic canary", "user", "canary-aws+/=", "remedy")
    machine = {
        **ENVIRONMENT,
        "SYSTEM_ACCESSTOKEN": "canary-job",
        "GIT_TRACE_CURL": "1",
        "GIT_DIR": "/x",
        "GIT_SSL_NO_VERIFY": "1",
        "GIT_SSL_CAINFO": "/ca.pem",
        "https_proxy": "http://proxy",
        "AZURE_DEVOPS_EXT_PAT": "canary-pat",
        "AWS_SECRET_ACCESS_KEY": "canary-key",
        "HOME": "/home/canary",
        "PATH": "/bin",
    }
    environment = git_environment(machine, endpoint)
    assert [name for name, value in environment.items() if "canary" in value] == ["MIRROR_PASSWORD"]
    taken = {name: machine[name] for name in ("PATH", "GIT_SSL_CAINFO", "https_proxy")}
    assert {name: environment.get(name) for name in taken} == taken
    assert not {"GIT_TRACE_CURL", "GIT_DIR", "GIT_SSL_NO_VERIFY", "AZURE_GIT_PASSWORD"} & environment.keys()
    assert not any("canary" in value for value in git_environment(machine, None).values())


def headers(**fields):
    message = email.message.Message()
    for name, value in fields.items():
        message[name] = value
    return message


def test_a_refused_request_says_what_to_check():
    endpoint = Endpoint("source", "https://h/r", "Basic canary", "user", "canary", "check the token")
    assert access_problem(endpoint, 203).endswith("refused access (a sign-in page); check the token.")
    assert access_problem(endpoint, 403).endswith("refused access (403); check the token.")
    assert "does not exist (404)" in access_problem(endpoint, 404)
    assert "may not read it" in access_problem(endpoint, 404, headers(**{"X-VSS-UserData": "an-id:Ada"}))
    assert "has moved to https://h/new" in access_problem(endpoint, 301, headers(Location="https://h/new?token=x"))
    assert "a sign-in page" in access_problem(endpoint, 302, headers(Location="https://login.example.com/"))
    assert "conditional access policy" in access_problem(endpoint, 403, reason=" (VS403463: it failed)")
    assert base64.b64encode(b"user:canary").decode() not in access_problem(endpoint, 401)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("\u00b2", 0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_read_in_both_forms(header, seconds):
    assert retry_after_seconds(header) == seconds
    later = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < retry_after_seconds(later) <= 60


def test_a_proxy_of_the_environment_is_used_for_https(monkeypatch):
    url = urllib.parse.urlsplit("https://dev.azure.com/r")
    monkeypatch.setenv("https_proxy", "http://me:pass@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    connection = open_connection(url)
    assert (connection.host, connection.port, connection._tunnel_host) == ("proxy.example", 3128, "dev.azure.com")
    monkeypatch.setenv("no_proxy", "dev.azure.com")
    assert open_connection(url).host == "dev.azure.com"


AGENT = {
    "AGENT_PROXYURL": "http://proxy.example:3128",
    "AGENT_PROXYUSERNAME": "me",
    "AGENT_PROXYPASSWORD": "p@ss:word",
    "AGENT_PROXYBYPASSLIST": '["git-codecommit\\\\..*\\\\.amazonaws\\\\.com"]',
}


@pytest.mark.parametrize(
    ("environment", "host", "proxy"),
    [
        ({}, "dev.azure.com", ""),
        (AGENT, "dev.azure.com", "http://me:p%40ss%3Aword@proxy.example:3128"),
        (AGENT, "git-codecommit.eu-west-1.amazonaws.com", ""),
        ({**AGENT, "AGENT_PROXYPASSWORD": "$(Agent.ProxyPassword)"}, "h", "http://me:@proxy.example:3128"),
        ({"AGENT_PROXYURL": "proxy:80", "AGENT_PROXYBYPASSLIST": "no JSON"}, "h", "http://proxy:80"),
        ({**AGENT, "HTTPS_PROXY": "other:1"}, "dev.azure.com", "http://other:1"),
        ({"ALL_PROXY": "http://all:1"}, "h", "http://all:1"),
        ({"https_proxy": "http://p:1", "NO_PROXY": "dev.azure.com,.example"}, "dev.azure.com", ""),
        ({"https_proxy": "http://p:1", "NO_PROXY": ".example"}, "a.example", ""),
    ],
)
def test_the_machines_proxy_goes_before_the_agents(environment, host, proxy):
    assert proxy_for(host, environment) == proxy


@pytest.mark.parametrize("refs", ["archive", "heads archive/x", "refs/heads"])
def test_refs_that_are_never_mirrored_are_refused(refs):
    with pytest.raises(MirrorFailure, match="MIRROR_REFS"):
        read_settings({**ENVIRONMENT, "MIRROR_REFS": refs})


def test_pull_requests_are_not_mirrored_unless_asked():
    assert read_settings(ENVIRONMENT).namespaces == ("refs/heads/", "refs/tags/", "refs/notes/")
    assert read_settings({**ENVIRONMENT, "MIRROR_REFS": "heads pull"}).namespaces == ("refs/heads/", "refs/pull/")
