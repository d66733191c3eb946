"""``gateway certs``: a private CA, and the certificates that it signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import JsonOption
from gateway.cli.output import render


def certs(
    *,
    subjects: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="NAME", help="The certificate's owner: gateway, or a peer. Repeatable. [default: gateway]"),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="DNS", help="A DNS name it is reached by, in place of the defaults.")
    ] = None,
    addresses: Annotated[
        list[str] | None, typer.Option("--address", metavar="IP", help="An address it is reached by, in place of the defaults.")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="The folder of the files.", file_okay=False)] = Path("certs"),
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="The days that the certificates are valid.")] = 730,
    force: Annotated[bool, typer.Option("--force", help="Replace certificates that are there; never the CA.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make certificates for DICOM over TLS, signed by a private CA that is made on first use.

    Without --name and --address a certificate is good for its own NAME, this machine's host name, localhost, 127.0.0.1 and
    ::1. A peer's certificate can be added at any time: gateway certs --for orthanc-d --name pacs.example.org
    """
    from gateway.security import certificates

    requests = [
        certificates.request(subject, names or (), addresses or (), days) for subject in dict.fromkeys(subjects or ["gateway"])
    ]
    issued = certificates.make(folder, requests, replace=force)
    if as_json:
        rows = [
            {"certificate": str(one.certificate), "key": str(one.key), "names": one.names, "expires": one.expires.isoformat()}
            for one in issued
        ]
        typer.echo(json.dumps({"ca": str(folder / "ca.crt"), "certificates": rows}, indent=2))
        return
    for one in issued:
        render.say(f"{one.certificate} and {one.key}: {', '.join(one.names)}; valid until {one.expires:%Y-%m-%d}")
    render.say(f"signed by {folder / 'ca.crt'}; keep {folder / 'ca.key'} secret, it can sign for any peer")
