"""The spool: one face for the log of segments and for the files beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gateway.core.domain import Content, InstanceIdentity, Provenance
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.core.files import make_private_folder
from gateway.core.log import get_logger
from gateway.dicom.part10 import PREAMBLE_LENGTH
from gateway.spool import layout
from gateway.spool.content import OpenContent, SpoolEntry, SpoolUsage, described
from gateway.spool.room import Room
from gateway.spool.segments import record
from gateway.spool.segments.pool import Pool, sync_folder
from gateway.spool.segments.scan import read_frame
from gateway.spool.segments.segment import Segment
from gateway.spool.segments.writer import SpoolWriter
from gateway.spool.single import SingleFiles
from gateway.spool.survey import Swept, survey

_log = get_logger()

_NAMED = 3
"""Locations that an error names."""


class Spool:
    """The instances on disk below `folder`. Thread-safe."""

    def __init__(self, folder: Path, *, reserve_bytes: int, withheld: Callable[[], int] = lambda: 0) -> None:
        """Create the folders (0700) where they are not there yet. `reserve_bytes` stay free on the file system.

        So do the bytes that `withheld` tells, for others that have to get them back.

        Raises:
            SpoolIOError: the folders cannot be made or written.

        """
        self._folder = folder
        self._counting = threading.Lock()
        self._count = 0
        self._bytes = 0
        try:
            if make_private_folder(folder):
                sync_folder(str(folder.absolute().parent))
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._files = SingleFiles(folder, self._root)
            self._files.make_folders()
        except OSError as error:
            raise SpoolIOError(f"{folder}: {error.strerror}") from error
        self._room = Room(self._root, reserve_bytes, withheld)
        self._pool = Pool(self._root, self._room)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give unused room back and close the spool; nothing may be written any more. Closing twice does nothing."""
        root, self._root = self._root, -1
        if root >= 0:
            self._pool.close()
            os.close(root)

    # Instances

    def create(self, identity: InstanceIdentity, provenance: Provenance) -> SpoolWriter:
        """Begin an instance.

        Raises:
            SpoolFull: not more than the reserve is free.
            SpoolIOError: it cannot be begun.

        """
        return SpoolWriter(self._pool, self._room, identity, provenance, committed=self._add)

    def open(self, content: Content) -> OpenContent:
        """Open the data set that `content` names, spooled or in place.

        Raises:
            SpoolMissing: it is not there, or is not what it was.
            SpoolIOError: the operating system refused.

        """
        place = layout.record_of(content.location)
        if place is None:
            return self._files.open(content)
        segment = self._acquire(*place, end=content.offset + content.length)
        return OpenContent(
            segment.descriptor,
            content.offset,
            content.length,
            start=place[1],
            closed=lambda _descriptor: self._pool.release_reader(segment),
        )

    def found(self, contents: Iterable[Content]) -> set[Content]:
        """Return those of `contents`, spooled in segments, that `open` would find; each segment is looked at once. Never raises."""
        records: dict[str, list[tuple[int, Content]]] = {}
        for content in contents:
            if (place := layout.record_of(content.location)) is not None:
                records.setdefault(place[0], []).append((place[1], content))
        found: set[Content] = set()
        for token, some in records.items():
            with suppress(SpoolMissing, OSError), self._pool.reading(token) as segment:
                status = os.fstat(segment.descriptor)
                end = status.st_size if status.st_nlink else 0
                sizes = self._sizes(segment, [offset for offset, _ in some])
                found.update(one for (_, one), size in zip(some, sizes, strict=True) if size and one.offset + one.length <= end)
        return found

    def describe(self, location: str) -> SpoolEntry:
        """Read a spooled instance's own account of itself and check its bytes against it.

        Raises:
            SpoolMissing: it is not there, is truncated, or its bytes are not what was written.
            SpoolIOError: it cannot be read.

        """
        place = layout.record_of(location)
        if place is None:
            return self._files.describe(_token(location))
        token, offset = place
        segment = self._acquire(token, offset)
        try:
            frame = read_frame(segment.descriptor, token, offset)
            if frame is None:
                raise SpoolMissing("the spooled instance has no finished head")
            return described(segment.descriptor, location, offset, frame.size, frame.written_at)
        except OSError as error:
            raise SpoolIOError(f"{location} cannot be read: {error.strerror}") from error
        finally:
            self._pool.release_reader(segment)

    def release(self, location: str) -> bool:
        """Let go of bytes whose release the ledger has recorded; True where they were there. A file sent in place is never touched.

        A record stays where it is until its segment is freed, and is found again at the next start, where the ledger tells that it
        is released: before the ledger forgets that, it has to be removed.

        Raises:
            SpoolIOError: the operating system refused.

        """
        place = layout.record_of(location)
        return self._remove_file(location) if place is None else self._release(place[0], [place[1]]) > 0

    def remove(self, location: str) -> bool:
        """Remove spooled bytes, so that they are found no more; True where they were there. A file sent in place is never touched.

        A power cut may bring them back until `sync_removals`.

        Raises:
            SpoolIOError: the operating system refused.

        """
        return self.remove_all([location]) > 0

    def remove_all(self, locations: Iterable[str]) -> int:
        """Do as `remove` with each of `locations`, opening each segment once; return how many were there.

        Raises:
            SpoolIOError: the operating system refused at some of them; the others are removed.

        """
        removed, failed = 0, None
        records: dict[str, list[int]] = {}
        for location in locations:
            if (place := layout.record_of(location)) is not None:
                records.setdefault(place[0], []).append(place[1])
            else:
                removed += self._remove_file(location)
        for token, offsets in records.items():
            try:
                self._mark_removed(token, offsets)
                removed += self._release(token, offsets)
            except SpoolIOError as error:
                failed = error
        if failed is not None:
            raise failed
        return removed

    def quarantine(self, location: str) -> Path:
        """Move an instance that cannot be trusted to ``corrupt/``, as a file of its own, and return its path.

        Raises:
            SpoolIOError: the operating system refused.

        """
        place = layout.record_of(location)
        if place is None:
            path, size = self._files.quarantine(_token(location))
            self._add(-size, instances=-1)
            return path
        kept = f"{layout.CORRUPT}/{layout.moved_token(*place)}{layout.SUFFIX}"
        self._copy_record(*place, kept)
        self.remove(location)
        return self._folder / kept

    # Keeping house

    def sweep(self) -> Swept:
        """Remove what crashes left unfinished, find out what is held, and count it. To be called once, before any `create`.

        Raises:
            SpoolIOError: the operating system refused.

        """
        self._pool.forget()
        try:
            swept = survey(self._folder, self._root, self._pool, self._files)
            files, logged = self._files.held(), self._pool.held()
        except OSError as error:
            raise SpoolIOError(f"{error.filename}: {error.strerror}") from error
        with self._counting:
            self._count, self._bytes = files[0] + logged[0], files[1] + logged[1]
        return swept

    def locations(self) -> Iterator[tuple[str, list[str]]]:
        """Yield, for each segment and each folder, the prefix that its locations share and the sorted locations in it.

        To be called after `sweep`.

        Raises:
            SpoolIOError: a folder cannot be read.

        """
        for token in self._pool.tokens():
            yield layout.segment_prefix(token), [layout.record_location(token, offset) for offset in self._pool.offsets(token)]
        yield from self._files.locations()

    def twin_of(self, location: str) -> str | None:
        """Return where the other copy of an instance is while it is moved out of its segment; None for a file sent in place."""
        return layout.twin_of(location)

    def is_last(self, location: str) -> bool:
        """Tell whether a record is the last of its segment, so that it may be one that a crash left unfinished."""
        place = layout.record_of(location)
        return place is not None and self._pool.is_last(*place)

    def tidy(self) -> None:
        """Free the segments that nobody wants anything of any more. Waits for the disk; on one thread at a time."""
        self._pool.tidy()

    def pinned(self, *, before: float, fill: float, after: str = "") -> tuple[str, list[str]] | None:
        """Return the next segment behind the one named `after` that few instances keep from being freed, and their locations.

        Less than the part `fill` of it is held, and it was begun before that time (UTC seconds since the epoch).
        """
        token = self._pool.pinned(before=before, fill=fill, after=after)
        return None if token is None else (token, [layout.record_location(token, offset) for offset in self._pool.offsets(token)])

    def move_out(self, location: str) -> Content:
        """Copy a record into a file of its own, durably, and return where the copy is. The record stays until `remove`.

        Raises:
            SpoolMissing: the record is not there, or damaged.
            SpoolFull, SpoolIOError: there is no copy.

        """
        place = layout.record_of(location)
        if place is None:
            raise SpoolMissing("no location of a record")
        self._pool.check_room()
        token = layout.moved_token(*place)
        entry = self.describe(location)
        size = self._copy_record(*place, layout.relative_path(token))
        self._add(size)
        return Content(layout.location_of(token), size - entry.content.length, entry.content.length, entry.content.digest)

    def sync_removals(self) -> None:
        """Make every `remove` so far survive a power cut. Raises SpoolIOError."""
        try:
            self._pool.sync_removals()
            self._files.sync_removals()
        except OSError as error:
            raise SpoolIOError(f"removals cannot be made durable: {error.strerror}") from error

    def usage(self) -> SpoolUsage:
        """Return what is held and what is free. Raises SpoolIOError."""
        free = self._room.free_bytes()
        with self._counting:
            return SpoolUsage(
                instances=self._count,
                stored_bytes=self._bytes,
                segment_bytes=self._pool.occupied_bytes(),
                free_bytes=free,
                spare_bytes=self._pool.spare_bytes,
                reserve_bytes=self._room.kept_free_bytes,
            )

    def has_room(self) -> bool:
        """Tell whether an instance can be taken now. Raises SpoolIOError where that cannot be told."""
        return self._room.spare_bytes() + self._pool.spare_bytes > 0

    def _acquire(self, token: str, offset: int, *, end: int = 0) -> Segment:
        """Return a segment open for reading its record at `offset`; the caller gives it back. Raises SpoolMissing, SpoolIOError."""
        try:
            segment = self._pool.acquire(token)
        except OSError as error:
            raise SpoolIOError(f"the segment cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(segment.descriptor)
            if not status.st_nlink or status.st_size < end:
                raise SpoolMissing("the segment is truncated" if status.st_nlink else "the segment was deleted")
            if not self._sizes(segment, [offset])[0]:
                raise SpoolMissing("no such record is kept")
        except OSError as error:
            self._pool.release_reader(segment)
            raise SpoolIOError(f"the segment cannot be read: {error.strerror}") from error
        except SpoolMissing:
            self._pool.release_reader(segment)
            raise
        return segment

    def _sizes(self, segment: Segment, offsets: Sequence[int]) -> list[int | None]:
        """Return the bytes of each record, 0 where it was released, None where there is none. Raises OSError.

        The table has what this process wrote or scanned, released or not; else the records themselves tell.
        """
        if segment.scanned:
            return self._pool.sizes_at(segment, offsets)
        frames = (read_frame(segment.descriptor, segment.token, offset) for offset in offsets)
        return [None if frame is None else frame.size for frame in frames]

    def _mark_removed(self, token: str, offsets: Sequence[int]) -> None:
        try:
            with self._pool.reading(token) as segment:
                for offset, size in zip(offsets, self._sizes(segment, offsets), strict=True):
                    if size is not None:
                        segment.unsynced = True
                        os.pwrite(segment.descriptor, record.REMOVED, record.removed_at(offset))
        except SpoolMissing:
            return
        except OSError as error:
            places = ", ".join(layout.record_location(token, offset) for offset in offsets[:_NAMED])
            raise SpoolIOError(f"{places} cannot be removed: {error.strerror}") from error

    def _release(self, token: str, offsets: Sequence[int]) -> int:
        sizes = [size for size in self._pool.release(token, offsets) if size]
        if sizes:
            self._add(-sum(sizes), instances=-len(sizes))
        return len(sizes)

    def _remove_file(self, location: str) -> bool:
        token = layout.token_of(location)
        size = self._files.remove(token) if token else 0
        if size:
            self._add(-size, instances=-1)
        return size > 0

    def _copy_record(self, token: str, offset: int, path: str) -> int:
        """Copy a record to the file `path`, durably, with a preamble of zeroes; return its bytes. Raises SpoolError."""
        segment = self._acquire(token, offset)
        try:
            head = os.pread(segment.descriptor, PREAMBLE_LENGTH, offset)
            size = self._pool.size_at(segment, offset) or 0
            rest = offset + len(head), size - len(head)
            self._files.copy(path, record.plain(head), segment.descriptor, rest)
        except OSError as error:
            raise SpoolIOError(f"{layout.record_location(token, offset)} cannot be read: {error.strerror}") from error
        finally:
            self._pool.release_reader(segment)
        return size

    def _add(self, size: int, *, instances: int = 1) -> None:
        with self._counting:
            self._count += instances
            self._bytes += size


def _token(location: str) -> str:
    token = layout.token_of(location)
    if token is None:
        raise SpoolMissing("no spooled location")
    return token
