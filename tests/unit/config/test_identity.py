"""``replica_auth: role`` in mirrors.yaml: whom a role trusts, and which identity provider it needs."""

import pytest

from codecommit_mirror.config.identity import EarlierSignIn, auth_migration_context, parse_auth_migration
from codecommit_mirror.config.load import identity_providers
from codecommit_mirror.config.load import load as load_configuration
from codecommit_mirror.errors import MirrorError

from .test_config import GOOD, load

ID = "89abcdef-0123-4567-89ab-cdef01234567"
CI_IN_AZURE = f"""\
ci:
  account: "111122223333"
  region: eu-west-1
  azure: {{organization: contoso, organization_id: {ID}, project: Platform, repository: mirrors}}
"""


def with_defaults(lines):
    return GOOD.replace("  tags: {team", f"  {lines}\n  tags: {{team")


def test_a_role_trusts_the_mirrors_own_pipeline(tmp_path):
    (mirror, _) = load(tmp_path, with_defaults(f"identity: {{organization_id: {ID}}}"))
    assert mirror.replica_auth == "user"
    text = with_defaults(f"replica_auth: role\n  identity: {{organization_id: {ID}}}")
    first, second = load(tmp_path, text)
    assert first.token_subject == "p://contoso/Shop/codecommit-mirror-MyRepoReplica"
    assert second.token_subject == "p://contoso/Big Shop/codecommit-mirror-other"
    assert first.writer == "role/azure-devops-pipeline-MyRepoReplica"
    (provider,) = identity_providers([first, second], ())
    assert (provider.issuer, provider.account, provider.region) == (
        f"https://vstoken.dev.azure.com/{ID}",
        None,
        "eu-west-1",
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("replica_auth: role", "replica_auth: role needs identity.organization_id; 'codecommit-mirror config"),
        (
            "replica_auth: role\n  identity: {organization_id: 00000000-0000-0000-0000-000000000000}",
            "is not the id of an organization; 'codecommit-mirror config identity --write' reads and writes it",
        ),
        (f"replica_auth: role\n  identity: {{organization_id: {ID[:-1]}}}", "is not the id of an organization"),
        (
            f"replica_auth: role\n  policy_on: group\n  identity: {{organization_id: {ID}}}",
            "policy_on: group is for users",
        ),
        ("replica_auth: roles", "replica_auth is 'roles'; use 'user' or 'role'."),
        (f"identity: {{organisation_id: {ID}}}", "organisation_id is not a known key"),
    ],
)
def test_a_role_without_what_it_needs_is_refused(tmp_path, line, expected):
    with pytest.raises(MirrorError) as error:
        load(tmp_path, with_defaults(line))
    assert expected in str(error.value)


def test_a_role_needs_a_name_that_iam_accepts(tmp_path):
    text = GOOD.replace("Big Shop", "Laden Łódź").replace("source_auth: job-token", "replica_auth: role")
    with pytest.raises(MirrorError, match="needs names that IAM accepts in a policy"):
        load(tmp_path, text.replace("  tags: {team", f"  identity: {{organization_id: {ID}}}\n  tags: {{team"))


def test_ci_in_azure_devops_and_the_roles_share_an_identity_provider(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(CI_IN_AZURE + with_defaults("replica_auth: role"))
    mirrors, cis, _ = load_configuration(path)
    assert mirrors[0].identity.organization_id == ID
    (provider,) = identity_providers(mirrors, cis)
    assert (provider.account, provider.audiences) == ("111122223333", ("api://AzureADTokenExchange",))
    assert identity_providers(mirrors[:0], cis) == (provider,)
    assert identity_providers([], ()) == ()


def test_two_organizations_need_two_identity_providers_of_which_one_is_made_by_hand(tmp_path):
    other = ID.replace("0", "1")
    text = with_defaults(f"replica_auth: role\n  identity: {{organization_id: {ID}}}")
    text = text.replace("source_auth: job-token", f"identity: {{organization_id: {other}}}")
    with pytest.raises(MirrorError, match=r"set identity\.provider_arn for its mirrors"):
        identity_providers(load(tmp_path, text), ())


@pytest.mark.parametrize("context", ["x", "[]", '{"M": 1}', '{"M": {"user": true}}'])
def test_a_context_that_up_did_not_give_is_one_sentence(context):
    with pytest.raises(MirrorError, match=r"the context auth_migration is .* leave it out"):
        parse_auth_migration(context)


def test_what_up_gives_is_what_the_app_gets():
    migrations = {"M": EarlierSignIn(user=True), "N": EarlierSignIn(subjects=("p://o/p, q/n",))}
    assert parse_auth_migration(auth_migration_context(migrations)) == migrations


@pytest.mark.parametrize("key", ["subject", "audience"])
def test_a_variable_of_iam_policies_is_refused_where_a_token_is_named(tmp_path, key):
    with pytest.raises(MirrorError, match=r"is not the .* of a token"):
        load(tmp_path, with_defaults(f"identity: {{organization_id: {ID}, {key}: 'p://${{aws:username}}'}}"))
