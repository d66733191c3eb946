"""The instances that destinations hold already, for ``gateway pull --skip-existing``: each is asked as its table says.

Where an instance will be routed depends on attributes that are not known before it is here. So an instance counts as held only
where *every* destination holds it that the routes may lead to from its source. Blocking; called on a thread.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING

from gateway.config.routing_keys import OPERATION_KEYS
from gateway.config.settings import Settings
from gateway.core.domain import Attributes
from gateway.core.errors import AssociationError, ConfigurationError, DestinationUnavailable, LedgerError, WebServiceError
from gateway.core.log import get_logger
from gateway.route import Rule, compile_routes

if TYPE_CHECKING:
    from gateway.ledger import Ledger

log = get_logger()


def possible_destinations(settings: Settings, source: str) -> tuple[str, ...]:
    """Return the destinations that an instance of `source` may be routed to, whatever its attributes; pure."""
    table = settings.sources[source]
    sent_by = Attributes({"source": source, "calling_ae": table.ae_title, "called_ae": settings.gateway.ae_title})
    known = (
        Rule(rule.name, tuple(condition for condition in rule.conditions if condition[0] in OPERATION_KEYS), rule.destinations)
        for rule in compile_routes(settings.routes).rules
    )
    return tuple(dict.fromkeys(name for rule in known if rule.matches(sent_by) for name in rule.destinations))


class SkipExisting:
    """Asks destinations which instances they hold."""

    def __init__(self, settings: Settings, ledger: Ledger | None = None) -> None:
        """Ask the destinations of `settings`; `ledger` is for those that are not to be asked (``ask = "ledger"``)."""
        self._settings = settings
        self._ledger = ledger

    def __call__(self, source: str, study: str, series: Collection[str], destinations: Collection[str] = ()) -> set[str]:
        """Return the SOP Instance UIDs of these series that each of `destinations`, else every possible one, holds.

        A destination that cannot be asked is taken to hold nothing: then nothing is skipped.
        """
        held: set[str] | None = None
        for name in destinations or possible_destinations(self._settings, source):
            here = self._held_at(name, study, series)
            held = here if held is None else held & here
            if not held:
                return set()
        return held or set()

    def _held_at(self, name: str, study: str, series: Collection[str]) -> set[str]:
        from gateway.archives.places import place

        try:
            with closing(place(self._settings, name, self._ledger)) as asked:
                return {uid for one in series for uid in asked.instances(study, one)}
        except (AssociationError, WebServiceError, ConfigurationError, DestinationUnavailable, LedgerError) as error:
            log.warning("existing_not_known", destination=name, study=study, error=str(error))
            return set()
