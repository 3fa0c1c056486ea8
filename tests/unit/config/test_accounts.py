"""How mirrors.yaml says that an account is signed in to."""

import re

import aws_cdk as cdk
import pytest

from codecommit_mirror.app import _add_stacks
from codecommit_mirror.cli.options import narrowed, section_of
from codecommit_mirror.config.discovery import set_organization_id
from codecommit_mirror.config.load import load, load_mirrors, takes_snapshots
from codecommit_mirror.errors import MirrorError


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("profile: team", "profile needs account, so that no other one can be meant; write its 12 digits, in quotes"),
        ("profile: 'a b', account: '111122223333'", "profile: 'a b' is not the name of an AWS profile"),
        (
            "profile: a, assume_role: 'arn:aws:iam::111122223333:role/r', account: '111122223333'",
            "profile and assume_role are two ways into an account; remove one of them",
        ),
        (
            "assume_role: 'arn:aws:iam::444455556666:role/r', account: '111122223333'",
            "assume_role 'arn:aws:iam::444455556666:role/r' is in another account than 111122223333; correct one",
        ),
        ("assume_role: r, account: '111122223333'", "assume_role: 'r' is not the ARN of a role"),
    ],
)
def test_how_an_account_is_signed_in_to_must_be_clear(tmp_path, keys, sentence):
    path = tmp_path / "mirrors.yaml"
    path.write_text(f"mirrors:\n  R: {{azure: 'https://dev.azure.com/o/p/_git/r', {keys}}}\n")
    with pytest.raises(MirrorError) as caught:
        load_mirrors(path)
    assert sentence in str(caught.value)


TWO = """\
ci:
  - {account: '111122223333', region: eu-west-1, github: {repository: o/r}}
  - {account: '444455556666', region: eu-central-1, name: other, github: {repository: o/r}}
guard:
  - {account: '111122223333', region: eu-west-1, email: a@example.com}
  - {account: '444455556666', region: eu-central-1, email: b@example.com, snapshots: 'off'}
mirrors:
  R: {azure: 'https://dev.azure.com/o/p/_git/r', account: '111122223333', profile: team}
  S: {azure: 'https://dev.azure.com/o/p/_git/s', account: '444455556666', profile: other}
"""


def test_one_file_has_ci_and_a_guard_for_each_account(tmp_path, monkeypatch):
    path = tmp_path / "mirrors.yaml"
    path.write_text(TWO)
    found = load(path)
    first, second = found.mirrors
    assert (first.region, second.region) == ("eu-west-1", "eu-central-1")
    assert [found.ci_of(mirror.account).deploy_role for mirror in found.mirrors] == [
        "codecommit-mirror-deploy",
        "codecommit-mirror-deploy-other",
    ]
    assert [found.guard_of(mirror).email for mirror in found.mirrors] == ["a@example.com", "b@example.com"]
    assert [takes_snapshots(found, ci) for ci in found.cis] == [True, False]
    # A job has credentials of its own, and people's ways in are not its.
    assert narrowed(found.mirrors) == found.mirrors
    monkeypatch.setenv("CODECOMMIT_MIRROR_ACCOUNT", "444455556666")
    (alone,) = narrowed(found.mirrors)
    assert (alone.name, alone.profile) == ("S", None)
    assert section_of(found) is found.cis[1]


def test_a_mirror_of_no_known_guard_drops_no_pinned_key(tmp_path):
    path = tmp_path / "mirrors.yaml"
    pinned = TWO.replace("email: a@example.com", f"email: a@example.com, keys: ['{'ab' * 32}']")
    path.write_text(
        pinned + "  T: {azure: 'https://dev.azure.com/o/p/_git/t', account: '111122223333', region: us-east-1}\n"
    )
    found = load(path)
    first, second, elsewhere = found.mirrors
    assert (found.pinned_keys(first), found.pinned_keys(second)) == (("ab" * 32,), ())
    with pytest.raises(MirrorError, match="T is in the account and region of no section 'guard'"):
        found.pinned_keys(elsewhere)


def test_the_app_has_the_stacks_of_each_account(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(TWO)
    app = cdk.App(context={"config": str(path)}, analytics_reporting=False)
    _add_stacks(app)
    assert sorted((stack.node.id, stack.account) for stack in app.node.children if isinstance(stack, cdk.Stack)) == [
        ("R", "111122223333"),
        ("S", "444455556666"),
        ("codecommit-mirror-ci", "111122223333"),
        ("codecommit-mirror-ci-other", "444455556666"),
        ("codecommit-mirror-guard-111122223333-eu-west-1", "111122223333"),
        ("codecommit-mirror-guard-444455556666-eu-central-1", "444455556666"),
        ("codecommit-mirror-vault-111122223333-eu-west-1", "111122223333"),
        ("codecommit-mirror-vault-444455556666-eu-central-1", "444455556666"),
    ]
    names = {stack.stack_name for stack in app.node.children if isinstance(stack, cdk.Stack)}
    assert {"codecommit-mirror-guard", "codecommit-mirror-vault"} <= names


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("account: '444455556666', region: eu-central-1, name", "account: '111122223333', region: us-east-1, name",
         "there are two sections for account 111122223333"),
        (", name: other", "", "two sections have no name"),
        (", account: '111122223333', profile: team", "", "account is missing, and the file has CI in several accounts"),
        ("{account: '444455556666', region: eu-central-1, email", "{account: '111122223333', region: eu-west-1, email",
         "needs an account and a region of its own"),
        ("guard:\n", "guard:\n  - 1\n", "'guard' is not a mapping"),
    ],
)  # fmt: skip
def test_a_mistake_in_several_sections_is_a_sentence_with_its_line(tmp_path, old, new, says):
    path = tmp_path / "mirrors.yaml"
    assert old in TWO
    path.write_text(TWO.replace(old, new, 1))
    with pytest.raises(MirrorError, match=says) as caught:
        load(path)
    assert re.match(rf"{re.escape(str(path))}, line \d+: ", str(caught.value))


def test_an_organizations_id_goes_into_its_own_sections_only(tmp_path):
    path = tmp_path / "mirrors.yaml"
    sections = ("azure: {organization: contoso}", "azure: {organization: fabrikam}", "github: {repository: o/r}")
    path.write_text("ci:\n" + "".join(f"- {section}\n" for section in sections))
    assert set_organization_id(path, "fabrikam", "id").count("organization_id") == 1
    assert "{organization: fabrikam, organization_id: id}" in set_organization_id(path, "fabrikam", "id")
