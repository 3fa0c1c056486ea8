"""CDK app: one ReplicaStack for each mirror of mirrors.yaml."""

import sys

import aws_cdk as cdk

from codecommit_mirror.config import mirrors_from_context
from codecommit_mirror.errors import MirrorError
from stacks import ReplicaStack

app = cdk.App()
try:
    for mirror in mirrors_from_context(app.node.try_get_context):
        ReplicaStack(app, mirror=mirror)
except MirrorError as error:
    sys.exit(str(error))
app.synth()
