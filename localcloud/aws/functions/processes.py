"""The processes of functions, forked from one that has boto3 already."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

_FORK_SERVER = Path(__file__).with_name("fork_server.py")


class ForkServer:
    """Forks the processes of one runtime's functions."""

    def __init__(self, interpreter: str, packages: Path) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [interpreter, "-I", "-S", str(_FORK_SERVER), str(theirs.fileno()), str(packages)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={},
        )
        theirs.close()

    def start(self, script: str, folder: str, environment: dict[str, str]) -> FunctionProcess:
        """Start a process that runs a script.

        Raises:
            RuntimeError: the fork server is gone.
        """
        their_stdin, stdin = os.pipe()
        (stdout, their_stdout), (stderr, their_stderr), (alive, their_alive) = os.pipe(), os.pipe(), os.pipe()
        theirs = [their_stdin, their_stdout, their_stderr, their_alive]
        message = json.dumps({"script": script, "folder": folder, "environment": environment}).encode()
        with self._lock:
            socket.send_fds(self._socket, [message], theirs)
            for descriptor in theirs:
                os.close(descriptor)
            answer = self._socket.recv(32)
        if not answer:
            raise RuntimeError("the process that forks those of functions is gone")
        return FunctionProcess(int(answer), stdin, stdout, stderr, alive)


class FunctionProcess:
    """A function's process, with those methods of ``subprocess.Popen`` that ministack calls."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, alive: int) -> None:
        self.pid = pid
        self.stdin = os.fdopen(stdin, "w", buffering=1)
        self.stdout = os.fdopen(stdout)
        self.stderr = os.fdopen(stderr)
        self._alive = os.fdopen(alive)

    def poll(self) -> int | None:
        """Return None while the process runs; how it ended is not known."""
        return 1 if select.select([self._alive], [], [], 0)[0] else None

    def wait(self, timeout: float) -> int:
        """Wait until the process has ended.

        Args:
            timeout: in seconds.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if not select.select([self._alive], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a function", timeout)
        return 1

    def terminate(self) -> None:
        """Ask the process to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
