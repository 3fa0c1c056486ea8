"""What holds of every template that this project synthesises, since no cloud here could judge it."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from aws_cdk.assertions import Template

from codecommit_mirror.config.guard import Guard
from codecommit_mirror.config.identity import EarlierSignIn
from localcloud.aws.rights.judgement import is_known

from .test_guard_stack import TOPIC
from .test_guard_stack import stack as guard_stack
from .test_role_stacks import CI, identity_stack, roles_stack
from .test_stacks import ROLE, synthesised
from .test_vault_stack import stack as vault_stack

TEMPLATES = {
    "mirror": synthesised,
    "mirror, policy on a group": lambda: synthesised(policy_on="group"),
    "mirror with a role": lambda: synthesised(**ROLE),
    "mirror that changes": lambda: synthesised(earlier=EarlierSignIn(user=True), **ROLE),
    "mirror of an existing repository": lambda: synthesised(existing=True),
    "mirror that is kept": lambda: synthesised(on_destroy="retain"),
    "guard": guard_stack,
    "guard without snapshots": lambda: guard_stack(Guard(topic_arn=TOPIC, snapshots="off")),
    "vault": vault_stack,
    "identity": identity_stack,
    **{f"roles of CI, {service}": lambda service=service: roles_stack(service) for service in CI},
}
MAX_SECONDS, MAX_MEMORY = 900, 10_240
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; cfn-lint allows more."""
MAX_ENVIRONMENT = 4096
RESERVED = ("AWS_", "LAMBDA_", "_")
"""How names of variables begin that a function may not set."""
ACCOUNT = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":iam::", {"Ref": "AWS::AccountId"}, ":root"]]}
EACH = pytest.mark.parametrize("name", TEMPLATES)


@cache
def document(name):
    return Template.from_stack(TEMPLATES[name]()).to_json()


def resources(name, kind):
    """Return the resources of a type, by their logical ids."""
    return {key: r["Properties"] for key, r in document(name)["Resources"].items() if r["Type"] == kind}


def statements(name):
    """Yield every statement of every policy, wherever it is."""

    def walk(value):
        if isinstance(value, dict):
            yield from value["Statement"] if isinstance(value.get("Statement"), list) else []
            for member in value.values():
                yield from walk(member)
        elif isinstance(value, list):
            for member in value:
                yield from walk(member)

    yield from walk(document(name)["Resources"])


def listed(value):
    return value if isinstance(value, list) else [value]


def test_cfn_lint_is_clean(tmp_path):
    """One run for all of them: starting it takes longer than what it does."""
    for number, name in enumerate(TEMPLATES):
        (tmp_path / f"{number}.json").write_text(json.dumps(document(name)))
    bad = {"Resources": {"R": {"Type": "AWS::IAM::User", "Properties": {"Nme": "x"}}}}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    lint = [Path(sys.executable).parent / "cfn-lint", "--regions", "eu-west-1", "--format", "parseable", "--"]
    files = [str(path) for path in sorted(tmp_path.glob("*.json"))]
    done = subprocess.run([*lint, *files], capture_output=True, text=True, check=False)
    (problem,) = done.stdout.splitlines()
    assert "bad.json" in problem
    assert "E3002" in problem


IDS = Path(__file__).parent / "snapshots" / "logical_ids.json"


def test_logical_ids_are_the_recorded_ones():
    """Another id is another resource. Set UPDATE_SNAPSHOTS=1 to record them; from 1.0.0 on none changes or goes."""
    found = {name: sorted(document(name)["Resources"]) for name in TEMPLATES}
    text = json.dumps(found, indent=1) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        IDS.write_text(text)
    assert text == IDS.read_text()


@EACH
def test_the_judge_knows_every_condition(name):
    keys = {key for s in statements(name) for block in s.get("Condition", {}).values() for key in block}
    assert [key for key in keys if not is_known(key)] == []


@EACH
def test_nothing_is_denied_to_all_but_some(name):
    """AWS advises against NotPrincipal, and sessions are easily forgotten there."""
    assert not [statement for statement in statements(name) if "NotPrincipal" in statement]


@EACH
def test_functions_stay_within_lambdas_limits(name):
    for function in resources(name, "AWS::Lambda::Function").values():
        assert function["Timeout"] <= MAX_SECONDS
        assert 128 <= function["MemorySize"] <= MAX_MEMORY if "MemorySize" in function else True
        variables = function.get("Environment", {}).get("Variables", {})
        assert len(json.dumps(variables)) < MAX_ENVIRONMENT
        assert not [key for key in variables if key.startswith(RESERVED)]
        if "Fn::GetAtt" not in function["Role"]:
            assert "role/codecommit-mirror-guard-" in json.dumps(function["Role"])
            continue
        role = resources(name, "AWS::IAM::Role")[function["Role"]["Fn::GetAtt"][0]]
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}


@EACH
def test_each_rule_may_invoke_its_function_and_nothing_else_may(name):
    rules = resources(name, "AWS::Events::Rule")
    allowed = [
        (permission["FunctionName"]["Fn::GetAtt"][0], permission["SourceArn"]["Fn::GetAtt"][0])
        for permission in resources(name, "AWS::Lambda::Permission").values()
        if permission["Principal"] == "events.amazonaws.com" and permission["Action"] == "lambda:InvokeFunction"
    ]
    needed = [(target["Arn"]["Fn::GetAtt"][0], key) for key, rule in rules.items() for target in rule["Targets"]]
    assert sorted(allowed) == sorted(needed)
    assert len(resources(name, "AWS::Lambda::Permission")) == len(needed)


@EACH
def test_no_key_locks_its_account_out(name):
    for key in resources(name, "AWS::KMS::Key").values():
        administration = [s for s in key["KeyPolicy"]["Statement"] if s["Principal"] == {"AWS": ACCOUNT}]
        assert [s["Effect"] for s in administration] == ["Allow"]
        assert {"kms:*", "kms:PutKeyPolicy"} & set(listed(administration[0]["Action"]))


@EACH
def test_who_publishes_to_an_encrypted_topic_may_use_its_key(name):
    keys = resources(name, "AWS::KMS::Key")
    for topic in resources(name, "AWS::SNS::Topic").values():
        key = keys[topic["KmsMasterKeyId"]["Fn::GetAtt"][0]]
        services = [
            s for s in key["KeyPolicy"]["Statement"] if s["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        ]
        assert [sorted(s["Action"]) for s in services] == [["kms:Decrypt", "kms:GenerateDataKey*"]]
        publishers = [s for s in statements(name) if "sns:Publish" in listed(s["Action"]) and "Principal" not in s]
        users = [s for s in statements(name) if "kms:GenerateDataKey" in listed(s["Action"])]
        assert len(publishers) == len(users) == 1


def test_the_guard_may_see_the_locks_that_it_extends():
    """Without the right S3 hides a lock, and every object would seem to have none."""
    actions = [action for s in statements("vault") for action in listed(s["Action"])]
    assert "s3:GetObjectRetention" in actions
