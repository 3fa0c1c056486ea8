"""The embedded agent fills in templates as Azure Pipelines does, and refuses what that refuses."""

import pytest
import yaml

from codecommit_mirror.azure import pipeline
from codecommit_mirror.config.load import load_mirrors
from localcloud.azure.agent.definition import read_definition
from localcloud.azure.agent.unsupported import UnsupportedPipeline

ROOT = """
parameters:
  - {name: fast, type: boolean, default: false}
resources:
  repositories: [{repository: engine, type: git, name: Platform/mirrors, ref: refs/heads/main}]
extends:
  template: jobs.yml@engine
  parameters: {fast: "${{ parameters.fast }}", pool: {vmImage: ubuntu-24.04}, PARAMETERS}
"""
TEMPLATE = """
parameters:
  - {name: fast, type: boolean}
  - {name: kind, type: string, values: [one, other]}
  - {name: pool, type: object}
jobs:
  - job: a
    pool: ${{ parameters.pool }}
    ${{ if eq(parameters.kind, 'one') }}:
      timeoutInMinutes: 5
    steps:
      - ${{ if parameters.fast }}:
          - bash: fast
      - bash: echo ${{ parameters.kind }} ${{ parameters.fast }}
"""


def filled_in(parameters="kind: one", template=TEMPLATE, given=None):
    read = lambda path, resource: template  # noqa: E731
    return read_definition(ROOT.replace("PARAMETERS", parameters), given, read)


def test_a_template_gets_its_parameters_with_their_types():
    (job,) = filled_in()["jobs"]
    assert job == {
        "job": "a",
        "pool": {"vmImage": "ubuntu-24.04"},
        "timeoutInMinutes": 5,
        "steps": [{"bash": "echo one False"}],
    }
    (job,) = filled_in("kind: other", given={"fast": "true"})["jobs"]
    assert "timeoutInMinutes" not in job
    assert job["steps"] == [{"bash": "fast"}, {"bash": "echo other True"}]


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [
        ("kind: third", "The value 'third' of the parameter kind is no valid string"),
        ("unknown: one, kind: one", "Unexpected parameter 'unknown'"),
        ("role: x", "A value for the 'kind' parameter must be provided"),
    ],
)
def test_what_the_template_does_not_take_is_refused(parameters, refusal):
    with pytest.raises(UnsupportedPipeline, match=refusal):
        filled_in(parameters)


def test_a_template_that_is_nowhere_and_expressions_that_are_unknown_are_refused():
    with pytest.raises(UnsupportedPipeline, match=r"Unable to resolve the repository of the template jobs\.yml@engine"):
        read_definition(ROOT.replace("PARAMETERS", "kind: one"))
    with pytest.raises(UnsupportedPipeline, match="expressions are not evaluated"):
        filled_in(template=TEMPLATE.replace("eq(", "startsWith("))
    with pytest.raises(UnsupportedPipeline, match="'steps' is already defined"):
        filled_in(template=TEMPLATE.replace("timeoutInMinutes: 5", "steps: []"))


def mirrors(tmp_path, keys=""):
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        "engine: {repository: Platform/mirrors}\nmirrors:\n  M:\n"
        f"    azure: {{organization: contoso, project: Shop, repository: Repo{keys}}}\n"
    )
    return load_mirrors(path)


@pytest.mark.parametrize("keys", ["", ", pipelines_repository: pipelines", ", pool: {name: Own, demands: [git]}"])
def test_a_stub_and_the_template_make_the_pipeline_that_carries_its_own_engine(tmp_path, keys):
    """But for what stands in the template's parameters, and for a step that looks at the agent."""
    (mirror,) = mirrors(tmp_path, keys)
    read = lambda path, resource: pipeline.render_engine()  # noqa: E731
    shared = read_definition(pipeline.render(mirror), None, read)
    own = read_definition(pipeline.render(mirror.with_engine(None)))
    (job,), (carried,) = shared["jobs"], own["jobs"]
    steps, theirs = job.pop("steps"), carried.pop("steps")
    assert job == carried
    sha256 = steps[-1]["env"]["MIRROR_ENGINE_SHA256"]
    different = {"MIRROR_EXISTING": "", "MIRROR_SOURCE_ID": "", "MIRROR_ENGINE_SHA256": sha256}
    assert steps[-1]["env"] == {**theirs[-1]["env"], **different}
    kept = ("trigger", "schedules")
    assert {key: shared[key] for key in kept} == {key: own[key] for key in kept}
    assert len(pipeline.render(mirror).encode()) < 2000


def test_every_part_of_the_template_fits_into_a_step():
    steps = yaml.safe_load(pipeline.render_engine())["jobs"][0]["steps"]
    assert max(len(step.get("bash", "")) for step in steps) < 100_000
