"""AWS profiles that ask a person: once, for all regions and for the CDK CLI."""

import json
import os
import subprocess
import sys

from .conftest import ROOT
from .test_codecommit_access import role_credentials

PROGRAM = """
import json, os
from codecommit_mirror.aws.session import account_of, environment_for_cdk, session_in
accounts = [account_of(session_in(region)) for region in ("eu-central-1", "us-east-1", "eu-west-1")]
given = environment_for_cdk()
print(json.dumps({"accounts": accounts, "removed": [name for name, value in given.items() if value is None]}))
os.environ.pop("AWS_PROFILE")
os.environ.update({name: value for name, value in given.items() if value})
print(account_of(session_in("eu-central-1")))
"""


def test_a_code_is_asked_for_once_and_the_cdk_cli_gets_the_session(cloud, tmp_path):
    role_credentials(cloud, "operators", "codecommit:ListRepositories")
    keys = cloud.environment()
    (tmp_path / "credentials").write_text(
        f"[me]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    role = f"arn:aws:iam::{cloud.account}:role/operators"
    (tmp_path / "config").write_text(
        f"[profile work]\nrole_arn = {role}\nsource_profile = me\nmfa_serial = arn:aws:iam::{cloud.account}:mfa/me\n"
    )
    kept = {name: value for name, value in keys.items() if "KEY" not in name}
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_PROFILE": "work",
    }
    # Without a terminal the code is read from the input, and a second question would find its end.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **kept, **files},
        input="123456\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, account = map(json.loads, done.stdout.replace("Enter MFA code", "\nEnter MFA code").splitlines()[-2:])
    assert found == {"accounts": [cloud.account] * 3, "removed": ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]}
    assert str(account).zfill(12) == cloud.account
