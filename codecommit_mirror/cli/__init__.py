"""The command line: ``codecommit-mirror``."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
import traceback

import click

from ..errors import ConfigurationError, MirrorError

_LOG = logging.getLogger("codecommit_mirror")

COMMANDS = {
    "ci": ("ci", "Render the pipeline that brings the mirrors up from CI, and print its policies."),
    "config": ("mirrors_file", "Check and complete mirrors.yaml, and print its JSON Schema for editors."),
    "credentials": ("credentials", "Issue, list and revoke the HTTPS Git credentials of a mirror's IAM user."),
    "discover": ("mirrors_file", "List the repositories of an organization, and add them to mirrors.yaml."),
    "down": ("operations", "Take mirrors down: disconnect, revoke, destroy."),
    "init": ("init", "Write a deployment repository into FOLDER, or bring one up to date."),
    "pipeline": ("pipeline", "Render and run a mirror's Azure pipeline."),
    "plan": ("operations", "Show what 'up' would change, on both sides; changes nothing."),
    "restore": ("backup", "Restore a repository from the replica, its archive, or a snapshot."),
    "rotate": ("operations", "Replace the pipelines' Git credentials, and verify the new ones with runs."),
    "snapshots": ("backup", "List and verify the snapshots that AWS keeps of a replica."),
    "status": ("status", "Show the status of all mirrors, or of NAME."),
    "sync": ("sync", "Mirror once from this machine, as a run of the pipeline does."),
    "up": ("operations", "Bring mirrors up: deploy, connect, issue the credential, run, verify."),
    "verify": ("sync", "Compare source and replica ref by ref; exit 0 only if they are equal."),
}
"""The module and the summary of each command: a module is imported when its command is needed."""


class _LazyGroup(click.Group):
    """A group that imports a command when it is called, so that help and completion are fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        _add_verbose(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown one gets suggestions."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], COMMANDS, n=2)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(close)}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _turn_on_log(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    _LOG.setLevel(logging.INFO)


def _add_verbose(command: click.Command) -> None:
    """Give a command, and all below it, the option -v."""
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            _add_verbose(subcommand)
    elif not any(param.name == "verbose" for param in command.params):
        command.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_turn_on_log,
                help="Log each request to AWS and Azure DevOps, and show tracebacks.",
            )
        )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="codecommit-mirror")
def cli() -> None:
    """Mirror Azure Repos repositories to AWS CodeCommit.

    'up NAME' does everything, and 'down NAME' undoes it; the other commands do parts of it.
    """


def main() -> None:
    """Run a command; a user's error ends with one sentence and exit status 1, or 2 if a file of theirs is wrong."""
    try:
        sys.exit(cli.main(prog_name="codecommit-mirror", standalone_mode=False))
    except MirrorError as error:
        if _LOG.isEnabledFor(logging.INFO):
            traceback.print_exc()
        from ..progress import clean

        for line in clean(str(error)).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped; running it again is safe, and resumes from there.", err=True)
        sys.exit(130)
