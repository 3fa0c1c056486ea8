"""The process of a step: it ends with its script, at the job's time-out, or when the run is canceled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from .run import Run

MAX_SCRIPT_BYTES = 131_058
"""The agent hands an inline script over in an environment variable, which Linux limits (tried with execve(2))."""


def run_script(
    text: str, environment: Mapping[str, str], work: Path, minutes: float, run: Run, on_line: Callable[[str], None]
) -> int | None:
    """Run a Bash script, and pass on each line of its output.

    Args:
        text: the script.
        environment: its environment.
        work: the job's folders.
        minutes: the job's time-out.
        run: ends the script when it is canceled.
        on_line: receives each line.

    Returns:
        The exit status; None if the time-out or the cancellation ended the script.
    """
    if len(text.encode()) > MAX_SCRIPT_BYTES:
        on_line("##[error]An error occurred trying to start process: Argument list too long")
        return 1
    script = work / "_temp" / f"{uuid.uuid4()}.sh"
    script.write_text(text)
    process = _start(script, environment, work)
    timed_out = threading.Event()

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def time_out() -> None:
        timed_out.set()
        kill()

    timer = threading.Timer(minutes * 60, time_out)
    run.kill = kill
    timer.start()
    if run.canceled.is_set():
        kill()
    try:
        for raw in process.stdout or ():
            on_line(raw.decode("utf-8", "replace").rstrip("\n"))
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    return None if timed_out.is_set() or run.canceled.is_set() else status


def _start(script: Path, environment: Mapping[str, str], work: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", "--noprofile", "--norc", str(script)],
        cwd=work / "1/s",
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
