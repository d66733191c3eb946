"""Asking peers for a person: C-ECHO of sources and destinations, C-FIND of sources. Runs on trio, associations on threads."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gateway.app.engine import Engine
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.remote import remote_of
from gateway.association.scu.requestor import RemoteAE, associate
from gateway.association.upper.contexts import STUDY_ROOT_CONTEXTS, VERIFICATION_CONTEXTS
from gateway.config.abilities import Abilities
from gateway.config.settings import DestinationTable, Settings, SourceTable
from gateway.control.advice import advice
from gateway.control.wire import Document, FindCommand, FolderCommand, described
from gateway.core.domain import Role
from gateway.core.errors import GatewayError, UsageError, WebServiceError, require_known
from gateway.security.tls import requestor_context

if TYPE_CHECKING:
    from gateway.ledger import Ledger


@dataclass(frozen=True)
class Peer:
    """A name of the configuration that can be asked whether it is there."""

    kind: str
    name: str
    table: SourceTable | DestinationTable


def peers_of(settings: Settings, names: Sequence[str]) -> list[Peer]:
    """Return the sources and destinations with these names; none means all.

    Raises:
        UsageError: a name is neither.

    """
    known = [Peer("source", name, source) for name, source in settings.sources.items()]
    known += [Peer("destination", name, to) for name, to in settings.destinations.items()]
    require_known("source or destination", names, list(dict.fromkeys(peer.name for peer in known)))
    return [peer for peer in known if not names or peer.name in names]


async def echo(engine: Engine, names: Sequence[str]) -> list[Document]:
    """Ask the named peers, or all, with C-ECHO, side by side; a folder is asked whether it can be written."""
    peers = peers_of(engine.settings, names)
    results: list[Document] = [{} for _ in peers]

    switch = KillSwitch()

    def blocking(peer: Peer) -> Document:
        with switch.on_this_thread():
            return _ask(engine, peer)

    async def ask(index: int, peer: Peer) -> None:
        try:
            results[index] = await trio.to_thread.run_sync(blocking, peer, abandon_on_cancel=True)
        except trio.Cancelled:
            switch.kill()
            raise

    async with trio.open_nursery() as nursery:
        for index, peer in enumerate(peers):
            nursery.start_soon(ask, index, peer)
    return results


def _ask(engine: Engine, peer: Peer) -> Document:
    table, can = peer.table, peer.table.can
    document: Document = {"kind": peer.kind, "name": peer.name, "tls": can.tls is not None, "address": table.address}
    if can.folder is not None:
        return document | (_gone(engine.ledger, peer.name, can.folder) or _writable(can.folder))
    if (called := can.call) is None or called.port is None:
        return document | {"ok": None, "detail": "no port: it sends to us and cannot be asked"}
    calling = called.calling_ae_title or engine.settings.gateway.ae_title
    try:
        answered = _echo(remote_of(called), calling)
        told = [*advice(table, answered["implementation"]), *_transcoding(can, calling)]
        return document | answered | {"advice": told}
    except GatewayError as error:
        return document | {"ok": False, "detail": str(error), "error": described(error)}


def _transcoding(can: Abilities, ae_title: str) -> list[str]:
    """Return what to change at an Orthanc that may transcode what it sends us; one whose REST API does not answer tells nothing."""
    if not can.send or can.rest is None:
        return []
    from gateway.archives.orthanc.client import Orthanc

    try:
        with closing(Orthanc(can.rest)) as orthanc:
            names = orthanc.transcodes_for(ae_title)
    except WebServiceError:
        return []
    words = 'lets it transcode what it sends us, with loss too: "AllowTranscoding": false (gateway register does that)'
    return [f"its modality {name} {words}" for name in names]


def _echo(remote: RemoteAE, calling_ae: str) -> Document:
    started = time.monotonic()
    with associate(remote, calling_ae, VERIFICATION_CONTEXTS) as association:
        associated = time.monotonic()
        association.echo()
        answered = time.monotonic()
        implementation = association.implementation_version
    return {
        "ok": True,
        "detail": "",
        "implementation": implementation,
        "associate_ms": _ms(associated - started),
        "echo_ms": _ms(answered - associated),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _gone(ledger: Ledger, name: str, path: Path) -> Document:
    """Say why a folder is not the one that was delivered into; nothing where it is."""
    from gateway.archives.folder_identity import FolderIdentity, LedgerRemembers

    try:
        FolderIdentity(name, path, LedgerRemembers(ledger, name)).check()
    except GatewayError as error:
        return {"ok": False, "detail": str(error), "error": described(error)}
    return {}


async def accept_folder(engine: Engine, command: FolderCommand) -> Document:
    """Have what lies at the path of a folder destination now taken for its folder, and made where nothing does; then try it.

    Raises:
        UsageError: no destination of this name is a folder.
        LedgerUnavailable: it cannot be recorded.

    """
    from gateway.archives.folder_identity import key_of
    from gateway.ledger.peers import folders

    folder_of = {name: folder for name, table in engine.settings.destinations.items() if (folder := table.can.folder) is not None}
    name = command.destination
    if name not in folder_of:
        raise UsageError(f"{name} is no destination with a folder (known: {', '.join(folder_of) or 'none'})")
    path = key_of(folder_of[name])
    change = functools.partial(folders.accept, destination=name, path=path, now=time.time())
    await trio.to_thread.run_sync(engine.ledger.write, change)
    if engine.role is Role.GATEWAY:
        engine.dispatcher.retry(name)
    return {"destination": name, "path": path}


def _writable(path: Path) -> Document:
    """Tell whether a folder destination can be written; one that is not there yet is made on the first delivery."""
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return {"ok": True, "detail": "" if nearest == path.absolute() else "made on the first delivery"}
    return {"ok": False, "detail": f"{nearest} cannot be written"}


def finder(engine: Engine, source: str) -> Callable[..., Awaitable[list[dict[str, str]]]]:
    """Return what asks `source` as `gateway.retrieve.source.find` does, given keys, level and limit.

    A gateway's retriever does; a desk needs no more than associations, and waits for no other libraries.
    """
    if engine.role is Role.GATEWAY:
        return functools.partial(engine.retriever.find, source)
    from gateway.retrieve import source as sources

    connect = sources.connecting(engine.settings, source, requestor_context)
    associations = sources.SourceAssociations(functools.partial(connect, STUDY_ROOT_CONTEXTS))
    return functools.partial(sources.find, associations, trio.CapacityLimiter(1))


async def find(engine: Engine, command: FindCommand) -> Document:
    """Ask a source with C-FIND.

    Raises:
        UsageError: no such source or key.
        AssociationError: it could not be asked, or refused.

    """
    matches = await finder(engine, command.source)(command.keys, command.level, limit=command.limit)
    return {"source": command.source, "level": command.level, "matches": matches}
