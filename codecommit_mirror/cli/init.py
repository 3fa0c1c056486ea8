"""``codecommit-mirror init``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ..errors import MirrorError
from .options import config_option


@click.command()
@config_option
def init(config: Path) -> None:
    """Write a commented mirrors.yaml to start from; never overwrites an existing one."""
    text = (resources.files("codecommit_mirror") / "mirrors.example.yaml").read_text(encoding="utf-8")
    try:
        with config.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise MirrorError(f"{config} exists and is not overwritten; edit it, or name another with --config.") from None
    except OSError as error:
        raise MirrorError(f"{config} cannot be written ({error.strerror}); name another with --config.") from None
    click.echo(f"Wrote {config}. Edit it, then run: codecommit-mirror up MyRepoReplica")
