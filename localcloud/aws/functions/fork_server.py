"""Run as a program: import boto3 once, and fork a process for each function that starts.

Half of a function's cold start is that import. Python's own multiprocessing has a fork server for the same reason; this
one gives each process the three standard streams, the environment and the folder that it is sent, and nothing else.

Arguments: the file descriptor of a socket, and a folder with the packages of the runtime. Each message on the socket is
a JSON object (``script``, ``folder``, ``environment``) with four file descriptors: the three streams, and one that the
process keeps open as long as it lives. The answer is its process id, as one line.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
from typing import Any

LONGEST_MESSAGE = 1024 * 1024


def main() -> None:
    """Fork until the other end of the socket is closed."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    sys.path.append(sys.argv[2])
    import boto3  # noqa: F401

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, streams, _, _ = socket.recv_fds(requests, LONGEST_MESSAGE, 4)
        if not message:
            return
        process = os.fork()
        if not process:
            break
        for stream in streams:
            os.close(stream)
        requests.sendall(f"{process}\n".encode())
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _become(json.loads(message), streams[:3])


def _become(function: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(function["folder"])
    os.environ.clear()
    os.environ.update(function["environment"])
    tempfile.tempdir = None
    sys.argv = [function["script"]]
    runpy.run_path(function["script"], run_name="__main__")


if __name__ == "__main__":
    main()
