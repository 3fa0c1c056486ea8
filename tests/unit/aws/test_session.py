"""Failures of AWS as sentences, and the profiles' own ways to credentials."""

import re

import pytest
from botocore import exceptions

from codecommit_mirror.aws.cdk import bootstrap_parameter
from codecommit_mirror.aws.session import SignIn, account_of, aws_failures, environment_for_cdk, session_in
from codecommit_mirror.errors import DeniedError, MirrorError


def refusal(code, message, status=400):
    metadata = {"HTTPStatusCode": status, "RequestId": "req-1"}
    return exceptions.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "GetUser"
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            refusal("RequestTimeTooSkewed", "The difference is too large"),
            "the clock of this machine is wrong, says AWS",
        ),
        (
            refusal("SignatureDoesNotMatch", "Signature not yet current: 20261129T101500Z is still later than x"),
            "the clock of this machine is wrong, says AWS (SignatureDoesNotMatch); set it, and run again",
        ),
        (
            refusal(
                "InvalidSignatureException", "Signature expired: 20261129T0900Z is now earlier than 20261129T1000Z"
            ),
            "the clock of this machine is wrong, says AWS (InvalidSignatureException)",
        ),
        (
            refusal("SignatureDoesNotMatch", "The request signature we calculated does not match"),
            "AWS does not recognise these credentials (SignatureDoesNotMatch); check AWS_PROFILE",
        ),
        (
            refusal("AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code."),
            "AWS did not accept the code of your MFA device; run again with a new one",
        ),
        (refusal("ExpiredToken", "The security token is expired"), "the AWS credentials have expired; sign in again"),
        (refusal("Throttling", "Rate exceeded"), "AWS is busy (Throttling); run again in a minute"),
        (refusal("InternalFailure", "?", 500), "AWS has an outage (InternalFailure); run again in a few minutes"),
        (refusal("Strange", "It is."), "AWS answered Strange: It is (request req-1)."),
        (
            exceptions.CredentialRetrievalError(provider="custom-process", error_msg="no such vault"),
            "the AWS profile's own way to credentials failed (Error when retrieving credentials from custom-process: "
            "no such vault); run it by hand, or use another AWS profile.",
        ),
        (
            exceptions.MissingDependencyException(msg="crt"),
            "needs a package that is not installed; run pip install 'botocore[crt]'.",
        ),
        (exceptions.NoCredentialsError(), "there are no AWS credentials; run 'aws sso login' or 'aws configure'"),
        (exceptions.SSOTokenLoadError(error_msg="x"), "the AWS sign-in has expired; run 'aws sso login'."),
        (exceptions.InvalidConfigError(error_msg="role_arn is odd."), "role_arn is odd; check the AWS configuration."),
    ],
)
def test_each_failure_is_a_sentence_with_what_to_do(error, sentence):
    with pytest.raises(MirrorError, match=f"^cannot read it: .*{re.escape(sentence)}"), aws_failures("read it"):
        raise error


def test_a_policy_of_the_organization_is_named_as_what_denies():
    words = (
        "User: arn:aws:iam::111122223333:user/a is not authorized to perform: iam:GetUser on resource: b with an "
        "explicit deny in a service control policy: arn:aws:organizations::1:policy/o-1/p-1"
    )
    expected = "a service control policy of your AWS organization denies iam:GetUser; ask who administers it"
    with pytest.raises(DeniedError, match=expected), aws_failures("read it"):
        raise refusal("AccessDenied", words, 403)


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Write the AWS configuration of the only profile there is."""

    def write(text):
        (tmp_path / "config").write_text(f"[default]\n{text}\n")

    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return write


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("credential_process = sh -c 'echo the vault is locked >&2; exit 3'", "the vault is locked"),
        (
            "role_arn = arn:aws:iam::111122223333:role/r\nweb_identity_token_file = /no/such/token",
            "/no/such/token is not there, which the AWS configuration names",
        ),
        ("", "there are no AWS credentials"),
    ],
)
def test_a_way_to_credentials_that_fails_is_a_sentence(profile, text, sentence):
    profile(text)
    with pytest.raises(MirrorError, match=f"^cannot ask AWS which account .*{re.escape(sentence)}"):
        account_of(session_in("eu-central-1"))


def test_cdk_finds_credentials_that_nobody_is_asked_for_by_itself(profile):
    profile("credential_process = sh -c 'exit 3'")
    assert environment_for_cdk() == {}


@pytest.mark.parametrize("sign_in", [SignIn(), SignIn(profile="default")], ids=["environment", "file"])
def test_a_profile_that_is_not_there_is_named_with_what_named_it(profile, monkeypatch, sign_in):
    profile("region = eu-west-1")
    key = "profile" if sign_in.profile else "AWS_PROFILE"
    if key == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(MirrorError, match=rf"\(nope\) could not be found; correct {key}\."):
        session_in(None, sign_in._replace(profile="nope" if sign_in.profile else None))


def test_cdk_gets_the_region_of_the_profile_that_is_taken_away(profile, monkeypatch):
    profile("region = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2026-11-29T00:00:00Z")
    given = environment_for_cdk(SignIn(profile="default"))
    assert (given["AWS_PROFILE"], given["AWS_REGION"]) == ("default", "eu-west-1")
    assert (given["AWS_ACCESS_KEY_ID"], given["AWS_CREDENTIAL_EXPIRATION"]) == (None, None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cdk.json").write_text("{}")
    return tmp_path


def test_the_qualifier_is_where_cdk_reads_it(project):
    assert bootstrap_parameter(project) == "/cdk-bootstrap/hnb659fds/version"
    key = "@aws-cdk/core:bootstrapQualifier"
    for number, (file, text) in enumerate(
        [
            (".cdk.json", f'{{"context": {{"{key}": "q0"}}}}'),
            ("cdk.context.json", f'{{"{key}": "q1"}}'),
            ("cdk.json", f'{{"context": {{"{key}": "q2"}}}}'),
        ]
    ):
        (project / file).write_text(text)
        assert bootstrap_parameter(project) == f"/cdk-bootstrap/q{number}/version"
    (project / "cdk.json").write_text(f'{{"context": {{"{key}": null}}}}')
    assert bootstrap_parameter(project) == "/cdk-bootstrap/q1/version"


@pytest.mark.parametrize(("file", "text"), [("cdk.context.json", "[]"), (".cdk.json", "[1]"), ("cdk.json", "{")])
def test_a_file_of_cdk_that_is_no_mapping_is_a_sentence(project, file, text):
    (project / file).write_text(text)
    with pytest.raises(MirrorError, match=rf"{file} (has \[1?\] where a mapping is expected|is not JSON)"):
        bootstrap_parameter(project)
