"""The Lambda function of ``CredentialCleanup``: removes a user's Git credentials when CloudFormation deletes it.

Inline code: one file, standard library and the runtime's boto3. It always answers CloudFormation, since a stack would
wait for a missing answer until its time is out.
"""

import json
import urllib.request
from typing import Any

import boto3

SERVICE = "codecommit.amazonaws.com"


def handler(event: dict[str, Any], context: object) -> None:
    """Answer one request of CloudFormation (AWS::CloudFormation::CustomResource)."""
    status, reason = "SUCCESS", "done"
    user = event["ResourceProperties"].get("UserName", "")
    try:
        if event["RequestType"] == "Delete":
            reason = f"Git credentials of {user} removed: {remove_credentials(boto3.client('iam'), user)}"
    except Exception as error:
        status, reason = "FAILED", f"cannot remove the Git credentials of {user}: {error}"
    print(status, reason)
    answer = {
        "Status": status,
        "Reason": reason[:1000],
        "PhysicalResourceId": event.get("PhysicalResourceId") if event["RequestType"] == "Delete" else user,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    body = json.dumps(answer).encode()
    # The address is CloudFormation's own.
    request = urllib.request.Request(event["ResponseURL"], body, {"Content-Type": ""}, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass


def remove_credentials(iam: Any, user: str) -> int:
    """Deactivate and delete each credential, and return how many; a user that is gone already has none."""
    try:
        listed = iam.list_service_specific_credentials(UserName=user, ServiceName=SERVICE)
        for credential in listed["ServiceSpecificCredentials"]:
            which = {"UserName": user, "ServiceSpecificCredentialId": credential["ServiceSpecificCredentialId"]}
            iam.update_service_specific_credential(Status="Inactive", **which)
            iam.delete_service_specific_credential(**which)
        return len(listed["ServiceSpecificCredentials"])
    except iam.exceptions.NoSuchEntityException:
        return 0
