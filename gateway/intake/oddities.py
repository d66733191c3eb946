"""Warnings in the log about instances that are taken in though something about them is odd: each kind once an association.

UIDs are named, not quoted: one that is no UID may be anything.
"""

from __future__ import annotations

import threading

from gateway.core.domain import InstanceIdentity, is_conforming_uid
from gateway.core.log import get_logger

_log = get_logger()


class Oddities:
    """Remembers what was said; the oldest is forgotten where there is very much. Thread-safe."""

    def __init__(self, limit: int = 4096) -> None:
        self._said: dict[tuple[str, str], None] = {}
        self._limit = limit
        self._lock = threading.Lock()

    def note(self, identity: InstanceIdentity, unread: str, association: str) -> None:
        """Say what is odd of an instance: `unread` says why its head could not be read to its end."""
        if unread and self._first(association, unread):
            _log.warning("head_not_read", association=association, sop_instance_uid=identity.sop_instance_uid, reason=unread)
        odd = odd_uids(identity)
        if odd and self._first(association, odd):
            _log.warning("uids_not_conforming", association=association, which=odd)

    def _first(self, association: str, what: str) -> bool:
        with self._lock:
            if (association, what) in self._said:
                return False
            if len(self._said) >= self._limit:
                del self._said[next(iter(self._said))]
            self._said[association, what] = None
            return True


def odd_uids(identity: InstanceIdentity) -> str:
    """Return in words which UIDs of an instance are carried though they break PS3.5 §9.1, empty for none."""
    uids = {
        "SOP Class UID": identity.sop_class_uid,
        "SOP Instance UID": identity.sop_instance_uid,
        "Study Instance UID": identity.study_instance_uid,
        "Series Instance UID": identity.series_instance_uid,
    }
    return ", ".join(name for name, uid in uids.items() if uid and not is_conforming_uid(uid))
