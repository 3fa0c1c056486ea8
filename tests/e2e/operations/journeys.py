"""A mirror's journey on the embedded cloud, stopped after any of its effects."""

import itertools
import os

import httpx

from codecommit_mirror.aws import cdk
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.azure.variables import HeldCredential, held_credential
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.operations import credential_delivery, state
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.run import run, run_successfully
from codecommit_mirror.operations.state import read_azure
from localcloud import sample
from tests.e2e.conftest import NAMESPACES, ROOT, azure_environment, bring_up, rotate_one, take_down
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
    "TagUser",
    "POST build/definitions",
    "TagUser",
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
        for function in ("deploy", "deploy_all", "destroy_all"):
            monkeypatch.setattr(cdk, function, self._noting(getattr(cdk, function), function.partition("_")[0]))

    def _noting(self, function, command):
        def call(*arguments, **options):
            answer = function(*arguments, **options)
            self.note(f"cdk {command}")
            return answer

        return call

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
        elif model.name in ("TagUser", "TagRole"):
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
        return self.effects.watch(MirrorContext(self.mirror, azure_environment(self.cloud), ROOT))

    def do(self, what, *, stop_after=None, **options):
        """Run one command to its end, or until it is killed; return its effects."""
        self.effects.seen, self.effects.stop_after = [], stop_after
        said = []
        try:
            self.row = what(self.context(), said, **options)
        finally:
            self.said += "\n".join(said) + self.capfd.readouterr().err
        return self.effects.seen

    @property
    def cdk_context(self):
        """How the CDK app finds the mirror."""
        return ("-c", f"config={self.config}", "-c", f"mirror={self.name}")

    def up(self, **options):
        return self.do(bring_up, cdk_context=self.cdk_context, **options)

    def rotate(self, **options):
        return self.do(rotate_one, **options)

    def down(self, **options):
        return self.do(take_down, cdk_context=self.cdk_context, **options)

    @property
    def credentials(self):
        iam = self.cloud.client("iam")
        return iam.list_service_specific_credentials(UserName=self.mirror.user_name)["ServiceSpecificCredentials"]

    def assert_up(self):
        """One credential, which the pipeline holds; it works; both sides are equal; nothing leaked."""
        self.effects.stop_after = None
        (credential,) = self.credentials
        assert credential["Status"] == "Active"
        definition = read_azure(self.context()).definition
        held = held_credential(definition.variables)
        identifier = credential["ServiceSpecificCredentialId"]
        assert held == HeldCredential(identifier, account=self.cloud.account)
        sample.commit(self.source, "main", f"commit {next(counter)}")
        run_successfully(self.context(), read_azure(self.context()))
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
        return run(self.context(), state_of(self.context()), timeout_minutes=1).succeeded


def state_of(context):
    """Return a mirror's state in Azure DevOps."""
    return read_state(context.mirror, context.azure)[1]


def target_of(context):
    """Return the pipeline and the user of a mirror."""
    return credential_delivery.target_of(context, state.read(context, state.settled_stack(context), compare=False))


def hide_stack(monkeypatch):
    """Let no command find a stack."""
    monkeypatch.setattr(MirrorContext, "find_stack", lambda self, again=False: None)
