"""Stacks of templates that tests write, driven by anybody's client."""

import json
import uuid

from botocore.exceptions import ClientError

CAPABILITIES = ["CAPABILITY_NAMED_IAM"]


def template(**resources):
    return json.dumps({"Resources": resources})


def resource(kind, policy="Delete", **properties):
    return {"Type": kind, "DeletionPolicy": policy, "Properties": properties}


class Stack:
    """A stack, driven by anybody's client, and why it failed."""

    def __init__(self, client, name=None):
        self.client, self.name = client, name or f"stack-{uuid.uuid4().hex[:10]}"

    def create(self, body, **options):
        self.client.create_stack(StackName=self.name, TemplateBody=body, Capabilities=CAPABILITIES, **options)
        return self.settled()

    def update(self, body, **options):
        self.client.update_stack(StackName=self.name, TemplateBody=body, Capabilities=CAPABILITIES, **options)
        return self.settled()

    def delete(self, **options):
        self.client.delete_stack(StackName=self.name, **options)
        return self.settled()

    def settled(self):
        while True:
            try:
                (stack,) = self.client.describe_stacks(StackName=self.name)["Stacks"]
            except ClientError:
                return "DELETE_COMPLETE"
            if not stack["StackStatus"].endswith("IN_PROGRESS"):
                return stack["StackStatus"]

    def reasons(self):
        events = self.client.describe_stack_events(StackName=self.name)["StackEvents"]
        return [e["ResourceStatusReason"] for e in events if e["ResourceStatus"].endswith("_FAILED")]
