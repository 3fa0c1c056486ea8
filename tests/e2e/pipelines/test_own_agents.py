"""Agents of a company's own: looked up before anything is changed, and behind its proxy and certificates."""

import itertools

import pytest

from codecommit_mirror.azure import pipeline
from codecommit_mirror.config.mirror import AgentPool
from codecommit_mirror.errors import MirrorError
from localcloud import sample
from localcloud.azure.agent.execution import run_pipeline
from localcloud.azure.agent.run import Variable

from ..engine import networks
from ..test_connect import connect, run

numbers = itertools.count()
PASSWORD = "canary:p@ss word"


def with_azure(mirror, **azure):
    return mirror.model_copy(update={"azure": mirror.azure.model_copy(update=azure)})


@pytest.fixture
def own(rig):
    """A mirror with a pool of its own, and a token that may see pools."""
    sample.fill(rig.source)
    token = f"sees-pools-{next(numbers)}"
    rig.cloud.azure.add_token(token, ["vso.code_write", "vso.build_execute", "vso.project", "vso.agentpools"])
    rig.mirror = with_azure(rig.mirror, pool=AgentPool(name=f"Pool {rig.name}", demands=("Agent.OS -equals Linux",)))
    rig.own_context = rig.context(AZURE_DEVOPS_EXT_PAT=token)
    return rig


def test_a_pool_that_is_not_there_or_has_no_such_agent_is_told_before_anything_is_changed(own):
    pool, token = own.mirror.azure.pool.name, own.own_context.environment["AZURE_DEVOPS_EXT_PAT"]

    def refused(mirror):
        with pytest.raises(MirrorError) as caught:
            connect(own, [], context=own.context(mirror, AZURE_DEVOPS_EXT_PAT=token))
        return str(caught.value)

    assert f"has no agent pool {pool!r}" in refused(own.mirror)
    own.cloud.azure.add_agent_pool(pool, capabilities={"Agent.OS": "Windows_NT"})
    assert "has no agent online that meets Agent.OS -equals Linux" in refused(own.mirror)
    windows = with_azure(own.mirror, pool=AgentPool(name=pool))
    assert "run Windows, and the mirror engine needs Linux or macOS" in refused(windows)


def test_a_mirror_runs_in_its_own_pool(own):
    own.cloud.azure.add_agent_pool(own.mirror.azure.pool.name)
    state = connect(own, [], context=own.own_context)
    assert state.definition.body["queue"]["name"] == own.mirror.azure.pool.name
    assert run(own, own.mirror).succeeded
    own.assert_equal()


def test_an_agent_on_windows_ends_the_run_with_a_sentence(own, tmp_path):
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho MINGW64_NT-10.0\n")
    uname.chmod(0o755)
    done = own.run(path=f"{tmp_path}:/usr/bin:/bin")
    assert done.result == "failed"
    ((kind, words),) = done.issues
    assert kind == "error"
    assert "needs an agent on Linux or macOS" in words


@pytest.mark.parametrize("set_up", ["agent", "machine"])
def test_a_run_behind_a_proxy_with_a_password_and_certificates_of_the_companys_own(own, tmp_path, set_up):
    authority = networks.create_authority(tmp_path)
    source, replica = (networks.TlsFront(url, authority) for url in (own.cloud.azure_url, own.cloud.codecommit_url))
    proxy = networks.Proxy("me", PASSWORD)
    mirror = with_azure(own.mirror, server=source.url)
    variables = {
        **own.variables,
        "AZURE_REPO_URL": Variable(mirror.azure.clone_url),
        "AWS_REPO_URL": Variable(own.outputs["ReplicaUrl"].replace(own.cloud.codecommit_url, replica.url)),
    }
    if set_up == "agent":
        machine = {"AGENT_PROXYURL": proxy.url, "AGENT_PROXYUSERNAME": "me", "AGENT_CAINFO": str(authority.certificate)}
        variables["Agent.ProxyPassword"] = Variable(PASSWORD, secret=True)
    else:
        login = "me:canary%3Ap%40ss%20word"
        machine = {"https_proxy": proxy.url.replace("//", f"//{login}@"), "SSL_CERT_FILE": str(authority.certificate)}
    text = pipeline.render(mirror)
    done = run_pipeline(text, variables, job_token=own.cloud.job_token, machine=machine)
    assert done.result == "succeeded", done.text
    own.assert_equal()
    ports = {target.rpartition(":")[2] for target in proxy.targets}
    assert ports == {front.url.rpartition(":")[2] for front in (source, replica)}
    assert "canary" not in "\n".join(done.unmasked)
    refused = run_pipeline(text, variables, job_token=own.cloud.job_token, machine={**machine, **_without_password()})
    assert refused.result == "failed"


def _without_password():
    proxy = networks.Proxy("me", "another")
    return {"AGENT_PROXYURL": proxy.url, "https_proxy": proxy.url}
