"""Findings of cdk-nag that are accepted, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

_PACKS = ("HIPAA.Security", "NIST.800.53.R5")


def acknowledge(construct: Construct, reasons: Mapping[str, str]) -> None:
    """Accept findings of the HIPAA and NIST 800-53 packs on a construct.

    Args:
        construct: what is found fault with.
        reasons: by the rule's name without its pack, like ``LambdaDLQ``.
    """
    for rule, reason in reasons.items():
        for pack in _PACKS:
            Validations.of(construct).acknowledge(Acknowledgment(id=f"{pack}::{pack}-{rule}", reason=reason))
