"""The rendered pipeline: valid by Azure's schema, nothing breaks out of it, secrets are in ``env:`` alone."""

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.azure import pipeline
from codecommit_mirror.azure.variables import wanted_variables
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.config.mirror import AgentPool
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.rendering import engine_program, templates

SCHEMA = json.loads((Path(__file__).parents[2] / "contracts" / "azure-pipelines-schema.json").read_text("utf-8-sig"))
PROGRAM = engine_program.program()
MIRROR = single_mirror("MyRepoReplica", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
NAMES = [
    "AZURE_REPO_URL",
    "AZURE_GIT_USERNAME",
    "AZURE_GIT_PASSWORD",
    "AWS_REPO_URL",
    "AWS_GIT_USERNAME",
    "AWS_GIT_PASSWORD",
]


def rendered(**changes):
    return yaml.safe_load(pipeline.render(MIRROR.model_copy(update=changes)))


def mirror_step(document):
    (job,) = document["jobs"]
    assert job["steps"][0] == {"checkout": "none"}
    return job["steps"][-1]


@pytest.mark.parametrize("replica_auth", ["user", "role"])
@pytest.mark.parametrize("source_auth", ["pat", "job-token"])
def test_it_is_valid_by_azures_schema(source_auth, replica_auth):
    text = pipeline.render(MIRROR.model_copy(update={"source_auth": source_auth, "replica_auth": replica_auth}))
    jsonschema.validate(yaml.load(text, Loader=yaml.BaseLoader), SCHEMA)


def test_the_schema_would_find_a_misspelt_key():
    document = yaml.load(pipeline.render(MIRROR).replace("displayName", "displayNam"), Loader=yaml.BaseLoader)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_it_runs_for_every_branch_and_tag_and_on_a_schedule():
    document = rendered(schedule="5 1 * * 1-5")
    assert document["trigger"] == {"batch": True, "branches": {"include": ["*"]}, "tags": {"include": ["*"]}}
    assert document["pr"] == "none"
    (schedule,) = document["schedules"]
    assert (schedule["cron"], schedule["always"]) == ("5 1 * * 1-5", True)
    assert schedule["branches"] == {"include": ["main"]}


def test_the_job_is_pinned_and_bounded():
    (job,) = rendered()["jobs"]
    assert job["pool"] == {"vmImage": "ubuntu-24.04"}
    assert 0 < job["timeoutInMinutes"] <= 360


def test_six_variables_are_mapped_and_nothing_else_holds_a_macro():
    text = pipeline.render(MIRROR)
    step = mirror_step(yaml.safe_load(text))
    assert step["env"] == {
        "BASH_ENV": "",
        "LD_PRELOAD": "",
        "PS4": "",
        "MIRROR_ENGINE_SHA256": hashlib.sha256(PROGRAM.encode()).hexdigest(),
        "MIRROR_ALLOW_DELETIONS": "${{ parameters.allowDeletions }}",
        "MIRROR_REPLACE_HISTORY": "${{ parameters.replaceHistory }}",
        **{name: f"$({name})" for name in NAMES},
        "MIRROR_SOURCE": "https://dev.azure.com/contoso/Shop/_git/MyRepo",
        "MIRROR_REPLICA": "MyRepoReplica",
        "MIRROR_REFS": "heads tags notes",
        "MIRROR_ARCHIVE_DAYS": "90",
    }
    assert text.count("$(") == len(NAMES)


def test_the_job_token_replaces_the_azure_credentials():
    environment = mirror_step(rendered(source_auth="job-token"))["env"]
    assert environment["SYSTEM_ACCESSTOKEN"] == "$(System.AccessToken)"
    assert not {"AZURE_GIT_USERNAME", "AZURE_GIT_PASSWORD"} & environment.keys()


def test_a_role_replaces_the_replicas_credentials_and_the_job_token_is_for_it_alone():
    environment = mirror_step(rendered(replica_auth="role"))["env"]
    assert environment["OIDC_REQUEST_TOKEN"] == "$(System.AccessToken)"
    assert environment["AWS_ROLE_ARN"] == "$(AWS_ROLE_ARN)"
    assert environment["MIRROR_ROLE"] == "azure-devops-pipeline-MyRepoReplica"
    assert not {"AWS_GIT_USERNAME", "AWS_GIT_PASSWORD", "SYSTEM_ACCESSTOKEN"} & environment.keys()


def test_the_shell_is_strict_and_the_program_travels_unchanged():
    program = ""
    _, *steps = rendered()["jobs"][0]["steps"]
    for step in steps:
        script = step["bash"]
        assert script.startswith("set -euo pipefail\n")
        assert len(script) < 100_000
        _, _, rest = script.partition("<<'END_OF_MIRROR_ENGINE'\n")
        part, _, after = rest.partition("END_OF_MIRROR_ENGINE\n")
        program += part
        assert step["env"].items() >= {"BASH_ENV": "", "LD_PRELOAD": "", "PS4": ""}.items()
        assert len(step["env"]) == 3 or step is steps[-1]
    assert program == PROGRAM
    assert hashlib.sha256(PROGRAM.encode()).hexdigest() in after
    assert after.endswith('python3 -I "$program"\n')


def test_own_agents_are_checked_and_their_proxys_password_is_mapped():
    pool = AgentPool(name="On premises", demands=("Agent.OS -equals Linux", "git"))
    document = rendered(azure=MIRROR.azure.model_copy(update={"pool": pool}))
    assert document["jobs"][0]["pool"] == {"name": "On premises", "demands": ["Agent.OS -equals Linux", "git"]}
    assert document["jobs"][0]["steps"][1]["displayName"] == "Check the agent"
    assert mirror_step(document)["env"]["AGENT_PROXYPASSWORD"] == "$(Agent.ProxyPassword)"


def test_a_servers_pool_is_its_default_one():
    azure = MIRROR.azure.model_copy(update={"server": "https://azure.example.com/tfs"})
    assert rendered(azure=azure)["jobs"][0]["pool"] == {"name": "Default"}


def test_a_run_may_be_allowed_to_delete_by_parameters_alone():
    document = rendered()
    assert [(p["name"], p["type"], p["default"]) for p in document["parameters"]] == [
        ("allowDeletions", "boolean", False),
        ("replaceHistory", "string", " "),
    ]
    environment = mirror_step(document)["env"]
    assert environment["MIRROR_ALLOW_DELETIONS"] == "${{ parameters.allowDeletions }}"
    assert environment["MIRROR_REPLACE_HISTORY"] == "${{ parameters.replaceHistory }}"


@pytest.mark.parametrize("text", ["$(", "${{", "$[", "END_OF_MIRROR_ENGINE", "\t", "é", "x" * 120_001])
def test_a_program_that_the_yaml_cannot_carry_is_refused(monkeypatch, text):
    monkeypatch.setattr(engine_program, "program", lambda role: PROGRAM + text)
    with pytest.raises(AssertionError, match="cannot be carried by the YAML"):
        pipeline.render(MIRROR)


@given(st.text(max_size=60))
def test_no_text_breaks_out_of_a_scalar_or_a_comment(text):
    assert "\n" not in templates.comment(text)
    assert yaml.safe_load(f"# {templates.comment(text)}\na: 1") == {"a": 1}
    if not any(expanded in text for expanded in ("$(", "${{", "$[")):
        assert yaml.safe_load(f"a: [{templates.scalar(text)}]") == {"a": [text]}


@pytest.mark.parametrize("text", ["${{ secrets }}", "$(AWS_GIT_PASSWORD)", "$[x]"])
def test_text_that_azure_would_replace_is_refused(text):
    with pytest.raises(MirrorError, match="Azure Pipelines would replace"):
        templates.scalar(text)


@pytest.mark.parametrize("branch", ["a'b", 'a"b', "a:b", "a#b", "- a", "a, b]", "!!python/object", "&a", "%YAML"])
def test_names_with_yaml_syntax_stay_names(branch):
    azure = MIRROR.azure.model_copy(update={"default_branch": branch, "repository": f"r{branch}"})
    text = pipeline.render(MIRROR.model_copy(update={"azure": azure}))
    assert yaml.safe_load(text)["schedules"][0]["branches"]["include"] == [branch]
    read, expected = yaml.safe_load(text)["jobs"], rendered()["jobs"]
    assert read[0]["steps"][-1]["env"].pop("MIRROR_SOURCE") == azure.clone_url
    expected[0]["steps"][-1]["env"].pop("MIRROR_SOURCE")
    assert read == expected


def test_the_variables_are_the_blog_posts():
    wanted = wanted_variables(MIRROR, "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyRepoReplica")
    assert [v.name for v in wanted] == NAMES
    assert [v.name for v in wanted if v.secret] == [n for n in NAMES if "_GIT_" in n]
    values = {v.name: v.value for v in wanted}
    assert values["AZURE_REPO_URL"] == "https://dev.azure.com/contoso/Shop/_git/MyRepo"
    assert values["AWS_REPO_URL"] == "git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyRepoReplica"
    assert all(v.value is None for v in wanted if v.secret)
