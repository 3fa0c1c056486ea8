"""A fleet: several sources, one mirrors.yaml, and the commands in this process."""

import itertools

import pytest
from click.testing import CliRunner

from codecommit_mirror.cli import cli
from codecommit_mirror.config.load import load_mirrors
from localcloud import sample
from localcloud.azure.service_connections import organization_id
from tests.e2e.conftest import azure_environment

FILE = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"{azure}}}
  identity: {{organization_id: {organization_id}}}
  {defaults}
mirrors:
"""
numbers = itertools.count(1)


class Fleet:
    """Mirrors that share a file."""

    def __init__(self, cloud, folder, monkeypatch, size, *, defaults="", azure="") -> None:
        self.cloud, self.config = cloud, folder / "mirrors.yaml"
        number = next(numbers)
        self.names = [f"fleet{number}-{index}" for index in range(size)]
        head = FILE.format(
            server=cloud.azure_url,
            organization_id=organization_id("contoso"),
            defaults=defaults,
            azure=f", {azure}" if azure else "",
        )
        entries = [f"  {name}:\n    azure: {{repository: {name}}}\n" for name in self.names]
        self.config.write_text(head + "".join(entries))
        self.sources = {name: cloud.create_azure_repository("contoso", "Shop", name) for name in self.names}
        for source in self.sources.values():
            sample.fill(source, commits=5, branches=2, tags=2, pull_requests=0)
        for name, value in azure_environment(cloud).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CODECOMMIT_MIRROR_CONFIG", str(self.config))

    @property
    def mirrors(self):
        """The file's mirrors."""
        return load_mirrors(self.config)

    def run(self, *arguments):
        """Run a command."""
        return CliRunner().invoke(cli, arguments)

    def replicas(self):
        """The names of the mirrors whose replicas exist."""
        return [name for name in self.names if self.cloud.replica_path(name).exists()]


@pytest.fixture
def fleet_of(bootstrapped, tmp_path, monkeypatch):
    """Return a function that makes a fleet."""
    return lambda size, **keys: Fleet(bootstrapped, tmp_path, monkeypatch, size, **keys)
