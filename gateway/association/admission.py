"""Who may associate, from ``[sources]`` and ``[listen] accept`` (PS3.8 §9.3.4)."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.association.services import Admitted
from gateway.settings import Settings


class KnownSources:
    """Admits by called AE title, calling AE title, address and certificate. Thread-safe."""

    def __init__(self, settings: Settings, orders: Mapping[str, str]) -> None:
        """`orders` maps names of sources to the acceptance order that was learned for them."""
        raise NotImplementedError

    def admit(self, *, calling_ae: str, called_ae: str, address: str, certificate_names: tuple[str, ...] | None) -> Admitted:
        """Decide on one A-ASSOCIATE-RQ; see `gateway.association.services.Admission`."""
        raise NotImplementedError

    def set_order(self, source: str, order: str) -> None:
        """Accept ``j2k-first`` or ``uncompressed-first`` from `source` on its next associations."""
        raise NotImplementedError
