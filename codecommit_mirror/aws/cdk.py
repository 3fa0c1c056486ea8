"""The CDK CLI as a program: found, asked for its version, run on this project's app."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import MirrorError

_DEFAULT_QUALIFIER = "hnb659fds"
"""Of a bootstrap stack that was given none: https://docs.aws.amazon.com/cdk/v2/guide/bootstrapping-customizing.html"""


def find_cli(folder: Path) -> str:
    """Return the path of the CDK CLI: the project's own, else the one on the PATH.

    Raises:
        MirrorError: there is none.
    """
    found = shutil.which("cdk", path=folder / "node_modules" / ".bin") or shutil.which("cdk")
    if not found or shutil.which("node") is None:
        raise MirrorError("the CDK CLI or Node.js is not installed; install Node 20 or later, then run 'npm ci' here.")
    return found


def bootstrap_parameter(folder: Path) -> str:
    """Return the name of the SSM parameter that ``cdk bootstrap`` leaves.

    Raises:
        MirrorError: the folder is not this project's.
    """
    try:
        context = json.loads((folder / "cdk.json").read_text(encoding="utf-8")).get("context", {})
    except FileNotFoundError:
        raise MirrorError(f"{folder} has no cdk.json; run this in the project's folder.") from None
    except ValueError as error:
        raise MirrorError(f"{folder / 'cdk.json'} is not JSON ({error}); correct it.") from None
    return f"/cdk-bootstrap/{context.get('@aws-cdk/core:bootstrapQualifier', _DEFAULT_QUALIFIER)}/version"


def run(folder: Path, arguments: Sequence[str], assembly: Path | None = None) -> str:
    """Run the CLI in the project's folder and return what it printed.

    Args:
        folder: the project's.
        arguments: the command.
        assembly: what an earlier ``cdk synth`` wrote; without it the app is synthesised anew, into a folder of its
            own, so that several runs do not wait for each other.

    Raises:
        MirrorError: it failed; the message has its whole output.
    """
    with tempfile.TemporaryDirectory(prefix="cdk-") as fresh:
        where = ["--output", fresh] if assembly is None else ["--app", str(assembly.resolve())]
        command = [find_cli(folder), *arguments, *where, "--no-notices", "--progress", "events"]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        shown = shlex.join(["cdk", *arguments])
        raise MirrorError(f"{shown} failed; running again goes on from there. It said:\n{done.stdout.rstrip()}")
    return done.stdout
