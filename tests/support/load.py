"""Load on a Storage SCP that remembers what was answered with success: what may never be lost."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from tests.support import data
from tests.support.raw import Ended, RawRequestor, data_set_of


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
    """What was sent, and what of it was answered with which status. Thread-safe."""

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


def digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield SOP Instance UID and digest of the data set of every whole Part 10 file below `folder`."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".part":
            content = path.read_bytes()
            head = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            yield str(head.SOPInstanceUID), hashlib.sha256(data_set_of(content)).hexdigest()


def not_whole(folder: Path, template: Template, wanted: Iterable[str]) -> set[str]:
    """Return which of `wanted` are not in `folder` exactly as they were sent."""
    found: dict[str, set[str]] = {}
    for uid, digest in digests(folder):
        found.setdefault(uid, set()).add(digest)
    return {uid for uid in wanted if found.get(uid) != {hashlib.sha256(template.instance(uid)).hexdigest()}}
