"""The roles of CI and the identity provider: whom they trust, and what they may do."""

import json

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.ci import Ci
from codecommit_mirror.config.identity import IdentityProvider
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.stacks import DeployRoleStack, IdentityStack, ReplicaStack

from .test_stacks import CONTEXT, ORGANIZATION_ID, PACKS, URL, findings, logical_id, of_type

CI = {
    "azure": Ci.model_validate(
        {
            "account": "111122223333",
            "region": "eu-west-1",
            "azure": {
                "organization": "contoso",
                "organization_id": "89abcdef-0123-4567-89ab-cdef01234567",
                "project": "Platform",
                "repository": "mirrors",
            },
        }
    ),
    "github": Ci.model_validate(
        {"account": "111122223333", "region": "eu-west-1", "github": {"repository": "contoso/mirrors"}}
    ),
}
SERVICES = pytest.mark.parametrize("service", CI)


def resolved(value):
    """Return a value as it is in the account of the tests."""
    if isinstance(value, list):
        return [resolved(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        return "".join(resolved(value["Fn::Join"][1]))
    known = {"AWS::Partition": "aws", "AWS::AccountId": "111122223333"}
    return known[value["Ref"]] if "Ref" in value else {key: resolved(part) for key, part in value.items()}


def roles_stack(service, context=CONTEXT, **changes):
    app = cdk.App(context=context, analytics_reporting=False)
    return DeployRoleStack(app, ci=CI[service].model_copy(update=changes))


@SERVICES
def test_each_role_trusts_these_tokens_and_no_others(service):
    document = Template.from_stack(roles_stack(service)).to_json()
    trust = CI[service].trust
    host = trust.issuer.removeprefix("https://")
    if service == "github":
        provider = of_type(document, "AWS::IAM::OIDCProvider")["Properties"]
        assert (provider["Url"], provider["ClientIdList"]) == (trust.issuer, [trust.audience])
        trusted = {"Ref": logical_id(document, "AWS::IAM::OIDCProvider")}
    else:
        # The identity provider's own stack has it, for the mirrors' roles too.
        trusted = f"arn:aws:iam::111122223333:oidc-provider/{host}"
    for prefix, subjects in (("Diff", trust.diff), ("Deploy", trust.deploy)):
        role = of_type(document, "AWS::IAM::Role", f"Roles{prefix}")["Properties"]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Principal"] == {"Federated": trusted}
        assert statement["Condition"] == {
            "StringEquals": {f"{host}:aud": trust.audience, f"{host}:sub": list(subjects)}
        }
        assert "Policies" not in role
        assert role["MaxSessionDuration"] == 3600


def test_the_roles_policies_are_these_documents():
    document = Template.from_stack(roles_stack("github")).to_json()

    def statements(prefix):
        policy = of_type(document, "AWS::IAM::ManagedPolicy", f"Roles{prefix}")["Properties"]
        return resolved(policy["PolicyDocument"]["Statement"])

    stacks, roles = "arn:aws:cloudformation:*:111122223333:stack/*", "arn:aws:iam::111122223333:role/*"
    ours = {"StringEquals": {"aws:ResourceTag/managed-by": "codecommit-mirror"}}
    record = ["codecommit-mirror:pipeline", "codecommit-mirror:source"]
    looking = [
        {
            "Effect": "Allow",
            "Action": [
                "cloudformation:DescribeStacks",
                "codecommit:ListRepositories",
                "iam:GetAccountSummary",
                "servicequotas:GetServiceQuota",
            ],
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Action": "cloudformation:GetTemplate",
            "Resource": stacks,
            "Condition": ours,
        },
        {"Effect": "Allow", "Action": "iam:ListRoleTags", "Resource": roles, "Condition": ours},
    ]
    assert statements("Diff") == looking
    bootstrap = "arn:aws:iam::111122223333:role/cdk-hnb659fds-{}-role-111122223333-*"
    assert statements("Deploy") == [
        *looking,
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": [bootstrap.format("deploy"), bootstrap.format("file-publishing")],
        },
        {
            "Effect": "Allow",
            "Action": ["codecommit:GetRepository", "codecommit:GitPull"],
            "Resource": "arn:aws:codecommit:*:111122223333:*",
            "Condition": {"Null": {"aws:ResourceTag/codecommit-mirror:replica": "false"}},
        },
        {
            "Effect": "Allow",
            "Action": "iam:TagRole",
            "Resource": roles,
            "Condition": {
                "StringEquals": {"aws:ResourceTag/codecommit-mirror:provisioned-from": "github.com/contoso/mirrors"},
                "ForAllValues:StringEquals": {"aws:TagKeys": record},
            },
        },
        {
            "Effect": "Allow",
            "Action": ["cloudformation:DeleteStack", "cloudformation:DescribeStackEvents"],
            "Resource": stacks,
            "Condition": {
                "StringEquals": {
                    "aws:ResourceTag/codecommit-mirror:provisioned-from": "github.com/contoso/mirrors",
                }
            },
        },
    ]


def test_another_bootstrap_and_a_provider_that_is_there_are_used():
    provider = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
    context = {**CONTEXT, "@aws-cdk/core:bootstrapQualifier": "ours"}
    document = Template.from_stack(roles_stack("github", context, provider_arn=provider)).to_json()
    kinds = {resource["Type"] for resource in document["Resources"].values()}
    assert kinds == {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}
    assert "role/cdk-ours-deploy-role-" in json.dumps(document)
    assert json.dumps(document).count(f'"Federated": "{provider}"') == 2


@PACKS
@SERVICES
def test_cdk_nag_is_clean_or_acknowledged_for_the_roles(pack, service):
    assert findings(roles_stack(service), pack) == []


def identity_stack():
    provider = IdentityProvider(CI["azure"].trust.issuer, ("api://AzureADTokenExchange",), "111122223333", "eu-west-1")
    return IdentityStack(cdk.App(context=CONTEXT, analytics_reporting=False), provider=provider)


def test_the_identity_provider_knows_the_issuer_and_the_audience():
    document = Template.from_stack(identity_stack()).to_json()
    (resource,) = document["Resources"].values()
    assert resource["Type"] == "AWS::IAM::OIDCProvider"
    assert resource["Properties"]["Url"] == f"https://vstoken.dev.azure.com/{ORGANIZATION_ID}"
    assert resource["Properties"]["ClientIdList"] == ["api://AzureADTokenExchange"]


@PACKS
def test_cdk_nag_is_clean_for_the_identity_provider(pack):
    assert findings(identity_stack(), pack) == []


def test_mirrors_may_have_a_bootstrap_and_a_boundary_of_their_own():
    """With the policy that ci policy prints; CI assumes that bootstrap's roles, and what a person deploys does not."""
    context = {**CONTEXT, "codecommit-mirror:qualifier": "ccmirror", "codecommit-mirror:boundary": "limit"}
    app = cdk.App(context=context, analytics_reporting=False)
    mirror = json.dumps(Template.from_stack(ReplicaStack(app, mirror=single_mirror("M", URL))).to_json())
    assert "/cdk-bootstrap/ccmirror/version" in mirror
    assert mirror.count(":policy/limit") == 2  # the user and the clean-up's role
    roles = json.dumps(Template.from_stack(roles_stack("github", context)).to_json())
    assert "role/cdk-ccmirror-deploy-role-" in roles
    assert "hnb659fds-deploy-role" not in roles
    assert "/cdk-bootstrap/hnb659fds/version" in roles
    assert "policy/limit" not in roles
