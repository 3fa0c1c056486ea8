"""Change how a mirror's pipeline signs in, from a user to a role or back, without a moment in which it cannot.

1. The stack gets the new one beside the old one.
2. The pipeline gets the new variables and the new YAML, and a run with them leaves both sides equal.
3. Runs that were queued or began with the old YAML end; the old variables go, and then what they were for.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..aws import cdk
from ..aws.stack import ReplicaOutputs, read_outputs, tag_replica
from ..azure import runs
from ..azure.client import Definition
from ..azure.variables import OF_ROLE, OF_USER, update_variables
from ..config.mirror import Mirror
from ..progress import Say
from .context import MirrorContext
from .run import RUN_MINUTES


def is_changing(mirror: Mirror, deployed: ReplicaOutputs | None) -> bool:
    """Whether the deployed stack has what the pipeline no longer needs once it has changed."""
    if deployed is None:
        return False
    old = deployed.push_user_name if mirror.replica_auth == "role" else deployed.push_role_arn
    return old is not None


def cdk_context(changing: Sequence[str]) -> tuple[str, ...]:
    """Return what the CDK app must know of the mirrors that are changing."""
    return ("-c", f"changing={','.join(changing)}") if changing else ()


def finish_change(context: MirrorContext, definition: Definition, say: Say) -> None:
    """Take away what the pipeline no longer needs, once a run has succeeded without it.

    Raises:
        MirrorError: a call or the deployment failed; running again goes on.
    """
    mirror = context.mirror
    for status in ("notStarted", "inProgress"):
        for build in list(context.azure.builds(definition, status=status)):
            runs.follow(context.azure, build, say, timeout_minutes=RUN_MINUTES)
    gone = OF_USER if mirror.replica_auth == "role" else OF_ROLE
    update_variables(context.azure, definition, dict.fromkeys(gone))
    say(f"removed the variables {', '.join(gone)}")
    cdk.deploy(context.folder, mirror.name, context.cdk_context, say)
    if mirror.existing:
        tag_replica(context.aws, read_outputs(context.aws, mirror).replica_arn, mirror.replica_tags)
    say(f"removed the {'user' if mirror.replica_auth == 'role' else 'role'} that the pipeline no longer needs")
