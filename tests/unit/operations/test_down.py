"""What taking a mirror down deletes, what it asks, and what it refuses."""

from datetime import UTC, datetime

import pytest

from codecommit_mirror.aws.git_credentials import Credential
from codecommit_mirror.aws.stack import ReplicaOutputs, ReplicaStackState
from codecommit_mirror.azure.rest.objects import Definition
from codecommit_mirror.azure.variables import HeldCredential, plain_variable
from codecommit_mirror.cli.credentials import revocation_question
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations.down import DeployedMirror, plan

from .states import remains

MIRROR = single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
OUTPUTS = ReplicaOutputs("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/M", "arn:M", "user", "policy")
STACK = ReplicaStackState("CREATE_COMPLETE", False, OUTPUTS)
ELSEWHERE = HeldCredential("A", account="999988887777")
REPOSITORY = "the CodeCommit repository 'M' with 3 refs (1 of them archived) and all history"


def pipeline(**variables):
    return Definition(7, {"name": "p", "variables": {k: plain_variable(v) for k, v in variables.items()}})


def template(policy):
    """Return a stack's template with a repository."""
    return {"Resources": {"Replica": {"Type": "AWS::CodeCommit::Repository", "DeletionPolicy": policy}}}


def deployed(**changes):
    values = {
        "region": "eu-west-1",
        "account": "111122223333",
        "stack": STACK,
        "template": template("Delete"),
        "record": None,
    }
    return DeployedMirror(**{**values, "repository": REPOSITORY, "azure": remains(pipeline()), **changes})


def test_everything_that_goes_is_named_before_it_goes():
    found = plan(MIRROR, deployed())
    deleted = f"Delete the pipeline 'p' with its runs and {REPOSITORY}?"
    assert found.question == f"{deleted} The source keeps its commits. Snapshots stay."
    assert found.note == f"to be deleted: {REPOSITORY}"


def test_a_replica_that_stays_is_not_asked_about():
    kept = MIRROR.model_copy(update={"on_destroy": "retain"})
    found = plan(kept, deployed(template=template("Retain"), repository="", azure=remains()))
    assert (found.question, found.note) == (None, "the replica and its history stay")


def test_what_is_gone_on_one_side_is_said():
    gone = plan(MIRROR, deployed(stack=None, template=None, azure=remains()))
    assert gone.question is None
    assert gone.note == "the stack 'M' is not in region eu-west-1 of this account"
    assert "Azure DevOps is left alone" in plan(MIRROR, deployed(azure=None)).question


@pytest.mark.parametrize(
    ("changes", "mirror", "reason"),
    [
        ({"stack": ReplicaStackState("CREATE_COMPLETE", True, OUTPUTS)}, MIRROR, "has termination protection; set"),
        (
            {"template": template("Retain")},
            MIRROR,
            "but the deployed stack keeps the repository; run 'cdk deploy M'",
        ),
        ({"template": {}}, MIRROR, "but the deployed stack keeps the repository; set existing: true"),
        (
            {},
            MIRROR.model_copy(update={"existing": True}),
            "says existing: true, but the deployed stack deletes the repository; correct mirrors.yaml",
        ),
        (
            {
                "stack": None,
                "azure": remains(pipeline(AWS_REPO_URL="git-codecommit.us-east-1.amazonaws.com/v1/repos/M")),
            },
            MIRROR,
            "which is not in region eu-west-1; set region:",
        ),
        (
            {
                "stack": None,
                "azure": remains(pipeline(AWS_GIT_CREDENTIAL=HeldCredential("A", account="999988887777").to_json())),
            },
            MIRROR,
            "mirrors to account 999988887777, but the AWS credentials are for 111122223333; use an AWS profile",
        ),
        (
            {
                "stack": None,
                "azure": remains(pipeline(AWS_ROLE_ARN="arn:aws:iam::999988887777:role/codecommit-mirror-M")),
            },
            MIRROR,
            "mirrors to account 999988887777, but the AWS credentials are for 111122223333; use an AWS profile",
        ),
    ],
)
def test_what_may_not_be_deleted_is_refused(changes, mirror, reason):
    with pytest.raises(MirrorError, match=reason):
        plan(mirror, deployed(**changes))


def credential(identifier):
    return Credential(identifier, "u", "Active", datetime.now(UTC))


def test_only_a_credential_that_the_pipeline_may_use_is_asked_about():
    holds_a = pipeline(AWS_GIT_CREDENTIAL=HeldCredential("A").to_json())
    assert revocation_question("M", ["B"], True, holds_a) is None
    assert revocation_question("M", ["B"], True, None) is None
    assert revocation_question("M", ["A", "B"], True, holds_a).startswith(
        "The pipeline 'p' uses A, and its runs will fail"
    )
    assert revocation_question("M", ["B"], True, pipeline()).startswith("The pipeline 'p' may use B; if so, its runs")
    assert revocation_question("M", ["B"], False, None).startswith("It is not known whether the pipeline uses B; if it")
