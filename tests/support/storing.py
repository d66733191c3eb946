"""Instances for tests of intake and spool: data sets made by hand, stored as an association's thread would."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_preamble
from sqlalchemy import select

from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.core.domain import Content
from gateway.intake import Recorder, StorageIntake
from gateway.ledger import Ledger
from gateway.ledger.database.schema import deliveries
from gateway.spool import Spool, layout
from gateway.spool.segments.scan import scan

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

ASSOCIATION = AssociationInfo("a-1", "ARCHIVE", "GATEWAY", "127.0.0.1", source="archive")


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return one element in Explicit VR Little Endian."""
    value += b"\x00" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def data_set(uid: str, *, study: str = "1.2.3", modality: str = "CT", filler: bytes = b"pixels") -> bytes:
    """Return a small data set in Explicit VR Little Endian; `filler` makes contents differ."""
    return b"".join(
        (
            element(0x00080016, "UI", CT_STORAGE.encode()),
            element(0x00080018, "UI", uid.encode()),
            element(0x00080060, "CS", modality.encode()),
            element(0x00100010, "PN", b"Secret^Patient"),
            element(0x0020000D, "UI", study.encode()),
            element(0x0020000E, "UI", f"{study}.1".encode()),
            element(0x7FE00010, "OW", filler),
        )
    )


def request(uid: str, *, syntax: str = EXPLICIT_LITTLE, sop_class: str = CT_STORAGE) -> StoreRequest:
    """Return a C-STORE request that is a sub-operation of our C-MOVE 7."""
    return StoreRequest(1, sop_class, uid, syntax, "GATEWAY", 7)


def answer(intake: StorageIntake, wanted: StoreRequest, data: bytes) -> int:
    """Store `data` in fragments and return the status; it may not be recorded yet."""
    reception = intake.receive(ASSOCIATION, wanted)
    for start in range(0, len(data), 1000):
        reception.write([memoryview(data)[start : start + 600], memoryview(data)[start + 600 : start + 1000]])
    return reception.commit()


def store(intake: StorageIntake, wanted: StoreRequest, data: bytes) -> int:
    """Store `data`, wait until it is recorded, and return the status."""
    status = answer(intake, wanted, data)
    intake.recorder.flush(10.0)
    return status


@contextmanager
def taking(spool: Spool, ledger: Ledger, **options: Any) -> Iterator[StorageIntake]:
    """Give an intake with a recorder of its own; `options` are those of `StorageIntake`, and `recorded`."""
    recorded = options.pop("recorded", lambda _batch: None)
    with Recorder(spool, ledger, recorded=recorded) as recorder:
        yield StorageIntake(spool, recorder, **options)


def store_once(spool: Spool, ledger: Ledger, wanted: StoreRequest, data: bytes, **options: Any) -> int:
    """Store `data` by an intake of its own with these `options`, and return the status."""
    with taking(spool, ledger, **options) as intake:
        return store(intake, wanted, data)


def read(spool: Spool, content: Content) -> bytes:
    """Return the bytes of a data set."""
    with spool.open(content) as source:
        return os.pread(source.fileno(), source.length, source.offset)


def kept(folder: Path) -> list[str]:
    """Return the locations of what a start would find in the spool's folder, by reading it."""
    found = [layout.location_of(path.stem) for path in sorted((folder / layout.INSTANCES).rglob("*")) if path.is_file()]
    for path in sorted((folder / layout.SEGMENTS).iterdir()):
        with path.open("rb") as file:
            scanned = scan(file.fileno(), path.stem, path.stat().st_size)
        found += [layout.record_location(path.stem, offset) for offset, _, removed in scanned.records if not removed]
    return found


def put_aside(folder: Path) -> list[Path]:
    """Return what was quarantined."""
    return sorted((folder / layout.CORRUPT).iterdir())


def path_of(folder: Path, content: Content) -> Path:
    """Return the file in which a spooled instance lies."""
    place = layout.record_of(content.location)
    token = layout.token_of(content.location)
    return folder / (layout.segment_path(place[0]) if place else layout.relative_path(token or ""))


def damage(folder: Path, content: Content) -> None:
    """Change the last byte of a spooled data set."""
    with path_of(folder, content).open("r+b") as file:
        file.seek(content.offset + content.length - 1)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last ^ 1]))


def states(ledger: Ledger) -> dict[tuple[int, str], str]:
    """Return the state of every delivery by instance id and destination."""
    with ledger.read() as connection:
        rows = connection.execute(select(deliveries.c.instance_id, deliveries.c.destination, deliveries.c.state))
        return {(row.instance_id, row.destination): row.state for row in rows}


def part10_parts(path: Path) -> tuple[str, bytes]:
    """Return transfer syntax and data set bytes of a Part 10 file with complete File Meta Information."""
    with path.open("rb") as file:
        read_preamble(file, force=False)
        meta = pydicom.filereader._read_file_meta_info(file)
        return str(meta.TransferSyntaxUID), file.read()


def part10_files(paths: tuple[Path, ...]) -> Iterator[tuple[Path, str, bytes]]:
    """Yield path, transfer syntax and data set bytes."""
    for path in paths:
        yield (path, *part10_parts(path))
