"""``discover``: an organization's repositories, and mirrors.yaml with entries for them."""

import json

import pytest

from codecommit_mirror.azure.rest.organization import list_repositories
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.config.load import load_mirrors
from localcloud import LocalCloud, sample
from localcloud.azure.service_connections import organization_id


@pytest.fixture(scope="module")
def organization():
    """An organization of its own, with repositories in two projects."""
    with LocalCloud() as cloud:
        for project, name in (("Shop", "api"), ("Shop", "My Repo"), ("Shop", "Shop.wiki"), ("Ops", "api")):
            sample.fill(cloud.create_azure_repository("fabrikam", project, name))
        cloud.create_azure_repository("fabrikam", "Ops", "empty")
        yield cloud


@pytest.fixture
def cloud(organization):
    return organization


@pytest.fixture
def discover(cloud, command, tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(f"# Ours.\ndefaults:\n  azure: {{organization: fabrikam, server: '{cloud.azure_url}'}}\nmirrors:\n")

    def run(*arguments):
        return command("discover", *arguments, AZURE_DEVOPS_EXT_PAT=cloud.operator_token)

    return run


def test_repositories_are_listed_and_nothing_is_written(discover, tmp_path):
    before = (tmp_path / "mirrors.yaml").read_text()
    done = discover()
    assert done.returncode == 0, done.stderr
    assert "5 repositories: 3 new; add them with --write, 1 empty, 1 wiki." in done.stdout
    assert (tmp_path / "mirrors.yaml").read_text() == before


def test_what_is_new_is_added_once(discover, tmp_path):
    done = discover("--write", "--exclude", "Ops/*", "--wikis")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mirrors.yaml").read_text()
    assert text.startswith("# Ours.\n")
    assert {(m.name, m.azure.project, m.azure.repository) for m in load_mirrors(tmp_path / "mirrors.yaml")} == {
        ("api", "Shop", "api"),
        ("My-Repo", "Shop", "My Repo"),
        ("Shop.wiki", "Shop", "Shop.wiki"),
    }
    again = discover("--write", "--exclude", "Ops/*", "--wikis")
    assert "0 added to mirrors.yaml, 2 excluded, 3 mirrored." in again.stdout
    assert (tmp_path / "mirrors.yaml").read_text() == text


def test_a_clash_gets_the_projects_name(discover, tmp_path):
    done = discover("--write", "--json")
    listed = {(one["project"], one["repository"]): one for one in json.loads(done.stdout)["repositories"]}
    assert (listed["Ops", "api"]["mirror"], listed["Shop", "api"]["mirror"]) == ("api", "Shop-api")
    assert listed["Shop", "api"]["note"] == "'api' is taken"


def test_a_wrong_project_is_a_sentence(discover):
    done = discover("--project", "Nope")
    assert (done.returncode, done.stderr) == (
        1,
        "error: 'fabrikam' has no project 'nope' with a repository; correct --project.\n",
    )


def test_the_organizations_id_is_read_and_written(cloud, command, tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        f"# Ours.\ndefaults:\n  replica_auth: role\n  azure: {{organization: fabrikam, server: '{cloud.azure_url}'}}\n"
        "mirrors:\n  api: {azure: {project: Shop, repository: api}}\n"
    )
    token, identifier = {"AZURE_DEVOPS_EXT_PAT": cloud.operator_token}, organization_id("fabrikam")
    assert command("config", "validate", **token).returncode == 2
    assert command("config", "identity", **token).stdout == f"{identifier}\n"
    written = command("config", "identity", "--write", **token)
    assert written.returncode == 0, written.stderr
    assert path.read_text().startswith("# Ours.\n")
    (mirror,) = load_mirrors(path)
    assert mirror.identity.organization_id == identifier


def test_an_organization_of_more_than_a_page_is_read_whole(cloud):
    for number in range(120):
        cloud.create_azure_repository("wide", "Shop", f"service-{number}")
    token = AzureToken(cloud.operator_token, False, "test", cloud.azure_url)
    assert len(list_repositories(cloud.azure_url, "wide", token)) == 120
