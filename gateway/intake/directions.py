"""The directions of instances that ``gateway send`` takes in: the destinations that it names, or those of the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.domain import InstanceIdentity, Mode, Provenance
from gateway.dicom.elements import Reader
from gateway.dicom.head import DataSetHead, read_head
from gateway.intake.storage import Route

SEND_AE = "send"
"""The calling AE title by which routes know what a command takes in from files."""

_UNASKED = DataSetHead("", "", "", "", {})


@dataclass(frozen=True, slots=True)
class Directions:
    """The destinations `named`; where there are none, those that `route` says, which asks for `keywords`."""

    named: tuple[str, ...] = ()
    route: Route | None = None
    keywords: frozenset[str] = frozenset()

    def of(self, identity: InstanceIdentity, provenance: Provenance, read: Reader) -> Mapping[str, Mode | None]:
        """Return the destinations of the instance whose data set `read` gives, each with the transfer syntax asked for there.

        Raises what `read` raises.
        """
        if self.named or self.route is None:
            return dict.fromkeys(self.named)
        head = read_head(read, identity.transfer_syntax_uid, self.keywords) if self.keywords else _UNASKED
        return self.route(head.attributes(provenance))
