"""``codecommit-mirror ci``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import click

from ..aws.execution_policy import boundary_policy, deploy_policy, execution_policy
from ..config.azure_url import AZURE_DEVOPS_SERVICES
from ..config.ci import Service
from ..config.load import load, takes_snapshots
from ..config.mirror import Mirror
from ..errors import ConfigurationError
from ..rendering.ci import SIGNATURE
from ..rendering.ci import render as render_ci
from .mirrors_file import source_defaults
from .options import config_option, inside_repository
from .output import write_rendered

ACCOUNT_ID = r"[0-9]{12}"


@click.group()
def ci() -> None:
    """Render the pipeline that brings the mirrors up from CI, and print its policies.

    The file's section 'ci' names the CI service; 'cdk deploy codecommit-mirror-ci' creates its roles.
    """


@ci.command()
@click.argument("service", type=click.Choice(["azure", "github"]))
@config_option
@click.option("--account", metavar="ACCOUNT", help="Whose section ci, where mirrors.yaml has several.")
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(service: Service, config: Path, account: str | None, output: Path | None) -> None:
    """Print the pipeline for the repository that holds mirrors.yaml; it contains no secret."""
    configuration = load(config)
    section = configuration.ci_of(account)
    if not configuration.cis:
        raise ConfigurationError(f"{config} has no section ci; see docs/ci.md.")
    if section is None or account not in (None, section.account):
        accounts = ", ".join(ci.account for ci in configuration.cis)
        raise ConfigurationError(f"{config} has a section ci for each of {accounts}; name one of them by --account.")
    if section.service != service:
        raise ConfigurationError(f"the section ci of {config} is for {section.service}; replace that with {service}:.")
    text = render_ci(
        section,
        service,
        inside_repository(config),
        drill=takes_snapshots(configuration, section),
        server=job_server(configuration.mirrors, config),
    )
    write_rendered(text, output, SIGNATURE)


def job_server(mirrors: Sequence[Mirror], config: Path) -> str | None:
    """Return the Azure DevOps Server that the token of a job is for; None for Azure DevOps Services.

    Raises:
        MirrorError: there are several.
    """
    servers = {mirror.azure.server for mirror in mirrors} | {
        source_defaults(config).get("server", AZURE_DEVOPS_SERVICES)
    }
    named = sorted(servers - {AZURE_DEVOPS_SERVICES})
    if len(named) > 1:
        raise ConfigurationError(f"{config} names the servers {' and '.join(named)}, but a job's token is for one.")
    return named[0] if named else None


@ci.command()
@click.argument("account", metavar="ACCOUNT")
@click.option("--boundary", is_flag=True, help="Print the permissions boundary of what mirrors' stacks create in IAM.")
@click.option("--deploy", is_flag=True, help="Print what limits the deploy role of that bootstrap, which CI assumes.")
@click.option(
    "--qualifier",
    default="ccmirror",
    show_default=True,
    help="The bootstrap's qualifier, for --deploy.",
    metavar="TEXT",
)
@click.option(
    "--partition",
    default="aws",
    show_default=True,
    type=click.Choice(["aws", "aws-cn"]),
    help="The account's partition.",
)
def policy(account: str, boundary: bool, deploy: bool, qualifier: str, partition: str) -> None:
    """Print a policy that lets CloudFormation deploy the mirrors of an account and do nothing else.

    It is for 'cdk bootstrap --cloudformation-execution-policies' in place of AdministratorAccess. docs/ci.md shows the
    commands.
    """
    if not re.fullmatch(ACCOUNT_ID, account):
        raise ConfigurationError(f"{account!r} is not the id of an AWS account; write its twelve digits.")
    if boundary and deploy:
        raise ConfigurationError("--boundary and --deploy are two documents; ask for one at a time.")
    if not re.fullmatch("[A-Za-z0-9_-]{1,10}", qualifier):
        raise ConfigurationError(f"{qualifier!r} is not a bootstrap's qualifier; write up to ten letters and digits.")
    if deploy:
        document = deploy_policy(account, qualifier, partition)
    else:
        document = (boundary_policy if boundary else execution_policy)(account, partition)
    click.echo(json.dumps(document, indent=2))
