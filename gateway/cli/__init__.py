"""The command line: one module a group of commands, each a thin shell over the rooms.

Exit codes: 0 all of it was done; 1 some of it was not; 2 usage or configuration; 130 interrupted. Errors go to standard
error, never as a traceback. A command that did only part of its work raises ``typer.Exit(1)``.
"""

from __future__ import annotations

import sys

import typer

from gateway.cli import certs, compare, config, init, jobs, migrate, peers, pull, queue, register, send, serve, status, sync
from gateway.errors import ConfigurationError, GatewayError, StateFolderInUse, UsageError
from gateway.log import raised_at

app = typer.Typer(
    name="gateway",
    help="Moves studies from a PACS to your servers and proves, UID by UID, that they arrived.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("init")(init.init)
app.command("config")(config.config)
app.command("certs")(certs.certs)
app.command("serve")(serve.serve)
app.command("status")(status.status)
app.add_typer(queue.queue, name="queue")
app.command("echo")(peers.echo)
app.command("find")(peers.find)
app.command("accept-folder")(peers.accept_folder)
app.command("register")(register.register)
app.command("pull")(pull.pull)
app.command("send")(send.send)
app.command("migrate")(migrate.migrate)
app.command("compare")(compare.compare)
app.add_typer(jobs.jobs, name="jobs")
app.command("sync")(sync.sync)

INTERRUPTED = 130


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
        # The bare command has printed its help and has no message.
        if message := error.format_message():
            typer.echo(f"gateway: {message} (--help says what there is)", err=True)
        return error.exit_code
    except GatewayError as error:
        typer.echo(f"gateway: {error}", err=True)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the root of the process; the text of an unknown error may hold patient data
        typer.echo(f"gateway: internal error {type(error).__name__} at {' < '.join(reversed(raised_at(error, depth=4)))}", err=True)
        return 1
    # What a command returns, or the code of the typer.Exit that ended it.
    code = outcome if isinstance(outcome, int) else 0
    return _interrupted() if code == INTERRUPTED else code


def _interrupted() -> int:
    typer.echo("gateway: interrupted", err=True)
    return INTERRUPTED


def exit_code(error: GatewayError) -> int:
    """Return the exit code for `error`: 2 where the request or the configuration is wrong, 1 where the work failed."""
    return 2 if isinstance(error, ConfigurationError | UsageError | StateFolderInUse) else 1
