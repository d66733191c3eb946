"""From settings to destinations: where each adapter gets what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.archives.folder_identity import LedgerRemembers, ProcessRemembers
from gateway.codec.policy import Capabilities
from gateway.config.settings import DestinationTable, FolderDestination, Settings
from gateway.core.throttle import Throttle
from gateway.delivery.adapters.acceptance import Acceptance
from gateway.delivery.adapters.dicom import CStore
from gateway.delivery.adapters.folder import Folder
from gateway.delivery.destination import ContentStore, Destination
from gateway.delivery.forms import Forms
from gateway.delivery.transcoding.copies import Copies
from gateway.ledger import Ledger
from gateway.security import tls


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


def destinations(
    settings: Settings, store: ContentStore, wanted: Mapping[str, Forms] | None = None, ledger: Ledger | None = None
) -> tuple[Destination, ...]:
    """Return every configured destination, its bytes coming from `store`; where `wanted` has no forms, all goes as it is.

    Which folder a folder destination is, `ledger` remembers; without it, nobody beyond the process.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """

    def built(name: str, table: DestinationTable) -> Destination:
        hours, throttle, wants = settings.hours(table.when), Throttle.of(table.max_rate), (wanted or {}).get(name, Forms())
        if isinstance(table, FolderDestination):
            memory = ProcessRemembers() if ledger is None else LedgerRemembers(ledger, name)
            return Folder(name, table, store, wants, hours, throttle, memory=memory)
        context = None if table.tls is None else tls.requestor_context(table.tls, key=f"destinations.{name}.tls")
        return CStore(name, table, table.calling_ae_title or settings.gateway.ae_title, store, context, wants, hours, throttle)

    return tuple(built(name, table) for name, table in settings.destinations.items())
