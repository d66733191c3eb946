"""``gateway register``: what a source must know of the gateway, as text to enter, or entered by itself in an Orthanc."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.commands.peers import tell_advice
from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, settings_of
from gateway.cli.output import render
from gateway.core.errors import GatewayError, UsageError, require_known

if TYPE_CHECKING:
    import httpx

    from gateway.config.settings import RestTable, Settings, SourceTable

REST_S = 30.0
"""Orthanc answers ``/modalities/NAME/echo`` only after its own DICOM timeout."""


class RegistrationFailed(GatewayError):
    """The source's REST API could not be reached or did not take the registration."""


@dataclass(frozen=True)
class OurAddress:
    """The address at which a source reaches us."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: bool


def register(
    source: Annotated[str, typer.Argument(help="The name of a source in the configuration.")],
    host: Annotated[str | None, typer.Option(help="The address by which the source reaches this gateway.")] = None,
    name: Annotated[str, typer.Option("--as", help="The source's name for this gateway.")] = "gateway",
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Print what to enter at a source so that it sends to us; for an Orthanc with a REST address, enter it."""
    settings = settings_of(path)
    require_known("source", [source], settings.sources)
    table = settings.sources[source]
    ours = our_address(settings, table, host, name)
    by_get = table.retrieve == "get"
    entries = dict(instructions(ours, by_get=by_get))
    done = _enter(table.rest, ours) if table.rest is not None else None
    if as_json:
        render.print_json({"address": asdict(ours), "entries": entries, "rest": done})
    else:
        _print(ours, entries, done, by_get=by_get)
        tell_advice(_asked(path, source))
    if done is not None and not done["reachable"] and not by_get:
        raise typer.Exit(1)


def _asked(path: Path, source: str) -> list[dict[str, Any]]:
    """Return what C-ECHO finds of `source`; one that does not answer is registered all the same."""
    from gateway.control.wire import EchoCommand

    with reach(path) as (client, _):
        results: list[dict[str, Any]] = client.post("/echo", EchoCommand(names=(source,)))["results"]
    return [result for result in results if result["kind"] == "source"]


def our_address(settings: Settings, source: SourceTable, host: str | None, name: str) -> OurAddress:
    """Return where `source` reaches us: over TLS where it is asked over TLS and we listen on it.

    Raises:
        UsageError: the address cannot be told from the configuration.

    """
    listen = settings.listen
    secure = listen.tls is not None and (source.tls is not None or not listen.plain)
    port = listen.tls.port if secure and listen.tls is not None else listen.port
    if port == 0:
        raise UsageError("the listener takes any free port: a source needs a fixed one ([listen] port)")
    return OurAddress(name, settings.gateway.ae_title, host or _own_host(listen.host, source.host), port, secure)


def _own_host(listening: str, towards: str) -> str:
    try:
        bound = ipaddress.ip_address(listening)
    except ValueError:
        return listening
    return _route_to(towards) if bound.is_unspecified else listening


def _route_to(host: str) -> str:
    """Return the address that this machine uses towards `host`; connecting a UDP socket sends nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 104, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(f"cannot tell by which address {host} reaches this machine; say it with --host") from error


def orthanc_modality(ours: OurAddress) -> dict[str, Any]:
    """Return what Orthanc's configuration and its REST API take as a modality; pure.

    It is told not to transcode: from 1.12 on it decompresses what it sends of a study in several transfer syntaxes, with loss too.
    """
    modality: dict[str, Any] = {"AET": ours.ae_title, "Host": ours.host, "Port": ours.port, "AllowTranscoding": False}
    return modality | {"UseDicomTls": True} if ours.tls else modality


def instructions(ours: OurAddress, *, by_get: bool = False) -> Iterator[tuple[str, str]]:
    """Yield for each kind of source what to enter where; pure. A source that is asked `by_get` has only to let us ask."""
    with_tls = ", over TLS with a client certificate" if ours.tls else ""
    entry = json.dumps({"DicomModalities": {ours.name: orthanc_modality(ours)}}, indent=2)
    if by_get:
        yield "Any PACS", f"nothing: C-GET brings instances on our own association; AE title {ours.ae_title} must be allowed to ask"
        yield "Orthanc (configuration file), where it lets only those ask whom it knows", entry
        return
    yield "Any PACS", f"AE title {ours.ae_title}, host {ours.host}, port {ours.port}{with_tls}: a move destination and storage node"
    yield "Orthanc (configuration file)", entry
    yield (
        "dcmqrscp (dcmqrscp.cfg)",
        "\n".join(
            (
                "HostTable BEGIN",
                f"{ours.name} = ({ours.ae_title}, {ours.host}, {ours.port})",
                "HostTable END",
                "# and let it see an archive: in AETable, the line of the archive ends with",
                f"#   {ours.name}        (or: ANY)",
            )
        ),
    )
    tls = " --tls TLSv1.2" if ours.tls else ""
    yield (
        "dcm4chee-arc",
        f"Configuration > AE list > New AE: AE title {ours.ae_title}, hostname {ours.host}, port {ours.port}"
        + (", TLS ciphers set" if tls else "")
        + f"\nor over REST: POST /dcm4chee-arc/aes with {json.dumps(_dcm4chee(ours))}",
    )


def _dcm4chee(ours: OurAddress) -> dict[str, Any]:
    connection: dict[str, Any] = {"cn": "dicom", "dicomHostname": ours.host, "dicomPort": ours.port}
    return {"dicomAETitle": ours.ae_title, "dicomNetworkConnection": [connection]}


def _enter(rest: RestTable, ours: OurAddress) -> dict[str, Any]:
    """Enter us as a modality of an Orthanc, read it back, and let Orthanc ask us with C-ECHO."""
    import httpx

    auth = None
    if rest.username is not None:
        auth = httpx.BasicAuth(rest.username, rest.password.get_secret_value() if rest.password else "")
    try:
        with httpx.Client(base_url=rest.url.rstrip("/"), auth=auth, timeout=REST_S) as orthanc:
            return _entered(orthanc, ours)
    except httpx.HTTPStatusError as error:
        raise RegistrationFailed(_refusal(rest, error.response.status_code)) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise RegistrationFailed(f"{rest.url} does not answer as an Orthanc does ({type(error).__name__})") from error


def _refusal(rest: RestTable, status: int) -> str:
    hint = {401: ": check username and password of [sources.NAME.rest]", 403: ": this user may not change modalities"}
    return f"{rest.url} answered {status}{hint.get(status, '')}"


def _entered(orthanc: httpx.Client, ours: OurAddress) -> dict[str, Any]:
    wanted = orthanc_modality(ours)
    place = f"/modalities/{ours.name}"
    orthanc.put(place, json=wanted).raise_for_status()
    entered = orthanc.get("/modalities", params={"expand": ""}).raise_for_status().json().get(ours.name)
    if not _same(entered, wanted):
        raise RegistrationFailed(f"{orthanc.base_url} took the modality {ours.name} and then showed another one")
    echo = orthanc.post(f"{place}/echo", content="")
    return {"url": str(orthanc.base_url), "modality": ours.name, "entered": True, "reachable": echo.is_success}


def _same(entered: Any, wanted: Mapping[str, Any]) -> bool:
    if not isinstance(entered, Mapping):
        return False
    # One that knows of no transcoding does none.
    return all(entered.get(key, value if key == "AllowTranscoding" else None) == value for key, value in wanted.items())


def _print(ours: OurAddress, entries: Mapping[str, str], done: Mapping[str, Any] | None, *, by_get: bool) -> None:
    if done is not None:
        render.say(f"entered at {done['url']} as modality {ours.name}: {ours.ae_title}@{ours.host}:{ours.port}")
        if done["reachable"]:
            render.say("and it reaches this gateway: C-ECHO answered")
        elif by_get:
            render.say("it does not reach this gateway, which C-GET does not need")
        else:
            render.say("but it does NOT reach this gateway: is `gateway serve` running, is the address right (--host)?", err=True)
        return
    for kind, text in entries.items():
        render.say(f"{kind}:")
        render.say("".join(f"  {line}\n" for line in text.splitlines()))
