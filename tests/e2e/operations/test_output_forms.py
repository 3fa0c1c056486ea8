"""Output flags change the output and nothing else: each command has the same effects in every form."""

import os
import re

import botocore.client
import httpx
import pytest
from click.testing import CliRunner

from codecommit_mirror.cli import cli
from localcloud import sample
from tests.e2e.conftest import ROOT, azure_environment

from .conftest import WithoutCli
from .journeys import MIRRORS

FORMS = {
    "text": [],
    "json": ["--json"],
    "summary": ["--summary", "summary.md"],
    "both": ["--json", "--summary", "s.md"],
}
COMMANDS = (
    ["plan"],
    ["up", "--dry-run"],
    ["up", "--yes"],
    ["verify"],
    ["up", "--yes"],
    ["rotate", "--yes"],
    ["down", "--dry-run"],
    ["down", "--yes"],
)
READS = ("Get", "List", "Describe", "Lookup")


@pytest.fixture
def effects(monkeypatch):
    """Every call of this process that changes something, in order."""
    seen = []
    call, request = botocore.client.BaseClient._make_api_call, httpx.HTTPTransport.handle_request

    def noting_call(self, operation, parameters):
        if not operation.startswith(READS):
            seen.append(operation)
        return call(self, operation, parameters)

    def noting_request(self, sent):
        if sent.method != "GET" and not sent.url.path.endswith("/preview"):
            seen.append(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+", "N", f"{sent.method} {sent.url.path}"))
        return request(self, sent)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", noting_call)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", noting_request)
    return seen


def test_every_form_has_the_same_effects(bootstrapped, stack_template, effects, tmp_path, monkeypatch):
    WithoutCli(bootstrapped, lambda name, earlier: stack_template.replace("NAME", name)).install(monkeypatch)
    for name, value in azure_environment(bootstrapped).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cdk.json").write_text((ROOT / "cdk.json").read_text())
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    found = {}
    for form, options in FORMS.items():
        name = f"form-{form}-{os.getpid()}"
        sample.fill(bootstrapped.create_azure_repository("contoso", "Shop", name), commits=3, branches=1, tags=1)
        (tmp_path / "mirrors.yaml").write_text(MIRRORS.format(server=bootstrapped.azure_url, name=name))
        for command in COMMANDS:
            before = len(effects)
            result = CliRunner().invoke(cli, [*command, name, *options])
            assert result.exit_code == 0, (command, options, result.output, result.exception)
            done = [effect.replace(name, "NAME") for effect in effects[before:]]
            found.setdefault(" ".join(command), {}).setdefault(form, []).append(done)
    for command, forms in found.items():
        assert all(effect == forms["text"] for effect in forms.values()), (command, forms)
    assert found["plan"]["text"] == found["down --dry-run"]["text"] == [[]]
    first, equal = found["up --yes"]["text"]
    assert "CreateServiceSpecificCredential" in first
    assert equal == []


def test_every_command_over_mirrors_has_every_form():
    """A command that gets mirrors by names prints text, JSON and a summary."""
    for name in ("plan", "up", "down", "rotate", "verify", "restore"):
        command = cli.get_command(None, name)
        assert {"as_json", "summary"} <= {parameter.name for parameter in command.params}, name
