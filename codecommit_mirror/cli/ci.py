"""``codecommit-mirror ci``."""

from __future__ import annotations

from pathlib import Path

import click

from ..aws.stack import session_in
from ..config.ci import Ci, Service
from ..config.mirror import load
from ..errors import MirrorError
from ..provisioning import summary as ci_summary
from ..provisioning.account import Account
from ..provisioning.plan import Plan
from ..provisioning.render import SIGNATURE
from ..provisioning.render import render as render_ci
from .options import config_option, confirmation, json_option, yes_option
from .output_file import write
from .table import print_json

summary_option = click.option(
    "--summary", type=click.Path(path_type=Path), help="A file that a summary in Markdown is added to."
)
app_option = click.option(
    "--app",
    type=click.Path(path_type=Path),
    default="cdk.out",
    show_default=True,
    help="What 'cdk synth' has written.",
)


@click.group()
def ci() -> None:
    """Provision the mirrors of mirrors.yaml from CI, on AWS.

    The file's section 'ci' says who may; 'cdk deploy codecommit-mirror-ci' creates the roles.
    """


@ci.command()
@click.argument("service", type=click.Choice(["azure", "github"]))
@config_option
@click.option("--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
def render(service: Service, config: Path, output: Path | None) -> None:
    """Print the pipeline of the repository that holds mirrors.yaml; it holds no secret."""
    section, _ = _section(config)
    if section.service != service:
        raise MirrorError(f"the section ci of {config} is for {section.service}; add {service}: to it, in its place.")
    write(render_ci(section, service, _inside(config)), output, SIGNATURE)


@ci.command()
@config_option
@app_option
@click.option("--diff", is_flag=True, help="Add what 'cdk diff' says.")
@summary_option
@json_option
def plan(config: Path, app: Path, diff: bool, summary: Path | None, as_json: bool) -> None:
    """Show what would be created, updated and removed; changes nothing."""
    account = _account(config, app)
    found = account.plan()
    said = account.diff(found.deploy) if diff else ""
    _append(summary, ci_summary.of_plan(found, said))
    if as_json:
        print_json(vars(found))
    else:
        click.echo(_told(found, "to create", "to update"))
        if said:
            click.echo(f"\n{said}")


@ci.command()
@config_option
@app_option
@summary_option
@json_option
def deploy(config: Path, app: Path, summary: Path | None, as_json: bool) -> None:
    """Deploy the mirrors that are new or changed; remove nothing.

    Which mirrors are to be removed is told: it takes 'ci remove'.
    """
    account = _account(config, app)
    found = account.plan()
    account.deploy(found.deploy)
    _append(summary, ci_summary.of_deployment(found))
    if as_json:
        print_json(vars(found))
    else:
        click.echo(_told(found, "created", "updated"))
    problems = []
    if found.moved:
        problems.append(
            f"the stacks of {', '.join(found.moved)} are still in another region, or have another name: take these "
            "mirrors out of mirrors.yaml, let that be deployed and the removal approved, then add them again."
        )
    if found.foreign:
        problems.append(
            f"the names of the stacks of {', '.join(found.foreign)} are taken, by another repository's mirror or by "
            "something else, which is not touched; rename these mirrors."
        )
    if found.losing:
        problems.append(
            f"CloudFormation would delete the repositories of {', '.join(found.losing)}: their deployed stacks own "
            "them, and mirrors.yaml now says existing: true; replace it with on_destroy: retain, deploy, and then set "
            "existing: true."
        )
    if problems:
        raise MirrorError("\n".join(problems))


@ci.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@config_option
@app_option
@yes_option
@summary_option
@json_option
def remove(names: tuple[str, ...], config: Path, app: Path, yes: bool, summary: Path | None, as_json: bool) -> None:
    """Delete the stacks of mirrors that are gone from mirrors.yaml.

    Only those that were provisioned from it; the replicas go with their history, unless they were deployed with
    on_destroy: retain. One that is gone already is fine. The Azure side is left: 'pipeline disconnect NAME' takes it
    away before, or with --azure-repo-url afterwards.
    """
    account = _account(config, app)
    confirmation(yes)(f"Delete the stacks of {', '.join(names)}?")
    removed: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            if account.remove(name):
                removed.append(name)
                click.echo(f"deleted {name}", err=True)
        except MirrorError as error:
            problems.append(str(error))
    _append(summary, ci_summary.of_removal(removed, names))
    if problems:
        raise MirrorError("\n".join(problems))
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"Removed: {', '.join(removed) or 'nothing, all of it was gone already'}.")


def _section(config: Path) -> tuple[Ci, list[str]]:
    """Return the section, and the names of all mirrors."""
    mirrors, section = load(config)
    if section is None:
        raise MirrorError(f"{config} has no section ci; see docs/ci.md.")
    return section, [mirror.name for mirror in mirrors]


def _account(config: Path, app: Path) -> Account:
    section, mirrors = _section(config)
    return Account(session_in(section.region), section, mirrors, Path.cwd(), app)


def _inside(config: Path) -> str:
    """Return the path of the file in its repository, which the pipeline runs in."""
    if config.is_absolute() or ".." in config.parts:
        raise MirrorError(f"{config} is not in this folder; run this in the repository that holds it.")
    return config.as_posix()


def _append(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise MirrorError(f"{path} cannot be written ({error.strerror}); name another with --summary.") from None


def _told(found: Plan, created: str, updated: str) -> str:
    return "\n".join(f"{what}: {which}" for what, which in ci_summary.lines(found, created, updated))
