"""Canaries: after the whole job no password is in argv, a log, a template, an output, a URL, git's config or a file."""

import base64
import http.server
import os
import re
import shutil
import stat
import threading
import urllib.parse
from pathlib import Path

import pytest

from codecommit_mirror.azure.pipeline import render
from localcloud import sample
from localcloud.azure.agent.execution import run_pipeline
from localcloud.azure.agent.run import Variable

from .conftest import azure_environment

LINUX = Path("/proc/self/cmdline").exists()


class CommandLines(threading.Thread):
    """Collects the command line of every process of this machine, as often as it can."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            for process in os.listdir("/proc"):
                if process.isdigit():
                    try:
                        self.seen.add(Path(f"/proc/{process}/cmdline").read_bytes())
                    except OSError:
                        continue


def forms(secret: str) -> list[bytes]:
    """Every form that a password would be found in."""
    raw = secret.encode()
    return [raw, urllib.parse.quote(secret, safe="").encode(), base64.b64encode(raw)]


def recording_git(folder: Path, log: Path) -> None:
    """Put a git in front of the real one that keeps its arguments and the repository's config."""
    wrapper = folder / "git"
    real = shutil.which("git")
    wrapper.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$@" >> {log}\n'
        f"{real} config --list --show-origin >> {log} 2>/dev/null\n"
        f"cat config >> {log} 2>/dev/null\n"
        # Long enough for its arguments to be seen.
        f'sleep 0.1\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)


@pytest.mark.skipif(not LINUX, reason="reads other processes' command lines from /proc")
def test_no_canary_is_anywhere(rig, command, tmp_path):
    sample.fill(rig.source)
    issued = command(
        "credentials", "issue", rig.name, "--azure-repo-url", rig.mirror.azure.clone_url, "--output", "private.csv"
    )
    assert issued.returncode == 0, issued.stderr
    password = (tmp_path / "private.csv").read_text().splitlines()[1].partition(",")[2]
    username = (tmp_path / "private.csv").read_text().splitlines()[1].partition(",")[0]
    canaries = [password, rig.cloud.personal_access_token, rig.cloud.job_token]
    for number, canary in enumerate(canaries):
        assert len(canary) > 30, number

    programs = tmp_path / "bin"
    programs.mkdir()
    recording_git(programs, tmp_path / "git.log")
    watcher = CommandLines()
    watcher.start()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    good = rig.run(path=path, AWS_GIT_USERNAME=username, AWS_GIT_PASSWORD=password)
    sample.commit(rig.source, "main", "another")
    job = rig.run(
        path=path,
        mirror=rig.mirror.model_copy(update={"source_auth": "job-token"}),
        AWS_GIT_USERNAME=username,
        AWS_GIT_PASSWORD=password,
    )
    sample.commit(rig.source, "main", "by plain git")
    plain = rig.run(path=path, stepping_down=True, AWS_GIT_USERNAME=username, AWS_GIT_PASSWORD=password)
    bad = rig.run(path=path, AWS_GIT_PASSWORD=password + "x", AZURE_GIT_PASSWORD=rig.cloud.personal_access_token)
    rendered = command("pipeline", "render", rig.name, "--azure-repo-url", rig.mirror.azure.clone_url)
    variables = command("pipeline", "variables", rig.name, "--azure-repo-url", rig.mirror.azure.clone_url)
    watcher.done.set()
    watcher.join()
    assert good.left_behind + job.left_behind + plain.left_behind + bad.left_behind == []
    assert (good.result, job.result, plain.result, bad.result) == ("succeeded", "succeeded", "succeeded", "failed")

    cloudformation = rig.cloud.client("cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=rig.name)["Stacks"]
    template = cloudformation.get_template(StackName=rig.name)["TemplateBody"]
    events = cloudformation.describe_stack_events(StackName=rig.name)["StackEvents"]
    places = {
        "argv": b"\0".join(watcher.seen),
        "git's arguments and config": (tmp_path / "git.log").read_bytes(),
        "what the runs wrote, unmasked": "\n".join(
            good.unmasked + job.unmasked + plain.unmasked + bad.unmasked
        ).encode(),
        "the runs' summaries": "\n".join(good.summaries + job.summaries + bad.summaries).encode(),
        "the runs' issues": str(good.issues + job.issues + bad.issues).encode(),
        "stack outputs, template and events": str([stack, template, events]).encode(),
        "what the command prints": "".join([issued.stdout, issued.stderr, rendered.stdout, variables.stdout]).encode(),
    }
    assert any(b"git-remote-http" in line for line in watcher.seen)
    assert "Falling back to plain git" in plain.text
    for place, text in places.items():
        assert text, place
        for canary in canaries:
            for form in forms(canary):
                assert form not in text, f"a password is in {place}"
    # Of the other tests' processes, one may play somebody who is careless with a password of his own.
    replica = rig.outputs["ReplicaUrl"].partition("://")[2].encode()
    own = b"\0".join(line for line in watcher.seen if replica in line)
    assert own
    assert not re.search(rb"://[^/\s]*:[^/\s]*@", own + places["git's arguments and config"])


@pytest.mark.skipif(not LINUX, reason="the cloud's folder is read as a whole")
def test_no_canary_is_in_a_file_that_others_can_read(rig, tmp_path):
    sample.fill(rig.source)
    assert rig.run().result == "succeeded"
    canaries = [rig.cloud.personal_access_token, rig.cloud.job_token, rig.credential["ServicePassword"]]
    assert stat.S_IMODE(rig.cloud.root.stat().st_mode) == 0o700
    for path in rig.cloud.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(form in data for canary in canaries for form in forms(canary)), path


ISSUED = re.compile(rb"[A-Za-z0-9+/]{40,}=")
"""What a password of IAM looks like."""


@pytest.mark.skipif(not LINUX, reason="reads other processes' command lines from /proc")
def test_no_token_and_no_new_password_leaves_the_azure_side(rig, command, tmp_path):
    sample.fill(rig.source)
    rig.cloud.client("iam").delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    where = (rig.name, "--azure-repo-url", rig.mirror.azure.clone_url)
    watcher = CommandLines()
    watcher.start()
    done = [
        command(*words, *where, *options, **azure_environment(rig.cloud))
        for words, *options in (
            (("up",), "--no-deploy", "--yes", "-v"),
            (("pipeline", "run"),),
            (("rotate",), "-v"),
            (("verify",), "--json"),
            (("status",), "--json"),
            (("down",), "--keep-stack", "--yes"),
        )
    ]
    watcher.done.set()
    watcher.join()
    printed = "".join(run.stdout + run.stderr for run in done).encode()
    # With the ids by which the support of each service finds a request.
    assert re.search(rb"iam CreateServiceSpecificCredential -> 200 \(request [0-9A-Za-z-]{20,}\)", printed)
    assert re.search(rb"/_apis/build/definitions -> 200 \(request [0-9a-f-]{36}\)", printed)
    assert [run.returncode for run in done] == [0] * len(done), printed.decode()
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in (printed, b"\0".join(watcher.seen), files):
        for canary in (rig.cloud.operator_token, rig.cloud.personal_access_token):
            assert not any(form in text for form in forms(canary))
    assert ISSUED.search(b"x" * 43 + b"=")
    assert not ISSUED.search(printed + files)


@pytest.mark.parametrize("variable", ["BASH_ENV", "PYTHONPATH"])
def test_a_variable_that_names_code_runs_none_of_it(rig, tmp_path, variable):
    """A pipeline's variables are the environment of its steps, and a person who may queue a run may add some."""
    sample.fill(rig.source)
    stolen, script = tmp_path / "stolen", tmp_path / "code.sh"
    script.write_text(f"env > {stolen}\n")
    (tmp_path / "sitecustomize.py").write_text(f"import os; open({str(stolen)!r}, 'w').write(str(os.environ))\n")
    value = str(tmp_path if variable == "PYTHONPATH" else script)
    variables = {**rig.variables, variable: Variable(value)}
    assert run_pipeline(render(rig.mirror), variables, job_token=rig.cloud.job_token).result == "succeeded"
    assert not stolen.exists()


class Listener(http.server.ThreadingHTTPServer):
    """A server that a file names, and that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):  # noqa: N805
                self.asked.append(f"{handler.path} {handler.headers}")
                handler.send_error(404)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_no_command_asks_a_server_that_only_a_file_names(rig, command, tmp_path):
    listener, name = Listener(), rig.name
    server = f"http://127.0.0.1:{listener.server_port}"
    (tmp_path / "mirrors.yaml").write_text(
        f'defaults: {{azure: {{organization: contoso, project: Shop, server: "{server}"}}}}\n'
        f"mirrors: {{{name}: {{azure: {{repository: {name}}}}}}}\n"
    )
    secrets = {**azure_environment(rig.cloud), "AWS_GIT_USERNAME": "u", "AWS_GIT_PASSWORD": "canary-password"}
    for arguments in (
        ("status", name),
        ("up", name, "--no-deploy", "--dry-run"),
        ("up", name, "--no-deploy", "--yes"),
        ("down", name, "--keep-stack", "--yes"),
        ("rotate", name, "--yes"),
        ("discover",),
        ("config", "identity"),
        ("sync", name),
        ("verify", name),
        ("pipeline", "run", name),
    ):
        done = command(*arguments, **secrets)
        assert done.returncode in (1, 2), arguments
        assert "gets no token or password" in done.stdout + done.stderr, arguments
    assert listener.asked == []
    listener.shutdown()
