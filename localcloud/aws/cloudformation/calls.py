"""The calls that CloudFormation makes for a resource: which properties cause which, as far as templates here use them.

The registry's schemas name unions of permissions for each handler, more than a given template needs, and some actions
that do not exist; so each type is written down here from the API that its properties are set with. What a handler
reads back after a change counts too. https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/security-iam.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ministack.core import responses

from ..rights.boundaries import context_of
from ..rights.judgement import Call
from ..rights.pass_role import passing

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One type of resource.

    Attributes:
        name: the property that names the resource.
        arn: its ARN, with ``{name}``, ``{account}`` and ``{region}``.
        create: the actions that creating it always takes.
        delete: the actions that deleting it always takes.
        sets: the actions that a property takes, when it is there at creation and whenever it changes.
        more: what depends on a property's value, given the ARN, and the old and new properties.
    """

    name: str
    arn: str
    create: tuple[str, ...]
    delete: tuple[str, ...]
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    more: Callable[[str, Properties, Properties], Iterator[Call]] = lambda arn, old, new: iter(())

    def arn_of(self, name: str) -> str:
        """Return the ARN of a resource of this type."""
        if name.startswith("arn:"):
            return name
        return self.arn.format(name=name, account=responses.get_account_id(), region=responses.get_region())


def creating(kind: Kind, name: str, new: Properties) -> list[Call]:
    """Return the calls that create a resource."""
    arn, tags = kind.arn_of(name), _request_tags(new)
    first = [(action, arn, {**tags, **_boundary(action, new)}) for action in kind.create]
    return (
        first
        + [(action, arn, _tagging(action, {}, new)) for action in _sets(kind, {}, new)]
        + list(kind.more(arn, {}, new))
    )


def updating(kind: Kind, name: str, old: Properties, new: Properties) -> list[Call]:
    """Return the calls that make a resource what its new properties say."""
    arn = kind.arn_of(name)
    sets = [(action, arn, _tagging(action, old, new)) for action in _sets(kind, old, new)]
    return sets + list(kind.more(arn, old, new))


def deleting(kind: Kind, name: str, old: Properties) -> list[Call]:
    """Return the calls that delete a resource."""
    arn = kind.arn_of(name)
    return list(kind.more(arn, old, {})) + [(action, arn, {}) for action in kind.delete]


def _sets(kind: Kind, old: Properties, new: Properties) -> Iterator[str]:
    for name, actions in kind.sets.items():
        if old.get(name) != new.get(name):
            yield from actions


def _tags(properties: Properties) -> dict[str, Any]:
    tags = properties.get("Tags") or []
    return dict(tags) if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}


def _request_tags(properties: Properties) -> dict[str, Any]:
    tags = _tags(properties)
    keys: dict[str, Any] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {**keys, "aws:TagKeys": list(tags)} if keys else {}


def _tagging(action: str, old: Properties, new: Properties) -> dict[str, Any]:
    """Return the condition keys of a call that sets tags, or takes tags away; none for any other call."""
    before, after, operation = _tags(old), _tags(new), action.partition(":")[2]
    if operation.startswith("Tag"):
        return _request_tags({"Tags": {key: value for key, value in after.items() if before.get(key) != value}})
    removed = [key for key in before if key not in after]
    return {"aws:TagKeys": removed} if operation.startswith("Untag") and removed else {}


def _boundary(action: str, properties: Properties) -> dict[str, Any]:
    return context_of(action.partition(":")[2], properties) if action.startswith("iam:Create") else {}


# ----------------------------------------------------------------------------------------------------------------- IAM


def _policies(entity: str) -> Callable[[str, Properties, Properties], Iterator[Call]]:
    """Return the calls for the policies that a user, a role or a group has in its template."""

    def calls(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
        name = {f"{entity}Name": arn.rpartition("/")[2], "PermissionsBoundary": new.get("PermissionsBoundary")}
        attached, wanted = set(old.get("ManagedPolicyArns") or []), set(new.get("ManagedPolicyArns") or [])
        for verb, policies in (("Detach", attached - wanted), ("Attach", wanted - attached)):
            for policy in sorted(policies):
                action = f"{verb}{entity}Policy"
                yield f"iam:{action}", arn, _about(action, {**name, "PolicyArn": policy})
        inline, new_inline = ({p["PolicyName"]: p for p in side.get("Policies") or []} for side in (old, new))
        for _ in inline.keys() - new_inline.keys():
            yield f"iam:Delete{entity}Policy", arn, _about(f"Delete{entity}Policy", name)
        for _ in [policy for policy, value in new_inline.items() if inline.get(policy) != value]:
            yield f"iam:Put{entity}Policy", arn, _about(f"Put{entity}Policy", name)
        if entity == "User":
            yield from _memberships(old, new)

    return calls


def _about(action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a call on an entity that may only be about to exist, with the boundary that it gets."""
    keys = context_of(action, parameters)
    if parameters.get("PermissionsBoundary"):
        keys["iam:permissionsboundary"] = parameters["PermissionsBoundary"]
    return keys


def _memberships(old: Properties, new: Properties) -> Iterator[Call]:
    group = _KINDS["AWS::IAM::Group"]
    before, after = set(old.get("Groups") or []), set(new.get("Groups") or [])
    for verb, names in (("RemoveUserFromGroup", before - after), ("AddUserToGroup", after - before)):
        for name in sorted(names):
            yield f"iam:{verb}", group.arn_of(name), {}


def _holders(attach: str, detach: str) -> Callable[[str, Properties, Properties], Iterator[Call]]:
    """Return the calls for the users, roles and groups that a policy names."""

    def calls(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
        for entity in ("User", "Role", "Group"):
            before, after = set(old.get(f"{entity}s") or []), set(new.get(f"{entity}s") or [])
            changed = old.get("PolicyDocument") != new.get("PolicyDocument") and attach.startswith("Put")
            for verb, names in ((detach, before - after), (attach, after if changed else after - before)):
                for name in sorted(names):
                    action = f"{verb}{entity}Policy"
                    holder = _KINDS[f"AWS::IAM::{entity}"].arn_of(name)
                    yield f"iam:{action}", holder, context_of(action, {f"{entity}Name": name, "PolicyArn": arn})

    return calls


# -------------------------------------------------------------------------------------------------------------- others


def _function(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    if not new:
        return
    code, configuration = _without_code(old), _without_code(new)
    if old and old.get("Code") != new.get("Code"):
        yield "lambda:UpdateFunctionCode", arn, {}
    if old and code != configuration:
        yield "lambda:UpdateFunctionConfiguration", arn, {}
    if code != configuration and new.get("Role"):
        yield passing(new["Role"], "lambda.amazonaws.com")
    source = new.get("Code") or {}
    if source.get("S3Bucket") and old.get("Code") != source:
        yield "s3:GetObject", f"arn:aws:s3:::{source['S3Bucket']}/{source['S3Key']}", {}


def _without_code(properties: Properties) -> dict[str, Any]:
    others = ("Code", "Tags", "ReservedConcurrentExecutions")
    return {key: value for key, value in properties.items() if key not in others}


def _bucket(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    replication = new.get("ReplicationConfiguration")
    if replication and replication != old.get("ReplicationConfiguration"):
        yield passing(replication["Role"], "s3.amazonaws.com")


def _rule(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    for target in new.get("Targets") or []:
        if target.get("RoleArn"):
            yield passing(target["RoleArn"], "events.amazonaws.com")


def _topics(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    for topic in sorted({*(old.get("Topics") or []), *(new.get("Topics") or [])}):
        yield "sns:SetTopicAttributes", topic, {}


def _alias(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    key = (new or old)["TargetKeyId"]
    key_arn = key if key.startswith("arn:") else _KINDS["AWS::KMS::Key"].arn_of(key)
    yield "kms:CreateAlias" if not old else "kms:DeleteAlias" if not new else "kms:UpdateAlias", key_arn, {}


def _custom(arn: str, old: Properties, new: Properties) -> Iterator[Call]:
    yield "lambda:InvokeFunction", (new or old)["ServiceToken"], {}


_IAM = "arn:aws:iam::{account}"
_HERE = "{region}:{account}"


def _entity(kind: str, **sets: tuple[str, ...]) -> Kind:
    tags = {} if kind == "Group" else {"Tags": (f"iam:Tag{kind}", f"iam:Untag{kind}")}
    return Kind(
        name=f"{kind}Name",
        arn=f"{_IAM}:{kind.lower()}/{{name}}",
        create=(f"iam:Create{kind}", f"iam:Get{kind}"),
        delete=(f"iam:Get{kind}", f"iam:Delete{kind}"),
        sets={**tags, **sets},
        more=_policies(kind),
    )


_BOUNDARY_OF_ROLE = ("iam:PutRolePermissionsBoundary",)
_KINDS: dict[str, Kind] = {
    "AWS::IAM::Role": _entity("Role"),
    "AWS::IAM::User": _entity("User"),
    "AWS::IAM::Group": _entity("Group"),
    "AWS::IAM::ManagedPolicy": Kind(
        name="ManagedPolicyName",
        arn=f"{_IAM}:policy/{{name}}",
        create=("iam:CreatePolicy", "iam:GetPolicy"),
        delete=("iam:ListPolicyVersions", "iam:DeletePolicy"),
        more=_holders("Attach", "Detach"),
    ),
    "AWS::IAM::Policy": Kind(name="PolicyName", arn="*", create=(), delete=(), more=_holders("Put", "Delete")),
    "AWS::IAM::OIDCProvider": Kind(
        name="Url",
        arn=f"{_IAM}:oidc-provider/{{name}}",
        create=("iam:CreateOpenIDConnectProvider", "iam:GetOpenIDConnectProvider"),
        delete=("iam:DeleteOpenIDConnectProvider",),
        sets={"Tags": ("iam:TagOpenIDConnectProvider",)},
    ),
    "AWS::CodeCommit::Repository": Kind(
        name="RepositoryName",
        arn=f"arn:aws:codecommit:{_HERE}:{{name}}",
        create=("codecommit:CreateRepository", "codecommit:GetRepository"),
        delete=("codecommit:DeleteRepository",),
        sets={"Tags": ("codecommit:TagResource", "codecommit:UntagResource")},
    ),
    "AWS::Lambda::Function": Kind(
        name="FunctionName",
        arn=f"arn:aws:lambda:{_HERE}:function:{{name}}",
        create=("lambda:CreateFunction", "lambda:GetFunction"),
        delete=("lambda:DeleteFunction",),
        sets={
            "Tags": ("lambda:TagResource",),
            "ReservedConcurrentExecutions": ("lambda:PutFunctionConcurrency",),
        },
        more=_function,
    ),
    "AWS::Lambda::Permission": Kind(
        name="FunctionName",
        arn=f"arn:aws:lambda:{_HERE}:function:{{name}}",
        create=("lambda:AddPermission",),
        delete=("lambda:RemovePermission",),
    ),
    "AWS::Lambda::EventInvokeConfig": Kind(
        name="FunctionName",
        arn=f"arn:aws:lambda:{_HERE}:function:{{name}}",
        create=("lambda:PutFunctionEventInvokeConfig",),
        delete=("lambda:DeleteFunctionEventInvokeConfig",),
        sets={"DestinationConfig": ("lambda:PutFunctionEventInvokeConfig",)},
    ),
    "AWS::Logs::LogGroup": Kind(
        name="LogGroupName",
        arn=f"arn:aws:logs:{_HERE}:log-group:{{name}}",
        create=("logs:CreateLogGroup", "logs:DescribeLogGroups"),
        delete=("logs:DeleteLogGroup",),
        sets={"RetentionInDays": ("logs:PutRetentionPolicy",), "Tags": ("logs:TagResource",)},
    ),
    "AWS::Events::Rule": Kind(
        name="Name",
        arn=f"arn:aws:events:{_HERE}:rule/{{name}}",
        create=("events:PutRule", "events:DescribeRule"),
        delete=("events:RemoveTargets", "events:DeleteRule"),
        sets={"Targets": ("events:PutTargets",), "Tags": ("events:TagResource",)},
        more=_rule,
    ),
    "AWS::SNS::Topic": Kind(
        name="TopicName",
        arn=f"arn:aws:sns:{_HERE}:{{name}}",
        create=("sns:CreateTopic", "sns:GetTopicAttributes"),
        delete=("sns:DeleteTopic",),
        sets={"KmsMasterKeyId": ("sns:SetTopicAttributes",), "Tags": ("sns:TagResource",)},
    ),
    "AWS::SNS::TopicPolicy": Kind(name="", arn="*", create=(), delete=(), more=_topics),
    "AWS::SNS::Subscription": Kind(
        name="TopicArn", arn="{name}", create=("sns:Subscribe",), delete=("sns:Unsubscribe",)
    ),
    "AWS::KMS::Key": Kind(
        name="",
        arn=f"arn:aws:kms:{_HERE}:key/{{name}}",
        create=("kms:CreateKey",),
        delete=("kms:ScheduleKeyDeletion",),
        sets={"EnableKeyRotation": ("kms:EnableKeyRotation",), "Tags": ("kms:TagResource",)},
    ),
    "AWS::KMS::Alias": Kind(
        name="AliasName",
        arn=f"arn:aws:kms:{_HERE}:{{name}}",
        create=("kms:CreateAlias",),
        delete=("kms:DeleteAlias",),
        more=_alias,
    ),
    "AWS::CloudWatch::Alarm": Kind(
        name="AlarmName",
        arn=f"arn:aws:cloudwatch:{_HERE}:alarm:{{name}}",
        create=("cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms"),
        delete=("cloudwatch:DeleteAlarms",),
        sets={"Tags": ("cloudwatch:TagResource",)},
    ),
    "AWS::CloudWatch::Dashboard": Kind(
        name="DashboardName",
        arn="arn:aws:cloudwatch::{account}:dashboard/{name}",
        create=("cloudwatch:PutDashboard", "cloudwatch:GetDashboard"),
        delete=("cloudwatch:DeleteDashboards",),
        sets={"Tags": ("cloudwatch:TagResource",)},
    ),
    "AWS::S3::Bucket": Kind(
        name="BucketName",
        arn="arn:aws:s3:::{name}",
        create=("s3:CreateBucket",),
        delete=("s3:DeleteBucket",),
        sets={
            "AccessControl": ("s3:PutBucketAcl",),
            "BucketEncryption": ("s3:PutEncryptionConfiguration",),
            "CorsConfiguration": ("s3:PutBucketCORS",),
            "LifecycleConfiguration": ("s3:PutLifecycleConfiguration",),
            "NotificationConfiguration": ("s3:PutBucketNotification",),
            "ObjectLockConfiguration": ("s3:PutBucketObjectLockConfiguration",),
            "ObjectLockEnabled": ("s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"),
            "OwnershipControls": ("s3:PutBucketOwnershipControls",),
            "PublicAccessBlockConfiguration": ("s3:PutBucketPublicAccessBlock",),
            "ReplicationConfiguration": ("s3:PutReplicationConfiguration",),
            "Tags": ("s3:PutBucketTagging",),
            "VersioningConfiguration": ("s3:PutBucketVersioning",),
        },
        more=_bucket,
    ),
    "AWS::S3::BucketPolicy": Kind(
        name="Bucket",
        arn="arn:aws:s3:::{name}",
        create=("s3:GetBucketPolicy", "s3:PutBucketPolicy"),
        delete=("s3:GetBucketPolicy", "s3:DeleteBucketPolicy"),
        sets={},
    ),
    "AWS::SSM::Parameter": Kind(
        name="Name",
        arn=f"arn:aws:ssm:{_HERE}:parameter{{name}}",
        create=("ssm:PutParameter", "ssm:GetParameters"),
        delete=("ssm:DeleteParameter",),
    ),
    "AWS::ECR::Repository": Kind(
        name="RepositoryName",
        arn=f"arn:aws:ecr:{_HERE}:repository/{{name}}",
        create=("ecr:CreateRepository", "ecr:DescribeRepositories"),
        delete=("ecr:DeleteRepository",),
        sets={
            "LifecyclePolicy": ("ecr:PutLifecyclePolicy",),
            "RepositoryPolicyText": ("ecr:SetRepositoryPolicy",),
        },
    ),
    "AWS::CDK::Metadata": Kind(name="", arn="*", create=(), delete=()),
}
_UPDATES: dict[str, dict[str, tuple[str, ...]]] = {
    "AWS::IAM::Role": {
        "AssumeRolePolicyDocument": ("iam:UpdateAssumeRolePolicy",),
        "Description": ("iam:UpdateRole",),
        "MaxSessionDuration": ("iam:UpdateRole",),
        "PermissionsBoundary": _BOUNDARY_OF_ROLE,
    },
    "AWS::IAM::User": {"PermissionsBoundary": ("iam:PutUserPermissionsBoundary",)},
    "AWS::IAM::ManagedPolicy": {
        "PolicyDocument": ("iam:ListPolicyVersions", "iam:CreatePolicyVersion", "iam:DeletePolicyVersion")
    },
    "AWS::IAM::OIDCProvider": {
        "ClientIdList": ("iam:AddClientIDToOpenIDConnectProvider", "iam:RemoveClientIDFromOpenIDConnectProvider"),
        "ThumbprintList": ("iam:UpdateOpenIDConnectProviderThumbprint",),
    },
    "AWS::IAM::Group": {},
    "AWS::CodeCommit::Repository": {"RepositoryDescription": ("codecommit:UpdateRepositoryDescription",)},
    "AWS::Lambda::Function": {},
    "AWS::SNS::Topic": {"DisplayName": ("sns:SetTopicAttributes",)},
    "AWS::KMS::Alias": {},
    "AWS::Events::Rule": {
        name: ("events:PutRule",) for name in ("Description", "EventPattern", "ScheduleExpression", "State")
    },
    "AWS::KMS::Key": {"KeyPolicy": ("kms:PutKeyPolicy",), "Description": ("kms:UpdateKeyDescription",)},
    "AWS::CloudWatch::Dashboard": {"DashboardBody": ("cloudwatch:PutDashboard",)},
    "AWS::S3::BucketPolicy": {"PolicyDocument": ("s3:PutBucketPolicy",)},
    "AWS::SSM::Parameter": {"Value": ("ssm:PutParameter",)},
}
"""What a property takes when it changes, where creating the resource has set it already.

A type that is not here takes what creating it takes.
"""
_CUSTOM = Kind(name="ServiceToken", arn="{name}", create=(), delete=(), more=_custom)


def kind_of(resource_type: str) -> Kind:
    """Return what is known of a type of resource.

    Raises:
        ValueError: its calls are not known.
    """
    if resource_type.startswith("Custom::") or resource_type == "AWS::CloudFormation::CustomResource":
        return _CUSTOM
    if resource_type not in _KINDS:
        raise ValueError(f"The embedded cloud does not know what CloudFormation calls for {resource_type}")
    return _KINDS[resource_type]


def changed(resource_type: str, kind: Kind, arn: str, old: Properties, new: Properties) -> list[Call]:
    """Return the calls for properties that were set at creation and have changed since."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    properties = _UPDATES.get(resource_type)
    if properties is None:
        actions = list(kind.create) if any(name not in kind.sets for name in names) else []
    else:
        actions = [action for name in names for action in properties.get(name, ())]
    about = {kind.name: arn.rpartition("/")[2], "PermissionsBoundary": new.get("PermissionsBoundary")}
    return [(action, arn, context_of(action.removeprefix("iam:"), about)) for action in actions]
