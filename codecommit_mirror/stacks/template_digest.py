"""A tag of each mirror's stack with its template's digest, so that a plan for a fleet reads no template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..config.ci import REPLICA, TEMPLATE


def tag_with_digests(assembly: Path) -> None:
    """Add the tag to the mirrors' stacks in a cloud assembly.

    Constructs cannot do that, because a template's text is only known once the app has been synthesised.

    Args:
        assembly: the folder that the app was synthesised into.
    """
    path = assembly / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for artifact in manifest["artifacts"].values():
        properties = artifact.get("properties", {})
        if REPLICA in properties.get("tags", {}):
            template = (assembly / properties["templateFile"]).read_bytes()
            properties["tags"][TEMPLATE] = hashlib.sha256(template).hexdigest()
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
