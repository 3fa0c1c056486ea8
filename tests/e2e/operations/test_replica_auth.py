"""A role in place of the user: no stored secret, and a change from one to the other without a gap."""

import itertools
import json
import re
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from codecommit_mirror.aws import cdk
from codecommit_mirror.azure.connection import Allowed
from codecommit_mirror.checks.judging import Limits, judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.cli import cli
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations.plan import DEPLOY
from localcloud import sample
from localcloud.azure.service_connections import AUDIENCE, issuer, organization_id
from tests.e2e.conftest import NAMESPACES, ROOT, azure_environment
from tests.program import program

from .journeys import Killed, state_of

ROLE = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
  identity: {{organization_id: {organization_id}}}
  replica_auth: {auth}
  source_auth: job-token
mirrors:
  {name}:
    azure: {{repository: {name}}}
"""
CHANGE = [
    "cdk deploy",
    "PUT definition",
    "TagUser",
    "TagRole",
    "POST pushes",
    "POST build/builds",
    "PUT definition",
    "cdk deploy",
    # CloudFormation sets the role's tags anew.
    "TagRole",
]


def use(journey, auth):
    """Write how the mirror's pipeline signs in."""
    journey.config.write_text(
        ROLE.format(
            server=journey.cloud.azure_url,
            organization_id=organization_id("contoso"),
            name=journey.name,
            auth=auth,
        )
    )
    (journey.mirror,) = load_mirrors(journey.config, journey.name)


def assert_role(journey):
    """Nothing is stored; the pipeline works; both sides are equal."""
    iam = journey.cloud.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_user(UserName=journey.mirror.user_name)
    variables = state_of(journey.context()).definition.variables
    assert set(variables) == {"AZURE_REPO_URL", "AWS_REPO_URL", "AWS_ROLE_ARN"}
    assert not any(variable.get("isSecret") for variable in variables.values())
    sample.commit(journey.source, "main", "pushed by a role")
    assert journey.pipeline_works()
    mirrored = program.by_original_name(sample.refs(journey.replica), NAMESPACES)
    assert mirrored == sample.refs(journey.source, *NAMESPACES)
    judged = judge(read(journey.context(), deep=True), Limits(datetime.now(UTC), timedelta(hours=1)))
    assert (judged.readings.acts_as_role, judged.readings.error, judged.notable) == (True, None, [])


def logs(journey):
    """Return everything that the pipeline's steps wrote, before secrets were masked."""
    context = journey.context()
    builds = context.azure.builds(state_of(context).definition)
    return "\n".join("\n".join(journey.cloud.azure.run_log(build.id)["unmasked"]) for build in builds)


def test_a_pipeline_becomes_a_role_and_stores_no_secret(trip):
    trip.up()
    trip.assert_up()
    iam = trip.cloud.client("iam")
    for provider in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider["Arn"])
    use(trip, "role")
    with pytest.raises(MirrorError, match=r"run: cdk deploy 'codecommit-mirror-identity\*'"):
        trip.up()
    cdk.run(
        ROOT, ["deploy", "codecommit-mirror-identity", "--require-approval", "never", "-c", f"config={trip.config}"]
    )
    assert trip.up() == CHANGE
    assert_role(trip)
    text = logs(trip)
    assert "equal" in text
    # Tokens of OpenID Connect, keys of a session, and signed passwords.
    assert not re.search(r"\beyJ[\w-]+\.|\bASIA[A-Z0-9]{8,}|\b\d{8}T\d{6}Z[0-9a-f]{64}", text)
    trip.down()
    assert not trip.replica.exists()
    iam = trip.cloud.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName=trip.mirror.role_name)


@pytest.mark.parametrize("target", ["role", "user"])
def test_at_every_moment_of_the_change_the_pipeline_works(templated, target):
    journey = templated
    use(journey, "user" if target == "role" else "role")
    journey.up()
    use(journey, target)
    allowed = Allowed()
    for number in range(1, 16):
        try:
            journey.up(stop_after=number, allowed=allowed)
        except Killed:
            assert allowed.replace_pipeline or journey.pipeline_works(), journey.effects.seen
        except MirrorError:
            # The deployment that created the user may have taken the record from the role: no secret goes without one.
            if target == "role" or allowed.replace_pipeline:
                raise
            allowed = Allowed(replace_pipeline=True)
        else:
            break
    assert number > 3
    assert_role(journey) if target == "role" else journey.assert_up()


def test_a_new_pipeline_of_a_role_is_finished_wherever_it_stopped(templated):
    journey = templated
    use(journey, "role")
    stopped = []
    for effects in itertools.count(1):
        try:
            journey.up(stop_after=effects)
            break
        except Killed:
            stopped.append(journey.effects.seen)
    # A pipeline that nothing records is never taken for the mirror's: many can read the mark that it would go by.
    assert stopped[:3] == [
        ["cdk deploy"],
        ["TagRole", "POST build/definitions"],
        ["DELETE definition", "POST build/definitions", "TagRole"],
    ]
    assert_role(journey)


def test_ci_queues_one_run_and_waits_for_it_no_longer_than_told(templated):
    journey, azure = templated, templated.cloud.azure
    use(journey, "role")
    journey.up(stages=(DEPLOY,))

    def run(*arguments):
        arguments = (*arguments, "--config", str(journey.config), "--json")
        done = CliRunner(env=azure_environment(journey.cloud)).invoke(cli, arguments)
        found = json.loads(done.stdout)
        return done.exit_code, found["mirrors"][0], found.get("running")

    job = ("up", "--all", "--job", "--no-deploy")
    azure.set_agent_online(False)
    try:
        _, first, running = run(*job)
        assert (first["result"], running) == ("succeeded", [journey.name])
        assert re.fullmatch(r"queued run \d+", first["message"])
        status, again, running = run(*job)
        assert (status, running) == (0, [journey.name])
        assert re.fullmatch(r"run \d+ has not ended yet", again["message"])
        status, found, _ = run("verify", journey.name, "--wait", "--minutes", "0.01")
        assert (status, found["result"]) == (1, "left")
        status, found, _ = run("verify", journey.name, "--wait", "--patience", "0.01")
        assert (status, found["result"]) == (1, "failed")
        assert "there may be no free parallel job" in found["message"]
    finally:
        azure.set_agent_online(True)
    status, found, _ = run("verify", journey.name, "--wait")
    assert (status, found["result"]) == (0, "succeeded"), found
    _, found, running = run(*job)
    assert (found["message"], running) == ("nothing to do", [])


def test_nobody_else_becomes_the_role(templated):
    journey, cloud = templated, templated.cloud
    use(journey, "role")
    journey.up()
    arn = state_of(journey.context()).definition.variables["AWS_ROLE_ARN"]["value"]
    sts = boto3.client("sts", cloud.region, endpoint_url=cloud.aws_url, config=Config(signature_version=UNSIGNED))
    own = f"p://contoso/Shop/codecommit-mirror-{journey.name}"
    wrong = {
        (own + "2", AUDIENCE, issuer("contoso"), 600): "AccessDenied",
        (own.replace("Shop", "Other"), AUDIENCE, issuer("contoso"), 600): "AccessDenied",
        (f"sc://contoso/Shop/codecommit-mirror-{journey.name}", AUDIENCE, issuer("contoso"), 600): "AccessDenied",
        (own, "sts.amazonaws.com", issuer("contoso"), 600): "InvalidIdentityToken",
        (own, AUDIENCE, issuer("another"), 600): "InvalidIdentityToken",
        (own, AUDIENCE, issuer("contoso"), -1): "ExpiredTokenException",
    }
    for (subject, audience, of, seconds), code in wrong.items():
        token = cloud.web_identity_token(of, audience, subject, seconds)
        with pytest.raises(ClientError) as refused:
            sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="test", WebIdentityToken=token)
        assert refused.value.response["Error"]["Code"] in (code, "InvalidIdentityToken"), subject
    token = cloud.web_identity_token(issuer("contoso"), AUDIENCE, own)
    keys = sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="test", WebIdentityToken=token)["Credentials"]
    session = boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=cloud.region
    )
    with pytest.raises(ClientError):
        session.client("codecommit", endpoint_url=cloud.aws_url).get_repository(repositoryName=journey.name)
