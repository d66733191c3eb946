"""Destinations of kind ``folder``: a Part 10 file an instance, under ``<study>/<series>/<SOP instance>.dcm``.

A file appears whole or not at all (written aside, fsync, rename, fsync of the folders down to it) and is read back: that its
data set has the digest of what was received is its proof. The same content again changes nothing; other content replaces the file
at once. A folder that cannot be written or has no room is a destination that is down: everything waits, nothing is held.
Files are 0600, folders 0700. Names are made of UIDs only, as `gateway.dicom.filenames` says.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import xxhash

from gateway.delivery.destination import DAMAGED, ContentStore, OpenBytes, Outcome, OutcomeKind, Report
from gateway.delivery.forms import Forms
from gateway.delivery.part10 import file_head
from gateway.dicom.filenames import UNKNOWN, name_of
from gateway.domain import Consignment, InstanceIdentity, Proof
from gateway.errors import DestinationUnavailable, SpoolIOError, SpoolMissing
from gateway.files import make_private_folder
from gateway.schedule import Schedule
from gateway.settings import FolderDestination, RetryTable
from gateway.throttle import Throttle

_CHUNK_BYTES = 1 << 20
_ASIDE = ".incoming"
_STALE_S = 86_400.0
"""Files that were being written for this long belong to nobody any more."""

MAX_DURABLE = 10_000
"""Folders remembered as durable; forgetting them costs an fsync or two."""

_log = structlog.get_logger()


def relative_path(identity: InstanceIdentity, digest: str) -> Path:
    """Return where an instance goes below the destination's folder. Pure."""
    series = Path(name_of(identity.study_instance_uid)) / name_of(identity.series_instance_uid)
    name = name_of(identity.sop_instance_uid)
    return series / (f"{UNKNOWN}-{digest[:16]}.dcm" if name == UNKNOWN else f"{name}.dcm")


@dataclass
class Folder:
    """A `Destination` that is a folder."""

    name: str
    settings: FolderDestination
    store: ContentStore
    forms: Forms = field(default_factory=Forms)
    hours: Schedule | None = None
    throttle: Throttle | None = None
    idle_close_s: float = 5.0
    instant_proof: Proof | None = Proof.STATUS
    _swept: threading.Event = field(default_factory=threading.Event)
    _durable: set[Path] = field(default_factory=set)
    """Folders of series whose own names this process has made durable."""

    @property
    def workers(self) -> int:
        """How many threads write at a time."""
        return self.settings.associations

    @property
    def retry(self) -> RetryTable:
        """When to try again."""
        return self.settings.retry

    def open(self) -> FolderSession:
        """Return a session; nothing is written before its first `deliver`."""
        return FolderSession(self)

    def forget_refusals(self) -> None:
        """Nothing is ever refused."""

    def prepare(self) -> None:
        """Make the folder where it is not there yet and remove what crashes left in it, once.

        Raises:
            DestinationUnavailable: it cannot be made.
        """
        aside = self.settings.path / _ASIDE
        try:
            if not self.settings.path.exists():
                make_private_folder(self.settings.path)
                _sync(self.settings.path.parent)
            make_private_folder(aside)
            if not self._swept.is_set():
                self._swept.set()
                _sweep(aside, older_than=time.time() - _STALE_S)
        except OSError as error:
            raise _unavailable(self.settings.path, error) from error

    def make_durable(self, target: Path, *, new: bool) -> None:
        """Make the names down to the file `target` durable; `new` says that a folder was made for it.

        That a folder is there does not mean that it would be after a power cut: a crash came before, or another thread has made
        it just now. So the first file that this process puts into a series takes all of them along.
        """
        series = target.parent
        known = series in self._durable and not new
        for folder in (series,) if known else (series, series.parent, self.settings.path):
            _sync(folder)
        if len(self._durable) >= MAX_DURABLE:
            self._durable.clear()
        self._durable.add(series)


def _sweep(aside: Path, *, older_than: float) -> None:
    stale = [entry.path for entry in os.scandir(aside) if entry.stat(follow_symlinks=False).st_mtime < older_than]
    for path in stale:
        Path(path).unlink(missing_ok=True)
    if stale:
        _log.info("folder_swept", files=len(stale))


class FolderSession:
    """A `Session` into a folder. There is nothing to keep open."""

    def __init__(self, destination: Folder) -> None:
        self._destination = destination
        self._root = destination.settings.path
        self._stopped = threading.Event()
        self._killed = threading.Event()

    def deliver(self, batch: Sequence[Consignment], report: Report) -> None:
        """Write the instances of `batch`.

        Raises:
            DestinationUnavailable: the folder is not writable, has no room, or is not there.
        """
        self._destination.prepare()
        try:
            for consignment in batch:
                if self._stopped.is_set() or not report(self._outcome(consignment)):
                    return
        except _BrokenOff:
            return  # nothing of it came to its place

    def stop(self) -> None:
        """Finish the file at hand and begin no other."""
        self._stopped.set()

    def kill(self) -> None:
        """As `stop`, and break off a write that waits for `max_rate`: any other cannot be."""
        self._stopped.set()
        self._killed.set()

    def close(self) -> None:
        """Nothing is open."""

    def _outcome(self, consignment: Consignment) -> Outcome:
        forms = self._destination.forms
        shipment = forms.shipment(consignment, forms.decide(consignment, None))
        if isinstance(shipment, Outcome):
            return shipment
        return forms.afterwards(self._stored(shipment), consignment, shipment)

    def _stored(self, consignment: Consignment) -> Outcome:
        try:
            with self._destination.store.open(consignment.content) as source:
                return self._put(consignment, source)
        except SpoolMissing as error:
            return Outcome(consignment.delivery_id, OutcomeKind.UNREADABLE, reason=f"bytes missing: {error}")
        except SpoolIOError as error:
            return Outcome(consignment.delivery_id, OutcomeKind.HINDERED, reason=f"bytes cannot be read: {error}")
        except OSError as error:
            raise _unavailable(self._root, error) from error

    def _put(self, consignment: Consignment, source: OpenBytes) -> Outcome:
        number, wanted = consignment.delivery_id, consignment.content.digest
        head = file_head(source, consignment.identity)
        target = self._root / relative_path(consignment.identity, wanted)
        if _digest_behind(target, source.length) == wanted:
            # A crash may have come before it was durable, or it is not of our making.
            _sync(target)
            self._destination.make_durable(target, new=False)
            return Outcome(number, OutcomeKind.FOUND, found=True, proof=Proof.EXISTS)
        aside = self._root / _ASIDE / f"{secrets.token_hex(16)}.part"
        try:
            if self._write(aside, head, source) != wanted:
                return Outcome(number, OutcomeKind.UNREADABLE, reason=DAMAGED)
            self._move_in(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        if _digest_behind(target, source.length) != wanted:
            return Outcome(number, OutcomeKind.UNKNOWN, reason="the file does not read back as it was written")
        return Outcome(number, OutcomeKind.STORED, found=True, proof=Proof.EXISTS)

    def _write(self, path: Path, head: bytes, source: OpenBytes) -> str:
        """Write `head` and the data set durably to the new file `path`; return the data set's digest."""
        digest = xxhash.xxh3_128()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            _write_all(file.fileno(), memoryview(head))
            for chunk in _chunks(source, self._chunk_bytes):
                self._wait_for_turn(len(chunk))
                digest.update(chunk)
                _write_all(file.fileno(), memoryview(chunk))
            os.fsync(file.fileno())
        return str(digest.hexdigest())

    def _wait_for_turn(self, count: int) -> None:
        """Wait until `count` more bytes may be written. Raises _BrokenOff."""
        throttle = self._destination.throttle
        if throttle is not None and self._killed.wait(throttle.take(count)):
            raise _BrokenOff

    @property
    def _chunk_bytes(self) -> int:
        throttle = self._destination.throttle
        return _CHUNK_BYTES if throttle is None else min(_CHUNK_BYTES, throttle.piece_bytes)

    def _move_in(self, aside: Path, target: Path) -> None:
        made = [make_private_folder(folder) for folder in (target.parent.parent, target.parent)]
        aside.replace(target)
        self._destination.make_durable(target, new=any(made))


class _BrokenOff(Exception):
    """The session was killed while a file was being written."""


def _chunks(source: OpenBytes, size: int) -> Iterator[bytes]:
    """Yield the data set in pieces of at most `size` bytes, as far as it is there."""
    position, end = source.offset, source.offset + source.length
    while position < end and (chunk := _read(source, min(size, end - position), position)):
        yield chunk
        position += len(chunk)


def _read(source: OpenBytes, size: int, position: int) -> bytes:
    try:
        return os.pread(source.fileno(), size, position)
    except OSError as error:
        raise SpoolIOError(f"{error.strerror}") from error


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _digest_behind(path: Path, length: int) -> str | None:
    """Return the digest of the last `length` bytes of `path`, None where there is no such file or it is too short.

    Our files end with the data set; whatever else stands there has another digest.
    """
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            begin = os.fstat(file.fileno()).st_size - length
            if begin < 0:
                return None
            file.seek(begin)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return None
    return str(digest.hexdigest())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_WORDS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "not writable",
    errno.EPERM: "not writable",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "not a folder",
    errno.EEXIST: "not a folder",
}


def _unavailable(root: Path, error: OSError) -> DestinationUnavailable:
    words = _WORDS.get(error.errno or 0) or error.strerror or type(error).__name__
    return DestinationUnavailable(f"folder {root}: {words}")
