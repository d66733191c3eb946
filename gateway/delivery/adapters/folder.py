"""Destinations of kind ``folder``: a Part 10 file an instance, under ``<study>/<series>/<SOP instance>.dcm``.

A file appears whole or not at all (written aside, fsync, rename, fsync of the folders down to it) and is read back: that its
data set has the digest of what was received is its proof. The same content again changes nothing; other content replaces the file
at once. A folder that cannot be written, has no room, or is not the one that was there before (`identity`) is a destination that is
down: everything waits, nothing is held. A batch works on the folder that it opened, whatever its path leads to meanwhile, and an
instance counts only while the path still leads there. Files are 0600, folders 0700. Names are made of UIDs only, as
`gateway.dicom.filenames` says.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from gateway.archives.folder_identity import ASIDE, FolderIdentity, ProcessRemembers, Remembering, unavailable
from gateway.config.settings import FolderDestination, RetryTable
from gateway.core.domain import Consignment, InstanceIdentity, Proof, Status, StatusClass
from gateway.core.errors import DestinationUnavailable, LedgerError, SpoolIOError, SpoolMissing
from gateway.core.log import get_logger
from gateway.core.schedule import Schedule
from gateway.core.throttle import Throttle
from gateway.delivery.adapters.file_meta import file_head
from gateway.delivery.destination import DAMAGED, ContentStore, OpenBytes, Outcome, OutcomeKind, Report
from gateway.delivery.forms import Forms
from gateway.dicom.filenames import UNKNOWN, name_of
from gateway.spool.content import digest_of

_CHUNK_BYTES = 1 << 20
_PART = ".part"
_STALE_S = 86_400.0
"""Files of another gateway that were being written for this long belong to nobody any more."""

_RUN = secrets.token_hex(8)
"""Tells the unfinished files of this process from those of an earlier one of the same gateway, which nobody finishes."""

MAX_DURABLE = 10_000
"""Folders remembered as durable; forgetting them costs an fsync or two."""

_log = get_logger()


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
    memory: Remembering = field(default_factory=ProcessRemembers)
    _littered: bool = True
    """Unfinished files may lie in it that nobody finishes."""

    _abandoned: set[str] = field(default_factory=set)
    _durable: set[tuple[int, int, Path]] = field(default_factory=set)
    """Folders of series whose own names this process has made durable, each with device and inode of the folder that it is in."""

    def __post_init__(self) -> None:
        self.identity = FolderIdentity(self.name, self.settings.path, self.memory)

    @property
    def workers(self) -> int:
        """The number of threads that write at a time."""
        return self.settings.associations

    @property
    def retry(self) -> RetryTable:
        """The number of attempts and the pauses between them."""
        return self.settings.retry

    def judge(self, status: int) -> Status:
        """Return that nothing is known of a status: a folder has none; an earlier destination of its name may have had."""
        return Status(status, str(status), "a status of no folder", StatusClass.UNKNOWN)

    def open(self) -> FolderSession:
        """Return a session; nothing is written before its first `deliver`."""
        return FolderSession(self)

    def forget_refusals(self) -> None:
        """Nothing is ever refused."""

    def prepare(self) -> int:
        """Return a descriptor of the folder, made where none was known there; the caller closes it.

        Raises:
            DestinationUnavailable: it cannot be made, is gone, or is another one than before.
        """
        root = self.identity.open()
        try:
            make_folder(ASIDE, root)
            self._sweep(root)
        except OSError as error:
            os.close(root)
            raise unavailable(self.settings.path, error) from error
        return root

    def tidy(self) -> None:
        """Remove unfinished files that nobody finishes. Nothing is done where the folder is not there."""
        if not self._littered:
            return
        try:
            self.identity.check()
            root = os.open(self.settings.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (DestinationUnavailable, LedgerError, OSError):
            return
        try:
            self._sweep(root)
        except (LedgerError, OSError) as error:
            _log.warning("folder_not_swept", destination=self.name, error=type(error).__name__)
        finally:
            os.close(root)

    def part_name(self) -> str:
        """Return the name of a new file to be written aside. Raises LedgerError."""
        return f"{self.identity.owner()}-{_RUN}-{secrets.token_hex(8)}{_PART}"

    def abandon(self, name: str) -> None:
        """Note that an unfinished file of ours could not be removed."""
        self._abandoned.add(name)
        self._littered = True

    def make_durable(self, root: int, target: Path, *, new: bool) -> None:
        """Make the names down to the file `target`, in the folder `root`, durable; `new` says that a folder was made for it.

        That a folder is there does not mean that it would be after a power cut: a crash came before, or another thread has made
        it just now. So the first file that this process puts into a series takes all of them along.
        """
        series, status = target.parent, os.fstat(root)
        key = (status.st_dev, status.st_ino, series)
        known = key in self._durable and not new
        for folder in (series,) if known else (series, series.parent, Path()):
            _sync(folder, root)
        if len(self._durable) >= MAX_DURABLE:
            self._durable.clear()
        self._durable.add(key)

    def _sweep(self, root: int) -> None:
        if self._littered:
            self._littered = False
            left = True
            try:
                left = self._removed(root, self.identity.owner(), older_than=time.time() - _STALE_S)
            finally:
                self._littered |= left

    def _removed(self, root: int, owner: str, *, older_than: float) -> bool:
        """Remove from the folder `root` what runs of this gateway left unfinished, and what is old, whosever it was.

        Returns whether files of others are left, which may be old one day. Raises OSError.
        """
        try:
            aside = os.open(ASIDE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        except FileNotFoundError:
            return False
        swept, left = 0, False
        try:
            for name in [entry.name for entry in os.scandir(aside)]:
                ours = name.startswith(f"{owner}-")
                if ours and name.startswith(f"{owner}-{_RUN}-") and name not in self._abandoned:
                    continue
                try:
                    if ours or os.stat(name, dir_fd=aside, follow_symlinks=False).st_mtime < older_than:
                        os.unlink(name, dir_fd=aside)
                        swept += 1
                    else:
                        left = True
                except FileNotFoundError:
                    continue
                self._abandoned.discard(name)
        finally:
            os.close(aside)
        if swept:
            _log.info("folder_swept", destination=self.name, files=swept)
        return left


def make_folder(name: str | Path, root: int) -> bool:
    """Make the folder `name` within the folder `root`, 0700 whatever the umask; True where it was not there. Raises OSError."""
    try:
        os.mkdir(name, 0o700, dir_fd=root)
    except FileExistsError:
        # Anything but a folder shows when a file is to be made in it.
        return False
    os.chmod(name, 0o700, dir_fd=root)
    return True


class FolderSession:
    """A `Session` into a folder. Nothing is kept open between batches, so that a share can be unmounted."""

    def __init__(self, destination: Folder) -> None:
        self._destination = destination
        self._path = destination.settings.path
        self._stopped = threading.Event()
        self._killed = threading.Event()

    def deliver(self, batch: Sequence[Consignment], report: Report) -> None:
        """Write the instances of `batch`.

        Raises:
            DestinationUnavailable: the folder is not writable, has no room, or is not there.
        """
        root = self._destination.prepare()
        try:
            for consignment in batch:
                if self._stopped.is_set() or not report(self._outcome(consignment, root)):
                    return
        except _BrokenOff:
            return  # nothing of it came to its place
        finally:
            os.close(root)

    def stop(self) -> None:
        """Finish the file at hand and begin no other."""
        self._stopped.set()

    def kill(self) -> None:
        """As `stop`, and break off a write that waits for `max_rate`: any other cannot be."""
        self._stopped.set()
        self._killed.set()

    def close(self) -> None:
        """Nothing is open; what could not be removed before is."""
        self._destination.tidy()

    def _outcome(self, consignment: Consignment, root: int) -> Outcome:
        forms = self._destination.forms
        shipment = forms.shipment(consignment, forms.decide(consignment, None))
        if isinstance(shipment, Outcome):
            return shipment
        return forms.afterwards(self._stored(shipment, root), consignment, shipment)

    def _stored(self, consignment: Consignment, root: int) -> Outcome:
        try:
            with self._destination.store.open(consignment.content) as source:
                outcome = self._put(consignment, source, root)
            if not self._destination.identity.still_at(root):
                raise DestinationUnavailable(f"folder {self._path}: it was replaced while it was being delivered into")
        except SpoolMissing as error:
            return Outcome(consignment.delivery_id, OutcomeKind.UNREADABLE, reason=f"bytes missing: {error}")
        except SpoolIOError as error:
            return Outcome(consignment.delivery_id, OutcomeKind.HINDERED, reason=f"bytes cannot be read: {error}")
        except OSError as error:
            raise unavailable(self._path, error) from error
        except LedgerError as error:
            raise DestinationUnavailable(f"folder {self._path}: {error}") from error
        return outcome

    def _put(self, consignment: Consignment, source: OpenBytes, root: int) -> Outcome:
        number, wanted = consignment.delivery_id, consignment.content.digest
        head = file_head(source, consignment.identity)
        target = relative_path(consignment.identity, wanted)
        if _digest_behind(target, root, source.length) == wanted:
            # A crash may have come before it was durable, or it is not of our making.
            _sync(target, root)
            self._destination.make_durable(root, target, new=False)
            return Outcome(number, OutcomeKind.FOUND, found=True, proof=Proof.EXISTS)
        aside = Path(ASIDE, self._destination.part_name())
        try:
            if self._write(aside, root, head, source) != wanted:
                return Outcome(number, OutcomeKind.UNREADABLE, reason=DAMAGED)
            self._move_in(aside, target, root)
        finally:
            self._remove(aside, root)
        if _digest_behind(target, root, source.length) != wanted:
            return Outcome(number, OutcomeKind.UNKNOWN, reason="the file does not read back as it was written")
        return Outcome(number, OutcomeKind.STORED, found=True, proof=Proof.EXISTS)

    def _write(self, path: Path, root: int, head: bytes, source: OpenBytes) -> str:
        """Write `head` and the data set durably to the new file `path` in the folder `root`; return the data set's digest."""
        digest = xxhash.xxh3_128()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
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

    def _move_in(self, aside: Path, target: Path, root: int) -> None:
        made = [make_folder(folder, root) for folder in (target.parent.parent, target.parent)]
        os.rename(aside, target, src_dir_fd=root, dst_dir_fd=root)
        self._destination.make_durable(root, target, new=any(made))

    def _remove(self, aside: Path, root: int) -> None:
        try:
            os.unlink(aside, dir_fd=root)
        except FileNotFoundError:
            return
        except OSError:
            self._destination.abandon(aside.name)


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


def _digest_behind(path: Path, root: int, length: int) -> str | None:
    """Return the digest of the last `length` bytes of `path` in `root`, None where there is no such file or it is too short.

    Our files end with the data set; whatever else stands there has another digest.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root), "rb") as file:
            begin = os.fstat(file.fileno()).st_size - length
            return None if begin < 0 else digest_of(file.fileno(), begin, length)
    except FileNotFoundError:
        return None


def _sync(path: Path, root: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
