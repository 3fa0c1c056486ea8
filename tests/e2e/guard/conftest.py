"""An embedded cloud of its own with a deployed vault and guard, and replicas that the guard finds by their tags."""

import io
import json
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.guard.replica import replicas
from codecommit_mirror.guard.snapshot import Retention, Snapshots
from codecommit_mirror.guard.vault.vault import open_vault
from codecommit_mirror.guard_api import Store
from codecommit_mirror.stacks import GuardStack, VaultStack
from localcloud import LocalCloud, sample
from localcloud.aws.codecommit.change_events import EventShape

from ..conftest import create_stack

GUARD = "codecommit-mirror-guard"
VAULT = "codecommit-mirror-vault"
SECTION = Guard(email="ops@example.com")
RETENTION = Retention(timedelta(days=1), timedelta(days=400), timedelta(days=30), "COMPLIANCE")


class Guarded:
    """A cloud with a guard, invoked as its schedules do."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.deployer = _execution_role(cloud)
        self._deploy()
        self.bucket, self.key = self._output(VAULT, "Bucket"), self._output(VAULT, "SigningKeyArn")
        self.topic = self._output(GUARD, "TopicArn")
        cloud.aws.confirm_subscriptions()
        self.s3 = cloud.client("s3")
        self.store = Store(self.s3, self.bucket)

    def _output(self, stack_name: str, key: str) -> str:
        (stack,) = self.cloud.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
        return next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == key)

    def _deploy(self) -> None:
        """Deploy the real templates and the real code, without the CDK CLI, which the demo's tests use."""
        app = cdk.App(outdir=str(self.cloud.root / "cdk.out"))
        vault = VaultStack(app, guard=SECTION)
        guard = GuardStack(app, guard=SECTION, vault=vault)
        app.synth()
        create_stack(self.cloud, VAULT, json.dumps(_template(vault)), role=self.deployer)
        template = _template(guard)
        (function,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function")
        (folder,) = (path for path in Path(app.outdir).glob("asset.*") if path.is_dir())
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            for path in sorted(folder.rglob("*.py")):
                archive.write(path, path.relative_to(folder))
        bucket = f"assets-{self.cloud.account}"
        s3 = self.cloud.client("s3")
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": self.cloud.region})
        s3.put_object(Bucket=bucket, Key="guard.zip", Body=code.getvalue())
        function["Properties"]["Code"] = {"S3Bucket": bucket, "S3Key": "guard.zip"}
        create_stack(self.cloud, GUARD, json.dumps(template), role=self.deployer)

    def arn(self, name: str) -> str:
        """Return a replica's ARN."""
        return f"arn:aws:codecommit:{self.cloud.region}:{self.cloud.account}:{name}"

    def invoke(self, **payload: str) -> dict:
        """Invoke the function and wait for its answer; an error is returned as it is reported."""
        answer = self.cloud.client("lambda").invoke(FunctionName=GUARD, Payload=json.dumps(payload).encode())
        return json.loads(answer["Payload"].read())

    def snapshot(self, name: str) -> dict:
        """Take a replica's snapshot."""
        answer = self.invoke(task="snapshot", replica=self.arn(name))
        assert "errorMessage" not in answer, answer
        return answer

    def take(self, name: str, *, clock=lambda: datetime.now(UTC), retention=RETENTION, seconds=840):
        """Take a snapshot in this process with the guard's rights, and a clock and a retention of the test's."""
        session = self.as_guard()
        replica = replicas.find(session.client("resourcegroupstaggingapi"), self.arn(name))
        access, advertised = replicas.read_replica(session, session.client("codecommit"), replica)
        return Snapshots(self.open_vault(), retention, clock, seconds).take(name, access, advertised)

    def keys(self, name: str) -> list[str]:
        """Return the keys of a replica's snapshots."""
        return sorted(self.store.listing(name).by_key)

    def mails(self, name: str, expected: int = 0) -> list[dict]:
        """Return the e-mails about a replica, once there are as many as expected and no event is on its way."""
        found: list[dict] = []
        for number in range(240):
            found = [mail for mail in self.cloud.mail() if f" {name} " in mail["subject"]]
            if number >= 8 and len(found) >= expected:
                break
            time.sleep(0.25)
        return found

    def session(self) -> boto3.Session:
        """Return a session of the account's administrator."""
        return boto3.Session(region_name=self.cloud.region)

    def session_as(self, role: str) -> boto3.Session:
        """Return a session of a role, whose trust policy an administrator of IAM has changed for that."""
        iam, name = self.cloud.client("iam"), role.rpartition("/")[2]
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        me = self.cloud.client("sts").get_caller_identity()["Arn"]
        if not any(statement["Principal"] == {"AWS": me} for statement in trust["Statement"]):
            trust["Statement"].append({"Effect": "Allow", "Principal": {"AWS": me}, "Action": "sts:AssumeRole"})
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        keys = self.cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        return boto3.Session(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=self.cloud.region
        )

    def as_guard(self) -> boto3.Session:
        """Return a session of the guard's role."""
        return self.session_as(f"arn:aws:iam::{self.cloud.account}:role/{GUARD}-{self.cloud.region}")

    def open_vault(self):
        """Open the vault with the guard's rights."""
        session = self.as_guard()
        return open_vault(session.client("s3"), session.client("kms"), self.bucket, self.key)

    def environment(self) -> dict[str, str]:
        """Return the function's environment."""
        configuration = self.cloud.client("lambda").get_function_configuration(FunctionName=GUARD)
        return configuration["Environment"]["Variables"]

    def guard_environment(self) -> dict[str, str]:
        """Return what the function sees, for a guard in this process."""
        return {**self.environment(), "AWS_REGION": self.cloud.region, "AWS_LAMBDA_FUNCTION_NAME": GUARD}


@pytest.fixture(scope="session")
def recorded_cloud():
    """A cloud whose events look as recorded, with a guard."""
    with LocalCloud() as cloud:
        yield Guarded(cloud)


@pytest.fixture
def guarded(recorded_cloud):
    """The guard of the cloud with recorded events."""
    return recorded_cloud


@pytest.fixture
def cloud(guarded):
    """The guard's cloud, for whatever asks for one."""
    return guarded.cloud


@pytest.fixture
def kept(guarded, rig):
    """A replica that a run has confirmed and the guard has looked at, with a snapshot."""
    sample.fill(rig.source)
    rig.run()
    guarded.invoke(task="check")
    guarded.snapshot(rig.name)
    guarded.mails(rig.name)
    return rig


@pytest.fixture(scope="session", params=EventShape, ids=lambda shape: shape.value)
def shaped(request, recorded_cloud):
    """A cloud for each plausible shape of events, with a guard."""
    if request.param is EventShape.RECORDED:
        yield recorded_cloud
        return
    with LocalCloud(events=request.param.value) as cloud:
        yield Guarded(cloud)


@pytest.fixture
def without_policy(guarded):
    """Let the bucket's deployer take its policy away, for a test whose clock is ahead of the cloud's."""
    s3 = guarded.session_as(guarded.deployer).client("s3")
    policy = s3.get_bucket_policy(Bucket=guarded.bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=guarded.bucket)
    yield
    s3.put_bucket_policy(Bucket=guarded.bucket, Policy=policy)


def _template(stack) -> dict:
    """Return a stack's template without what only the CDK CLI fills in."""
    template = Template.from_stack(stack).to_json()
    del template["Parameters"], template["Rules"]
    return template


def _execution_role(cloud: LocalCloud) -> str:
    """Create the role that CloudFormation acts as in an account that was bootstrapped for CDK; return its ARN."""
    iam = cloud.client("iam")
    name = f"cdk-hnb659fds-cfn-exec-role-{cloud.account}-{cloud.region}"
    trust = {"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    return role
