"""``codecommit-mirror credentials``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..aws import git_credentials
from ..aws.stack import Missing, client, replica_outputs, session
from ..azure import held_credential
from ..config.mirror import Mirror
from ..errors import MirrorError
from ..lifecycle import up as journey
from .options import confirmation, json_option, mirror_argument, operator_of, yes_option
from .table import print_json, print_table


@click.group()
def credentials() -> None:
    """Issue, list and revoke the HTTPS Git credentials of a mirror's IAM user."""


@credentials.command()
@mirror_argument
@click.option("--show", is_flag=True, help="Print the password to the terminal instead of writing a file.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The CSV file to write, readable by you alone.  [default: USER_codecommit_credentials.csv]",
)
@json_option
def issue(mirror: Mirror, show: bool, output: Path | None, as_json: bool) -> None:
    """Create a Git credential; its password is given once."""
    if show and output:
        raise click.UsageError("--show prints the password and --output writes it to a file; choose one.")
    aws = session(mirror)
    user = replica_outputs(aws, mirror).push_user_name
    iam = client(aws, "iam")
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
                raise OSError("no room on the disk")
    _print_issued(issued, user, {"file": str(path)}, as_json)


def _print_issued(issued: git_credentials.IssuedCredential, user: str, answer: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"credential_id": issued.id, "iam_user": user, "user_name": issued.user_name, **answer})
    elif "password" in answer:
        click.echo(f"User Name: {issued.user_name}\nPassword:  {issued.password}")
    else:
        click.echo(
            f"Issued {issued.id} for {user}. User name and password are in {answer['file']}; they are not shown again."
        )


@contextmanager
def _revoked_if_lost(iam: Any, user: str, issued: git_credentials.IssuedCredential) -> Iterator[None]:
    """Revoke a credential whose password did not reach the user: it would take one of two places for nothing."""
    try:
        yield
    except OSError as error:
        git_credentials.revoke(iam, user, issued.id)
        raise MirrorError(
            f"the password could not be written ({error}), so {issued.id} was revoked again; make room and run again."
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
    found = git_credentials.list_credentials(client(aws, "iam"), replica_outputs(aws, mirror).push_user_name)
    if as_json:
        print_json(
            [
                {
                    "credential_id": c.id,
                    "user_name": c.user_name,
                    "status": c.status,
                    "created": c.created.isoformat(),
                    "age_days": c.age_days(),
                }
                for c in found
            ]
        )
    elif found:
        rows = [(c.id, c.status, f"{c.created:%Y-%m-%d %H:%M}", f"{c.age_days()} days") for c in found]
        print_table(("ID", "STATUS", "CREATED", "AGE"), rows)
    else:
        click.echo(
            f"{mirror.name} has no Git credentials; create one with: codecommit-mirror credentials issue {mirror.name}"
        )


@credentials.command()
@mirror_argument
@click.argument("credential_id", required=False)
@click.option("--all", "every", is_flag=True, help="Revoke every Git credential of the mirror's user.")
@yes_option
@json_option
def revoke(mirror: Mirror, credential_id: str | None, every: bool, yes: bool, as_json: bool) -> None:
    """Deactivate, then delete one Git credential, or all; one that is gone already is fine.

    Asks first if the mirror's pipeline uses the credential, or may use it: its runs then fail until you run 'up' again.
    """
    if every == bool(credential_id):
        raise click.UsageError("Name one credential (see 'credentials list'), or give --all; not both.")
    if credential_id and not re.fullmatch(r"\w{20,128}", credential_id, re.ASCII):
        raise MirrorError(f"{credential_id!r} is not the id of a credential; see 'credentials list'.")
    aws = session(mirror)
    iam = client(aws, "iam")
    try:
        user = replica_outputs(aws, mirror).push_user_name
    except Missing:
        # IAM is global: the user may be there without the stack.
        user = mirror.user_name
    try:
        existing = git_credentials.list_credentials(iam, user)
    except Missing:
        existing = []
    chosen = [c for c in existing if every or c.id == credential_id]
    if any(c.status == "Active" for c in chosen):
        _agree(mirror, [c.id for c in chosen], confirmation(yes))
    revoked = [c.id for c in chosen if git_credentials.revoke(iam, user, c.id)]
    if as_json:
        print_json({"revoked": revoked})
    elif revoked:
        click.echo(f"Revoked {', '.join(revoked)} of {user}.")
    else:
        click.echo(f"Nothing to revoke: {credential_id or 'every Git credential'} of {user} is gone already.")


def _agree(mirror: Mirror, ids: list[str], confirm: Callable[[str], None]) -> None:
    """Ask a person before the pipeline's own credential goes; one that it is known not to hold goes without a word."""
    listed = " and ".join(ids)
    until = f"its runs will fail until you run 'codecommit-mirror up {mirror.name}'"
    try:
        definition = journey.look(operator_of(mirror))[1].definition
    except MirrorError:
        confirm(f"It is not known whether the pipeline uses {listed}; if it does, {until}. Revoke {listed}?")
        return
    held = held_credential.of_variables(definition.variables).id if definition else None
    if definition and held in ids:
        confirm(f"The pipeline {definition.name!r} uses {held}, and {until}. Revoke {listed}?")
    elif definition and held is None:
        confirm(f"The pipeline {definition.name!r} may use {listed}; if so, {until}. Revoke {listed}?")
