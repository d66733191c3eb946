"""The place that a name or a path stands for, and how it is asked. A name in ``[sources]`` and ``[destinations]`` is one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from gateway.archives.folder_identity import FolderIdentity, LedgerRemembers
from gateway.archives.lister import Knowledge, memory
from gateway.archives.places.dicom import Capture, DicomPlace
from gateway.archives.places.dicomweb import WebPlace
from gateway.archives.places.folder import DeliveredFolder, FilesPlace
from gateway.archives.places.orthanc import RestPlace
from gateway.archives.places.place import Place
from gateway.archives.places.verified import VerifiedPlace
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.config.settings import DicomDestination, FolderDestination, Settings, SourceTable
from gateway.core.errors import LedgerError, UsageError, require_known
from gateway.ledger import Ledger
from gateway.ledger.peers import learned

Way = Literal["find", "dicomweb", "rest", "ledger", "folder"]


def way_of(table: SourceTable | DicomDestination | FolderDestination) -> Way:
    """Return how a source or destination is asked: as its table says, else the best way that it has. Pure."""
    if isinstance(table, FolderDestination):
        return "folder"
    if table.ask is not None:
        return table.ask
    return "rest" if table.rest is not None else "dicomweb" if table.dicomweb is not None else "find"


def place(settings: Settings, name: str, ledger: Ledger | None = None, capture: Capture | None = None) -> Place:
    """Return the place that is called `name`: the destination, else the source; `ledger` is for ``ask = "ledger"``
    and remembers which folder a folder destination is.

    Nothing is asked yet. `ledger` also keeps what an archive teaches. `capture` is how one that is reached by C-MOVE alone gives
    files.

    Raises:
        UsageError: no source or destination has this name, or it cannot be asked.
        ConfigurationError: a certificate or key cannot be used.

    """
    table = _table(settings, name)
    if isinstance(table, FolderDestination):
        identity = FolderIdentity(name, table.path, LedgerRemembers(ledger, name)) if ledger is not None else None
        return DeliveredFolder(name, table.path, identity)
    ways: dict[Way, Callable[[], Place | None]] = {
        "rest": lambda: RestPlace(name, table.rest) if table.rest is not None else None,
        "dicomweb": lambda: WebPlace(name, table.dicomweb) if table.dicomweb is not None else None,
        "ledger": lambda: VerifiedPlace(name, ledger) if ledger is not None else None,
        "find": lambda: _asked_by_find(settings, name, table, capture, ledger),
    }
    found = ways[way_of(table)]()
    if found is None:
        raise UsageError(f"{name} cannot be asked what it holds: it has no port, no rest and no dicomweb")
    return found


def folder(path: Path) -> FilesPlace:
    """Return the place that is the folder `path`, of whatever files. Raises UsageError where there is none."""
    return FilesPlace(str(path), path)


def _table(settings: Settings, name: str) -> SourceTable | DicomDestination | FolderDestination:
    source, destination = settings.sources.get(name), settings.destinations.get(name)
    if destination is not None and (source is None or not _better(source, destination)):
        return destination
    require_known("source or destination", [name], dict.fromkeys([*settings.sources, *settings.destinations]))
    return settings.sources[name]


def _better(source: SourceTable, destination: DicomDestination | FolderDestination) -> bool:
    """Tell whether a place that is both is better asked as the source: where only that table says how, beside C-FIND."""
    return way_of(destination) == "find" and getattr(destination, "ask", None) is None and way_of(source) != "find"


def _asked_by_find(
    settings: Settings, name: str, table: SourceTable | DicomDestination, capture: Capture | None, ledger: Ledger | None
) -> Place | None:
    if table.port is None:
        return None
    calling = getattr(table, "calling_ae_title", None) or settings.gateway.ae_title
    place = partial(DicomPlace, name, remote_of(table), calling, deadlines=deadlines_of(table), capture=capture)
    if ledger is None:
        return place()
    subject = (learned.source_subject if isinstance(table, SourceTable) else learned.destination_subject)(name)
    with ledger.read() as connection:
        cap = getattr(table, "max_results", None)
        knowledge = memory.recall(connection, subject, now=time.time(), max_results=cap)
    return place(knowledge=knowledge, keep=partial(_keep, ledger, subject, knowledge.lasting()))


def _keep(ledger: Ledger, subject: str, before: str, knowledge: Knowledge) -> None:
    """Have the ledger keep what an archive taught about how many matches it gives, where that is new; it loses little if not."""
    if knowledge.lasting() == before:
        return
    with suppress(LedgerError):
        ledger.write(partial(memory.remember, subject=subject, text=knowledge.text(), now=time.time()))
