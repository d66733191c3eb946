"""What decides by itself what is to be moved, made of the rooms that it stands on; `gateway.app` starts it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gateway.existing import possible_destinations
from gateway.holdings import Place, place
from gateway.holdings.verified import VerifiedPlace
from gateway.ledger import Ledger
from gateway.retrieve import Retriever
from gateway.settings import Settings
from gateway.sync.means import Means
from gateway.sync.serving import Syncs


def syncs(settings: Settings, ledger: Ledger, retriever: Retriever, *, barrier: Callable[[], None]) -> Syncs:
    """Return what makes syncs; `barrier` returns once the ledger has everything that was answered 0000."""
    # A source and a destination may have one name and be two peers; each of them is asked as what it is here.
    sources, destinations = (settings.model_copy(update={other: {}}) for other in ("destinations", "sources"))

    def verified(name: str) -> Place:
        return VerifiedPlace(name, ledger)

    means = Means(
        retriever,
        ledger,
        barrier,
        source=partial(place, sources, ledger=ledger),
        destination=partial(place, destinations, ledger=ledger),
        verified=verified,
    )
    return Syncs(settings, means, possible=partial(possible_destinations, settings))
