"""Findings of cdk-nag that are accepted, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

_COMPLIANCE_PACKS = ("HIPAA.Security", "NIST.800.53.R5")


def acknowledge(construct: Construct, reasons: Mapping[str, str], packs: Sequence[str] = _COMPLIANCE_PACKS) -> None:
    """Accept findings on a construct, and on what is in it.

    Args:
        construct: the construct with the findings.
        reasons: by the rule's name without its pack, like ``LambdaDLQ``.
        packs: whose rules; HIPAA and NIST 800-53 by default.
    """
    every = [Acknowledgment(id=f"{pack}::{pack}-{rule}", reason=why) for rule, why in reasons.items() for pack in packs]
    # In one call: each goes to another process.
    Validations.of(construct).acknowledge(*every)
