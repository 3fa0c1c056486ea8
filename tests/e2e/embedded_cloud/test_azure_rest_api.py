"""The client against the embedded Azure DevOps, every request and answer held against the published documents."""

import json
import re
import subprocess
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import jsonschema
import pytest

from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.objects import FileChange, ProjectSettings
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.errors import AzureError
from localcloud import sample
from localcloud.azure.rest_api.api import all_routes
from localcloud.azure.tokens import JOB
from tests.e2e.conftest import ROOT, Rig, commit_file

CONTRACTS = ROOT / "tests" / "contracts" / "azure-devops-7.1"
YAML = """\
trigger: {batch: true, branches: {include: ["*"]}, tags: {include: ["*"]}}
schedules: [{cron: "0 0 * * *", branches: {include: [main]}, always: true}]
jobs:
  - job: j
    pool: {vmImage: ubuntu-24.04}
    steps:
      - checkout: none
      - bash: |
          echo "secret: $PASSWORD"
        env: {PASSWORD: $(PASSWORD)}
"""


class Contract:
    """The published OpenAPI documents."""

    def __init__(self) -> None:
        self.operations = []
        for path in sorted(CONTRACTS.glob("*.json")):
            document = json.loads(path.read_text("utf-8-sig"))
            if path.stem == "git":
                # Typed as a string, and an object in every example of the same documentation.
                document["definitions"]["Change"]["properties"]["item"] = {"type": "object"}
            for section in ("paths", "x-ms-paths"):
                for template, methods in document[section].items() if section in document else ():
                    for method, operation in methods.items():
                        if "responses" in operation:
                            self.operations.append((document, template.partition("?")[0], method.upper(), operation))

    def find(self, method, path, query=()):
        """The operations that a request may be, by its method and path."""
        found = []
        for document, template, verb, operation in self.operations:
            # The service takes paths in any case, and a timeline without its id.
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)).replace("/timeline/[^/]+", "/timeline")
            if verb == method and re.fullmatch(pattern, path, re.IGNORECASE):
                found.append((document, operation))
        return found

    def check(self, request, response):
        url = urlsplit(str(request.url))
        query = parse_qs(url.query)
        operations = self.find(request.method, unquote(url.path))
        assert operations, f"no such operation: {request.method} {url.path}"
        problems = [self._problem(document, operation, request, response, query) for document, operation in operations]
        assert None in problems, problems

    def _problem(self, document, operation, request, response, query):
        known = {p["name"] for p in self._parameters(document, operation)} | {"$format", "includeContent"}
        if unknown := set(query) - known:
            return f"unknown query: {unknown}"
        missing = {p["name"] for p in self._parameters(document, operation) if p.get("required") and p["in"] == "query"}
        if missing - set(query):
            return f"missing query: {missing - set(query)}"
        try:
            for parameter in self._parameters(document, operation):
                if parameter["in"] == "body":
                    self._validate(document, parameter["schema"], json.loads(request.content))
            schema = operation["responses"].get("200", {}).get("schema")
            if response.status_code == 200 and schema and schema.get("format") != "Stream":
                answer = response.json()
                self._validate(document, schema, answer["value"] if schema.get("type") == "array" else answer)
        except jsonschema.ValidationError as error:
            return f"{error.json_path}: {error.message}"
        return None

    def _parameters(self, document, operation):
        for parameter in operation.get("parameters", []):
            reference = parameter.get("$ref", "").rpartition("/")[2]
            yield document["parameters"][reference] if reference else parameter

    def _validate(self, document, schema, value):
        jsonschema.Draft4Validator({**schema, "definitions": document["definitions"]}).validate(_without_nulls(value))


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


CONTRACT = Contract()


class Watched(httpx.BaseTransport):
    """Holds every request and answer against the documents."""

    def __init__(self) -> None:
        self.real, self.seen = httpx.HTTPTransport(), set()

    def handle_request(self, request):
        response = self.real.handle_request(request)
        response.read()
        CONTRACT.check(request, response)
        self.seen.add((request.method, request.url.path))
        return response


class Project:
    """One source repository in the embedded Azure DevOps, and clients for it."""

    def __init__(self, rig) -> None:
        self.rig, self.cloud, self.transport = rig, rig.cloud, Watched()
        sample.fill(rig.source, commits=5, branches=1, tags=1, pull_requests=1)
        self.azure = self.client(self.cloud.operator_token)
        self.repository = self.azure.repository(rig.name)

    def client(self, secret, bearer=False, sleep=None, lists=False):
        return AzureDevOps(
            self.rig.mirror.azure,
            AzureToken(secret, bearer, "TOKEN", self.rig.cloud.azure_url),
            sleep=sleep,
            transport=self.transport,
            lists=lists,
        )

    @property
    def calls(self):
        """How many requests the service got."""
        return self.cloud.requests()["azure rest"]

    def body(self, **changes):
        return {
            "name": f"p-{self.rig.name}",
            "process": {"type": 2, "yamlFilename": "x.yml"},
            "repository": {"id": self.repository.id, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
            "variables": {"PASSWORD": {"value": "hunter2canary", "isSecret": True}, "PLAIN": {"value": "v"}},
            **changes,
        }

    def commit(self, text=YAML, comment="YAML [skip ci]", branch="main"):
        tip = self.azure.tip(self.repository, branch)
        exists = self.azure.file(self.repository, branch, "x.yml") is not None
        commit_file(self.azure, self.repository, branch, tip, "x.yml", text=text, exists=exists, comment=comment)

    def pipeline(self, **changes):
        self.commit()
        return self.azure.create_definition(self.body(**changes))

    def wait(self, build):
        while not build.done:
            threading.Event().wait(0.05)
            build = self.azure.build(build.id)
        return build


@pytest.fixture
def project(rig):
    return Project(rig)


def test_every_route_is_one_of_the_documents_with_its_scope_and_version():
    # The documents lack the tokens for jobs: learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken.
    routes = [route for route in all_routes(None, None) if route.scope != JOB]
    assert len(routes) > 20
    for route in routes:
        path = re.sub(r"\{\w+\}", "1", route.template)
        found = CONTRACT.find(route.method, f"/o/p/_apis/{path}") or CONTRACT.find(route.method, f"/o/_apis/{path}")
        assert found, route
        for _, operation in found:
            scopes = {scope for entry in operation["security"] for scopes in entry.values() for scope in scopes}
            assert route.scope in scopes, route
            references = [p.get("$ref", "") for p in operation["parameters"]]
            assert route.is_preview == any(r.endswith("Version-preview.1") for r in references), route


def test_secrets_read_back_null_and_null_keeps_them(project):
    made = project.pipeline()
    assert made.variables["PASSWORD"] == {"value": None, "isSecret": True}
    updated = project.azure.update_definition(made, {**made.body, "description": "new"})
    build = project.wait(project.azure.queue(updated, "main"))
    (step,) = [r for r in project.azure.timeline(build) if r.kind == "Task"]
    assert "secret: ***" in project.azure.log(build, step.log_id)
    assert build.result == "succeeded"


def test_a_stale_revision_is_refused(project):
    made = project.pipeline()
    project.azure.update_definition(made, made.body)
    with pytest.raises(AzureError, match="Get the newest revision") as caught:
        project.azure.update_definition(made, made.body)
    assert caught.value.status == 409


def test_a_name_is_taken_once(project):
    made = project.pipeline()
    with pytest.raises(AzureError, match="already exists in folder"):
        project.azure.create_definition(project.body())
    assert [d.id for d in project.azure.definitions_named(made.name.upper())] == [made.id]
    query = {"repositoryId": project.repository.id, "repositoryType": "TfsGit", "yamlFilename": "x.yml"}
    assert [d.id for d in project.azure.find_definitions(**query)] == [made.id]
    assert project.azure.find_definitions(**{**query, "yamlFilename": "y.yml"}) == []


def test_many_mirrors_are_read_from_lists(project):
    """Each list is asked for once, and says what a call for each of its things would say."""
    made = project.pipeline()
    build = project.wait(project.azure.queue(made, "main"))
    lister = project.client(project.cloud.operator_token, lists=True)
    before = project.calls
    for _ in range(2):
        assert lister.repository(project.repository.id) == project.repository
        assert lister.repository(project.rig.name) == project.repository
        assert lister.find_definition(made.id).body == made.body
        assert [d.body for d in lister.definitions_of(project.repository, "x.yml")] == [made.body]
        assert [d.id for d in lister.definitions_named(made.name.upper())] == [made.id]
        assert lister.newest_build(made).id == build.id
        assert lister.file(project.repository, "main", "x.yml", expected=YAML) == YAML
        assert lister.file(project.repository, "main", "nothing.yml", expected=YAML) is None
    assert project.calls - before == 3
    # Which names are equal but for the case of their letters is for the service to say.
    assert lister.repository(project.rig.name.upper()) == project.repository
    assert lister.file(project.repository, "main", "x.yml", expected="another") == YAML
    assert lister.file(project.repository, "nowhere", "x.yml", expected=YAML) is None


def test_a_folder_in_a_folder_is_listed_with_all_of_its_files(project):
    texts = {f"one folder/é {number}.yml": f"# {number}\n" for number in range(3)}
    for path, text in texts.items():
        tip = project.azure.tip(project.repository, "main")
        project.azure.commit_files(project.repository, "main", tip, [FileChange(path, text, False)], "[skip ci]")
    lister = project.client(project.cloud.operator_token, lists=True)
    before = project.calls
    for path, text in texts.items():
        assert lister.file(project.repository, "main", path, expected=text) == text
    assert project.calls - before == 1


def test_lists_are_read_again_once_something_changed(project):
    lister = project.client(project.cloud.operator_token, lists=True)
    assert lister.definitions_of(project.repository, "x.yml") == []
    made = project.pipeline()
    # What a list does not have may have been created since.
    assert lister.find_definition(made.id).id == made.id
    assert lister.definitions_of(project.repository, "x.yml") == []
    lister.forget_lists()
    assert [d.id for d in lister.definitions_of(project.repository, "x.yml")] == [made.id]
    assert lister.newest_build(made) is None


def test_retained_runs_block_a_deletion(project):
    made = project.pipeline()
    project.wait(project.azure.queue(made, "main"))
    leases = project.azure.leases(made)
    assert leases
    with pytest.raises(AzureError, match="retained by a release"):
        project.azure.delete_definition(made)
    project.azure.delete_leases(leases)
    project.azure.delete_definition(made)
    project.azure.delete_definition(made)
    with pytest.raises(AzureError, match="could not be found"):
        project.azure.definition(made.id)


def test_yaml_is_checked_on_the_server(project):
    made = project.pipeline()
    project.azure.validate(made, YAML, "main")
    with pytest.raises(AzureError, match="unknown key of a pipeline: jobz") as caught:
        project.azure.validate(made, "jobz: []", "main")
    assert caught.value.status == 400


def test_a_policy_refuses_a_push_and_a_pull_request_goes_round_it(project, tmp_path):
    project.cloud.azure.protect_branch("contoso", "Shop", project.rig.name, "main")
    with pytest.raises(AzureError, match="TF402455") as caught:
        project.commit()
    assert caught.value.status == 403
    tip = project.azure.tip(project.repository, "main")
    project.azure.set_branch(project.repository, "proposal", old=None, new=tip)
    project.commit(branch="proposal")
    assert project.azure.pull_request(project.repository, "proposal", "main") is None
    opened = project.azure.open_pull_request(project.repository, "proposal", "main", "Title", "Text")
    assert project.azure.pull_request(project.repository, "proposal", "main") == opened
    project.azure.abandon_pull_request(project.repository, opened)
    assert project.azure.pull_request(project.repository, "proposal", "main") is None
    project.azure.set_branch(
        project.repository, "proposal", old=project.azure.tip(project.repository, "proposal"), new=None
    )
    assert project.azure.tip(project.repository, "proposal") is None
    clone = project.rig.clone(tmp_path / "clone.git")
    sample.commit(clone, "main", "over Git")
    with pytest.raises(subprocess.CalledProcessError):
        project.rig.push("main", clone=clone)


def test_a_stale_tip_is_refused(project):
    tip = project.azure.tip(project.repository, "main")
    project.commit()
    with pytest.raises(AzureError, match="TF401028"):
        commit_file(project.azure, project.repository, "main", tip, "y.yml", text="", exists=False, comment="late")


def test_every_page_of_refs_is_read(project):
    tip = project.azure.tip(project.repository, "main")
    names = [f"create refs/heads/many/{number:04} {tip}" for number in range(450)]
    sample.git(project.rig.source, "update-ref", "--stdin", stdin="\n".join(names).encode() + b"\n")
    assert project.azure.tip(project.repository, "many/0449") == tip
    assert project.azure.tip(project.repository, "many") is None


def test_throttling_is_waited_out(project):
    waits = []
    azure = project.client(project.cloud.operator_token, sleep=waits.append)
    project.cloud.azure.answer_next(429, 2, "3")
    assert azure.repository(project.rig.name).name == project.rig.name
    assert waits == [3.0, 3.0]


def test_bad_and_weak_tokens(project):
    with pytest.raises(AzureError, match="sign-in page"):
        project.client("wrong").repository(project.rig.name)
    with pytest.raises(AzureError, match="sign-in page"):
        project.client(project.cloud.job_token, bearer=False).repository(project.rig.name)
    weak = project.client(project.cloud.personal_access_token)
    assert weak.repository(project.rig.name) == project.repository
    with pytest.raises(AzureError, match=r"lacks a scope.*Build \(read & execute\)"):
        weak.find_definitions()
    assert weak.settings == ProjectSettings()
    assert project.azure.settings == ProjectSettings(False, True)
    entra = project.client(project.cloud.entra_token, bearer=True)
    assert entra.settings.protects_repositories is False


def results(project, definition):
    builds = sorted(project.azure.builds(definition), key=lambda build: build.id)
    return [(b.reason, b.branch, project.wait(b).result) for b in builds]


def test_pushes_start_the_pipelines_whose_yaml_triggers_on_them(project, tmp_path):
    made = project.pipeline()
    clone = project.rig.clone(tmp_path / "clone.git")
    sample.commit(clone, "main", "a change")
    sample.git(clone, "update-ref", "refs/heads/new", "refs/heads/main")
    sample.git(clone, "tag", "v-new", "refs/heads/main")
    project.rig.push("main", "new", "refs/tags/v-new", "feature/0", clone=clone)
    expected = {("batchedCI", name, "succeeded") for name in ("main", "new", "refs/tags/v-new")}
    assert set(results(project, made)) == expected
    sample.commit(clone, "main", "quiet [skip ci]")
    sample.commit(clone, "feature/0", "without the YAML")
    project.rig.push("main", "feature/0", ":new", clone=clone)
    assert len(results(project, made)) == 3
    project.cloud.azure.fire_schedules()
    assert results(project, made)[3:] == [("schedule", "main", "succeeded")]


def test_a_pipeline_whose_repository_was_deleted_stays_and_disturbs_no_push(project, stack_template, tmp_path):
    definition, cloud = project.pipeline(), project.cloud
    url = f"{cloud.azure_url}/contoso/Shop/_apis/git/repositories/{project.repository.id}?api-version=7.1"
    assert httpx.delete(url, auth=("", cloud.manager_token)).status_code == 204
    other = Rig(cloud, f"other-than-{project.repository.name}", stack_template)
    sample.fill(other.source, commits=1, branches=0, tags=0, pull_requests=0)
    clone = other.clone(tmp_path / "clone.git")
    sample.commit(clone, "main", "a push")
    other.push("main", clone=clone)
    cloud.azure.fire_schedules()
    assert project.azure.definition(definition.id).name == definition.name
    with pytest.raises(AzureError, match="TF401019"):
        project.azure.queue(definition, "main")


def test_pushes_that_wait_for_a_run_are_joined(project):
    made = project.pipeline()
    project.cloud.azure.set_agent_online(False)
    for number in range(4):
        project.commit(text=YAML + f"# {number}\n", comment=f"Change {number}")
    project.cloud.azure.set_agent_online(True)
    assert results(project, made) == [("batchedCI", "main", "succeeded")]


def test_yaml_that_is_wrong_in_the_pushed_branch_is_a_failed_run(project):
    made = project.pipeline()
    project.commit(text="jobz: []", comment="break it")
    assert results(project, made) == [("individualCI", "main", "failed")]
    (record,) = project.azure.timeline(next(project.azure.builds(made)))
    assert "unknown key" in record.errors[0]


def test_pushes_are_listed_with_their_refs_newest_first(project):
    project.commit(comment="one")
    project.commit(text=YAML + "#\n", comment="two")
    pushed = list(project.azure.pushed_refs(project.repository))
    assert [p.name for p in pushed] == ["refs/heads/main"] * 2
    assert pushed[0].new == project.azure.tip(project.repository, "main")
    assert pushed[0].date > pushed[1].date


def test_no_secret_of_a_run_is_in_the_clouds_files(project):
    made = project.pipeline()
    project.wait(project.azure.queue(made, "main"))
    for path in Path(project.cloud.root).rglob("*"):
        if path.is_file() and path.stat().st_size < 10_000_000:
            assert b"hunter2canary" not in path.read_bytes(), path
