"""``codecommit:References`` binds a push ref by ref, as AWS's own example of a policy has it."""

import subprocess
from urllib.parse import quote

import pytest

from localcloud import sample

from .conftest import deny, document


def push(rig, *refs):
    name, password = (quote(rig.credential[key], safe="") for key in ("ServiceUserName", "ServicePassword"))
    url = rig.outputs["ReplicaUrl"].replace("://", f"://{name}:{password}@")
    done = subprocess.run(
        ["git", "-C", str(rig.source), "push", "-q", url, *refs], capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def forbid(rig, **condition):
    rig.cloud.client("iam").put_user_policy(
        UserName=rig.user, PolicyName="refs", PolicyDocument=document(deny("codecommit:GitPush", **condition))
    )


def test_a_ref_that_is_denied_refuses_the_whole_push(rig):
    sample.fill(rig.source)
    forbid(
        rig,
        StringEqualsIfExists={"codecommit:References": ["refs/heads/main"]},
        Null={"codecommit:References": "false"},
    )
    assert not push(rig, "main", "feature/1")
    assert sample.refs(rig.replica) == {}
    assert push(rig, "feature/1")


def test_without_the_null_every_push_is_refused(rig):
    """A push is evaluated once without the key: IfExists alone denies it all."""
    sample.fill(rig.source)
    forbid(rig, StringEqualsIfExists={"codecommit:References": ["refs/heads/main"]})
    assert not push(rig, "feature/1")


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v1.0"])
def test_full_names_are_compared(rig, ref):
    sample.fill(rig.source)
    forbid(rig, StringLike={"codecommit:References": [ref]})
    assert not push(rig, f"main:{ref}")
    assert push(rig, "main:refs/heads/another")
