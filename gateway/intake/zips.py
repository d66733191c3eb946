"""Zip archives as input of ``gateway send``: each member that is an instance is spooled, since it cannot be sent in place.

Names of members are only shown, never used as paths. The inflated size of a member is bounded by the spool's reserve; members that
are no instances cost their first bytes only; archives within archives are not opened. An instance's UIDs are looked for as in a
file of its own: what stands before them is inflated and passed over, and then all of it once more into the spool.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from gateway.core.domain import Priority, Provenance, printable
from gateway.core.errors import LedgerError, SpoolError
from gateway.dicom.elements import Reader
from gateway.dicom.sniff import DicomFile, NoInstance, sniff
from gateway.intake.directions import Directions
from gateway.intake.judging import BEGINNING, Judging, note
from gateway.intake.oddities import Oddities
from gateway.intake.recorder import record_spooled, remove_unneeded
from gateway.intake.storage import SEND_ASSOCIATION, asked
from gateway.ledger import Ledger
from gateway.ledger.received.instances import Arrival, Recorded
from gateway.spool import Spool

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_START_BYTES = 64 * 1024
_BLOCK_BYTES = 1024 * 1024
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
"""The exceptions that zipfile raises for archives that are damaged or hostile."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive: recorded, `unrouted`, or why not. Without a `name` it is the archive itself.

    Of one that is recorded the `reason` says what could not be read.
    """

    name: str
    recorded: Recorded | None = None
    reason: str = ""
    refused: bool = False
    unrouted: bool = False


def is_archive(path: Path) -> bool:
    """Tell whether the file begins as a zip archive does; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Spools and records the members of archives that `directions` lead somewhere."""

    spool: Spool
    ledger: Ledger
    directions: Directions
    provenance: Provenance
    priority: Priority
    clock: Callable[[], float]
    oddities: Oddities
    judging: Judging = field(default_factory=Judging)

    def members(self, path: Path) -> Iterator[Member]:
        """Take in the archive at `path`; yield one result a member.

        Raises:
            LedgerUnavailable: the ledger takes no more.

        """
        try:
            with zipfile.ZipFile(path) as archive:
                files = [info for info in archive.infolist() if not info.is_dir()]
                if not files:
                    yield Member("", reason="an archive without files")
                for info in files:
                    yield self._take(archive, info)
        except _BROKEN as error:
            yield Member("", reason=f"a broken archive ({_in_words(error)})", refused=True)

    def _take(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
        name = printable(info.filename.encode("utf-8", "replace").decode("utf-8"))
        if info.flag_bits & _ENCRYPTED:
            return Member(name, reason="encrypted", refused=True)
        if info.compress_type not in _METHODS:
            return Member(name, reason=f"compression method {info.compress_type} is not supported", refused=True)
        try:
            with archive.open(info) as stream:
                start = stream.read(_START_BYTES)
                found = sniff(_reader(stream, start), info.file_size)
                if isinstance(found, NoInstance):
                    nested = start[:4] in _MAGIC
                    return Member(name, reason="an archive within an archive" if nested else found.reason, refused=found.dicom)
                self.oddities.note(found.identity, found.unread, SEND_ASSOCIATION)
                if stream.tell() == len(start):
                    recorded = self._spooled(found, info, start[found.offset :], stream)
                else:
                    recorded = self._from_its_start(archive, found, info)
            return Member(name, recorded, found.unread, unrouted=recorded is None)
        except _BROKEN as error:
            return Member(name, reason=f"cannot be unpacked ({_in_words(error)})", refused=True)
        except SpoolError as error:
            return Member(name, reason=str(error), refused=True)

    def _from_its_start(self, archive: zipfile.ZipFile, found: DicomFile, info: zipfile.ZipInfo) -> Recorded | None:
        """Spool a member in which was read ahead. By a stream of its own: one that went back may check no checksum."""
        with archive.open(info) as stream:
            return self._spooled(found, info, stream.read(found.offset + 1)[found.offset :], stream)

    def _spooled(self, found: DicomFile, info: zipfile.ZipInfo, start: bytes, stream: IO[bytes]) -> Recorded | None:
        """Return what was recorded; None where no route leads anywhere, and nothing is left of it."""
        writer = self.spool.create(found.identity, self.provenance)
        try:
            block = start
            while block:
                writer.write([memoryview(block)])
                block = stream.read(_BLOCK_BYTES)
            if writer.length != info.file_size - found.offset:
                raise EOFError
            judgement = self.judging.of_writer(writer, found.identity.transfer_syntax_uid, writer.read(0, BEGINNING))
            identity = replace(found.identity, transfer_syntax_uid=judgement.transfer_syntax_uid)
            to = self.directions.of(identity, self.provenance, writer.read)
            if not to:
                return None
            content = writer.commit()
        finally:
            writer.discard()
        note(found.identity, judgement, SEND_ASSOCIATION)
        arrival = Arrival(identity, self.provenance, content, tuple(to), self.clock(), modes=asked(to), priority=self.priority)
        arrival = replace(arrival, unfit=judgement.unfit)
        try:
            return record_spooled(self.spool, self.ledger, arrival, again=False)
        except LedgerError:
            # Nobody was told that it is kept.
            remove_unneeded(self.spool, [content.location])
            raise


def _in_words(error: Exception) -> str:
    """Return what is wrong with an archive or a member, without a text that may quote it."""
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return next((words for kind, words in _WORDS.items() if isinstance(error, kind)), "its directory makes no sense")


_WORDS: Mapping[type[Exception], str] = {
    zipfile.BadZipFile: "it is no whole ZIP archive, or a checksum does not fit",
    zlib.error: "its compressed bytes are damaged",
    EOFError: "it ends before its directory says",
    NotImplementedError: "it needs a newer version of ZIP",
}


def _reader(stream: IO[bytes], start: bytes) -> Reader:
    """Return a reader of a member that begins with `start`; what lies before the place that is read is inflated and passed over."""

    def read(offset: int, size: int) -> bytes:
        if offset + size <= len(start) or (len(start) < _START_BYTES and offset <= len(start)):
            return start[offset : offset + size]
        stream.seek(offset)
        return stream.read(size)

    return read
