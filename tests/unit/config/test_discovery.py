"""Which repositories become mirrors, under which names, and what is written."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.cli import cli
from codecommit_mirror.config.discovery import DiscoveredRepository, add, choose, name_of, set_organization_id
from codecommit_mirror.config.load import load_mirrors, single_mirror
from codecommit_mirror.config.mirror import REPLICA_NAME, check_replica_name, derive_stack_name
from codecommit_mirror.errors import MirrorError


def found(repository, project="Shop", branch="main", disabled=False):
    return DiscoveredRepository(project, repository, branch, disabled)


def states(*repositories, **options):
    return {(c.repository.name, c.state) for c in choose(repositories, (), (), **options)}


def test_a_name_that_the_file_does_not_take_does_not_stop_the_others(tmp_path):
    """Older projects have names that Azure DevOps would refuse today."""
    candidates = choose([found("Old", "R&D"), found("New")], (), ())
    assert [(c.repository.name, c.state, c.name) for c in candidates] == [
        ("Old", "unsupported", None),
        ("New", "new", "New"),
    ]
    path = tmp_path / "mirrors.yaml"
    path.write_text(add(path, [c for c in candidates if c.state == "new"], "contoso", None))
    assert [mirror.name for mirror in load_mirrors(path)] == ["New"]


def test_each_repository_is_told_what_becomes_of_it():
    mirrored = single_mirror("Mine", "https://dev.azure.com/contoso/shop/_git/myrepo")
    repositories = [found("MyRepo"), found("Old", disabled=True), found("Empty", branch=None), found("Shop.wiki")]
    candidates = choose([*repositories, found("New")], [mirrored], ["Mine"])
    assert [(c.repository.name, c.state, c.name) for c in candidates] == [
        ("Empty", "empty", None),
        ("MyRepo", "mirrored", "Mine"),
        ("New", "new", "New"),
        ("Old", "disabled", None),
        ("Shop.wiki", "wiki", None),
    ]
    assert states(found("Shop.wiki"), wikis=True) == {("Shop.wiki", "new")}


def test_globs_choose_by_repository_and_by_project():
    both = (found("api"), found("web-old"))
    assert states(*both, include=["API"]) == {("api", "new"), ("web-old", "excluded")}
    assert states(*both, include=["Shop/*"], exclude=["*-old"]) == {("api", "new"), ("web-old", "excluded")}


@pytest.mark.parametrize(
    ("repository", "name"),
    [("My Repo", "My-Repo"), ("a&b (c)", "a-b-c"), ("-x-", "x"), ("r.git", "r"), ("Ünï", "n"), ("x" * 120, None)],
)
def test_names_are_those_that_codecommit_accepts(repository, name):
    given_name, note = name_of(found(repository), ())
    assert given_name == name or name is None
    assert note == f"named after {repository!r}"


def test_clashes_are_resolved_and_said():
    candidates = choose([found("api", "A"), found("API", "B"), found("B-API", "A"), found("a.p i", "C")], (), ())
    assert [(c.repository.name, c.name, c.note) for c in candidates] == [
        ("api", "api", ""),
        ("B-API", "B-API", ""),
        ("API", "API-014962bf", "'API' is taken"),
        ("a.p i", "a.p-i", "named after 'a.p i'"),
    ]


@given(st.lists(st.tuples(st.sampled_from(["A", "B b"]), st.text(min_size=1, max_size=130)), max_size=12))
def test_every_name_is_valid_and_no_two_share_a_stack(pairs):
    repositories = [DiscoveredRepository(project, name, "main", False) for project, name in dict.fromkeys(pairs)]
    names = [candidate.name for candidate in choose(repositories, (), (), wikis=True)]
    for name in filter(None, names):
        assert REPLICA_NAME.fullmatch(name)
        check_replica_name(name)
    stacks = [derive_stack_name(name).lower() for name in filter(None, names)]
    assert len(set(stacks)) == len(stacks)


FILE = """\
# Our mirrors.
defaults:
  azure: {organization: contoso, project: Shop}   # most are there
mirrors:
  # The first one.
  MyRepoReplica:
    azure: {repository: "MyRepo"}
# guard: later
"""


def test_entries_are_added_and_comments_and_order_stay(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(FILE)
    candidates = choose([found("New"), found("api", "Other")], (), ["MyRepoReplica"])
    path.write_text(add(path, candidates, "contoso", None))
    text = path.read_text()
    for line in (
        "# Our mirrors.",
        "# most are there",
        "  # The first one.",
        'azure: {repository: "MyRepo"}',
        "# guard:",
    ):
        assert line in text
    mirrors = load_mirrors(path)
    assert [(m.name, m.azure.project, m.azure.repository) for m in mirrors] == [
        ("MyRepoReplica", "Shop", "MyRepo"),
        ("api", "Other", "api"),
        ("New", "Shop", "New"),
    ]
    assert len(re.findall("organization", text)) == 1


def test_a_file_is_made_if_there_is_none(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(add(path, choose([found("R")], (), ()), "contoso", "https://tfs.example.com/tfs"))
    (mirror,) = load_mirrors(path)
    assert (mirror.azure.organization, mirror.azure.server) == ("contoso", "https://tfs.example.com/tfs")


def test_what_is_no_yaml_is_a_sentence(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text("mirrors: [\n")
    with pytest.raises(MirrorError, match=r"cannot be added to .*; correct it first"):
        add(Path(path), (), "contoso", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ci: {azure: x}\nmirrors:\n", "azure is 'x', which is not a mapping"),
        ("defaults: {identity: x}\nmirrors:\n", "identity is 'x', which is not a mapping"),
    ],
)
def test_an_id_goes_into_a_mapping_only(tmp_path, text, words):
    path = tmp_path / "mirrors.yaml"
    path.write_text(text)
    with pytest.raises(MirrorError, match=words):
        set_organization_id(path, "contoso", "id")


def test_defaults_of_sources_are_a_mapping(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text("defaults: {azure: x}\nmirrors:\n")
    done = CliRunner().invoke(cli, ["config", "identity", "--config", str(path)])
    assert isinstance(done.exception, MirrorError)
    assert "defaults.azure is 'x'; write organization and project below it" in str(done.exception)
