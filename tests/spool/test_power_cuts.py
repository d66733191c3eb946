"""The log after a power cut: any sequence of operations, cut off anywhere, brings back what was acknowledged and no more.

The disk is real but for its cache: until a file is synced each sector may hold what was written, what stood there before,
or garbage; names may be those before the last sync of their folder.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.domain import Content, InstanceIdentity, Provenance
from gateway.core.errors import SpoolMissing
from gateway.spool import Spool, layout
from tests.support.storing import read

IDENTITY = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5", "1.2.840.10008.1.2.1")
PROVENANCE = Provenance("ARCHIVE", "GATEWAY", "10.0.0.7", "a-17", "archive", "GATEWAY", 4711)

SECTOR_BYTES = 512
SEGMENT_BYTES = 64 * 1024


class PowerCut(BaseException):
    """The machine stops here."""


class Disk:
    """Knows what of the segments would survive a power cut; use as a context manager around the operations."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments = folder / layout.SEGMENTS
        self._synced: dict[int, bytes] = {}
        self._renamed: list[tuple[str, str]] = []
        # By path below the spool's folder, until their folder is synced.
        self._deleted: dict[str, bytes] = {}
        self.cut_at_sync = False
        self._real = {name: getattr(os, name) for name in ("fdatasync", "fsync", "rename", "unlink")}
        self._stack = ExitStack()

    def __enter__(self) -> Disk:
        patches = [patch.object(os, "fsync", self._fsync), patch.object(os, "rename", self._rename)]
        patches += [patch.object(os, "unlink", self._unlink), patch("gateway.spool.segments.writer.sync_data", self._sync_data)]
        patches += [patch("gateway.spool.segments.pool.sync_data", self._sync_data)]
        patches += [
            patch("gateway.spool.segments.pool.SEGMENT_BYTES", SEGMENT_BYTES),
            patch("gateway.spool.segments.pool.FIRST_BYTES", 16 * 1024),
        ]
        for one in patches:
            self._stack.enter_context(one)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _sync_data(self, descriptor: int) -> None:
        if self.cut_at_sync:
            raise PowerCut
        self._synced[os.fstat(descriptor).st_ino] = os.pread(descriptor, 1 << 24, 0)

    def _fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            if path == self._segments:
                self._renamed.clear()
            self._deleted = {name: content for name, content in self._deleted.items() if (self._folder / name).parent != path}
        elif path.suffix == layout.LOG_SUFFIX:
            self._sync_data(descriptor)

    def _rename(self, source: str, target: str, **folders: Any) -> None:
        self._real["rename"](source, target, **folders)
        if source.startswith(layout.SEGMENTS):
            self._renamed.append((Path(source).name, Path(target).name))

    def _unlink(self, path: str, **folders: Any) -> None:
        file = self._folder / path
        if path.startswith(layout.SEGMENTS) and file.exists():
            self._deleted[path] = self._synced.get(file.stat().st_ino, b"")
        elif path.startswith(layout.INSTANCES) and file.exists():
            # Copies are made durable before they get their names.
            self._deleted[path] = file.read_bytes()
        self._real["unlink"](path, **folders)

    def cut(self, chance: random.Random) -> None:
        """Leave on disk what a power cut might."""
        for path in list(self._segments.iterdir()):
            path.write_bytes(_torn(self._synced.get(path.stat().st_ino, b""), path.read_bytes(), chance))
        for name, content in self._deleted.items():
            if chance.random() < 0.5:
                (self._folder / name).write_bytes(content)
        undone = chance.randrange(len(self._renamed) + 1)
        for before, after in reversed(self._renamed[undone:]):
            with suppress(FileNotFoundError):
                self._real["rename"](self._segments / after, self._segments / before)
        self._synced.clear()
        self._renamed.clear()
        self._deleted.clear()
        self.cut_at_sync = False

    def restarted(self) -> None:
        """Note that what is on disk now is what survived."""
        self._synced = {path.stat().st_ino: path.read_bytes() for path in self._segments.iterdir()}


def _torn(before: bytes, after: bytes, chance: random.Random) -> bytes:
    length = chance.choice((len(before), len(after)))
    before, after = before.ljust(length, b"\0")[:length], after.ljust(length, b"\0")[:length]
    sectors = []
    for start in range(0, length, SECTOR_BYTES):
        old, new = before[start : start + SECTOR_BYTES], after[start : start + SECTOR_BYTES]
        sectors.append(old if old == new else chance.choice((old, new, chance.randbytes(len(new)))))
    return b"".join(sectors)


class Model:
    """A spool and what is known of it: the harness plays the ledger."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.disk = disk
        self.spool = Spool(folder, reserve_bytes=0)
        self.held: dict[str, tuple[Content, bytes]] = {}
        self.released: set[str] = set()
        self.removed: set[str] = set()
        self.forgotten: set[str] = set()
        self.written: set[bytes] = set()
        self._number = 0

    def store(self, size: int, *, end: Callable[[Any], Any] = lambda writer: writer.commit()) -> None:
        """Write an instance that no other is equal to, and end it."""
        self._number += 1
        data = self._number.to_bytes(4, "big") + random.Random(self._number).randbytes(size)
        self.written.add(data)
        writer = self.spool.create(IDENTITY, PROVENANCE)
        writer.write([memoryview(data)])
        content = end(writer)
        if content is not None:
            self.held[content.location] = (content, data)

    def pick(self, number: int, among: set[str] | dict[str, Any]) -> str | None:
        return sorted(among)[number % len(among)] if among else None

    def release(self, number: int) -> None:
        if location := self.pick(number, self.held):
            del self.held[location]
            (self.released if layout.record_of(location) else self.removed).add(location)
            assert self.spool.release(location)

    def remove(self, number: int) -> None:
        if location := self.pick(number, self.held):
            del self.held[location]
            self.removed.add(location)
            assert self.spool.remove(location)

    def forget(self, number: int) -> None:
        if location := self.pick(number, self.released):
            self.spool.remove(location)
            self.spool.sync_removals()
            self.released.remove(location)
            self.forgotten |= {location} | self.removed
            self.removed.clear()

    def move(self, number: int) -> None:
        location = self.pick(number, {location for location in self.held if layout.record_of(location)})
        if location:
            data = self.held.pop(location)[1]
            moved = self.spool.move_out(location)
            self.held[moved.location] = (moved, data)
            self.removed.add(location)
            assert self.spool.remove(location)

    def cut(self, seed: int) -> None:
        """Let the power fail, start again, and check what is there."""
        for segment in self.spool._pool._segments.values():
            segment.close()
        self.disk.cut(random.Random(seed))
        self.spool = Spool(self.folder, reserve_bytes=0)
        self.spool.sweep()
        self.disk.restarted()
        self.check()

    def check(self) -> None:
        """Everything acknowledged is found, nothing that was forgotten, and nothing that was never written."""
        found = {}
        for location in [location for _, locations in self.spool.locations() for location in locations]:
            try:
                found[location] = self.spool.describe(location)
            except SpoolMissing:
                assert self.spool.is_last(location), "only an unfinished record is damaged"
                self.spool.remove(location)
        assert self.held.keys() <= found.keys()
        assert not self.forgotten & found.keys()
        for location, (content, data) in self.held.items():
            assert found[location].content == content
            assert read(self.spool, content) == data
        for location in found.keys() - self.held.keys():
            assert read(self.spool, found[location].content) in self.written
            if location in self.released:
                self.spool.release(location)
            else:
                self.spool.remove(location)
                self.removed.add(location)
        assert self.spool.usage().instances == len(self.held)


SIZES = st.sampled_from((1, 2, 3000, 3400, 4096, 9000, 20_000, 70_000, 150_000))
SEEDS = st.integers(0, 2**32)
WHICH = st.integers(0, 100)
OPERATIONS = st.one_of(
    st.tuples(st.just("store"), SIZES),
    st.tuples(st.just("store"), SIZES),
    st.tuples(st.sampled_from(("fill", "renew")), st.integers(1, 4)),
    st.tuples(st.sampled_from(("discard", "leave")), SIZES),
    st.tuples(st.just("release"), WHICH),
    st.tuples(st.just("forget"), WHICH),
    st.tuples(st.sampled_from(("remove", "move")), WHICH),
    st.tuples(st.sampled_from(("tidy", "stop"))),
    st.tuples(st.just("cut"), SEEDS),
    st.tuples(st.just("cut in commit"), SIZES, SEEDS),
)


def carry_out(model: Model, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("store", size):
            model.store(size)
        case ("fill", segments):
            for _ in range(segments):
                model.store(SEGMENT_BYTES)
        case ("renew", segments):
            carry_out(model, ("fill", segments))
            for _ in range(len(model.held)):
                model.release(0)
            model.spool.tidy()
        case ("discard", size):
            model.store(size, end=lambda writer: writer.discard())
        case ("leave", size):
            model.store(size, end=lambda _writer: None)
        case ("cut in commit", size, seed):
            model.disk.cut_at_sync = True
            with suppress(PowerCut):
                model.store(size)
            model.cut(seed)
        case ("tidy",):
            model.spool.tidy()
        case ("cut", seed):
            model.cut(seed)
        case ("stop",):
            model.spool.close()
            model.spool = Spool(model.folder, reserve_bytes=0)
            model.spool.sweep()
            model.check()
        case (name, number):
            getattr(model, name)(number)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPERATIONS, min_size=10, max_size=40), SEEDS)
def test_acknowledged_instances_survive_any_operations_and_power_cuts(operations: list[tuple[Any, ...]], seed: int) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        with Disk(root / "spool") as disk:
            model = Model(root / "spool", disk)
            for operation in operations:
                carry_out(model, operation)
            model.cut(seed)
            model.spool.close()
    finally:
        shutil.rmtree(root)


def test_removals_of_an_earlier_process_are_made_durable_too(tmp_path: Path) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed) / "spool"
        folder.parent.mkdir()
        with Disk(folder) as disk:
            model = Model(folder, disk)
            # The last one lies in another segment than the two that are removed before the restart, one of them moved out.
            steps = [("store", 3000), ("store", 3000), ("store", 3000), ("fill", 2), ("store", 3000), ("move", 0)]
            steps += [("remove", 0), ("remove", -1), ("stop",), ("release", -1), ("forget", 0)]
            for step in steps:
                carry_out(model, step)
            model.cut(seed)
            model.spool.close()
