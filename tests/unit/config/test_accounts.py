"""How mirrors.yaml says that an account is signed in to."""

import pytest

from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("profile: team", "profile needs account, so that no other one can be meant; write its 12 digits, in quotes"),
        ("profile: 'a b', account: '111122223333'", "profile: 'a b' is not the name of an AWS profile"),
        (
            "profile: a, assume_role: 'arn:aws:iam::111122223333:role/r', account: '111122223333'",
            "profile and assume_role are two ways into an account; remove one of them",
        ),
        (
            "assume_role: 'arn:aws:iam::444455556666:role/r', account: '111122223333'",
            "assume_role 'arn:aws:iam::444455556666:role/r' is in another account than 111122223333; correct one",
        ),
        ("assume_role: r, account: '111122223333'", "assume_role: 'r' is not the ARN of a role"),
    ],
)
def test_how_an_account_is_signed_in_to_must_be_clear(tmp_path, keys, sentence):
    path = tmp_path / "mirrors.yaml"
    path.write_text(f"mirrors:\n  R: {{azure: 'https://dev.azure.com/o/p/_git/r', {keys}}}\n")
    with pytest.raises(MirrorError) as caught:
        load_mirrors(path)
    assert sentence in str(caught.value)


def test_ci_signs_in_to_one_account(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text(
        "defaults: {account: '111122223333', region: eu-west-1, profile: team}\n"
        "ci: {github: {repository: o/r}}\n"
        "mirrors:\n  R: {azure: 'https://dev.azure.com/o/p/_git/r'}\n"
    )
    with pytest.raises(MirrorError, match="profile is for people, and CI has a role in one account; remove it"):
        load_mirrors(path)
