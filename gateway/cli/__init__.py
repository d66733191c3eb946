"""The command line: one module a group of commands, each a thin shell over the rooms.

Exit codes: 0 all of it was done; 1 some of it was not; 2 usage or configuration; 130 interrupted. Errors go to standard
error, never as a traceback. A command that did only part of its work raises ``typer.Exit(1)``.

A command's module is imported when that command is named, and a room when a command uses it: `COMMANDS` says where each is, so
that ``--help`` and ``--version`` import no room at all. The modules of `commands` import at their top only what is light: no
library but typer, and of ours what declares words, requests and errors.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from gateway.core.errors import ConfigurationError, GatewayError, Interrupted, StateFolderInUse, UsageError

COMMANDS = {
    "init": ("gateway.cli.commands.init:init", "Write a commented config.toml, from answers or options."),
    "config": ("gateway.cli.commands.config:config", "Check the configuration, or show what is in effect."),
    "certs": ("gateway.cli.commands.certs:certs", "Make certificates for DICOM over TLS."),
    "serve": ("gateway.cli.commands.serve:serve", "Receive, route and deliver until SIGTERM or Ctrl+C."),
    "status": ("gateway.cli.commands.status:status", "Show how the gateway and everything around it stands."),
    "queue": ("gateway.cli.commands.queue:queue", "See and steer deliveries that are not done yet."),
    "echo": ("gateway.cli.commands.peers:echo", "Ask peers with C-ECHO whether they are there."),
    "find": ("gateway.cli.commands.peers:find", "Ask a source with C-FIND what it has."),
    "accept-folder": ("gateway.cli.commands.peers:accept_folder", "Take what lies at a destination's path as its folder."),
    "register": ("gateway.cli.commands.register:register", "Say what a source must know of us, or enter it there."),
    "pull": ("gateway.cli.commands.pull:pull", "Retrieve studies from a source, deliver and prove them."),
    "send": ("gateway.cli.commands.send:send", "Send files and folders, and prove that they arrived."),
    "migrate": ("gateway.cli.commands.migrate:migrate", "Move the studies of a range of dates or a list; prove each."),
    "compare": ("gateway.cli.commands.compare:compare", "Compare what two places hold; bring over what is missing."),
    "jobs": ("gateway.cli.commands.jobs:jobs", "Migrations and detached commands: how far, pause, resume."),
    "sync": ("gateway.cli.commands.sync:sync", "Fetch what a source has and destinations lack, repeatedly."),
}
"""Name of each command: where it is, ``module:function`` or ``module:group``, and its line in ``gateway --help``."""

INTERRUPTED = 130

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """The commands, each imported once it is named on the command line."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """Return a stand-in for the command that has its name and its line of help only."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(  # type: ignore[override]
        self, ctx: typer.Context, args: list[str]
    ) -> tuple[str | None, TyperCommand | TyperGroup | None, list[str]]:
        """Return the command that `args` begin with, imported, and its arguments."""
        # These are suggested where a name is misspelt.
        self.commands = {known: TyperCommand(known) for known in COMMANDS}
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if name is None or command is None else imported(name), rest


def imported(name: str) -> TyperCommand | TyperGroup:
    """Import the command called `name` and return it."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    what = getattr(import_module(module), attribute)
    if not isinstance(what, typer.Typer):
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        alone.command(name)(what)
        what = alone
    command: TyperCommand | TyperGroup = typer.main.get_command(what)  # type: ignore[assignment]
    return command


app = typer.Typer(
    name="gateway",
    cls=Commands,
    help="Moves studies from a PACS to your servers and proves, UID by UID, that they arrived.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from gateway.cli import versions
        from gateway.cli.output import render

        render.say(versions.text())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print versions: the gateway, its codecs, Python, libraries."
        ),
    ] = False,
) -> None:
    """Take the options that stand before any command."""


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are printed on standard error without a traceback."""
    try:
        outcome = app(arguments, prog_name="gateway", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except typer.TyperException as error:
        # Of a bare command the message is its help; where that is printed already, there is none.
        if message := error.format_message():
            from gateway.cli.output import render

            bare = message.startswith("Usage: ")
            plain = message.replace(": Value error, ", ": ", 1)
            if bare:
                typer.echo(message, err=True)
            else:
                render.say(f"gateway: {plain} (--help says what there is)", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the root of the process
        return _failed(error)
    # The return value of a command, or the code of the typer.Exit that ended it.
    code = outcome if isinstance(outcome, int) else 0
    return _interrupted() if code == INTERRUPTED else code


def _failed(error: Exception) -> int:
    """Say what ended a command, and return its exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output has left (`gateway status | head`): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    from gateway.cli.output import render
    from gateway.core.files import unusable
    from gateway.core.log import raised_at

    known = unusable(error) if isinstance(error, OSError) else error
    if isinstance(known, GatewayError):
        render.say(f"gateway: {known}", err=True)
        return exit_code(known)
    # The text of an unknown error may hold patient data.
    render.say(f"gateway: internal error {type(error).__name__} at {' < '.join(reversed(raised_at(error, depth=4)))}", err=True)
    return 1


def _interrupted() -> int:
    typer.echo("gateway: interrupted", err=True)
    return INTERRUPTED


def exit_code(error: GatewayError) -> int:
    """Return the exit code for `error`: 2 where the request or the configuration is wrong, 1 where the work failed."""
    if isinstance(error, Interrupted):
        return INTERRUPTED
    return 2 if isinstance(error, ConfigurationError | UsageError | StateFolderInUse) else 1
