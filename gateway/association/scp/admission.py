"""Admission of associations: by called AE title, calling AE title, address, and for TLS the name in the certificate.

An AE title is no authentication, so a source is known by all of them together. Where anyone may call, the called AE title is
not looked at either: whoever tries a gateway for the first time does so with ``storescu``, which calls ANY-SCP. But what a source
demands (`certificate_name`, `addresses`) holds there too: nobody else may call by its AE title. Host names are resolved in the
background: a decision uses what was found last and never waits for a name server.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from gateway.association.dimse.services import Admitted
from gateway.association.upper.negotiation import AS_PROPOSED, AS_PROPOSED_NAME, J2K_FIRST, ORDERS, ClassOrders, preferring
from gateway.association.upper.pdu import rejection
from gateway.config.settings import Settings, SourceTable
from gateway.core.log import get_logger
from gateway.core.throttle import Throttle

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], Collection[str]]
TurnedAway = Callable[[str, str, str], None]
"""Hears the calling AE title, the called AE title and the address of each caller that is refused; returns at once."""

REFRESH_S = 300.0
"""The age at which the addresses of host names are looked up again."""

RETRY_S = 5.0
"""The shortest time between two look-ups for callers whose AE title is known and whose address is not."""

START_S = 3.0
"""The longest time that the start waits for host names; those that take longer are known when they are."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class KnownSource:
    """A configured caller: `networks` are the addresses that the configuration gives as such, `name` that in ``[sources]``.

    `name` is None for a destination that is known because it reports what it committed to keep.
    """

    name: str | None
    ae_title: str
    host: str
    networks: tuple[Network, ...]
    certificate_name: str | None
    demands: bool = False
    """Its table says more of who calls than where it is reached: its AE title is its own in every mode."""


def known_source(name: str, table: SourceTable) -> KnownSource:
    """Return the source `name` of the configuration, whose addresses are valid ones."""
    networks = _networks([*table.addresses, *([table.host] if _is_address(table.host) else [])])
    demands = table.certificate_name is not None or bool(table.addresses)
    return KnownSource(name, table.ae_title, table.host, networks, table.certificate_name, demands)


def reporters(settings: Settings) -> tuple[KnownSource, ...]:
    """Return the destinations that are asked for storage commitment: their reports come on associations of their own.

    One that is a source as well calls as that, with all that is asked of a source.
    """
    sources = {table.ae_title for table in settings.sources.values()}
    return tuple(
        KnownSource(None, peer.ae_title, peer.host, _networks([peer.host] if _is_address(peer.host) else []), None)
        for table in settings.destinations.values()
        if (peer := table.can.commit) is not None and peer.ae_title not in sources
    )


def own_titles(settings: Settings) -> frozenset[str]:
    """Return the AE titles that we are called by: ours, and the one that a destination knows us by when it reports."""
    asked = [peer.calling_ae_title for table in settings.destinations.values() if (peer := table.can.commit) is not None]
    return frozenset({settings.gateway.ae_title, *filter(None, asked)})


def matching(
    sources: Sequence[KnownSource],
    resolved: Mapping[str, Collection[str]],
    *,
    calling_ae: str,
    address: str,
    certificate_names: tuple[str, ...] | None,
) -> KnownSource | None:
    """Return the source that calls as `calling_ae` from `address`, or None. Pure; `resolved` maps host names to addresses.

    Of several that would match, one with a certificate name comes first, then the order of the configuration decides.
    """
    candidates = [
        source
        for source in sources
        if source.ae_title == calling_ae and _calls_from(source, resolved, address) and _shows(source, certificate_names)
    ]
    return min(candidates, key=lambda source: source.certificate_name is None, default=None)


class KnownSources:
    """The admission of ``[listen] accept`` and ``[sources]``. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        orders: Mapping[str, str] | None = None,
        *,
        by_class: Mapping[str, Mapping[str, str]] | None = None,
        throttles: Mapping[str, Throttle] | None = None,
        resolve: Resolve | None = None,
        turned_away: TurnedAway = lambda _calling, _called, _address: None,
    ) -> None:
        """Look up the sources' host names, waiting for at most `START_S`.

        `orders` are the acceptance orders that were learned, by source, and `by_class` those of SOP classes; `throttles` say how
        fast each source with a limit may send.
        """
        self._ae_titles = own_titles(settings)
        self._anyone = settings.listen.accept == "any"
        known = [known_source(name, table) for name, table in settings.sources.items()]
        self._sources = (*known, *reporters(settings))
        self._hosts = tuple(sorted({source.host for source in self._sources if not _is_address(source.host)}))
        self._resolve = resolve or _addresses
        self._turned_away = turned_away
        self._lock = threading.Lock()
        self._usual = preferring(settings.listen.prefer)
        self._preferred = {name: preferring(table.prefer) for name, table in settings.sources.items() if table.prefer}
        self._limits = {name: table.associations for name, table in settings.sources.items()}
        self._throttles = throttles or {}
        self._orders: dict[str, tuple[str, ...]] = {}
        self._by_class: dict[str, ClassOrders] = {}
        self._resolved: dict[str, frozenset[str]] = {}
        self._looked_up: dict[str, float] = {}
        self._looking: set[str] = set()
        for source, order in (orders or {}).items():
            self.set_order(source, order, (by_class or {}).get(source))
        for source in (by_class or {}).keys() - (orders or {}).keys():
            self.set_order(source, "j2k-first", (by_class or {})[source])
        deadline = time.monotonic() + START_S
        for thread in self._look_up_again(0.0):
            thread.join(max(deadline - time.monotonic(), 0.0))

    def set_order(self, source: str, order: str, by_class: Mapping[str, str] | None = None) -> None:
        """Accept the transfer syntaxes of `source` in `order`, a name in `ORDERS`, from its next association on.

        The first of them, ``j2k-first``, is the one that the configuration prefers, for this source or for all; ``as-proposed``
        takes what the source proposes first. `by_class` names the orders of SOP classes that have one of their own.

        Raises:
            ValueError: there is no such order.
        """
        usual = self._named(source, order)
        classes = tuple((sop_class, self._named(source, name)) for sop_class, name in sorted((by_class or {}).items()))
        with self._lock:
            self._orders[source], self._by_class[source] = usual, classes

    def _named(self, source: str, order: str) -> tuple[str, ...]:
        if order == AS_PROPOSED_NAME:
            return AS_PROPOSED
        if order not in ORDERS:
            raise ValueError(f"no acceptance order {order!r}; there are {', '.join((*ORDERS, AS_PROPOSED_NAME))}")
        return self._order_of(source) if ORDERS[order] is J2K_FIRST else ORDERS[order]

    def admit(self, *, calling_ae: str, called_ae: str, address: str, certificate_names: tuple[str, ...] | None) -> Admitted:
        """Decide on one A-ASSOCIATE-RQ; see `gateway.association.dimse.services.Admission`.

        Raises:
            AssociationRejected: 1/1/7 for a called AE title that is not ours, 1/1/3 for a caller that is not known; neither
                where anyone may call, but 1/1/3 for one that calls as a source and does not show what that source demands.
        """
        if not self._anyone and called_ae not in self._ae_titles:
            log.warning("called_ae_not_ours", called_ae=called_ae, calling_ae=calling_ae, address=address)
            self._turned_away(calling_ae, called_ae, address)
            raise rejection(1, 1, 7)
        self._look_up_again(REFRESH_S)
        with self._lock:
            resolved = self._resolved
        source = matching(self._sources, resolved, calling_ae=calling_ae, address=address, certificate_names=certificate_names)
        if source is None:
            self._unknown(calling_ae, called_ae, address)
            return Admitted(None, self._usual)
        with self._lock:
            name = source.name or ""
            order, by_class = self._orders.get(name), self._by_class.get(name, ())
        order = self._order_of(name) if order is None else order
        return Admitted(source.name, order, self._limits.get(name), self._throttles.get(name), by_class)

    def _order_of(self, source: str) -> tuple[str, ...]:
        """Return the order that the configuration prefers."""
        return self._preferred.get(source, self._usual)

    def _unknown(self, calling_ae: str, called_ae: str, address: str) -> None:
        """Refuse a caller that is no source, unless anyone may call by its AE title. Raises AssociationRejected."""
        titled = any(source.ae_title == calling_ae for source in self._sources)
        if titled:
            # Its address may have changed since it was looked up.
            self._look_up_again(RETRY_S)
        demanded = any(source.demands and source.ae_title == calling_ae for source in self._sources)
        if demanded or not self._anyone:
            log.warning("caller_not_known", calling_ae=calling_ae, address=address, ae_title_known=titled, demanded=demanded)
            self._turned_away(calling_ae, called_ae, address)
            raise rejection(1, 1, 3)

    def _look_up_again(self, age_s: float) -> list[threading.Thread]:
        """Have the host names looked up in the background where that was more than `age_s` ago; return the threads at it."""
        now = time.monotonic()
        with self._lock:
            due = [
                host
                for host in self._hosts
                if host not in self._looking and now - self._looked_up.get(host, float("-inf")) >= age_s
            ]
            self._looking.update(due)
        threads = [threading.Thread(target=self._look_up, args=(host,), name=f"resolve-{host}", daemon=True) for host in due]
        for thread in threads:
            thread.start()
        return threads

    def _look_up(self, host: str) -> None:
        """Look `host` up; when it cannot be found now it keeps the addresses that it had."""
        try:
            found: frozenset[str] | None = frozenset(self._resolve(host))
        except (OSError, UnicodeError):
            log.warning("source_host_not_found", host=host)
            found = None
        with self._lock:
            if found is not None:
                self._resolved = {**self._resolved, host: found}
            self._looked_up[host] = time.monotonic()
            self._looking.discard(host)


def _calls_from(source: KnownSource, resolved: Mapping[str, Collection[str]], address: str) -> bool:
    if address in resolved.get(source.host, ()):
        return True
    try:
        caller = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(caller in network for network in source.networks)


def _shows(source: KnownSource, certificate_names: tuple[str, ...] | None) -> bool:
    """Tell whether the certificate is the source's. One that must show a name cannot call without TLS."""
    if source.certificate_name is None:
        return True
    wanted = source.certificate_name.lower()
    return any(name.lower() == wanted for name in certificate_names or ())


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _addresses(host: str) -> set[str]:
    return {str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
