"""Which properties of which resources are applied; any other is an error that names it.

ministack drops in silence what it does not implement, and what nobody has heard of. CloudFormation refuses unknown
properties (``Encountered unsupported property``), as cfn-lint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_APPLIED = {
    "AWS::CDK::Metadata": "Analytics",
    "AWS::CloudWatch::Alarm": (
        "ActionsEnabled AlarmActions AlarmDescription AlarmName ComparisonOperator DatapointsToAlarm Dimensions "
        "EvaluationPeriods InsufficientDataActions MetricName Namespace OKActions Period Statistic Tags Threshold "
        "TreatMissingData"
    ),
    "AWS::CloudWatch::Dashboard": "DashboardBody DashboardName Tags",
    "AWS::CodeCommit::Repository": "RepositoryDescription RepositoryName Tags",
    "AWS::ECR::Repository": "ImageTagMutability LifecyclePolicy RepositoryName RepositoryPolicyText Tags",
    "AWS::Events::Rule": "Description EventPattern Name ScheduleExpression State Tags Targets",
    "AWS::IAM::Group": "GroupName ManagedPolicyArns Path Policies",
    "AWS::IAM::ManagedPolicy": "Description Groups ManagedPolicyName Path PolicyDocument Roles Users",
    "AWS::IAM::OIDCProvider": "ClientIdList Tags ThumbprintList Url",
    "AWS::IAM::Policy": "Groups PolicyDocument PolicyName Roles Users",
    "AWS::IAM::Role": (
        "AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path PermissionsBoundary Policies "
        "RoleName Tags"
    ),
    "AWS::IAM::User": "Groups ManagedPolicyArns Path PermissionsBoundary Policies Tags UserName",
    "AWS::KMS::Alias": "AliasName TargetKeyId",
    "AWS::KMS::Key": (
        "Description EnableKeyRotation Enabled KeyPolicy KeySpec KeyUsage PendingWindowInDays RotationPeriodInDays Tags"
    ),
    "AWS::Lambda::EventInvokeConfig": (
        "DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts Qualifier"
    ),
    "AWS::Lambda::Function": (
        "Architectures Code Description Environment EphemeralStorage FunctionName Handler LoggingConfig MemorySize "
        "ReservedConcurrentExecutions Role Runtime Tags Timeout"
    ),
    "AWS::Lambda::Permission": "Action FunctionName Principal SourceAccount SourceArn",
    "AWS::Logs::LogGroup": "LogGroupClass LogGroupName RetentionInDays Tags",
    "AWS::S3::Bucket": (
        "AccessControl BucketEncryption BucketName CorsConfiguration LifecycleConfiguration NotificationConfiguration "
        "ObjectLockConfiguration ObjectLockEnabled OwnershipControls PublicAccessBlockConfiguration "
        "ReplicationConfiguration Tags VersioningConfiguration"
    ),
    "AWS::S3::BucketPolicy": "Bucket PolicyDocument",
    "AWS::SNS::Subscription": "Endpoint FilterPolicy FilterPolicyScope Protocol RawMessageDelivery TopicArn",
    "AWS::SNS::Topic": "DisplayName KmsMasterKeyId Tags TopicName",
    "AWS::SNS::TopicPolicy": "PolicyDocument Topics",
    "AWS::SSM::Parameter": "Description Name Tags Tier Type Value",
}


def problem(resource_type: str, properties: Mapping[str, Any]) -> str | None:
    """Return why a resource's properties are refused; None if each is applied.

    A type that is not here is a custom resource, which takes any, or one whose calls are not known either.
    """
    if resource_type not in _APPLIED:
        return None
    unknown = sorted(properties.keys() - set(_APPLIED[resource_type].split()))
    if not unknown:
        return None
    return (
        f"Properties validation failed for resource of type {resource_type}: Encountered unsupported property "
        f"{unknown[0]} (AWS knows no such property, or the embedded cloud does not apply it)"
    )
