"""``gateway init``: write a commented config.toml, from answers on a terminal or from options."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import DEFAULT_CONFIG
from gateway.config.template import Folder, Peer, Plan, render
from gateway.core.domain import is_ae_title
from gateway.core.errors import UsageError
from gateway.core.files import using, write_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PEER = re.compile(r"(?P<ae>[^@]+)@(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})")

_SOURCE_HELP = "A peer that sends, and that pull asks. Repeatable."
_DESTINATION_HELP = "A place for instances: a DICOM peer, or a folder. Repeatable. [default: archive=archive]"
_CONFIG_HELP = "The file to write."


def init(
    *,
    ae_title: Annotated[str | None, typer.Option("--ae-title", help="Our own AE title. [default: GATEWAY]")] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on. [default: 0.0.0.0 with a source, else 127.0.0.1]")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 11112,
    source: Annotated[list[str] | None, typer.Option("--source", metavar="NAME=AE@HOST:PORT", help=_SOURCE_HELP)] = None,
    destination: Annotated[
        list[str] | None, typer.Option("--destination", metavar="NAME=AE@HOST:PORT|FOLDER", help=_DESTINATION_HELP)
    ] = None,
    use_tls: Annotated[bool, typer.Option("--tls", help="Listen on TLS too, and call the destinations over TLS.")] = False,
    source_tls: Annotated[bool, typer.Option("--source-tls", help="Call the sources over TLS.")] = False,
    use_sync: Annotated[bool, typer.Option("--sync", help="Fetch what the sources have and the destinations lack.")] = False,
    path: Annotated[Path, typer.Option("--config", envvar="GATEWAY_CONFIG", help=_CONFIG_HELP, dir_okay=False)] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a commented config.toml: asks on a terminal for what is not given, takes the defaults otherwise."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force replaces it")
    if sys.stdin.isatty() and not (ae_title or source or destination):
        ae_title, source, destination, use_tls = _ask()
    if use_sync and not source:
        raise UsageError("--sync needs a --source to fetch from")
    plan = plan_of(ae_title or "GATEWAY", host, port, source or [], destination or [], use_tls=use_tls, source_tls=source_tls)
    from gateway.config import loading

    text = render(replace(plan, sync=use_sync))
    loading.check_text(text, path)
    with using(path, "cannot write the configuration"):
        write_file(path, text.encode())
    typer.echo(f"{path} is written.")
    if use_tls or source_tls:
        typer.echo("Next: gateway certs (makes the certificates that it names), then gateway serve.")
    else:
        typer.echo("Next: gateway serve.")


def _ask() -> tuple[str, list[str], list[str], bool]:
    """Ask on the terminal; an empty answer takes the default or leaves the item out."""
    ae_title: str = typer.prompt("Our AE title", default="GATEWAY")
    source: str = typer.prompt("A source (NAME=AE@HOST:PORT, empty for none)", default="", show_default=False)
    destination: str = typer.prompt("A destination (NAME=AE@HOST:PORT, or NAME=FOLDER)", default="archive=archive")
    return ae_title, [source] if source else [], [destination], typer.confirm("DICOM over TLS?", default=False)


def plan_of(
    ae_title: str,
    host: str | None,
    port: int,
    sources: list[str],
    destinations: list[str],
    *,
    use_tls: bool,
    source_tls: bool = False,
) -> Plan:
    """Turn answers into a plan. Without a source nobody is known, so anybody on this machine may send.

    Raises UsageError where an answer cannot be understood.
    """
    if not is_ae_title(ae_title):
        raise UsageError(f"{ae_title!r} is no AE title: 1 to 16 printable ASCII characters without a backslash")
    peers = tuple(_source(text, use_tls=source_tls) for text in sources)
    targets = tuple(_destination(text, use_tls=use_tls) for text in destinations)
    return Plan(
        ae_title=ae_title,
        host=host or ("0.0.0.0" if peers else "127.0.0.1"),  # noqa: S104 - a source has to reach us
        port=port,
        accept="known" if peers else "any",
        listen_tls=use_tls,
        sources=peers,
        destinations=targets or Plan().destinations,
    )


def _named(text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not rest or not _NAME.fullmatch(name):
        raise UsageError(f"{text!r} is not NAME=…, with a name of letters, digits, dash and underscore")
    return name, rest


def _source(text: str, *, use_tls: bool) -> Peer:
    name, rest = _named(text)
    peer = _peer(name, rest, use_tls=use_tls)
    if peer is None:
        raise UsageError(f"{text!r} is not NAME=AE@HOST:PORT")
    return peer


def _destination(text: str, *, use_tls: bool) -> Peer | Folder:
    name, rest = _named(text)
    return _peer(name, rest, use_tls=use_tls) or Folder(name, rest)


def _peer(name: str, text: str, *, use_tls: bool) -> Peer | None:
    match = _PEER.fullmatch(text)
    if match is None:
        return None
    return Peer(name, match["ae"], match["host"].strip("[]"), int(match["port"]), tls=use_tls)
