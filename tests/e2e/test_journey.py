"""``up``, ``rotate`` and ``down``: stopped after every single effect, and begun again, they end in the right state."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import botocore.client
import httpx
import pytest

from codecommit_mirror.aws import cdk
from codecommit_mirror.aws.stack import ReplicaStackState
from codecommit_mirror.azure import held_credential
from codecommit_mirror.azure import http as azure_http
from codecommit_mirror.azure.client import AzureDevOps
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.lifecycle import preflight, verification
from codecommit_mirror.lifecycle import rotate as rotation
from codecommit_mirror.lifecycle import status as mirror_status
from codecommit_mirror.lifecycle import up as journey
from codecommit_mirror.lifecycle.context import Operator
from codecommit_mirror.progress import Checklist
from localcloud import sample
from tests.program import program

from .conftest import NAMESPACES, ROOT, azure_environment

counter = itertools.count()
MIRRORS = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
mirrors:
  {name}:
    azure: {{repository: {name}}}
"""
UP = [
    "cdk deploy",
    "POST build/definitions",
    "POST pushes",
    "PUT definition",
    "CreateServiceSpecificCredential",
    "PUT definition",
    "POST build/builds",
]
ROTATE = [
    "PUT definition",
    "CreateServiceSpecificCredential",
    "PUT definition",
    "POST build/builds",
    "UpdateServiceSpecificCredential",
    "POST build/builds",
    "UpdateServiceSpecificCredential",
    "DeleteServiceSpecificCredential",
    "PUT definition",
]
DOWN = [
    "DELETE build/retention/leases",
    "DELETE definition",
    "POST pushes",
    "UpdateServiceSpecificCredential",
    "DeleteServiceSpecificCredential",
    "cdk destroy",
]


class Killed(BaseException):
    """Stands for a signal that no code can catch."""


class Effects:
    """Notes every call that changes something, and stops this program after one of them."""

    def __init__(self, monkeypatch) -> None:
        self.seen, self.passwords, self.stop_after = [], [], None
        send, make_call, run_cdk = azure_http.AzureHttp._send, botocore.client.BaseClient._make_api_call, cdk.run

        def azure(http, method, path, *arguments, **options):
            answer = send(http, method, path, *arguments, **options)
            if method != "GET" and not path.endswith("/preview"):
                self.note(f"{method} {self.short(path)}")
            return answer

        def aws(client, operation, parameters):
            answer = make_call(client, operation, parameters)
            if operation.endswith("ServiceSpecificCredential"):
                if operation.startswith("Create"):
                    self.passwords.append(answer["ServiceSpecificCredential"]["ServicePassword"])
                self.note(operation)
            return answer

        def cdk_cli(folder, arguments):
            answer = run_cdk(folder, arguments)
            self.note(f"cdk {arguments[0]}")
            return answer

        monkeypatch.setattr(azure_http.AzureHttp, "_send", azure)
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", aws)
        monkeypatch.setattr(cdk, "run", cdk_cli)

    @staticmethod
    def short(path):
        if path.startswith("build/definitions/"):
            return "definition"
        return path.rpartition("/")[2] if path.startswith("git/") else path

    def note(self, effect):
        self.seen.append(effect)
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise Killed(effect)


class Journey:
    """A mirror in mirrors.yaml, from nothing."""

    def __init__(self, cloud, folder, monkeypatch, capfd) -> None:
        self.cloud, self.name, self.capfd = cloud, f"journey-{next(counter)}-{os.getpid()}", capfd
        self.source = cloud.create_azure_repository("contoso", "Shop", self.name)
        sample.fill(self.source)
        self.config = folder / "mirrors.yaml"
        self.config.write_text(MIRRORS.format(server=cloud.azure_url, name=self.name))
        (self.mirror,) = load_mirrors(self.config, self.name)
        self.replica = cloud.replica_path(self.name)
        self.effects = Effects(monkeypatch)
        self.said = ""

    def operator(self) -> Operator:
        context = ("-c", f"config={self.config}", "-c", f"mirror={self.name}")
        return Operator(self.mirror, azure_environment(self.cloud), ROOT, context)

    def do(self, what, *arguments, stop_after=None):
        """Run one journey to its end, or until it is killed; return its effects."""
        self.effects.seen, self.effects.stop_after = [], stop_after
        try:
            with Checklist(()) as checklist:
                what(self.operator(), checklist, *arguments)
        finally:
            captured = self.capfd.readouterr()
            self.said += captured.out + captured.err
        return self.effects.seen

    def up(self, **options):
        return self.do(journey.up, **options)

    def rotate(self, **options):
        return self.do(journey.rotate, lambda question: None, **options)

    def down(self, **options):
        return self.do(journey.down, lambda question: None, **options)

    @property
    def credentials(self):
        iam = self.cloud.client("iam")
        return iam.list_service_specific_credentials(UserName=self.mirror.user_name)["ServiceSpecificCredentials"]

    def assert_up(self):
        """One credential, which the pipeline holds; it works; both sides are equal; nothing leaked."""
        (credential,) = self.credentials
        assert credential["Status"] == "Active"
        definition = journey.look(self.operator())[1].definition
        held = held_credential.of_variables(definition.variables)
        identifier = credential["ServiceSpecificCredentialId"]
        assert held == held_credential.HeldCredential(identifier, account=self.cloud.account)
        sample.commit(self.source, "main", f"commit {next(counter)}")
        journey.prove_run(self.operator(), lambda line: None)
        mirrored = program.by_original_name(sample.refs(self.replica), NAMESPACES)
        assert mirrored == sample.refs(self.source, *NAMESPACES)
        self.assert_no_leak()

    def assert_no_leak(self):
        secrets = [*self.effects.passwords, self.cloud.operator_token, self.cloud.personal_access_token]
        assert not any(secret in self.said for secret in secrets)
        for path in self.config.parent.rglob("*"):
            assert path.is_dir() or not any(secret.encode() in path.read_bytes() for secret in secrets), path

    def issue_by_hand(self):
        """Issue a credential beside the pipeline's, as a person does, and return its id."""
        issued = self.cloud.client("iam").create_service_specific_credential(
            UserName=self.mirror.user_name, ServiceName="codecommit.amazonaws.com"
        )
        return issued["ServiceSpecificCredential"]["ServiceSpecificCredentialId"]

    def pipeline_works(self):
        """Whether a run succeeds with what the pipeline holds at this moment."""
        self.effects.stop_after = None
        return journey.run(self.operator(), lambda line: None, branch=None, timeout_minutes=1).succeeded


@pytest.fixture
def trip(bootstrapped, tmp_path, monkeypatch, capfd):
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


@pytest.fixture
def swift(bootstrapped, tmp_path, monkeypatch, capfd, stack_template):
    """The same, where boto3 gives the real template to CloudFormation in place of the CDK CLI, which takes seconds."""
    cloudformation = bootstrapped.client("cloudformation")

    def without_cli(folder, arguments):
        command, name = arguments[:2]
        if command == "destroy":
            cloudformation.delete_stack(StackName=name)
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        elif not any(
            stack["StackName"] == name
            for stack in cloudformation.list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
        ):
            body = stack_template.replace("NAME", name)
            cloudformation.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"])
            cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})

    monkeypatch.setattr(cdk, "run", without_cli)
    return Journey(bootstrapped, tmp_path, monkeypatch, capfd)


@pytest.fixture
def quick(rig, tmp_path, monkeypatch, capfd):
    """A mirror that is up, its stack deployed without the CDK CLI."""
    sample.fill(rig.source)
    iam = rig.cloud.client("iam")
    iam.delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    made = Journey.__new__(Journey)
    made.cloud, made.name, made.capfd, made.source, made.said = rig.cloud, rig.name, capfd, rig.source, ""
    made.mirror, made.replica, made.config = rig.mirror, rig.replica, tmp_path / "none"
    made.effects = Effects(monkeypatch)
    journey.connect(made.operator(), rig.outputs["ReplicaUrl"], lambda line: None)
    journey.ensure_credential(made.operator(), lambda line: None)
    return made


def test_up_and_down_do_this_and_no_more(trip):
    assert trip.up() == UP
    trip.assert_up()
    assert trip.up() == ["cdk deploy", "PUT definition", "POST build/builds"]
    trip.assert_up()
    files = sample.git(trip.source, "ls-tree", "-r", "main~2")
    assert trip.down() == DOWN
    assert not trip.replica.exists()
    assert trip.down() == []
    assert "azure-pipelines-mirror.yml" not in sample.git(trip.source, "ls-tree", "-r", "main")
    assert "azure-pipelines-mirror.yml" in files


@pytest.mark.parametrize("effect", range(1, len(UP) + 1), ids=lambda n: f"{n} {UP[n - 1]}")
def test_up_that_is_stopped_is_finished_by_the_next(swift, effect):
    with pytest.raises(Killed):
        swift.up(stop_after=effect)
    swift.up()
    swift.assert_up()


@pytest.mark.parametrize("effect", range(1, len(DOWN) + 1), ids=lambda n: f"{n} {DOWN[n - 1]}")
def test_down_that_is_stopped_is_finished_by_the_next(swift, effect):
    swift.up()
    with pytest.raises(Killed):
        swift.down(stop_after=effect)
    swift.down()
    assert not swift.replica.exists()
    assert journey.look(swift.operator())[1].definition is None
    assert journey.look(swift.operator())[1].text is None
    iam = swift.cloud.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_user(UserName=swift.mirror.user_name)
    swift.assert_no_leak()


def test_rotate_does_this_and_no_more(quick):
    (old,) = quick.credentials
    assert quick.rotate() == ROTATE
    (new,) = quick.credentials
    assert new["ServiceSpecificCredentialId"] != old["ServiceSpecificCredentialId"]
    quick.assert_up()


@pytest.mark.parametrize("effect", range(1, len(ROTATE) + 1), ids=lambda n: f"{n} {ROTATE[n - 1]}")
def test_rotate_that_is_stopped_leaves_a_pipeline_that_works_and_is_finished_by_the_next(quick, effect):
    (old,) = quick.credentials
    with pytest.raises(Killed):
        quick.rotate(stop_after=effect)
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()
    assert quick.credentials[0]["ServiceSpecificCredentialId"] != old["ServiceSpecificCredentialId"]


def test_rotate_never_takes_a_credential_that_is_not_the_pipelines(quick):
    other = quick.issue_by_hand()
    with pytest.raises(MirrorError, match=f"credentials revoke {quick.name} {other}"):
        quick.rotate()
    assert len(quick.credentials) == 2
    assert quick.pipeline_works()


def test_a_new_credential_that_does_not_prove_itself_leaves_the_old_one(quick):
    (old,) = quick.credentials

    def fail(say):
        raise MirrorError("the run failed")

    to = journey.recipient(quick.operator())
    with pytest.raises(MirrorError, match="the run failed"), Checklist(()) as checklist:
        rotation.rotate(to, step=checklist.step, prove=fail, confirm=agree)
    assert old["ServiceSpecificCredentialId"] in [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    assert {c["Status"] for c in quick.credentials} == {"Active"}
    quick.rotate()
    quick.assert_up()


def test_an_update_by_somebody_else_in_between_is_not_lost(quick, monkeypatch):
    operator = quick.operator()
    definition = journey.look(operator)[1].definition
    update = type(operator.azure).update_definition
    raced = []

    def racing(azure, one, body):
        if not raced:
            raced.append(True)
            current = azure.definition(one.id)
            theirs = {**current.body, "variables": {**current.variables, "THEIRS": {"value": "1"}}}
            update(azure, current, theirs)
        return update(azure, one, body)

    monkeypatch.setattr(type(operator.azure), "update_definition", racing)
    quick.rotate()
    assert quick.operator().azure.definition(definition.id).variables["THEIRS"]["value"] == "1"
    quick.assert_up()


def test_rotate_survives_a_real_kill(swift):
    swift.up()
    environment = {**os.environ, **azure_environment(swift.cloud), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "codecommit_mirror", "rotate", swift.name, "--config", str(swift.config)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        swift.said += line
        if "issued " in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert len(swift.credentials) == 2
    assert swift.pipeline_works()
    swift.rotate()
    swift.assert_up()


def test_everything_that_is_wrong_is_told_at_once(swift):
    swift.cloud.client("codecommit").create_repository(repositoryName=swift.name)
    swift.cloud.client("iam").create_user(UserName=swift.mirror.user_name)
    operator = swift.operator()
    operator.environment = {"AZURE_DEVOPS_EXT_PAT": swift.cloud.operator_token}
    with pytest.raises(MirrorError) as caught, Checklist(()) as checklist:
        journey.up(operator, checklist)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3, lines
    operator = swift.operator()
    operator.environment = {**operator.environment, "AZURE_GIT_PASSWORD": "wrong"}
    with pytest.raises(MirrorError, match=r"refused access \(a sign-in page\); check AZURE_GIT_USERNAME") as again:
        journey.up(operator, Checklist(()))
    assert len(str(again.value).splitlines()) == 3
    for words in (
        f"there is a CodeCommit repository {swift.name!r} that belongs to no stack",
        f"there is an IAM user {swift.mirror.user_name!r} already",
        "AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD are not set",
    ):
        assert any(line.startswith(words) for line in lines), words
    assert swift.effects.seen == []


def test_an_account_without_bootstrap_and_a_folder_without_a_project_are_told(trip, tmp_path, monkeypatch):
    operator = trip.operator()
    operator.folder = tmp_path
    with pytest.raises(MirrorError, match=r"has no cdk\.json; run this in the project's folder"), Checklist(()) as c:
        journey.up(operator, c)
    monkeypatch.setattr(cdk, "bootstrap_parameter", lambda folder: "/cdk-bootstrap/other/version")
    with pytest.raises(MirrorError, match="not bootstrapped for CDK; run: cdk bootstrap aws://"), Checklist(()) as c:
        journey.up(trip.operator(), c)


def test_down_asks_before_commits_are_deleted_and_says_how_many_refs(swift):
    swift.up()
    asked = []

    def no(question):
        asked.append(question)
        raise MirrorError("stopped; nothing was deleted.")

    with pytest.raises(MirrorError, match="nothing was deleted"):
        swift.do(journey.down, no)
    count = len(sample.refs(swift.replica))
    assert asked == [
        f"Delete the pipeline 'codecommit-mirror-{swift.name}' with its runs and the CodeCommit repository "
        f"{swift.name!r} with {count} refs (0 of them archived) and all history? The source keeps its commits."
    ]
    assert swift.effects.seen == []
    swift.assert_up()


def test_a_protected_stack_stays_and_so_does_everything_else(quick):
    cloudformation = quick.cloud.client("cloudformation")
    cloudformation.update_termination_protection(StackName=quick.name, EnableTerminationProtection=True)
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="has termination protection; set termination_protection: false"):
        quick.down()
    assert quick.effects.seen == []
    assert quick.pipeline_works()


def agree(question):
    """Stands for a person who says yes."""


def test_a_stack_that_is_not_as_mirrors_yaml_says_is_deployed_first(quick):
    quick.mirror = quick.mirror.model_copy(update={"on_destroy": "retain"})
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="says on_destroy: retain, but the deployed stack deletes the repository"):
        quick.down()
    assert quick.effects.seen == []


def test_another_region_is_not_taken_for_gone(quick):
    quick.mirror = quick.mirror.model_copy(update={"region": "us-east-1"})
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="which is not in region us-east-1; set region: "):
        quick.down()
    assert quick.effects.seen == []


def test_without_a_stack_a_user_of_that_name_keeps_what_the_pipeline_never_held(quick, monkeypatch):
    other = quick.issue_by_hand()
    monkeypatch.setattr(journey, "find_stack", lambda aws, mirror: None)
    quick.down()
    assert [c["ServiceSpecificCredentialId"] for c in quick.credentials] == [other]


def test_a_replica_that_was_deleted_by_hand_does_not_stop_down(swift):
    swift.up()
    swift.cloud.client("codecommit").delete_repository(repositoryName=swift.name)
    swift.down()
    assert "which is gone already" in swift.said
    assert swift.operator().azure.find_definitions(name=swift.mirror.pipeline_name) == []


def test_a_replica_that_was_deleted_by_hand_gets_a_remedy_that_works(swift):
    swift.up()
    swift.cloud.client("codecommit").delete_repository(repositoryName=swift.name)
    started = time.monotonic()
    with pytest.raises(MirrorError, match=r"was deleted by hand; run 'codecommit-mirror down ") as caught:
        swift.up()
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - started < 20
    status = mirror_status.read(swift.operator())
    assert status.error == str(caught.value)
    swift.down()
    swift.up()
    swift.assert_up()


def test_a_user_that_was_deleted_by_hand_is_made_anew(swift):
    swift.up()
    iam, user = swift.cloud.client("iam"), swift.mirror.user_name
    (credential,) = swift.credentials
    iam.delete_service_specific_credential(
        UserName=user, ServiceSpecificCredentialId=credential["ServiceSpecificCredentialId"]
    )
    (policy,) = iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]
    iam.detach_user_policy(UserName=user, PolicyArn=policy["PolicyArn"])
    iam.delete_user(UserName=user)
    status = mirror_status.read(swift.operator())
    reasons = mirror_status.attention(status, now=datetime.now(UTC), longest_lag=timedelta(hours=1), oldest_days=None)
    assert f"the pipeline's Git credential is gone or inactive; run 'codecommit-mirror up {swift.name}'" in reasons
    swift.up()
    swift.assert_up()
    assert iam.list_attached_user_policies(UserName=user)["AttachedPolicies"] == [policy]
    assert {"Key": "managed-by", "Value": "codecommit-mirror"} in iam.list_user_tags(UserName=user)["Tags"]
    swift.down()


def test_an_existing_repository_becomes_the_replica_and_stays(trip):
    codecommit = trip.cloud.client("codecommit")
    trip.config.write_text(trip.config.read_text() + "    existing: true\n")
    (trip.mirror,) = load_mirrors(trip.config, trip.name)
    with pytest.raises(MirrorError, match=r"create it with 'aws codecommit create-repository --repository-name"):
        trip.up()
    codecommit.create_repository(repositoryName=trip.name)
    trip.up()
    trip.assert_up()
    existing, trip.mirror = trip.mirror, trip.mirror.model_copy(update={"existing": False})
    with pytest.raises(MirrorError, match="set existing: true, since the stack only refers to it"):
        trip.down()
    trip.mirror = existing
    trip.down()
    assert "the replica and its history stay" in trip.said
    assert program.by_original_name(sample.refs(trip.replica), NAMESPACES)


def test_git_lfs_is_said_by_up_and_by_status(swift, companion):
    attributes = sample.git(swift.source, "hash-object", "-w", "--stdin", stdin=b"*.psd filter=lfs -text\n").strip()
    tree = sample.git(swift.source, "mktree", stdin=f"100644 blob {attributes}\t.gitattributes\n".encode()).strip()
    commit = sample.git(swift.source, "commit-tree", tree, "-p", "main", "-m", "Git LFS").strip()
    sample.git(swift.source, "update-ref", "refs/heads/main", commit)
    swift.up()
    assert "the source uses Git LFS: its large files are not in the replica, only the pointers to them" in swift.said
    (build,) = swift.operator().azure.builds(journey.look(swift.operator())[1].definition)
    (summary,) = swift.cloud.azure.run_log(build.id)["summaries"]
    assert "The source uses Git LFS: its large files are not in the replica" in summary
    assert mirror_status.read(swift.operator()).lfs
    shown = companion("status", "--config", str(swift.config), **azure_environment(swift.cloud))
    assert f"{swift.name}: the source uses Git LFS" in shown.stdout
    assert "none" in shown.stdout


def test_a_source_that_is_not_to_be_seen_is_asked_about(quick):
    quick.mirror = quick.mirror.model_copy(
        update={"azure": quick.mirror.azure.model_copy(update={"repository": "nowhere"})}
    )
    asked = []

    def no(question):
        asked.append(question)
        raise MirrorError("stopped; nothing was deleted.")

    quick.effects.seen = []
    with pytest.raises(MirrorError, match="nothing was deleted"):
        quick.do(journey.down, no)
    assert "the AWS side alone, since the repository in Azure DevOps is not there" in asked[0]
    assert quick.effects.seen == []


def test_what_only_a_person_can_mend_stops_neither_up_nor_rotate(quick):
    journey.prove_run(quick.operator(), agree)
    sample.git(quick.source, "branch", "-m", "main", "trunk")
    sample.git(quick.source, "symbolic-ref", "HEAD", "refs/heads/trunk")
    quick.rotate()
    assert "which the run leaves to a person" in quick.said
    (credential,) = quick.credentials
    assert credential["Status"] == "Active"


def test_an_answer_that_is_lost_on_the_way_costs_no_credential(quick, monkeypatch):
    send, lost = azure_http.AzureHttp._send, []

    def losing(http, method, path, *arguments, **options):
        answer = send(http, method, path, *arguments, **options)
        if method == "PUT" and len(quick.credentials) == 2 and not lost:
            lost.append(path)
            raise azure_http.AzureError("cannot update: a gateway answered 504", 504)
        return answer

    monkeypatch.setattr(azure_http.AzureHttp, "_send", losing)
    with pytest.raises(MirrorError, match="504"):
        quick.rotate()
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()


def test_an_update_that_is_asked_for_twice_is_done_once(quick):
    """The update is applied, its answer is lost, and the client's second try meets its own new revision."""
    (old,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    operator, lost = quick.operator(), []

    class Losing(httpx.BaseTransport):
        def handle_request(self, request):
            answer = httpx.HTTPTransport().handle_request(request)
            if request.method == "PUT" and len(quick.credentials) == 2 and not lost:
                answer.read()
                lost.append(request.url.path)
                return httpx.Response(504)
            return answer

    operator.azure = AzureDevOps(operator.mirror.azure, operator.token, lambda seconds: None, Losing())
    with Checklist(()) as checklist:
        journey.rotate(operator, checklist, agree)
    assert lost
    assert old not in [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    quick.assert_up()


def test_another_account_is_not_taken_for_gone(quick, monkeypatch):
    monkeypatch.setattr(journey, "find_stack", lambda aws, mirror: None)
    operator = quick.operator()
    operator.account = "999999999999"
    quick.effects.seen = []
    with pytest.raises(MirrorError, match="mirrors to account 111122223333, and the AWS credentials are for 9999"):
        journey.down(operator, Checklist(()), agree)
    assert quick.effects.seen == []


def test_a_new_user_name_waits_until_the_old_user_has_no_credentials(quick):
    quick.mirror = quick.mirror.model_copy(update={"user_name": "another"})
    with pytest.raises(MirrorError, match=f"credentials revoke {quick.name} --all"):
        journey._check_user_name(quick.operator())
    quick.cloud.client("iam").delete_service_specific_credential(
        UserName=f"azure-devops-pipeline-{quick.name}",
        ServiceSpecificCredentialId=journey.recipient(quick.operator()).held().id,
    )
    journey._check_user_name(quick.operator())


def test_a_stack_without_its_user_yet_does_not_stop_the_preflight(bootstrapped, quick, monkeypatch):
    half = ReplicaStackState("REVIEW_IN_PROGRESS", False, {})
    monkeypatch.setattr("codecommit_mirror.lifecycle.preflight.find_stack", lambda aws, mirror: half)
    quick.mirror = quick.mirror.model_copy(update={"user_name": "not-there-yet"})
    assert preflight.find_problems(quick.operator()) == []


def test_what_a_person_issued_since_is_not_taken_for_a_stray(quick):
    (held,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    before = held_credential.Issuing(datetime.now(UTC) - timedelta(hours=2), frozenset({held}))
    note = held_credential.HeldCredential(held, before)
    journey.recipient(quick.operator()).write_held(note)
    theirs = quick.issue_by_hand()
    journey.ensure_credential(quick.operator(), agree)
    assert {c["ServiceSpecificCredentialId"] for c in quick.credentials} == {held, theirs}


def test_two_at_once_do_not_undo_each_other(quick, monkeypatch):
    issue = journey.delivery.credentials.issue
    raced = []

    def racing(iam, user, mirror):
        issued = issue(iam, user, mirror)
        if not raced:
            raced.append(True)
            journey.ensure_credential(quick.operator(), agree)
        return issued

    monkeypatch.setattr(journey.delivery.credentials, "issue", racing)
    with pytest.raises(MirrorError, match="another run of this program works on"):
        quick.rotate()
    assert quick.pipeline_works()
    quick.rotate()
    quick.assert_up()


def test_a_hand_made_credential_in_place_of_the_pipelines_is_asked_about(quick):
    (held,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    iam = quick.cloud.client("iam")
    iam.delete_service_specific_credential(UserName=quick.mirror.user_name, ServiceSpecificCredentialId=held)
    theirs = quick.issue_by_hand()
    asked = []
    quick.do(journey.rotate, asked.append)
    assert theirs in asked[0]
    quick.assert_up()


def test_two_credentials_that_no_pipeline_holds_are_told_before_anything_is_done(bootstrapped, rig):
    sample.fill(rig.source)
    rig.cloud.client("iam").create_service_specific_credential(
        UserName=rig.user, ServiceName="codecommit.amazonaws.com"
    )
    with pytest.raises(MirrorError, match="has 2 Git credentials already, and IAM allows 2"):
        journey.up(rig.operator(), Checklist(()))
    assert rig.operator().azure.find_definitions(name=rig.mirror.pipeline_name) == []


def test_a_stack_of_that_name_that_is_something_elses_is_not_touched(swift):
    cloudformation = swift.cloud.client("cloudformation")
    body = '{"Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}}}'
    cloudformation.create_stack(StackName=swift.name, TemplateBody=body)
    for what in (swift.up, swift.down):
        with pytest.raises(MirrorError, match=r"is not that of the mirror .*; it is not touched"):
            what()
    assert swift.effects.seen == []
    assert "AWS::Logs::LogGroup" in str(cloudformation.get_template(StackName=swift.name)["TemplateBody"])


def test_ctrl_c_says_what_to_do(quick):
    quick.cloud.azure.set_agent_online(False)
    try:
        where = ("--azure-repo-url", quick.mirror.azure.clone_url)
        process = subprocess.Popen(
            [sys.executable, "-m", "codecommit_mirror", "pipeline", "run", quick.name, *where],
            cwd=ROOT,
            env={**os.environ, **azure_environment(quick.cloud), "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background of a shell ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        quick.cloud.azure.set_agent_online(True)
    assert process.wait() == 130
    assert said.strip().endswith("stopped; running it again is safe, and goes on from there.")


def test_status_is_for_people_and_for_monitors(quick, companion):
    quick.rotate()
    url = quick.mirror.azure.clone_url
    arguments = ("status", quick.name, "--azure-repo-url", url)
    well = companion(*arguments, **azure_environment(quick.cloud))
    assert well.returncode == 0, well.stderr
    assert "in sync" in well.stdout
    sample.commit(quick.source, "main", "not mirrored")
    behind = companion(*arguments, "--json", "--max-lag", "0", **azure_environment(quick.cloud))
    assert behind.returncode == 1
    (found,) = json.loads(behind.stdout)
    assert (found["different"], found["healthy"], found["credentials"]) == (1, False, 1)
    assert found["last_run"]["result"] == "succeeded"
    (credential,) = quick.credentials
    identifier = credential["ServiceSpecificCredentialId"]
    quick.cloud.client("iam").update_service_specific_credential(
        UserName=quick.mirror.user_name, ServiceSpecificCredentialId=identifier, Status="Inactive"
    )
    dead = companion(*arguments, **azure_environment(quick.cloud))
    assert dead.returncode == 1
    assert "the pipeline's Git credential is gone or inactive" in dead.stdout
    blind = companion(*arguments, AZURE_DEVOPS_EXT_PAT="wrong")
    assert blind.returncode == 1
    assert "sign-in page" in blind.stdout


def test_the_operators_own_signature_reads_a_replica_and_a_wrong_one_does_not(quick, monkeypatch):
    operator = quick.operator()
    url = journey.replica_outputs(operator.aws, quick.mirror).replica_url
    journey.prove_run(operator, lambda line: None)
    assert verification.replica_refs(operator.aws, url) == sample.refs(quick.replica)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(MirrorError, match="your AWS credentials need codecommit:GitPull"):
        verification.replica_refs(quick.operator().aws, url)
