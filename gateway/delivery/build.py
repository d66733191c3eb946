"""From settings to destinations: where each adapter gets what it needs."""

from __future__ import annotations

from gateway import tls
from gateway.delivery.cstore import CStore
from gateway.delivery.destination import ContentStore, Destination
from gateway.delivery.folder import Folder
from gateway.settings import DestinationTable, FolderDestination, Settings


def destinations(settings: Settings, store: ContentStore) -> tuple[Destination, ...]:
    """Return every configured destination, its bytes coming from `store`.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """
    return tuple(_destination(name, table, settings, store) for name, table in settings.destinations.items())


def _destination(name: str, table: DestinationTable, settings: Settings, store: ContentStore) -> Destination:
    if isinstance(table, FolderDestination):
        return Folder(name, table, store)
    context = None if table.tls is None else tls.requestor_context(table.tls, key=f"destinations.{name}.tls")
    return CStore(name, table, table.calling_ae_title or settings.gateway.ae_title, store, context)
