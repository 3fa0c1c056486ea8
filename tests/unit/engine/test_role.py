"""A role in place of a stored password: which requests are made, when they are repeated, and what is never said."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from codecommit_mirror.engine.failures import MirrorFailure, RetryableError
from codecommit_mirror.engine.wire.role import role_replica

CLAIMS = {"sub": "p://contoso/Shop/codecommit-mirror-MyRepo"}
TOKEN = f"canary-head.{base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode().rstrip('=')}.canary-signature"
ROLE = "arn:aws:iam::111122223333:role/azure-devops-pipeline-MyRepo"
REFUSED = "<ErrorResponse><Error><Code>{}</Code><Message>Not authorized</Message></Error></ErrorResponse>"


def keys(seconds):
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return (
        "<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>canary-secret</SecretAccessKey>"
        f"<SessionToken>canary-session</SessionToken><Expiration>{expires}</Expiration></Credentials>"
    )


class Services:
    """Azure Pipelines' and AWS STS's answers, one after another; the last one stays."""

    def __init__(self):
        self.azure, self.sts, self.asked = [(200, json.dumps({"oidcToken": TOKEN}))], [(200, keys(3600))], []
        services = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                services.asked.append((self.path, self.headers["Authorization"], body))
                answers = services.azure if self.path.startswith("/azure") else services.sts
                status, text = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.environment = {
            "AZURE_REPO_URL": "dev.azure.com/contoso/Shop/_git/MyRepo",
            "SYSTEM_ACCESSTOKEN": "canary-job",
            "AWS_REPO_URL": "git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyRepo",
            "AWS_ROLE_ARN": ROLE,
            "SYSTEM_OIDCREQUESTURI": f"{url}/azure/oidctoken",
            "OIDC_REQUEST_TOKEN": "canary-job",
            "AWS_ENDPOINT_URL_STS": f"{url}/",
        }

    def replica(self, **changes):
        return role_replica({**self.environment, **changes})


@pytest.fixture
def services():
    made = Services()
    yield made
    made.server.shutdown()


def test_the_jobs_token_is_exchanged_once_and_each_request_has_a_password_of_its_own(services):
    replica = services.replica()
    first, second = replica.now(), replica.now()
    assert first.username == second.username == "ASIAEXAMPLE%canary-session"
    assert len(first.password) == len("20261126T120000Z") + 64
    (azure, bearer, _), (_, nobody, form) = services.asked
    assert urlsplit(azure).query == "api-version=7.1"
    assert (bearer, nobody) == ("Bearer canary-job", None)
    asked = {name: value for name, (value,) in parse_qs(form).items()}
    assert asked == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": "azure-pipelines",
        "WebIdentityToken": TOKEN,
    }


def test_keys_are_renewed_before_they_expire(services):
    services.sts = [(200, keys(299)), (200, keys(3600))]
    replica = services.replica()
    for _ in range(3):
        replica.now()
    assert len(services.asked) == 4


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidIdentityToken", "ExpiredTokenException"])
def test_a_role_that_is_not_given_is_told_with_the_name_that_it_must_trust(services, code):
    services.sts = [(403, REFUSED.format(code))]
    with pytest.raises(MirrorFailure) as failure:
        services.replica().now()
    assert f"p://contoso/Shop/codecommit-mirror-MyRepo, the role {ROLE} ({code})" in str(failure.value)
    assert "canary" not in str(failure.value)


def test_a_job_that_gets_no_token_is_told_what_to_pass(services):
    services.azure = [(401, "canary")]
    with pytest.raises(MirrorFailure, match=r"no OpenID Connect token \(401\); OIDC_REQUEST_TOKEN must be"):
        services.replica().now()


@pytest.mark.parametrize("service", ["azure", "sts"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(services, service, status):
    setattr(services, service, [(status, "busy"), *getattr(services, service)])
    replica = services.replica()
    with pytest.raises(RetryableError, match=str(status)):
        replica.now()
    assert replica.now().username.startswith("ASIAEXAMPLE%")


def test_an_identity_provider_that_aws_does_not_reach_is_asked_again(services):
    services.sts = [(400, REFUSED.format("IDPCommunicationError")), *services.sts]
    replica = services.replica()
    with pytest.raises(RetryableError):
        replica.now()
    replica.now()


@pytest.mark.parametrize("name", ["SYSTEM_OIDCREQUESTURI", "AWS_ENDPOINT_URL_STS"])
def test_a_token_is_never_sent_unencrypted(services, name):
    with pytest.raises(MirrorFailure, match=f"{name} would send a token unencrypted"):
        services.replica(**{name: "http://example.com/"})


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("SYSTEM_OIDCREQUESTURI", "https://dev.azure.com.example/"),
        ("SYSTEM_OIDCREQUESTURI", "https://example.com/dev.azure.com/"),
        ("AWS_ENDPOINT_URL_STS", "https://sts.example.com/"),
        ("AWS_ENDPOINT_URL_STS", "https://x.execute-api.eu-west-1.amazonaws.com/"),
    ],
)
def test_a_token_goes_to_azure_devops_and_to_aws_only(services, name, url):
    with pytest.raises(MirrorFailure, match=f"{name} names .*, which gets no token; remove it"):
        services.replica(**{name: url})


@pytest.mark.parametrize(
    "url", ["https://sts.eu-west-1.amazonaws.com/", "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com"]
)
def test_sts_has_these_addresses(services, url):
    services.replica(AWS_ENDPOINT_URL_STS=url)


def test_another_role_than_the_yamls_is_refused(services):
    role = services.environment["AWS_ROLE_ARN"].rpartition("/")[2]
    services.replica(MIRROR_ROLE=role)
    with pytest.raises(MirrorFailure, match="but this pipeline's YAML is for the role another"):
        services.replica(MIRROR_ROLE="another")


@pytest.mark.parametrize("name", ["SYSTEM_OIDCREQUESTURI", "OIDC_REQUEST_TOKEN", "AWS_ROLE_ARN", "AWS_REPO_URL"])
def test_what_is_missing_is_named(services, name):
    with pytest.raises(MirrorFailure, match=f"{name} is not set"):
        services.replica(**{name: ""})


@pytest.mark.parametrize(
    "host", ["git-codecommit.us-east-1.amazonaws.com", "git-codecommit-fips.us-east-1.amazonaws.com"]
)
def test_the_region_is_the_hosts(services, host):
    services.replica(AWS_REPO_URL=f"{host}/v1/repos/MyRepo").now()
    with pytest.raises(MirrorFailure, match="AWS_REGION is not set"):
        services.replica(AWS_REPO_URL="vpce-1.git-codecommit.us-east-1.vpce.amazonaws.com/v1/repos/MyRepo")


def test_nothing_that_is_secret_is_shown(services):
    replica = services.replica()
    assert "canary" not in repr((replica, replica.now()))
