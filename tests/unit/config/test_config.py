"""mirrors.yaml: what is accepted, and one sentence for each mistake."""

import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codecommit_mirror.config import azure_url
from codecommit_mirror.config.load import from_context, load_mirrors, single_mirror
from codecommit_mirror.config.mirror import Mirror, derive_stack_name
from codecommit_mirror.errors import MirrorError

GOOD = """\
defaults:
  region: eu-west-1
  azure: {organization: contoso, project: Shop}
  tags: {team: platform}
mirrors:
  MyRepoReplica:
    azure: {repository: MyRepo}
  other:
    azure: {project: Big Shop, repository: Other Repo}
    region: us-east-1
    tags: {tier: "1"}
    source_auth: job-token
    refs: [heads]
    on_destroy: retain
    termination_protection: true
"""


def load(tmp_path: Path, text: str, only: str | None = None) -> tuple[Mirror, ...]:
    path = tmp_path / "mirrors.yaml"
    path.write_text(text)
    return load_mirrors(path, only)


def test_defaults_are_merged_and_can_be_overridden(tmp_path):
    first, second = load(tmp_path, GOOD)
    assert first.azure.clone_url == "https://dev.azure.com/contoso/Shop/_git/MyRepo"
    assert (first.region, first.account, first.tags) == ("eu-west-1", None, {"team": "platform"})
    assert first.policy_name == "CodeCommitMyRepoReplicaGitPush"
    assert first.user_name == "azure-devops-pipeline-MyRepoReplica"
    assert (first.source_auth, first.refs, first.on_destroy) == ("pat", ("heads", "tags", "notes"), "delete")
    assert second.azure.clone_url == "https://dev.azure.com/contoso/Big%20Shop/_git/Other%20Repo"
    assert (second.region, second.tags) == ("us-east-1", {"team": "platform", "tier": "1"})
    assert (second.refs, second.on_destroy, second.termination_protection) == (("heads",), "retain", True)


def test_a_mirror_is_frozen(tmp_path):
    (mirror, _) = load(tmp_path, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        mirror.region = "us-east-1"


def test_scalars_stay_as_they_were_written(tmp_path):
    text = (
        'mirrors:\n  no:\n    account: 012345670123\n    azure: {organization: on, project: "1.10", repository: 0x10}\n'
    )
    (mirror,) = load(tmp_path, text)
    assert (mirror.name, mirror.account) == ("no", "012345670123")
    assert mirror.azure.clone_url == "https://dev.azure.com/on/1.10/_git/0x10"


def entry(lines: str) -> str:
    return f"mirrors:\n  R:\n    azure: {{organization: o, project: p, repository: r}}\n{lines}"


MISTAKES = {
    "unknown key": (entry("    colour: red\n"), "line 4: mirror 'R': colour is not a known key"),
    "unknown key below azure": (
        "mirrors:\n  R:\n    azure: {organization: o, project: p, repository: r, repo: x}\n",
        "line 3: mirror 'R': azure.repo is not a known key",
    ),
    "unknown key of two lines, the second a command to a build agent": (
        entry('    "a\\n##vso[task.complete result=Failed;]": x\n'),
        r"line 4: mirror 'R': a\n# #vso[task.complete result=Failed;] is not a known key",
    ),
    "unknown key at the top": ("mirors: {}\n", "line 1: 'mirors' is not a known key"),
    "a key close to name": (entry("    nmae: x\n"), "nmae is not a known key; remove it"),
    "name as a key": (entry("    name: x\n"), "line 4: mirror 'R': 'name' is not a known key"),
    "name in the defaults": ("defaults:\n  name: x\n", "line 2: 'name' is not a known key"),
    "missing azure": ("mirrors:\n  R: {}\n", "line 2: mirror 'R': azure is missing; add it here or under defaults."),
    "missing repository": (
        "mirrors:\n  R:\n    azure: {organization: o, project: p}\n",
        "line 3: mirror 'R': azure.repository is missing",
    ),
    "a mirror without keys": ("mirrors:\n  R:\n", "line 2: mirror 'R': azure is missing"),
    "a mirror that is text": ("mirrors:\n  R: text\n", "line 2: mirror 'R' is not a mapping"),
    "mirrors that are a list": ("mirrors: [R]\n", "line 1: 'mirrors' is not a mapping"),
    "azure that is text": ("mirrors:\n  R:\n    azure: text\n", "line 3: mirror 'R': azure is not a mapping"),
    "a file that is a list": ("- R\n", "it has no 'mirrors:' at the top"),
    "bad replica name": ("mirrors:\n  a/b: {}\n", "line 2: 'a/b' is not a CodeCommit repository name"),
    "replica name with .git": ("mirrors:\n  a.git: {}\n", "line 2: 'a.git' is not a CodeCommit repository name"),
    "replica name of 101 characters": (f"mirrors:\n  {'a' * 101}: {{}}\n", "is not a CodeCommit repository name"),
    "replica name like an option": ("mirrors:\n  --all: {}\n", "line 2: '--all' is not a CodeCommit repository name"),
    "empty replica name": ('mirrors:\n  "": {}\n', "line 2: '' is not a CodeCommit repository name"),
    "bad account": (entry("    account: 1234\n"), "line 4: mirror 'R': account: '1234' is not an AWS account id"),
    "bad region": (entry("    region: Ireland\n"), "line 4: mirror 'R': region: 'Ireland' is not an AWS region"),
    "bad user name": (entry("    user_name: a b\n"), "line 4: mirror 'R': user_name: 'a b' is not an IAM user name"),
    "user name too long": (entry(f"    user_name: {'u' * 65}\n"), "is not an IAM user name; use 1 to 64"),
    "bad policy name": (entry("    policy_name: a/b\n"), "policy_name: 'a/b' is not an IAM policy name"),
    "bad source_auth": (entry("    source_auth: ssh\n"), "source_auth is 'ssh'; use 'pat' or 'job-token'."),
    "bad on_destroy": (entry("    on_destroy: keep\n"), "on_destroy is 'keep'; use 'delete' or 'retain'."),
    "bad boolean": (
        entry("    termination_protection: maybe\n"),
        "termination_protection is 'maybe'; use true or false",
    ),
    "no value": (entry("    description:\n"), None),
    "a list for text": (entry("    region: [eu-west-1]\n"), "region holds a list or a mapping"),
    "refs that are text": (entry("    refs: heads\n"), "refs is 'heads'; write a list"),
    "refs that are empty": (entry("    refs: []\n"), "refs: is empty; name at least one"),
    "refs with a wildcard": (entry("    refs: ['*']\n"), "refs.0: '*' is not a namespace below refs/"),
    "bad schedule": (entry("    schedule: daily\n"), "schedule: 'daily' is not a cron schedule"),
    "reserved tag": (entry("    tags: {'aws:x': y}\n"), "tags: has the key 'aws:x', which AWS refuses"),
    "bad tag value": (entry("    tags: {k: 'a%'}\n"), "tags: has the value 'a%', which AWS refuses"),
    "description too long": (entry(f"    description: {'d' * 1001}\n"), "is not a valid description; use 1 to 1,000"),
    "bad organization": (
        "mirrors:\n  R:\n    azure: {organization: a/b, project: p, repository: r}\n",
        "azure.organization: 'a/b' is not a name that Azure DevOps allows",
    ),
    "template syntax in a repository": (
        "mirrors:\n  R:\n    azure: {organization: o, project: p, repository: '${{x}}'}\n",
        "azure.repository: '${{x}}' is not a name that Azure DevOps allows",
    ),
    "server without TLS": (
        "mirrors:\n  R:\n    azure: {organization: o, project: p, repository: r, server: 'http://tfs.contoso.com'}\n",
        "azure.server: 'http://tfs.contoso.com' would send credentials over http, unencrypted; use https://.",
    ),
    "a key given twice": (
        entry("    region: eu-west-1\n    region: eu-west-2\n"),
        "line 5: 'region' appears twice (first on line 4)",
    ),
    "a mirror given twice": ("mirrors:\n  R: {}\n  R: {}\n", "line 3: 'R' appears twice (first on line 2)"),
    "one stack for two": (
        "defaults:\n  azure: {organization: o, project: p, repository: r}\nmirrors:\n  my.repo: {}\n"
        "  my_repo: {azure: {repository: s}}\n",
        "line 5: mirror 'my_repo': its stack name 'my-repo' is also that of mirror 'my.repo'; rename one of the two.",
    ),
    "one user for two": (
        "defaults:\n  azure: {organization: o, project: p, repository: r}\n  user_name: u\n"
        "mirrors:\n  a: {}\n  b: {azure: {repository: s}}\n",
        "line 6: mirror 'b': its user_name 'u' is also that of mirror 'a'; give one of them a user_name of its own.",
    ),
    "one policy for two": (
        entry("    policy_name: P\n")
        + "  S:\n    azure: {organization: o, project: p, repository: s}\n    policy_name: p\n",
        "mirror 'S': its policy_name 'p' is also that of mirror 'R'",
    ),
    "one pipeline for two": (
        "defaults:\n  azure: {organization: o, project: p, repository: r}\nmirrors:\n  a: {}\n  b: {}\n",
        "line 5: mirror 'b': its pipeline 'azure-pipelines-mirror.yml in o/p/r' is also that of mirror 'a'; give "
        "one of them an azure.pipeline_path.",
    ),
    "a pipeline path that leaves": (
        entry("").replace("repository: r", "repository: r, pipeline_path: ../x.yml"),
        "azure.pipeline_path: '../x.yml' is not the path of a YAML file in a repository",
    ),
    "too many tags": (
        entry("    tags: {" + ", ".join(f"k{n}: v" for n in range(46)) + "}\n"),
        "tags: has 46 tags; use at most 44, since AWS allows 50 and the stack sets 6 of its own.",
    ),
    "a tag of the stack's own": (
        entry("    tags: {managed-by: me}\n"),
        "tags: has the key 'managed-by', which the stack sets",
    ),
    "another tag of the stack's own": (
        entry("    tags: {'codecommit-mirror:replica': me}\n"),
        "tags: has the key 'codecommit-mirror:replica', which the stack sets itself; remove it.",
    ),
    "a policy name that is not ASCII": (
        entry("    policy_name: café\n"),
        "policy_name: 'café' is not an IAM policy name",
    ),
    "a range that runs backwards": (
        entry("    schedule: 0 5-1 * * *\n"),
        "schedule: '0 5-1 * * *' has the hour '5-1', whose range runs backwards; write the lower end first.",
    ),
    "a weekday that is none": (
        entry("    schedule: 0 1 * * monkey\n"),
        "has the weekday 'monkey', which is not from 0 to 6, or Sun to Sat; write a schedule like '17 */6 * * *'.",
    ),
    "a day that never comes": (entry("    schedule: 0 1 31 feb *\n"), "never runs, because no such day exists"),
    "an organization's old address": (
        entry("").replace("repository: r", "repository: r, server: 'https://contoso.visualstudio.com'"),
        "is the old address of one organization; remove it, and set azure.organization to 'contoso'.",
    ),
    "the stack of cdk bootstrap": (
        "mirrors:\n  CDKToolkit: {}\n",
        "'CDKToolkit' is the name of the stack of 'cdk bootstrap'",
    ),
    "a dot": ("mirrors:\n  .: {}\n", "line 2: '.' is not a CodeCommit repository name"),
    "two dots": ("mirrors:\n  ..: {}\n", "line 2: '..' is not a CodeCommit repository name"),
    "an unknown key in the defaults of no mirror": (
        "defaults:\n  colour: red\n",
        "line 2: defaults: colour is not a known key; remove it or correct its spelling (known: azure, account,",
    ),
    "an unknown key below azure in the defaults of no mirror": (
        "defaults:\n  azure:\n    repo: x\nmirrors: {}\n",
        "line 3: defaults: azure.repo is not a known key",
    ),
    "not YAML": ("mirrors: [\n", "it is not valid YAML"),
    "a line that people do not see": (
        "mirrors: # ours\n  R: {} # as before\r    archive_days: 0\n",
        "line 2: a carriage return in it ends a line for YAML, and not for people",
    ),
    "a tab": ("mirrors:\n\tR: {}\n", "line 2: it is not valid YAML"),
    "an alias to itself": ("mirrors: &m\n  R: *m\n", "the alias refers to what contains it"),
    "a list as a key": ("? [a]\n: b\n", "line 1: a key is a list or a mapping"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_sentence(tmp_path, text, expected):
    if expected is None:
        (mirror,) = load(tmp_path, text)
        assert mirror.description is None
        return
    with pytest.raises(MirrorError) as caught:
        load(tmp_path, text)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "mirrors.yaml"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "branch",
    ["-x", "a..b", "refs/heads/main", ".hidden", "a/.b", "a.lock", "a.lock/b", "a/", "/a", "a//b", "a.", "@{u}", "a b"],
)
def test_a_branch_that_git_would_refuse_is_refused(tmp_path, branch):
    text = entry("").replace("repository: r", f"repository: r, default_branch: '{branch}'")
    with pytest.raises(MirrorError, match=r"azure.default_branch: .* is not a branch name; write one like main"):
        load(tmp_path, text)


@pytest.mark.parametrize("branch", ["main", "release/1.0", "feature/x-y_z", "ünï", "a@b", "refsx"])
def test_a_branch_that_git_accepts_is_accepted(tmp_path, branch):
    (mirror,) = load(tmp_path, entry("").replace("repository: r", f"repository: r, default_branch: '{branch}'"))
    assert mirror.azure.default_branch == branch


def test_every_mistake_of_a_file_is_told_at_once(tmp_path):
    with pytest.raises(MirrorError) as caught:
        load(tmp_path, entry("    region: x\n    account: y\n  S: {}\n"))
    assert [line.split(": ")[0].rpartition(" ")[2] for line in str(caught.value).splitlines()] == [
        "5",
        "4",
        "6",
    ] or len(str(caught.value).splitlines()) == 3


FULL = (
    GOOD
    + """\
  full:
    azure:
      server: https://tfs.contoso.com/tfs
      repository: Full
      default_branch: trunk
      pipelines_repository: mirrors
      pipelines_branch: main
      pipeline_path: mirrors/full.yml
    account: "111122223333"
    description: A text
    policy_name: Policy
    user_name: user
    schedule: 5,35 0-12/3 * jan-dec Mon-Friday
    archive_days: 30
    policy_on: group
guard:
  email: you@example.com
  stale_after: 7d
  snapshots: {every: 1d, keep: 400d, full_every: 30d, lock: governance}
ci:
  account: "111122223333"
  github: {repository: contoso/mirrors}
"""
)
PIECES = st.sampled_from(
    [
        "",
        " ",
        "  ",
        "\n",
        ":",
        ": ",
        "- ",
        "'",
        '"',
        "{",
        "}",
        "[",
        "]",
        "#",
        "\t",
        "\x00",
        "? ",
        "|",
        ">",
        "%",
        "@",
        "`",
    ]
    + ["&a", "*a", "<<: *a", "!!int", "null", "~", "yes", "0", "-1", "1e9", "9" * 30, "x" * 300, "é"]
    + ["$(x)", "${{x}}", "refs/heads/x"]
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FULL)), st.integers(0, 30), PIECES), min_size=1, max_size=4))
def test_a_mutated_file_ends_in_mirrors_or_in_sentences(tmp_path_factory, mutations):
    text = FULL
    for position, length, piece in mutations:
        text = text[:position] + piece + text[position + length :]
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        for mirror in load_mirrors(path):
            assert mirror.azure.clone_url.startswith("https://")
            assert re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,127}", mirror.stack_name)
    except MirrorError as error:
        for line in str(error).splitlines():
            assert line.startswith(str(path))
            assert line.endswith((".", "?"))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(MirrorError, match="codecommit-mirror init"):
        load_mirrors(tmp_path / "mirrors.yaml")


def test_one_mirror_of_many_is_validated_alone(tmp_path):
    text = GOOD + "  broken: {colour: red}\n"
    (mirror,) = load(tmp_path, text, only="other")
    assert mirror.name == "other"
    with pytest.raises(MirrorError, match="there is no mirror 'nobody'; the file has MyRepoReplica, broken, other"):
        load(tmp_path, text, only="nobody")


def test_choosing_one_mirror_still_finds_who_shares_its_stack(tmp_path):
    text = "defaults:\n  azure: {organization: o, project: p, repository: r}\nmirrors:\n  a.b: {}\n  a_b: {}\n"
    with pytest.raises(MirrorError, match="its stack name 'a-b' is also that of mirror"):
        load(tmp_path, text, only="a.b")


def test_context_gives_one_mirror_without_a_file():
    context = {"replica": "New", "azure_repo_url": "https://contoso@dev.azure.com/contoso/Shop/_git/My%20Repo"}
    ((mirror,), ci, guard) = from_context(context.get)
    assert (ci, guard) == ((), ())
    assert (mirror.name, mirror.azure.repository) == ("New", "My Repo")


@pytest.mark.parametrize("context", [{"replica": "New"}, {"azure_repo_url": "https://dev.azure.com/o/p/_git/r"}])
def test_half_a_context_is_refused(context):
    with pytest.raises(MirrorError, match="go together"):
        from_context(context.get)


def test_a_context_mistake_is_one_sentence():
    with pytest.raises(MirrorError, match="region: 'x' is not an AWS region"):
        single_mirror("R", "https://dev.azure.com/o/p/_git/r", region="x")


@pytest.mark.parametrize(
    ("url", "clone_url"),
    [
        ("https://dev.azure.com/o/p/_git/r", "https://dev.azure.com/o/p/_git/r"),
        ("https://o@dev.azure.com/o/p/_git/r", "https://dev.azure.com/o/p/_git/r"),
        ("dev.azure.com/o/p/_git/r/", "https://dev.azure.com/o/p/_git/r"),
        ("https://dev.azure.com/o/_git/r", "https://dev.azure.com/o/r/_git/r"),
        ("https://o.visualstudio.com/DefaultCollection/p/_git/r", "https://dev.azure.com/o/p/_git/r"),
        ("https://o.visualstudio.com/_git/r", "https://dev.azure.com/o/r/_git/r"),
        ("https://tfs.contoso.com:8080/tfs/Main/p/_git/r", "https://tfs.contoso.com:8080/tfs/Main/p/_git/r"),
        ("https://tfs.contoso.com/tfs/Main/_git/r", "https://tfs.contoso.com/tfs/Main/r/_git/r"),
        ("https://ado.contoso.com/Main/_git/r", "https://ado.contoso.com/Main/r/_git/r"),
        ("https://ado.contoso.com/Main/p/_git/r", "https://ado.contoso.com/Main/p/_git/r"),
        ("https://dev.azure.com/o/p/_git/r?path=/a%2Fb&version=GBmain", "https://dev.azure.com/o/p/_git/r"),
        ("https://dev.azure.com/o/p/_git/r/?_a=history#top", "https://dev.azure.com/o/p/_git/r"),
        ("http://127.0.0.1:9000/o/p/_git/r", "http://127.0.0.1:9000/o/p/_git/r"),
    ],
)
def test_every_form_of_an_azure_url_is_understood(url, clone_url):
    assert azure_url.build_clone_url(**azure_url.parse_clone_url(url)) == clone_url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "MyRepo",
        "https://github.com/o/r",
        "https://dev.azure.com/_git/r/x/../_git/",
        "http://dev.azure.com/o/p/_git/r",
        "ssh://git@ssh.dev.azure.com/v3/o/p/r",
        "https://dev.azure.com:99999999/o/p/_git/r",
    ],
)
def test_what_is_no_azure_url_is_refused_in_one_sentence(url):
    with pytest.raises(MirrorError) as caught:
        single_mirror("R", url)
    assert len(str(caught.value).splitlines()) == 1


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:*?\"'<>|;#$&~%@{}+,=[]", exclude_categories=("C",)),
    min_size=1,
    max_size=64,
)


# https://learn.microsoft.com/azure/devops/organizations/settings/naming-restrictions
outer_names = names.filter(lambda name: not name.startswith("_"))


@given(outer_names, outer_names, names)
def test_a_clone_url_names_the_repository_that_it_was_made_of(organization, project, repository):
    url = azure_url.build_clone_url("https://dev.azure.com", organization, project, repository)
    assert url.isascii()
    assert azure_url.parse_clone_url(url) == {
        "server": "https://dev.azure.com",
        "organization": organization,
        "project": project,
        "repository": repository,
    }


replicas = st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}", fullmatch=True).filter(
    lambda name: not name.endswith(".git") and name not in (".", "..")
)


@given(replicas)
def test_names_that_are_derived_are_ones_that_aws_takes(name):
    mirror = single_mirror(name, "https://dev.azure.com/o/p/_git/r")
    assert re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,127}", mirror.stack_name)
    assert re.fullmatch(r"[\w+=,.@-]{1,64}", mirror.user_name)
    assert re.fullmatch(r"[\w+=,.@-]{1,128}", mirror.policy_name)


@given(replicas, replicas)
def test_two_replicas_never_share_a_derived_user_or_policy(one, other):
    first, second = (single_mirror(name, "https://dev.azure.com/o/p/_git/r") for name in (one, other))
    if one != other:
        assert first.user_name != second.user_name
        assert first.policy_name != second.policy_name


def test_a_stack_name_starts_with_a_letter():
    assert derive_stack_name("my.repo_1") == "my-repo-1"
    assert derive_stack_name("1st") == "Replica-1st"


@pytest.mark.parametrize(
    "text",
    [
        "mirrors: {a: &a [x, x, x, x, x, x, x, x, x]}\n"
        + "defaults: {"
        + ", ".join(f"k{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else 'x'] * 9)}]" for n in range(9))
        + "}\n",
        "a: &a [*a]\n",
    ],
)
def test_a_yaml_bomb_is_one_sentence_and_takes_no_memory(tmp_path, text):
    """A few lines of aliases on aliases stood for 19 GB."""
    tracemalloc.start()
    try:
        with pytest.raises(MirrorError) as caught:
            load(tmp_path, text)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1


def test_aliases_within_reason_are_read(tmp_path):
    text = "defaults:\n  azure: {organization: o, project: p}\nmirrors:\n"
    text += "  a: &a\n    azure: {repository: r, pipelines_repository: m}\n  b: *a\n"
    assert [mirror.azure.repository for mirror in load(tmp_path, text)] == ["r", "r"]


def test_the_default_schedule_spreads_a_fleet():
    minutes = [single_mirror(f"m{n}", "https://dev.azure.com/o/p/_git/r").schedule.split()[0] for n in range(600)]
    assert len(set(minutes)) == 60
    assert max(map(minutes.count, minutes)) < 30
    assert single_mirror("m1", "https://dev.azure.com/o/p/_git/r").schedule.endswith(" */6 * * *")


def test_an_existing_repository_is_never_to_be_deleted(tmp_path):
    text = "mirrors:\n  a:\n    azure: {organization: o, project: p, repository: r}\n    existing: true\n"
    assert load(tmp_path, text)[0].keeps_replica
    assert load(tmp_path, text + "    on_destroy: retain\n")[0].keeps_replica
    with pytest.raises(
        MirrorError, match="with existing: true the repository is never deleted; remove on_destroy: delete"
    ):
        load(tmp_path, text + "    on_destroy: delete\n")
