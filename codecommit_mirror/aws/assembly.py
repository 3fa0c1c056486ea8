"""Read the CDK app's output, ``cdk.out``: one stack for each mirror.

https://docs.aws.amazon.com/cdk/v2/guide/deploy.html#deploy-how-synth-assemblies
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.ci import REPLICA
from ..errors import MirrorError
from .stack_plan import WantedStack


def read(folder: Path) -> list[WantedStack]:
    """Return the mirrors' stacks with their accounts and regions.

    Args:
        folder: the output of ``cdk synth``.

    Raises:
        MirrorError: it is not an output of ``cdk synth``.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        stacks = [a for a in manifest["artifacts"].values() if a["type"] == "aws:cloudformation:stack"]
        return [stack for artifact in stacks if (stack := _stack(folder, artifact))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise MirrorError(f"{folder} has no output of the CDK app; run 'cdk synth --quiet' first.") from None


def _stack(folder: Path, artifact: Mapping[str, Any]) -> WantedStack | None:
    properties = artifact["properties"]
    mirror = properties.get("tags", {}).get(REPLICA)
    if mirror is None:
        return None
    account, region = artifact["environment"].removeprefix("aws://").split("/")
    return WantedStack(
        mirror=mirror,
        stack_name=properties.get("stackName", mirror),
        account=account,
        region=region,
        template=json.loads((folder / properties["templateFile"]).read_text(encoding="utf-8")),
        tags=properties["tags"],
        protected=bool(properties.get("terminationProtection")),
    )
