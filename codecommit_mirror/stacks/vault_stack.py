"""The vault's stack: what outlives the guard, and everything else."""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Environment, Stack, Tags
from constructs import Construct

from ..config.guard import VAULT_STACK_NAME, Guard, SnapshotSchedule
from ..constructs import Vault


class VaultStack(Stack):
    """The vault, which a person deploys with the account's own bootstrap.

    Outputs: ``Bucket``, ``SigningKeyArn``.

    Args:
        guard: the section ``guard`` of mirrors.yaml.
        suffix: what its id in the app ends with, where the app has several.
    """

    def __init__(self, scope: Construct, *, guard: Guard, suffix: str = "") -> None:
        super().__init__(
            scope,
            f"{VAULT_STACK_NAME}{suffix}",
            stack_name=VAULT_STACK_NAME,
            description="Locked and signed snapshots of the CodeCommit replicas",
            env=Environment(account=guard.account, region=guard.region),
            termination_protection=True,
        )
        schedule = guard.snapshots or SnapshotSchedule()
        longest = Duration.hours(schedule.keep + schedule.full_every)
        self.vault = Vault(self, "Vault", deployer=guard.deployed_by, longest=longest)
        Tags.of(self).add("managed-by", "codecommit-mirror")
        bucket, key = self.vault.bucket.bucket_name, self.vault.key.key_arn
        CfnOutput(self, "Bucket", value=bucket, description="Bucket of the snapshots")
        CfnOutput(self, "SigningKeyArn", value=key, description="Key that signs the snapshots")
