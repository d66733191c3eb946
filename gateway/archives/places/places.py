"""The place that a name or a path stands for, and how it is asked. A name in ``[sources]`` and ``[destinations]`` is one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from gateway.archives.folder_identity import FolderIdentity, LedgerRemembers
from gateway.archives.lister import Knowledge, memory
from gateway.archives.places.dicom import Capture, DicomPlace
from gateway.archives.places.dicomweb import WebPlace
from gateway.archives.places.folder import DeliveredFolder, FilesPlace
from gateway.archives.places.orthanc import RestPlace
from gateway.archives.places.place import Place
from gateway.archives.places.verified import VerifiedPlace
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.config.abilities import Abilities, Way
from gateway.config.settings import DestinationTable, Settings, SourceTable
from gateway.core.errors import LedgerError, UsageError, require_known
from gateway.ledger import Ledger
from gateway.ledger.peers import learned


def place(
    settings: Settings, name: str, ledger: Ledger | None = None, capture: Capture | None = None, *, best: bool = False
) -> Place:
    """Return the place that is called `name`: the destination, else the source; `ledger` is for ``ask = "ledger"``
    and remembers which folder a folder destination is.

    Nothing is asked yet. `ledger` also keeps what an archive teaches. `capture` is how one that is reached by C-MOVE alone gives
    files. With `best` it is asked in the best way that there is, whatever way its table chooses.

    Raises:
        UsageError: no source or destination has this name, or it cannot be asked.
        ConfigurationError: a certificate or key cannot be used.

    """
    can = _table(settings, name).can
    ways: dict[Way, Callable[[], Place | None]] = {
        "rest": lambda: RestPlace(name, can.rest) if can.rest is not None else None,
        "dicomweb": lambda: WebPlace(name, can.dicomweb) if can.dicomweb is not None else None,
        "ledger": lambda: VerifiedPlace(name, ledger) if ledger is not None else None,
        "find": lambda: _asked_by_find(settings, name, can, capture, ledger),
        "folder": lambda: _read(name, can.folder, ledger) if can.folder is not None else None,
    }
    found = ways[can.best if best else can.listing]()
    if found is None:
        raise UsageError(f"{name} cannot be asked what it holds: it has no port, no rest and no dicomweb")
    return found


def folder(path: Path) -> FilesPlace:
    """Return the place that is the folder `path`, of whatever files. Raises UsageError where there is none."""
    return FilesPlace(str(path), path)


def _table(settings: Settings, name: str) -> SourceTable | DestinationTable:
    source, destination = settings.sources.get(name), settings.destinations.get(name)
    if destination is not None and (source is None or not _better(source.can, destination.can)):
        return destination
    require_known("source or destination", [name], dict.fromkeys([*settings.sources, *settings.destinations]))
    return settings.sources[name]


def _better(source: Abilities, destination: Abilities) -> bool:
    """Tell whether a place that is both is better asked as the source: where only that table says how, beside C-FIND."""
    return destination.best == "find" and destination.ask is None and source.listing != "find"


def _read(name: str, folder: Path, ledger: Ledger | None) -> DeliveredFolder:
    identity = FolderIdentity(name, folder, LedgerRemembers(ledger, name)) if ledger is not None else None
    return DeliveredFolder(name, folder, identity)


def _asked_by_find(settings: Settings, name: str, can: Abilities, capture: Capture | None, ledger: Ledger | None) -> Place | None:
    peer = can.find
    if peer is None:
        return None
    calling = peer.calling_ae_title or settings.gateway.ae_title
    place = partial(DicomPlace, name, remote_of(peer), calling, deadlines=deadlines_of(peer), capture=capture)
    if ledger is None:
        return place()
    subject = (learned.source_subject if can.send else learned.destination_subject)(name)
    with ledger.read() as connection:
        knowledge = memory.recall(connection, subject, now=time.time(), max_results=peer.max_results)
    return place(knowledge=knowledge, keep=partial(_keep, ledger, subject, knowledge.lasting()))


def _keep(ledger: Ledger, subject: str, before: str, knowledge: Knowledge) -> None:
    """Have the ledger keep what an archive taught about how many matches it gives, where that is new; it loses little if not."""
    if knowledge.lasting() == before:
        return
    with suppress(LedgerError):
        ledger.write(partial(memory.remember, subject=subject, text=knowledge.text(), now=time.time()))
