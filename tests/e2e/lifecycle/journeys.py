"""A mirror's journey on the embedded cloud, stopped after any of its effects."""

import itertools
import os

import httpx

from codecommit_mirror.aws import cdk
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.azure.variables import HeldCredential, held_credential
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.lifecycle import down as down_module
from codecommit_mirror.lifecycle import up as up_module
from codecommit_mirror.lifecycle.context import MirrorContext
from codecommit_mirror.lifecycle.down import down
from codecommit_mirror.lifecycle.rotate import rotate
from codecommit_mirror.lifecycle.run import run, run_successfully
from codecommit_mirror.lifecycle.up import up
from codecommit_mirror.progress import Checklist
from localcloud import sample
from tests.e2e.conftest import NAMESPACES, ROOT, azure_environment
from tests.program import program

counter = itertools.count()
MIRRORS = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
mirrors:
  {name}:
    azure: {{repository: {name}}}
"""
UP = [
    "cdk deploy",
    "POST build/definitions",
    "POST pushes",
    "PUT definition",
    "CreateServiceSpecificCredential",
    "PUT definition",
    "POST build/builds",
]
ROTATE = [
    "PUT definition",
    "CreateServiceSpecificCredential",
    "PUT definition",
    "POST build/builds",
    "UpdateServiceSpecificCredential",
    "POST build/builds",
    "UpdateServiceSpecificCredential",
    "DeleteServiceSpecificCredential",
    "PUT definition",
]
DOWN = [
    "DELETE build/retention/leases",
    "DELETE definition",
    "POST pushes",
    "UpdateServiceSpecificCredential",
    "DeleteServiceSpecificCredential",
    "cdk destroy",
]


class Killed(BaseException):
    """Stands for a signal that no code can catch."""


class Effects:
    """Notes every call that changes something, and stops the program after one of them."""

    def __init__(self, monkeypatch) -> None:
        self.seen, self.passwords, self.stop_after = [], [], None
        run_cdk = cdk.run

        def cdk_cli(folder, arguments, assembly=None, report=None):
            answer = run_cdk(folder, arguments, assembly, report)
            self.note(f"cdk {arguments[0]}")
            return answer

        monkeypatch.setattr(cdk, "run", cdk_cli)

    def watch(self, context) -> MirrorContext:
        """Watch the clients of a context."""
        context.azure_transport = WatchedTransport(self)
        context.aws.events.register("after-call.iam", self._after_call)
        return context

    def _after_call(self, model, parsed, **_):
        if model.name.endswith("ServiceSpecificCredential"):
            if model.name.startswith("Create"):
                self.passwords.append(parsed["ServiceSpecificCredential"]["ServicePassword"])
            self.note(model.name)

    def note(self, effect):
        self.seen.append(effect)
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise Killed(effect)


class WatchedTransport(httpx.BaseTransport):
    """Sends requests to Azure DevOps, and notes those that change something."""

    def __init__(self, effects) -> None:
        self._effects, self._transport = effects, httpx.HTTPTransport()

    def handle_request(self, request):
        answer = self._transport.handle_request(request)
        path = request.url.path.partition("/_apis/")[2]
        if request.method != "GET" and not path.endswith("/preview"):
            answer.read()
            self._effects.note(f"{request.method} {self._short(path)}")
        return answer

    @staticmethod
    def _short(path):
        if path.startswith("build/definitions/"):
            return "definition"
        return path.rpartition("/")[2] if path.startswith("git/") else path


class Journey:
    """A mirror in mirrors.yaml, from nothing."""

    def __init__(self, cloud, folder, monkeypatch, capfd) -> None:
        self.cloud, self.name, self.capfd = cloud, f"journey-{next(counter)}-{os.getpid()}", capfd
        self.source = cloud.create_azure_repository("contoso", "Shop", self.name)
        sample.fill(self.source)
        self.config = folder / "mirrors.yaml"
        self.config.write_text(MIRRORS.format(server=cloud.azure_url, name=self.name))
        (self.mirror,) = load_mirrors(self.config, self.name)
        self.replica = cloud.replica_path(self.name)
        self.effects = Effects(monkeypatch)
        self.said = ""

    def context(self) -> MirrorContext:
        """Return a new context, as each process has."""
        arguments = ("-c", f"config={self.config}", "-c", f"mirror={self.name}")
        return self.effects.watch(MirrorContext(self.mirror, azure_environment(self.cloud), ROOT, arguments))

    def do(self, what, *arguments, stop_after=None):
        """Run one journey to its end, or until it is killed; return its effects."""
        self.effects.seen, self.effects.stop_after = [], stop_after
        try:
            with Checklist(()) as checklist:
                what(self.context(), checklist, *arguments)
        finally:
            captured = self.capfd.readouterr()
            self.said += captured.out + captured.err
        return self.effects.seen

    def up(self, **options):
        return self.do(up, **options)

    def rotate(self, **options):
        return self.do(rotate, lambda question: None, **options)

    def down(self, **options):
        return self.do(down, lambda question: None, **options)

    @property
    def credentials(self):
        iam = self.cloud.client("iam")
        return iam.list_service_specific_credentials(UserName=self.mirror.user_name)["ServiceSpecificCredentials"]

    def assert_up(self):
        """One credential, which the pipeline holds; it works; both sides are equal; nothing leaked."""
        (credential,) = self.credentials
        assert credential["Status"] == "Active"
        definition = state_of(self.context()).definition
        held = held_credential(definition.variables)
        identifier = credential["ServiceSpecificCredentialId"]
        assert held == HeldCredential(identifier, account=self.cloud.account)
        sample.commit(self.source, "main", f"commit {next(counter)}")
        run_successfully(self.context(), lambda line: None)
        mirrored = program.by_original_name(sample.refs(self.replica), NAMESPACES)
        assert mirrored == sample.refs(self.source, *NAMESPACES)
        self.assert_no_leak()

    def assert_no_leak(self):
        secrets = [*self.effects.passwords, self.cloud.operator_token, self.cloud.personal_access_token]
        assert not any(secret in self.said for secret in secrets)
        for path in self.config.parent.rglob("*"):
            assert path.is_dir() or not any(secret.encode() in path.read_bytes() for secret in secrets), path

    def issue_by_hand(self):
        """Issue a credential beside the pipeline's, as a person does, and return its id."""
        issued = self.cloud.client("iam").create_service_specific_credential(
            UserName=self.mirror.user_name, ServiceName="codecommit.amazonaws.com"
        )
        return issued["ServiceSpecificCredential"]["ServiceSpecificCredentialId"]

    def pipeline_works(self):
        """Whether a run succeeds with what the pipeline holds at this moment."""
        self.effects.stop_after = None
        return run(self.context(), lambda line: None, branch=None, timeout_minutes=1).succeeded


def state_of(context):
    """Return a mirror's state in Azure DevOps."""
    return read_state(context.mirror, context.azure)[1]


def agree(question):
    """Stands for a person who says yes."""


def hide_stack(monkeypatch):
    """Let no command find a stack."""
    for module in (up_module, down_module):
        monkeypatch.setattr(module, "find_stack", lambda aws, mirror: None)
