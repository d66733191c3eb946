"""From settings to destinations: where each adapter gets what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway import tls
from gateway.codec.policy import Capabilities
from gateway.delivery.acceptance import Acceptance
from gateway.delivery.copies import Copies
from gateway.delivery.cstore import CStore
from gateway.delivery.destination import ContentStore, Destination
from gateway.delivery.folder import Folder
from gateway.delivery.forms import Forms
from gateway.settings import DestinationTable, FolderDestination, Settings
from gateway.throttle import Throttle


def forms(
    settings: Settings, copies: Copies, can: Capabilities, *, acceptance: Callable[[str], Acceptance] = lambda _name: Acceptance()
) -> dict[str, Forms]:
    """Return how every configured destination wants its instances, by name.

    `can` is what can be transcoded, `copies` where that is found, and `acceptance` gives what is known of a destination.
    """
    return {name: _forms(table, copies, can, acceptance(name)) for name, table in settings.destinations.items()}


def _forms(table: DestinationTable, copies: Copies, can: Capabilities, acceptance: Acceptance) -> Forms:
    lossy = not isinstance(table, FolderDestination) and table.allow_decompressed_lossy
    return Forms(table.transfer_syntax, lossy, can, acceptance, copies)


def destinations(settings: Settings, store: ContentStore, wanted: Mapping[str, Forms] | None = None) -> tuple[Destination, ...]:
    """Return every configured destination, its bytes coming from `store`; where `wanted` has no forms, all goes as it is.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """
    return tuple(
        _destination(name, table, settings, store, (wanted or {}).get(name, Forms()))
        for name, table in settings.destinations.items()
    )


def _destination(name: str, table: DestinationTable, settings: Settings, store: ContentStore, wanted: Forms) -> Destination:
    hours, throttle = settings.hours(table.when), Throttle.of(table.max_rate)
    if isinstance(table, FolderDestination):
        return Folder(name, table, store, wanted, hours, throttle)
    context = None if table.tls is None else tls.requestor_context(table.tls, key=f"destinations.{name}.tls")
    return CStore(name, table, table.calling_ae_title or settings.gateway.ae_title, store, context, wanted, hours, throttle)
