"""The permissions boundary that a user gets again if it was deleted by hand."""

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.aws.stack import permissions_boundary
from codecommit_mirror.config.ci import BOUNDARY_KEY
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.stacks import ReplicaStack


def template_of(**context):
    mirror = single_mirror("M", "https://dev.azure.com/contoso/Shop/_git/MyRepo")
    return Template.from_stack(ReplicaStack(cdk.App(context=context), mirror=mirror)).to_json()


def test_the_boundary_of_the_user_is_read_from_the_template():
    bounded = template_of(**{BOUNDARY_KEY: "mine"})
    assert permissions_boundary(bounded, "aws", "111122223333") == "arn:aws:iam::111122223333:policy/mine"
    assert permissions_boundary(template_of(), "aws", "111122223333") is None
    user = {"Type": "AWS::IAM::User", "Properties": {"PermissionsBoundary": {"Fn::ImportValue": "x"}}}
    with pytest.raises(MirrorError, match="create the user again by hand"):
        permissions_boundary({"Resources": {"U": user}}, "aws", "111122223333")
