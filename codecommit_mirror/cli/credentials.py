"""``codecommit-mirror credentials``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..aws import git_credentials, writer
from ..aws.git_credentials import Credential, IssuedCredential
from ..aws.session import client, session
from ..aws.stack import read_outputs
from ..azure.rest.objects import Definition
from ..azure.variables import held_credential
from ..config.mirror import Mirror
from ..errors import MirrorError, NotFoundError
from ..operations.state import read_azure
from .options import confirmation, context_of, json_option, mirror_argument, yes_option
from .output import echo, print_json, print_table

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient


@click.group()
def credentials() -> None:
    """Issue, list and revoke the HTTPS Git credentials of a mirror's IAM user."""


@credentials.command()
@mirror_argument
@click.option("--show", is_flag=True, help="Print the password to the terminal instead of writing a file.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The CSV file to write, which only you can read.  [default: USER_codecommit_credentials.csv]",
)
@json_option
def issue(mirror: Mirror, show: bool, output: Path | None, as_json: bool) -> None:
    """Create a Git credential; its password is shown only once."""
    if show and output:
        raise click.UsageError("--show prints the password and --output writes it to a file; choose one.")
    aws = session(mirror)
    outputs, iam = read_outputs(aws, mirror), client(aws, "iam")
    user = outputs.user_of(mirror)
    if other := writer.other_rights(iam, mirror, outputs):
        raise MirrorError(other)
    _ensure_slot(mirror, iam, user)
    if show:
        issued = git_credentials.issue(iam, user, mirror.name)
        with _revoked_if_lost(iam, user, issued):
            _print_issued(issued, user, {"password": issued.password}, as_json)
            sys.stdout.flush()
        return
    path = output or Path(f"{user}_codecommit_credentials.csv")
    with git_credentials.private_file(path) as descriptor:
        issued = git_credentials.issue(iam, user, mirror.name)
        with _revoked_if_lost(iam, user, issued):
            data = git_credentials.to_csv(issued).encode()
            if os.write(descriptor, data) != len(data):
                raise OSError("the disk is full")
    _print_issued(issued, user, {"file": str(path)}, as_json)


def _ensure_slot(mirror: Mirror, iam: IAMClient, user: str) -> None:
    """Raise MirrorError if IAM would refuse another credential; it advises against revoking the one in use."""
    existing = git_credentials.list_credentials(iam, user)
    if len(existing) < git_credentials.MAX_PER_USER:
        return
    _, definition = _read_definition(mirror)
    in_use = held_credential(definition.variables).id if definition else None
    git_credentials.ensure_credential_slot(existing, user, mirror.name, in_use=in_use)


def _print_issued(issued: IssuedCredential, user: str, answer: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"credential_id": issued.id, "iam_user": user, "user_name": issued.user_name, **answer})
    elif "password" in answer:
        click.echo(f"User Name: {issued.user_name}\nPassword:  {issued.password}")
    else:
        echo(
            f"Issued {issued.id} for {user}. User name and password are in {answer['file']}; they are not shown again."
        )


@contextmanager
def _revoked_if_lost(iam: IAMClient, user: str, issued: IssuedCredential) -> Iterator[None]:
    """Revoke a credential whose password did not reach the user, since it would only use up one of two slots."""
    try:
        yield
    except OSError as error:
        git_credentials.revoke(iam, user, issued.id)
        # What is left in the buffer would fail again when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise MirrorError(
            f"the password could not be written ({error}), so {issued.id} was revoked; free some space and run again."
        ) from None
    except BaseException:
        git_credentials.revoke(iam, user, issued.id)
        raise


@credentials.command("list")
@mirror_argument
@json_option
def list_(mirror: Mirror, as_json: bool) -> None:
    """Show each Git credential's id, status and age."""
    aws = session(mirror)
    credentials = git_credentials.list_credentials(client(aws, "iam"), read_outputs(aws, mirror).user_of(mirror))
    if as_json:
        print_json(
            {
                "credentials": [
                    {
                        "credential_id": c.id,
                        "user_name": c.user_name,
                        "status": c.status,
                        "created": c.created.isoformat(),
                        "age_days": c.age_days(),
                    }
                    for c in credentials
                ]
            }
        )
    elif credentials:
        rows = [(c.id, c.status, f"{c.created:%Y-%m-%d %H:%M}", f"{c.age_days()} days") for c in credentials]
        print_table(("ID", "STATUS", "CREATED", "AGE"), rows)
    else:
        echo(
            f"{mirror.name} has no Git credentials; create one with: codecommit-mirror credentials issue {mirror.name}"
        )


@credentials.command()
@mirror_argument
@click.argument("credential_id", required=False)
@click.option("--all", "every", is_flag=True, help="Revoke every Git credential of the mirror's user.")
@yes_option
@json_option
def revoke(mirror: Mirror, credential_id: str | None, every: bool, yes: bool, as_json: bool) -> None:
    """Deactivate and delete one Git credential, or all; one that is already gone is fine.

    If the mirror's pipeline uses the credential, or may use it, the command asks first, because the pipeline's runs
    then fail until you run 'up' again.
    """
    if every == bool(credential_id):
        raise click.UsageError("Name one credential (see 'credentials list'), or give --all; not both.")
    if credential_id and not re.fullmatch(r"\w{20,128}", credential_id, re.ASCII):
        raise MirrorError(f"{credential_id!r} is not the id of a credential; see 'credentials list'.")
    iam, user, existing, doubt = _read_credentials(mirror)
    chosen = [c for c in existing if every or c.id == credential_id]
    if any(c.status == "Active" for c in chosen):
        ids = [c.id for c in chosen]
        question = revocation_question(mirror.name, ids, *_read_definition(mirror))
        if question := f"{doubt} Revoke {' and '.join(ids)}?" if doubt else question:
            confirmation(yes)(question)
    revoked = [c.id for c in chosen if git_credentials.revoke(iam, user, c.id)]
    if as_json:
        print_json({"revoked": revoked})
    elif revoked:
        echo(f"Revoked {', '.join(revoked)} of {user}.")
    else:
        echo(f"Nothing to revoke: {credential_id or 'every Git credential'} of {user} is already gone.")


def _read_credentials(mirror: Mirror) -> tuple[IAMClient, str, list[Credential], str | None]:
    """Return an IAM client, the mirror's user, the user's credentials, and why it may be somebody else's."""
    aws, outputs = session(mirror), None
    iam = client(aws, "iam")
    try:
        outputs = read_outputs(aws, mirror)
        user = outputs.user_of(mirror)
    except NotFoundError:
        # IAM is global: the user may exist without the stack.
        user = mirror.user_name
    try:
        existing = git_credentials.list_credentials(iam, user)
        if outputs is None:
            return iam, user, existing, f"Only mirrors.yaml says that {user!r} is the user of {mirror.name}."
        return iam, user, existing, writer.other_rights(iam, mirror, outputs)
    except NotFoundError:
        return iam, user, [], None


def _read_definition(mirror: Mirror) -> tuple[bool, Definition | None]:
    """Return whether the mirror's pipeline could be read, and the pipeline."""
    context = context_of(mirror)
    try:
        return True, read_azure(context).definition
    except MirrorError:
        return False, None


def revocation_question(mirror: str, ids: list[str], known: bool, definition: Definition | None) -> str | None:
    """Decide what to ask before Git credentials are revoked.

    Args:
        mirror: the mirror's name.
        ids: the credentials.
        known: whether the pipeline could be read.
        definition: the pipeline; None if there is none.

    Returns:
        None if the pipeline certainly does not use any of them.
    """
    listed = " and ".join(ids)
    until = f"its runs will fail until you run 'codecommit-mirror up {mirror}'"
    if not known:
        return f"It is not known whether the pipeline uses {listed}; if it does, {until}. Revoke {listed}?"
    held = held_credential(definition.variables).id if definition else None
    if definition and held in ids:
        return f"The pipeline {definition.name!r} uses {held}, and {until}. Revoke {listed}?"
    if definition and held is None:
        return f"The pipeline {definition.name!r} may use {listed}; if so, {until}. Revoke {listed}?"
    return None
