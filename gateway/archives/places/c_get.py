"""One instance as a file, by C-GET (PS3.4 §C.4.3), from a place that is reached by DICOM only. Blocking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

from gateway.archives.places.place import Unheld
from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.association.dimse.statuses import CANNOT_UNDERSTAND, OUT_OF_RESOURCES
from gateway.association.scu.offers import offers
from gateway.association.scu.query import image_identifier
from gateway.association.scu.requestor import Requestor, next_message_id
from gateway.association.upper.contexts import ProposedContext
from gateway.association.upper.negotiation import preferring
from gateway.core.errors import NoPresentationContext, Refusal
from gateway.core.files import create_private
from gateway.dicom import part10

LONGEST_S = 600.0
"""One instance may take so long to come."""


class NoGet(Unheld):
    """A place has no C-GET."""


def get(
    connect: Callable[[Sequence[ProposedContext]], Requestor],
    ours: str,
    uids: tuple[str, str, str],
    sop_class: str,
    to: Path,
) -> None:
    """Write an instance, by its Study, Series and SOP Instance UIDs, to the new file `to` (0600).

    `sop_class` is its SOP class, empty where it is not known; `ours` is our AE title.

    Raises:
        NoGet: the peer has no C-GET.
        Unheld: it did not come: the peer cannot send it so, or does not have it.
        AssociationError: the association could not be opened, or broke.
    """
    for contexts in offers({sop_class} if sop_class else None, preferring(())):
        try:
            requestor = connect(contexts)
        except NoPresentationContext as error:
            raise NoGet("it gives no instances by C-GET") from error
        if _got(requestor, ours, uids, to):
            return
    raise Unheld("it did not send the instance by C-GET")


def _got(requestor: Requestor, ours: str, uids: tuple[str, str, str], to: Path) -> bool:
    """Ask on one association; tell whether the instance came."""
    wanted = image_identifier(*uids)
    into, message_id = Into(to), next_message_id()
    info = AssociationInfo(f"get{message_id}", requestor.remote.ae_title, ours, requestor.remote.host)
    watchdog = threading.Timer(LONGEST_S, requestor.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        with requestor:
            asked = requestor.get(wanted, storage=into, info=info, message_id=message_id)
            with closing(cast(Any, asked)) as responses:
                for _ in responses:
                    continue
    except NoPresentationContext as error:
        raise NoGet("it gives no instances by C-GET") from error
    finally:
        watchdog.cancel()
    return into.came


class Into:
    """A storage service that takes one instance into a file; `came` once it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.came = False

    def receive(self, _association: AssociationInfo, request: StoreRequest) -> _Reception:
        """Begin to take the instance; see `StorageService`."""
        try:
            file = create_private(self.path)
            file.write(part10.head_of(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid))
        except OSError as error:
            raise Refusal(OUT_OF_RESOURCES, "the file cannot be written") from error
        return _Reception(self, file)


class _Reception:
    def __init__(self, into: Into, file: BinaryIO) -> None:
        self._into = into
        self._file = file
        self._length = 0

    def write(self, fragments: Sequence[memoryview]) -> None:
        try:
            for fragment in fragments:
                self._length += self._file.write(fragment)
        except OSError as error:
            raise Refusal(OUT_OF_RESOURCES, "the file cannot be written") from error

    def commit(self) -> int:
        if not self._length:
            self.discard()
            raise Refusal(CANNOT_UNDERSTAND, "a data set without bytes")
        self._file.close()
        self._into.came = True
        return 0

    def discard(self) -> None:
        self._file.close()
        self._into.path.unlink(missing_ok=True)
