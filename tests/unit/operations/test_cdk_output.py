"""What is made of the CDK CLI's output: events, and the reasons of a failure first."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from codecommit_mirror.aws import cdk
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.progress import Board, working_on

# As version 2.1148.1 of the CLI prints them.
DESTROY = """\
MyRepoReplica: destroying... [1/1]
MyRepoReplica |   0 | 4:39:50 AM | DELETE_IN_PROGRESS      | AWS::CloudFormation::Stack  | MyRepoReplica
MyRepoReplica |   0 | 4:39:50 AM | DELETE_FAILED           | AWS::CloudFormation::Stack  | MyRepoReplica The following \
resource(s) failed to delete: [PushAccessUser0202A849, ReplicaRepository24451859].
MyRepoReplica |   0 | 4:39:50 AM | DELETE_FAILED           | AWS::CodeCommit::Repository | Replica/Repository \
(ReplicaRepository24451859) Resource deletion cancelled
MyRepoReplica |   0 | 4:39:50 AM | DELETE_FAILED           | AWS::IAM::User              | PushAccess/User \
(PushAccessUser0202A849) AWS::IAM::User delete failed: DeleteConflict: Cannot delete entity, must delete access \
keys first.

Failed resources:
MyRepoReplica | 4:39:50 AM | DELETE_FAILED           | AWS::IAM::User              | PushAccess/User \
(PushAccessUser0202A849) AWS::IAM::User delete failed: DeleteConflict: Cannot delete entity, must delete access \
keys first.
❌  MyRepoReplica: destroy failed DeploymentError: The stack named MyRepoReplica is in a failed state.
"""
DEPLOY = (
    "MyRepoReplica | 3/9 | 4:39:43 AM | \x1b[32mCREATE_COMPLETE     \x1b[39m | AWS::IAM::User "
    "| \x1b[1mPushAccess/User\x1b[22m (PushAccessUser0202A849) "
)


@pytest.fixture
def fake_cli(tmp_path, monkeypatch):
    """Let the CLI print a text and end with a status."""

    def install(text: str, status: int) -> Path:
        (tmp_path / "output").write_text(text)
        bin_folder = tmp_path / "node_modules" / ".bin"
        bin_folder.mkdir(parents=True)
        for name, script in (("cdk", f'cat "{tmp_path}/output"; exit {status}'), ("node", "true")):
            (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (bin_folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
        return tmp_path

    return install


def test_an_event_is_read_in_colour_too():
    event = cdk.parse_event(DEPLOY)
    assert event == cdk.StackEvent("MyRepoReplica", "CREATE_COMPLETE", "AWS::IAM::User", "PushAccess/User", "")
    assert cdk.parse_event("✨  Synthesis time: 1.31s") is None
    assert cdk.parse_event("MyRepoReplica.ReplicaUrl = https://x | y") is None


def test_each_resource_is_reported_with_the_elapsed_time(fake_cli):
    row = Board(["MyRepoReplica"], console=Console(file=io.StringIO())).rows["MyRepoReplica"]
    with working_on(row):
        cdk.deploy(fake_cli(f"{DEPLOY}\n{DEPLOY}\nOutputs:\n", 0), "MyRepoReplica", ())
    (line,) = row.details
    assert line.split() == [line.split()[0], "s", "CREATE_COMPLETE", "AWS::IAM::User", "PushAccess/User"]
    assert float(line.split()[0]) >= 0


def test_a_failure_begins_with_its_reason_and_leaves_out_what_follows_from_it(fake_cli):
    with pytest.raises(MirrorError) as caught:
        cdk.run(fake_cli(DESTROY, 1), ["destroy", "MyRepoReplica", "--force"])
    assert str(caught.value).splitlines() == [
        "PushAccess/User (AWS::IAM::User) is DELETE_FAILED: AWS::IAM::User delete failed: DeleteConflict: Cannot "
        "delete entity, must delete access keys first.",
        "cdk destroy MyRepoReplica failed; running again is safe, and resumes from there.",
    ]


def test_a_failure_of_another_kind_shows_the_end_of_the_output(fake_cli):
    text = "".join(f"line {number}\n" for number in range(40))
    with pytest.raises(MirrorError) as caught:
        cdk.run(fake_cli(text, 1), ["synth"])
    first, *rest = str(caught.value).splitlines()
    assert first == "cdk synth failed; running again is safe. The end of its output:"
    assert rest == [f"line {number}" for number in range(25, 40)]
