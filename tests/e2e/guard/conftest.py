"""An embedded cloud of its own with a deployed guard, and replicas that it finds by their tags."""

import io
import json
import time
import zipfile
from pathlib import Path

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.guard import Store
from localcloud import LocalCloud
from localcloud.aws.codecommit.change_events import EventShape
from stacks import GuardStack

from ..conftest import create_stack

GUARD = "codecommit-mirror-guard"


class Guarded:
    """A cloud with a guard, invoked as its schedules do."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self._deploy()
        (stack,) = cloud.client("cloudformation").describe_stacks(StackName=GUARD)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        self.bucket, self.topic = outputs["SnapshotBucket"], outputs["TopicArn"]
        cloud.aws.confirm_subscriptions()
        self.s3 = cloud.client("s3")
        self.store = Store(self.s3, self.bucket)

    def _deploy(self) -> None:
        """Deploy the real template and the real code, without the CDK CLI, which the demo's tests use."""
        app = cdk.App(outdir=str(self.cloud.root / "cdk.out"))
        stack = GuardStack(app, guard=Guard(email="ops@example.com"))
        app.synth()
        template = Template.from_stack(stack).to_json()
        del template["Parameters"], template["Rules"]
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
        create_stack(self.cloud, GUARD, json.dumps(template))

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

    def keys(self, name: str) -> list[str]:
        """Return the keys of a replica's snapshots."""
        return sorted(self.store.versions(name))

    def mails(self, name: str, expected: int = 0) -> list[dict]:
        """Return the e-mails about a replica, once there are as many as expected and no event is on its way."""
        found: list[dict] = []
        for number in range(60):
            found = [mail for mail in self.cloud.mail() if f" {name} " in mail["subject"]]
            if number >= 8 and len(found) >= expected:
                break
            time.sleep(0.25)
        return found

    def session(self) -> boto3.Session:
        """Return a session of the account's administrator."""
        return boto3.Session(region_name=self.cloud.region)

    def environment(self) -> dict[str, str]:
        """Return the function's environment."""
        configuration = self.cloud.client("lambda").get_function_configuration(FunctionName=GUARD)
        return configuration["Environment"]["Variables"]


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
    """Let the test write to the bucket in the guard's place, with a clock of its own."""
    policy = guarded.s3.get_bucket_policy(Bucket=guarded.bucket)["Policy"]
    guarded.s3.delete_bucket_policy(Bucket=guarded.bucket)
    yield
    guarded.s3.put_bucket_policy(Bucket=guarded.bucket, Policy=policy)
