"""Load on a Storage SCP that remembers what was answered with success: what may never be lost."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import data
from tests.support.raw import Ended, RawRequestor, data_set_of
from tests.support.scripted_scp import ScriptedScp


class Template:
    """A data set to make instances of: the same bytes but for the SOP Instance UID, which keeps its length."""

    def __init__(self, folder: Path, *, rows: int = 16, seed: int = 77) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = data.ct_series(folder, 1, rows=rows, seed=seed)[0]
        self._uid = f"{data.UID_ROOT}.{seed}.1.1.1".encode()
        # Series and study UIDs are prefixes of it; only the whole value, padded to even length, is replaced.
        self._padding = b"\0" * (len(self._uid) % 2)
        self._data_set = data_set_of(path.read_bytes())
        element = b"\x08\x00\x18\x00UI" + (len(self._uid) + len(self._padding)).to_bytes(2, "little")
        self._at = self._data_set.index(element + self._uid + self._padding) + 6

    def instance(self, uid: str) -> bytes:
        """Return the data set of the instance `uid`."""
        padded = uid.encode() + b"\0" * (len(uid) % 2)
        tail = self._data_set[self._at + 2 + len(self._uid) + len(self._padding) :]
        return self._data_set[: self._at] + len(padded).to_bytes(2, "little") + padded + tail


@dataclass
class Ledger:
    """Instances sent, and the status with which each was answered. Thread-safe."""

    template: Template
    prefix: str = "1.2.826.0.1.3680043.10.1338.500"
    answered: dict[str, int] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def new_uid(self) -> str:
        """Return a SOP Instance UID that was not sent yet."""
        with self._lock:
            self.sent += 1
            return f"{self.prefix}.{self.sent}"

    def note(self, uid: str, status: int) -> None:
        with self._lock:
            self.answered[uid] = status

    @property
    def acknowledged(self) -> set[str]:
        """The UIDs that were answered 0000."""
        with self._lock:
            return {uid for uid, status in self.answered.items() if status == 0}

    @property
    def statuses(self) -> set[int]:
        """All statuses seen."""
        with self._lock:
            return set(self.answered.values())

    def send(self, port: int, count: int, *, timeout_s: float = 30.0) -> bool:
        """Send `count` instances over one association; tells whether the peer stayed to the end."""
        try:
            with RawRequestor(port, timeout_s=timeout_s) as scu:
                if not scu.accepted:
                    return False
                for _ in range(count):
                    uid = self.new_uid()
                    self.note(uid, scu.store(uid, self.template.instance(uid)))
        except (Ended, OSError):
            return False
        return True

    def load(self, port: int, *, associations: int, each: int) -> bool:
        """Send `each` instances over each of `associations` at once; tells whether the peer stayed to the end."""
        with ThreadPoolExecutor(associations) as pool:
            return all(list(pool.map(lambda _: self.send(port, each), range(associations))))


Held = Mapping[str, Collection[str]]
"""SOP Instance UID to the SHA-256 digests of the data sets that a destination has of it."""


def files_in(folder: Path) -> list[Path]:
    """Return the instances' files below a folder destination, without those that are still being written."""
    files = [path for path in folder.rglob("*") if path.suffix != ".part" and not path.name.startswith(".")]
    return [path for path in files if path.is_file()]


def in_folder(folder: Path) -> Held:
    """Return what is below `folder`; every file must be a whole Part 10 file."""
    found: dict[str, set[str]] = {}
    for path in files_in(folder):
        found.setdefault(data.identity(path)[2], set()).add(digest(data_set_of(path.read_bytes())))
    return found


def in_acceptor(peer: ScriptedScp) -> Held:
    """Return what a scripted SCP that keeps data got."""
    found: dict[str, set[str]] = {}
    for store in tuple(peer.stores):
        found.setdefault(store.uid, set()).add(digest(store.data_set))
    return found


def digest(data_set: bytes) -> str:
    return hashlib.sha256(data_set).hexdigest()


def not_whole(folder: Path, template: Template, wanted: Iterable[str]) -> set[str]:
    """Return which of `wanted` are not in `folder` exactly as they were sent."""
    return _other_than_sent(in_folder(folder), template, wanted)


def lost(held: Held, sent: Ledger) -> set[str]:
    """Return which of the instances that were answered 0000 are not in `held` exactly as they were sent."""
    return _other_than_sent(held, sent.template, sent.acknowledged)


def _other_than_sent(held: Held, template: Template, wanted: Iterable[str]) -> set[str]:
    return {uid for uid in wanted if set(held.get(uid, ())) != {digest(template.instance(uid))}}
