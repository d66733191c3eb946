"""The commented config.toml that ``gateway init`` writes; the shipped one is the same text with the shipped choices. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A DICOM peer: the name of its table, and how it is reached."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True)
class Folder:
    """A destination that is a folder."""

    name: str
    path: str


@dataclass(frozen=True)
class Plan:
    """The contents of a new configuration."""

    ae_title: str = "GATEWAY"
    host: str = "127.0.0.1"
    port: int = 11112
    accept: str = "any"
    listen_tls: bool = False
    sources: tuple[Peer, ...] = ()
    destinations: tuple[Peer | Folder, ...] = (Folder("archive", "archive"),)
    sync: bool = False


SHIPPED = Plan(listen_tls=True)
"""The repository's config.toml: loopback, any caller, a folder as destination, TLS with `make serve`'s certificates."""


def render(plan: Plan) -> str:
    """Return the text of config.toml for `plan`."""
    parts = [_HEAD, _gateway(plan), _listen(plan), _SOURCES, *map(_source, plan.sources), _DESTINATIONS]
    return "\n".join([*parts, *map(_destination, plan.destinations), _ROUTES, _route(plan), _SYNC, *_syncs(plan)])


_HEAD = """\
# The gateway's configuration. Every setting: docs/configuration.md. `gateway config --check` says what is wrong with it,
# `gateway config --show` what is in effect. Relative paths are relative to this file. The environment overrides any
# value: GATEWAY__LISTEN__PORT=104 is `port` of [listen].
"""


def _gateway(plan: Plan) -> str:
    return f"""\
[gateway]
ae_title = {_text(plan.ae_title)}  # who we are, to whoever calls us and whomever we call
state = "state"  # the folder of ledger and spool: what was taken and not yet delivered lies here
"""


def _listen(plan: Plan) -> str:
    where = (
        "this machine only; 0.0.0.0 listens on every network"
        if plan.host == "127.0.0.1"
        else "where to listen; 127.0.0.1 is this machine only"
    )
    who = (
        "whoever calls, whatever AE title they call; known: only [sources], and only as ae_title"
        if plan.accept == "any"
        else "only who stands under [sources] and calls ae_title; any: whoever calls, whatever AE title they call"
    )
    tls = _TLS if plan.listen_tls else "\n".join(f"# {line}".rstrip() for line in _TLS.splitlines()) + "\n"
    return f"""\
[listen]
host = {_text(plan.host)}  # {where}
port = {plan.port}
accept = {_text(plan.accept)}  # {who}

# DICOM over TLS: clients must show a certificate that `ca` signed. `gateway certs` makes these files.
{tls}"""


_TLS = """\
[listen.tls]
port = 2762
ca = "certs/ca.crt"
certificate = "certs/gateway.crt"
key = "certs/gateway.key"
"""

_SOURCES = """\
# Sources: who may send to us, and whom `gateway pull` asks (C-FIND, C-MOVE). A source has to know our AE title, address
# and port as a destination of C-MOVE: `gateway register SOURCE` prints what to enter there.
#
# [sources.pacs]
# ae_title = "PACS"
# host = "192.0.2.10"
# port = 104
"""

_DESTINATIONS = """\
# Destinations: where instances go.
#
# [destinations.orthanc-a]
# kind = "dicom"
# ae_title = "ORTHANCA"
# host = "192.0.2.20"
# port = 4242
# verify = "exists"  # the proof asked for: status, exists (C-FIND once a study went quiet), commitment or digest (contents)
# max_rate = "20 MB/s"  # no faster than this
# when = "night"  # within the hours of this schedule only
# tls = { ca = "certs/ca.crt", certificate = "certs/gateway.crt", key = "certs/gateway.key" }
#
# [schedule.night]
# time_zone = "Europe/Berlin"
# night = "19-6"
# weekends = true
"""

_ROUTES = """\
# Routes: every route that matches applies; what matches none is kept and shown as unrouted by `gateway status`.
# when = { Modality = ["CT", "MR"], calling_ae = "PACS*" } would take only some instances.
"""


def _source(peer: Peer) -> str:
    return f"[sources.{peer.name}]\n" + "\n".join(_address(peer)) + "\n"


def _destination(to: Peer | Folder) -> str:
    if isinstance(to, Folder):
        kind = 'kind = "folder"  # a file an instance, a folder a study and series'
        return f"[destinations.{to.name}]\n{kind}\npath = {_text(to.path)}\n"
    return f'[destinations.{to.name}]\nkind = "dicom"\n' + "\n".join(_address(to)) + "\n"


def _address(peer: Peer) -> Iterator[str]:
    yield f"ae_title = {_text(peer.ae_title)}"
    yield f"host = {_text(peer.host)}"
    yield f"port = {peer.port}"
    if peer.tls:
        yield 'tls = { ca = "certs/ca.crt", certificate = "certs/gateway.crt", key = "certs/gateway.key" }'


def _route(plan: Plan) -> str:
    names = ", ".join(_text(to.name) for to in plan.destinations)
    return f'[[routes]]\nname = "everything"\nto = [{names}]\n'


_SYNC = """\
# Syncs: what a source has and the destinations lack is fetched, every minute (docs/sync.md).
#
# [[sync]]
# name = "day"
# source = "pacs"
# last = "12h"  # or days = ["yesterday", "today"]
# series = "all"  # smallest: of each study; fewer_than: with fewer instances than fewer_than = 10
# when = "night"  # within the hours of this schedule only
"""


def _syncs(plan: Plan) -> Iterator[str]:
    for peer in plan.sources if plan.sync else ():
        yield f'[[sync]]\nname = {_text(peer.name)}\nsource = {_text(peer.name)}\nlast = "12h"\n'


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
