"""Git without the machine's own settings."""

from __future__ import annotations

import os


def isolated_environment() -> dict[str, str]:
    """Return an environment in which git reads neither the system's nor the user's configuration."""
    return {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
