"""What a function sees: its own code, boto3, and nothing of this machine; and how much memory it may use.

ministack runs functions with its own interpreter, packages, PATH and HOME, and without a limit. Here a function of one
of Python's runtimes (others are refused) has the interpreter of its runtime where this machine has one, the packages
that Lambda's runtime has beside boto3, an empty PATH, a HOME of its own, and is killed when it uses too much memory.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html#python-sdk-included,
https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html; out of memory is reported as
``Runtime.OutOfMemory`` with the words ``signal: killed``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from .processes import ForkServer, FunctionProcess

PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
_POLL_SECONDS = 0.02


def install(root: Path) -> None:
    """Start functions in their sandbox, and watch how much they use.

    Args:
        root: a folder for the packages that functions have.
    """
    packages = _packages(root / "packages")
    empty = root / "no-programs"
    empty.mkdir()
    foreign = set(os.environ)
    servers: dict[str, ForkServer] = {}
    starting = threading.Lock()
    detect = lambda_runtime._detect_runtime_binary

    def detect_runtime(runtime: str) -> tuple[str, str]:
        _, script = detect(runtime)
        return (_interpreter(runtime), script) if runtime.startswith("python") else ("", "")

    def start(command: list[str], cwd: str, env: dict[str, str], **_: Any) -> FunctionProcess:
        interpreter, script = command
        with starting:
            if interpreter not in servers:
                servers[interpreter] = ForkServer(interpreter, packages)
        environment = {name: value for name, value in env.items() if name not in foreign}
        for name, variable in (("home", "HOME"), ("tmp", "TMPDIR")):
            environment[variable] = str(Path(script).with_name(name))
            Path(environment[variable]).mkdir(exist_ok=True)
        return servers[interpreter].start(script, cwd, {**environment, "PATH": str(empty)})

    lambda_runtime._detect_runtime_binary = detect_runtime
    lambda_runtime.subprocess = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)
    _limit_memory()


def _packages(folder: Path) -> Path:
    """Return a folder with the packages that the runtime has, and no others."""
    folder.mkdir(parents=True)
    installed = Path(sysconfig.get_paths()["purelib"])
    for name in PACKAGES:
        (folder / name).symlink_to(installed / name)
    return folder


@cache
def _interpreter(runtime: str) -> str:
    """Return the interpreter of a runtime, or this process's; a version manager's shim may be there and not run."""
    found = shutil.which(runtime)
    version = [found, "-I", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"] if found else ["false"]
    says = subprocess.run(version, capture_output=True, text=True, check=False).stdout.strip()
    return found if found and says == runtime else sys.executable


def _limit_memory() -> None:
    invoke, execute = lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm

    def invoke_watched(worker: Any, event: Any, request_id: str, **options: Any) -> dict[str, Any]:
        limit = int(worker.config.get("MemorySize", 128))
        with _watched(worker, limit):
            result: dict[str, Any] = invoke(worker, event, request_id, **options)
        worker.peak = max(_peak(worker), getattr(worker, "peak", 0))
        peaks[worker.func_name] = worker.peak
        if worker.peak < limit:
            return result
        worker.kill()
        worker.peak = 0
        return {"status": "error", "error": _killed(request_id), "log": result.get("log", "")}

    def execute_and_name(function: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
        result: dict[str, Any] = execute(function, event, request_id)
        body = result.get("body")
        if result.get("error") and isinstance(body, dict) and body.get("errorMessage") == _killed(request_id):
            body["errorType"] = "Runtime.OutOfMemory"
        return result

    lambda_runtime.Worker.invoke = invoke_watched
    lambda_svc._execute_function_warm = execute_and_name
    lambda_svc._probe_peak_memory_mb = lambda function: peaks.get(function["config"]["FunctionName"], 0)


peaks: dict[str, int] = {}
"""The most memory that each function's last process used, in MB."""


def _killed(request_id: str) -> str:
    return f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"


@contextmanager
def _watched(worker: Any, limit: int) -> Iterator[None]:
    """Kill a function's process as soon as it uses more than its memory."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            if (used := _peak(worker)) >= limit:
                worker.peak = used
                with suppress(OSError, AttributeError):
                    worker._proc.kill()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _peak(worker: Any) -> int:
    """Return the most memory that the function's process has used, in MB; 0 where this machine does not tell."""
    process = worker._proc
    if process is None:
        return 0
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    kilobytes = status.partition("VmHWM:")[2].split()[:1]
    return int(kilobytes[0]) // 1024 if kilobytes else 0
