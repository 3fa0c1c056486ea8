"""A mirror is its source's: a file that names another repository takes nothing over."""

import pytest

from codecommit_mirror.checks.judging import judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import state
from codecommit_mirror.operations.run import run_successfully
from localcloud import sample

from .test_moving import LIMITS, azure_of, configure


@pytest.fixture
def other(templated):
    """Another team's repository in the same project, with other contents."""
    name = f"{templated.name}-other"
    path = templated.cloud.create_azure_repository("contoso", "Shop", name)
    sample.fill(path)
    sample.git(path, "update-ref", "-d", "refs/heads/feature/0")
    sample.commit(path, "main", "by another team")
    return name


def subjects(journey):
    return state.settled_stack(journey.context()).outputs.push_role_subjects


@pytest.mark.parametrize("auth", ["user", "role"])
def test_another_file_takes_no_mirror_over(templated, other, auth):
    configure(templated, auth=auth)
    templated.up()
    replica, trusted = sample.refs(templated.replica), subjects(templated)
    configure(templated, repository=other, auth=auth)
    for command in (templated.up, templated.down, *([templated.rotate] if auth == "user" else [])):
        with pytest.raises(MirrorError, match="so it is another repository; if the replica is to follow it"):
            command()
    assert sample.refs(templated.replica) == replica
    configure(templated, auth=auth)
    assert subjects(templated) == trusted
    assert judge(read(templated.context()), LIMITS).notable == []
    assert templated.up() == []


def test_a_file_that_names_what_does_not_exist_takes_nothing_down(templated):
    configure(templated)
    templated.up()
    configure(templated, repository="nothing-here")
    with pytest.raises(
        MirrorError, match=f"follows contoso/Shop/{templated.name}, but mirrors.yaml names contoso/Shop/no"
    ):
        templated.down()
    configure(templated)
    assert judge(read(templated.context()), LIMITS).notable == []


def test_a_new_repository_with_the_name_is_another_one(templated):
    configure(templated, pipelines_repository=f"{templated.name}-other")
    sample.fill(templated.cloud.create_azure_repository("contoso", "Shop", f"{templated.name}-other"))
    templated.up()
    replica, azure = sample.refs(templated.replica), azure_of(templated)
    templated.cloud.azure.rename_repository("contoso", "Shop", templated.name, f"{templated.name}-archived")
    sample.fill(templated.cloud.create_azure_repository("contoso", "Shop", templated.name), commits=2, tags=0)
    with pytest.raises(MirrorError, match="it is another repository"):
        templated.up()
    with pytest.raises(MirrorError, match="ended as failed"):
        run_successfully(templated.context(), azure)
    assert "this pipeline mirrors the repository with the id" in templated.capfd.readouterr().err + templated.said
    assert sample.refs(templated.replica) == replica


def test_a_person_lets_the_replica_follow_another_source(templated, other):
    configure(templated)
    templated.up()
    configure(templated, repository=other)
    asked = []
    templated.up(change_source=True, confirm=lambda question, typed=None: asked.append((question, typed)))
    assert asked == [(asked[0][0], templated.name)]
    assert f"plan: -/+ source of the replica '{templated.name}': repository " in templated.said
    assert "plan: ~ refs of the replica: " in templated.said
    assert templated.up() == []
    configure(templated)
    with pytest.raises(MirrorError, match="it is another repository"):
        templated.up()
