"""What destinations hold already, for ``gateway pull --skip-existing``: asked by C-FIND, or looked up in a folder.

Where an instance will be routed depends on attributes that are not known before it is here. So an instance counts as held only
where *every* destination holds it that the routes may lead to from its source. Blocking; called on a thread.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from gateway.association.presence import FIND_CONTEXT, instances_of_series
from gateway.association.requestor import Deadlines, RemoteAE, associate
from gateway.delivery.folder import instances_in
from gateway.domain import Attributes
from gateway.errors import AssociationError, ConfigurationError
from gateway.route import OPERATION_KEYS, Rule, compile_routes
from gateway.settings import DicomDestination, FolderDestination, Settings
from gateway.tls import requestor_context

log = structlog.get_logger()


def possible_destinations(settings: Settings, source: str) -> tuple[str, ...]:
    """Return the destinations that an instance of `source` may be routed to, whatever its attributes; pure."""
    table = settings.sources[source]
    sent_by = Attributes({"source": source, "calling_ae": table.ae_title, "called_ae": settings.gateway.ae_title})
    known = (
        Rule(rule.name, tuple(condition for condition in rule.conditions if condition[0] in OPERATION_KEYS), rule.destinations)
        for rule in compile_routes(settings.routes).rules
    )
    return tuple(dict.fromkeys(name for rule in known if rule.matches(sent_by) for name in rule.destinations))


class Existing:
    """Asks destinations which instances they hold."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

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
        table = self._settings.destinations[name]
        if isinstance(table, FolderDestination):
            return {uid for one in series for uid in instances_in(table.path, study, one)}
        try:
            return self._listed(table, study, series)
        except (AssociationError, ConfigurationError) as error:
            log.warning("existing_not_known", destination=name, study=study, error=str(error))
            return set()

    def _listed(self, table: DicomDestination, study: str, series: Collection[str]) -> set[str]:
        calling = table.calling_ae_title or self._settings.gateway.ae_title
        deadlines = Deadlines(response_s=table.response_timeout_s)
        with associate(_remote(table), calling, (FIND_CONTEXT,), deadlines=deadlines) as association:
            return {uid for one in series for uid in instances_of_series(association, study, one)}


def _remote(table: DicomDestination) -> RemoteAE:
    secure = requestor_context(table.tls) if table.tls else None
    return RemoteAE(table.ae_title, table.host, table.port, secure, table.tls.server_name if table.tls else None)
