"""The CDK app's output, ``cdk.out``, read back: one stack for each mirror.

https://docs.aws.amazon.com/cdk/v2/guide/deploy.html#deploy-how-synth-assemblies
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..ci_config import REPLICA
from ..errors import MirrorError
from .plan import WantedStack

_ENVIRONMENT = re.compile(r"aws://([^/]+)/(.+)")
_UNKNOWN = {"unknown-account", "unknown-region"}


def read(folder: Path, account: str, region: str) -> list[WantedStack]:
    """Return the mirrors' stacks.

    Args:
        folder: where ``cdk synth`` wrote to.
        account, region: of a stack that names none; it goes where the credentials are.

    Raises:
        MirrorError: there is nothing that ``cdk synth`` wrote.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MirrorError(f"{folder} has no output of the CDK app; run 'cdk synth --quiet' first.") from None
    found = []
    for artifact in manifest["artifacts"].values():
        properties = artifact.get("properties", {})
        mirror = properties.get("tags", {}).get(REPLICA)
        match = _ENVIRONMENT.fullmatch(artifact.get("environment", ""))
        if artifact["type"] != "aws:cloudformation:stack" or mirror is None or match is None:
            continue
        of_account, of_region = match.groups()
        found.append(
            WantedStack(
                mirror=mirror,
                stack_name=properties.get("stackName", mirror),
                account=account if of_account in _UNKNOWN else of_account,
                region=region if of_region in _UNKNOWN else of_region,
                template=json.loads((folder / properties["templateFile"]).read_text(encoding="utf-8")),
                tags=properties["tags"],
                protected=bool(properties.get("terminationProtection")),
            )
        )
    return found
