"""A source with another name, and a pipeline whose YAML belongs elsewhere: ``up`` follows, ``down`` finds it."""

import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.checks.judging import Limits, judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import state
from localcloud import sample
from localcloud.azure import repos
from localcloud.azure.service_connections import organization_id

from .journeys import Killed

counter = itertools.count()
MIRROR = """\
mirrors:
  {name}:
    replica_auth: {auth}
    source_auth: {source_auth}
    identity: {{organization_id: {organization_id}}}
    azure: {{organization: contoso, project: {project}, server: "{server}", repository: {repository}{more}}}
"""
OLD = "azure-pipelines-mirror.yml"
LIMITS = Limits(datetime.now(UTC), timedelta(hours=1))


def configure(journey, *, project="Shop", repository=None, auth="user", **azure):
    """Write where the mirror's source and its YAML are."""
    more = "".join(f", {key}: {value}" for key, value in azure.items())
    text = MIRROR.format(
        name=journey.name,
        auth=auth,
        source_auth="job-token" if auth == "role" else "pat",
        organization_id=organization_id("contoso"),
        project=project,
        server=journey.cloud.azure_url,
        repository=repository or journey.name,
        more=more,
    )
    journey.config.write_text(text)
    (journey.mirror,) = load_mirrors(journey.config, journey.name)


@pytest.fixture
def pipelines(swift):
    """A second repository of the project, with a commit, whose default branch has another name."""
    name = f"pipelines-{next(counter)}-{os.getpid()}"
    path = swift.cloud.create_azure_repository("contoso", "Shop", name)
    sample.fill(path)
    sample.git(path, "branch", "-m", "main", "trunk")
    sample.git(path, "symbolic-ref", "HEAD", "refs/heads/trunk")
    return name


def folder_of(journey, project, repository):
    return repos.repository_path(journey.cloud.root / "azure", "contoso", project, repository)


def azure_of(journey):
    return state.read_azure(journey.context())


def definitions_of(journey):
    """Return the ids of all pipelines that have something to do with the mirror."""
    return [one.id for one in journey.context().azure.definitions_named(journey.mirror.pipeline_name)]


def assert_moved(journey, definition, path):
    """The pipeline is the same one, runs the file at its new place, and works; ``up`` has nothing more to do."""
    azure = azure_of(journey)
    assert definitions_of(journey) == [definition]
    assert (azure.definition.id, azure.definition.yaml_path, azure.former_yaml) == (definition, path, None)
    assert journey.pipeline_works()
    assert journey.up() == []
    assert judge(read(journey.context()), LIMITS).notable == []


def file_of(repository, path):
    listing = sample.git(repository, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    return path in listing


def test_a_pipeline_moves_to_another_path(swift):
    configure(swift)
    swift.up()
    definition = azure_of(swift).definition.id
    configure(swift, pipeline_path="ci/mirror.yml")
    (yaml,) = [check for check in judge(read(swift.context()), LIMITS).notable if check.name == "YAML"]
    assert "the pipeline runs 'azure-pipelines-mirror.yml'" in yaml.message
    assert swift.up() == ["POST pushes", "POST pushes", "PUT definition", "POST build/builds"]
    assert_moved(swift, definition, "ci/mirror.yml")
    assert not file_of(swift.source, OLD)


def test_a_pipeline_moves_to_another_repository_and_back(swift, pipelines):
    configure(swift)
    swift.up()
    definition = azure_of(swift).definition.id
    configure(swift, pipelines_repository=pipelines)
    swift.up()
    assert_moved(swift, definition, f"{swift.name}.yml")
    assert not file_of(swift.source, OLD)
    configure(swift)
    swift.up()
    assert_moved(swift, definition, OLD)
    assert not file_of(folder_of(swift, "Shop", pipelines), f"{swift.name}.yml")


@pytest.mark.parametrize("effect", range(1, 5))
def test_a_move_that_is_stopped_is_finished_by_the_next(swift, pipelines, effect):
    configure(swift)
    swift.up()
    definition = azure_of(swift).definition.id
    configure(swift, pipelines_repository=pipelines)
    with pytest.raises(Killed):
        swift.up(stop_after=effect)
    swift.up()
    assert_moved(swift, definition, f"{swift.name}.yml")
    assert not file_of(swift.source, OLD)


def test_down_finds_a_pipeline_that_is_not_where_the_file_says(swift, pipelines):
    configure(swift)
    swift.up()
    configure(swift, pipelines_repository=pipelines)
    swift.down()
    assert definitions_of(swift) == []
    assert not file_of(swift.source, OLD)


def test_down_finds_a_pipeline_whose_repository_is_gone(swift):
    configure(swift)
    swift.up()
    shutil.rmtree(swift.source)
    swift.down()
    assert definitions_of(swift) == []


def test_a_source_may_get_another_name(swift):
    configure(swift)
    swift.up()
    definition, renamed = azure_of(swift).definition.id, f"{swift.name}-renamed"
    swift.cloud.azure.rename_repository("contoso", "Shop", swift.name, renamed)
    with pytest.raises(MirrorError, match=f"is now called '{renamed}'; set azure.repository"):
        swift.up()
    configure(swift, repository=renamed)
    swift.up()
    assert_moved(swift, definition, OLD)
    variables = azure_of(swift).definition.variables
    assert variables["AZURE_REPO_URL"]["value"].endswith(f"/_git/{renamed}")


def test_a_role_trusts_the_earlier_project_until_a_run_has_succeeded(templated):
    journey, iam, project = templated, templated.cloud.client("iam"), f"Renamed-{next(counter)}"
    journey.source = journey.cloud.create_azure_repository("contoso", f"{project}-old", journey.name)
    sample.fill(journey.source)
    configure(journey, project=f"{project}-old", auth="role")
    journey.up()
    definition = azure_of(journey).definition.id

    def trusted():
        document = iam.get_role(RoleName=journey.mirror.role_name)["Role"]["AssumeRolePolicyDocument"]
        (condition,) = [statement["Condition"]["StringEquals"] for statement in document["Statement"]]
        subjects = next(value for key, value in condition.items() if key.endswith(":sub"))
        return sorted([subjects] if isinstance(subjects, str) else subjects)

    subject = f"codecommit-mirror-{journey.name}"
    journey.cloud.azure.rename_project("contoso", f"{project}-old", project)
    configure(journey, project=project, auth="role")
    with pytest.raises(Killed):
        journey.up(stop_after=1)
    assert trusted() == [f"p://contoso/{project}-old/{subject}", f"p://contoso/{project}/{subject}"]
    journey.up()
    assert trusted() == [f"p://contoso/{project}/{subject}"]
    assert_moved(journey, definition, OLD)


def test_a_pull_request_moves_the_pipeline_once_it_is_merged(swift, pipelines):
    configure(swift)
    swift.up()
    definition = azure_of(swift).definition.id
    configure(swift, pipelines_repository=pipelines)
    swift.up(pull_request=True)
    assert "run this again to move the pipeline" in swift.row.message
    azure = azure_of(swift)
    assert (azure.definition.yaml_path, azure.former_yaml.path) == (OLD, OLD)
    repository = folder_of(swift, "Shop", pipelines)
    sample.git(repository, "update-ref", "refs/heads/trunk", f"refs/heads/codecommit-mirror/{swift.mirror.stack_name}")
    swift.up(pull_request=True)
    azure = azure_of(swift)
    assert (azure.definition.id, azure.definition.yaml_path) == (definition, f"{swift.name}.yml")
    assert swift.pipeline_works()
    assert swift.context().azure.pull_request(azure.source, f"codecommit-mirror/{swift.mirror.stack_name}", "main")
    assert swift.up(pull_request=True) == []


@pytest.mark.parametrize("auth", ["user", "role"])
def test_the_record_is_no_drift_to_status(templated, auth):
    configure(templated, auth=auth)
    templated.up()
    cloudformation, name = templated.cloud.client("cloudformation"), templated.mirror.stack_name

    def drift():
        detection = cloudformation.detect_stack_drift(StackName=name)["StackDriftDetectionId"]
        while (status := cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=detection))[
            "DetectionStatus"
        ] == "DETECTION_IN_PROGRESS":
            pass
        (check,) = [one for one in judge(read(templated.context()), LIMITS).checks if one.name == "drift"]
        return status["StackDriftStatus"], check.verdict

    assert drift() == ("DRIFTED", "ok")
    iam = templated.cloud.client("iam")
    if auth == "user":
        iam.tag_user(UserName=templated.mirror.user_name, Tags=[{"Key": "by", "Value": "hand"}])
    else:
        iam.tag_role(RoleName=templated.mirror.role_name, Tags=[{"Key": "by", "Value": "hand"}])
    assert drift() == ("DRIFTED", "warning")


@pytest.mark.parametrize("pull_request", [False, True])
def test_down_in_the_middle_of_a_move_removes_both_files(swift, pull_request):
    configure(swift)
    swift.up()
    configure(swift, pipeline_path="ci/mirror.yml")
    with pytest.raises(Killed):
        swift.up(stop_after=1)
    assert file_of(swift.source, OLD)
    assert file_of(swift.source, "ci/mirror.yml")
    swift.down(pull_request=pull_request)
    assert definitions_of(swift) == []
    if pull_request:
        proposed = f"refs/heads/codecommit-mirror/{swift.mirror.stack_name}"
        sample.git(swift.source, "update-ref", "refs/heads/main", proposed)
    assert not file_of(swift.source, OLD)
    assert not file_of(swift.source, "ci/mirror.yml")
