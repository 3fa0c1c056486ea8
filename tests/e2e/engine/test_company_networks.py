"""Both sides behind a company's own certificates and a proxy: reached as the agent is set up, or told how to."""

import json

import pytest

from localcloud import sample
from localcloud.git_http import GitHttpServer
from tests.program import program

from . import networks

VARIABLES = (
    *(
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
    ),
    *(f"AGENT_{name}" for name in ("CAINFO", "PROXYURL", "PROXYUSERNAME", "PROXYPASSWORD", "PROXYBYPASSLIST")),
)


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return networks.create_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def company(strict_sides, authority, monkeypatch):
    """Both sides with TLS, whose certificates nothing trusts yet."""
    sides = strict_sides
    sample.fill(sides.source, commits=20)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    sides.source_url = networks.with_tls(GitHttpServer(sides.serve_source), authority)
    sides.replica_url = networks.with_tls(GitHttpServer(sides.serve_replica), authority)
    return sides


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AGENT_CAINFO"])
def test_a_private_ca_is_trusted_where_the_machine_or_the_agent_says_so(company, authority, monkeypatch, variable):
    monkeypatch.setenv(variable, str(authority.certificate))
    company.mirror()
    company.assert_equal()


def test_a_certificate_that_is_not_trusted_is_named_at_once(company):
    with pytest.raises(program.MirrorFailure, match=r"not trusted here .*SSL_CERT_FILE .*--sslcacert"):
        company.mirror()
    assert company.pauses == []


def test_a_file_that_has_no_certificates_is_named(company, monkeypatch, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    monkeypatch.setenv("AGENT_CAINFO", str(tmp_path / "ca.pem"))
    with pytest.raises(program.MirrorFailure, match=r"AGENT_CAINFO names .*ca.pem, which cannot be read"):
        company.mirror()


@pytest.mark.parametrize("set_up", ["machine", "agent"])
def test_a_proxy_with_a_password(company, authority, monkeypatch, set_up):
    proxy = networks.Proxy("me", "p@ss:word")
    monkeypatch.setenv("AGENT_CAINFO", str(authority.certificate))
    if set_up == "machine":
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//me:p%40ss%3Aword@"))
    else:
        for name, value in (("URL", proxy.url), ("USERNAME", "me"), ("PASSWORD", "p@ss:word")):
            monkeypatch.setenv(f"AGENT_PROXY{name}", value)
    company.mirror()
    company.assert_equal()
    ports = {url.rpartition(":")[2] for url in (company.source_url, company.replica_url)}
    assert {target.rpartition(":")[2] for target in proxy.targets} == ports


def test_the_agents_list_of_hosts_that_need_no_proxy(company, authority, monkeypatch):
    proxy = networks.Proxy()
    monkeypatch.setenv("AGENT_CAINFO", str(authority.certificate))
    monkeypatch.setenv("AGENT_PROXYURL", proxy.url)
    monkeypatch.setenv("AGENT_PROXYBYPASSLIST", json.dumps(["https://LOCALHOST"]))
    company.mirror()
    assert proxy.targets == []


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (networks.Proxy("me", "canary"), r"wants a user and password \(407\).*https_proxy.*--proxyusername"),
        (networks.Proxy(status=403), r"does not let localhost through \(403\).*no_proxy.*\.proxybypass"),
    ],
    ids=["407", "403"],
)
def test_a_proxys_refusal_is_named_at_once(company, authority, monkeypatch, proxy, words):
    monkeypatch.setenv("AGENT_CAINFO", str(authority.certificate))
    monkeypatch.setenv("https_proxy", proxy.url)
    with pytest.raises(program.MirrorFailure, match=words):
        company.mirror()
    assert company.pauses == []


def test_plain_git_goes_the_same_way(company, authority, monkeypatch):
    proxy = networks.Proxy("me", "p@ss:word")
    monkeypatch.setenv("AGENT_CAINFO", str(authority.certificate))
    for name, value in (("URL", proxy.url), ("USERNAME", "me"), ("PASSWORD", "p@ss:word")):
        monkeypatch.setenv(f"AGENT_PROXY{name}", value)
    monkeypatch.setattr(program, "LADDER", program.LADDER[3:])
    company.mirror()
    company.assert_equal()
