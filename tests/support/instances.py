"""Instances in a real spool and ledger, as intake leaves them, without an association."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import select

from gateway.core.domain import Content, InstanceIdentity, Provenance
from gateway.ledger import Ledger
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.recording import record
from gateway.spool import Spool

PROVENANCE = Provenance(calling_ae="PACS", called_ae="GATEWAY", address="127.0.0.1", association="test")


@dataclass
class Store:
    """A state folder with its ledger and spool."""

    folder: Path
    ledger: Ledger
    spool: Spool
    _made: int = field(default=0)

    def keep(self, identity: InstanceIdentity, data: bytes) -> Content:
        """Spool `data` durably."""
        writer = self.spool.create(identity, PROVENANCE)
        writer.write([memoryview(data)])
        return writer.commit()

    def add(self, identity: InstanceIdentity, data: bytes, *to: str) -> int:
        """Record an instance with deliveries; returns its id in the ledger."""
        arrival = Arrival(identity, PROVENANCE, self.keep(identity, data), tuple(to), at=time.time())
        return self.ledger.write(lambda connection: record(connection, arrival)).instance_id

    def add_synthetic(
        self, *to: str, count: int = 1, study: int = 1, syntax: str = "1.2.840.10008.1.2.1", size: int = 64
    ) -> list[str]:
        """Record instances that are no images but have everything that delivery looks at, `size` bytes; returns their UIDs."""
        uids = []
        for _ in range(count):
            self._made += 1
            identity = synthetic(self._made, study=study, syntax=syntax)
            self.add(identity, b"\x08\x00\x18\x00UI" + bytes(size) + str(self._made).encode(), *to)
            uids.append(identity.sop_instance_uid)
        return uids

    def add_file(self, path: Path, *to: str) -> str:
        """Record a Part 10 file; returns its SOP Instance UID."""
        identity, data = part10(path)
        self.add(identity, data, *to)
        return identity.sop_instance_uid

    def rows(self, *, to: str | None = None) -> list[Any]:
        """Return the deliveries with their SOP Instance UIDs, in order."""
        statement = select(deliveries, instances.c.sop_instance_uid).join_from(
            deliveries, instances, instances.c.id == deliveries.c.instance_id
        )
        if to is not None:
            statement = statement.where(deliveries.c.destination == to)
        with self.ledger.read() as connection:
            return list(connection.execute(statement.order_by(deliveries.c.id)))

    def states(self, *, to: str | None = None) -> list[str]:
        """Return the states of the deliveries, in order."""
        return [row.state for row in self.rows(to=to)]

    def row(self, uid: str, *, to: str | None = None) -> Any:
        """Return the one delivery of `uid`."""
        (found,) = [row for row in self.rows(to=to) if row.sop_instance_uid == uid]
        return found


def synthetic(number: int, *, study: int = 1, syntax: str = "1.2.840.10008.1.2.1") -> InstanceIdentity:
    """Return the identity of a CT instance that does not exist."""
    root = f"1.2.826.0.1.3680043.10.1338.77.{study}"
    return InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", f"{root}.1.{number}", syntax, root, f"{root}.1")


def part10(path: Path) -> tuple[InstanceIdentity, bytes]:
    """Return the identity and the data set's bytes of a Part 10 file."""
    raw = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    begin = 144 + int(meta.FileMetaInformationGroupLength)
    keys = ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True, specific_tags=keys)
    identity = InstanceIdentity(
        str(head.SOPClassUID),
        str(head.SOPInstanceUID),
        str(meta.TransferSyntaxUID),
        str(head.StudyInstanceUID),
        str(head.SeriesInstanceUID),
    )
    return identity, raw[begin:]


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """Open a state folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder / "ledger.sqlite") as ledger, Spool(folder / "spool", reserve_bytes=0) as spool:
        spool.sweep()
        yield Store(folder, ledger, spool)


def uids(rows: Sequence[Any]) -> list[str]:
    """Return the SOP Instance UIDs of delivery rows."""
    return [row.sop_instance_uid for row in rows]
