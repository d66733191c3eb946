"""The segments of a spool: who writes which, which are read, and which are done and begin anew.

A writer takes a segment for the length of one instance and gives it back, so that instances are contiguous, a stream of unknown
length needs no lock, and several associations sync at once; the pool grows to as many segments as there are instances under way at
a time. A segment that is nearly full, failed or idle for long is *retired*: nothing is appended any more. When nobody wants its
last record any longer it is *dead*: `tidy` renames it to a token that was never used, which makes every record in it invalid, and
keeps it as a *spare*, whose blocks are written already and sync faster than fresh ones. Thread-safe; one lock, never held while the
disk is waited for, but for the moment in which a descriptor is opened.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gateway.core.errors import SpoolFull, SpoolIOError, SpoolMissing
from gateway.core.log import get_logger
from gateway.spool import layout
from gateway.spool.errors import storage_error
from gateway.spool.room import Room
from gateway.spool.segments import record
from gateway.spool.segments.segment import Segment

_log = get_logger()

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is retired before it outgrows this; a single instance may make it longer. At most 2**16 blocks."""

FIRST_BYTES = 4 * 1024 * 1024
"""The room that a new segment begins with."""

MAX_SPARES = 8
MAX_OPEN = 64
"""Descriptors that are kept for reading segments that nobody reads at the moment."""

IDLE_S = 60.0
"""A segment that nobody wrote for this long gives its unused room back."""

_SHARE = 64
"""No segment takes more than one part in this many of the free space at a time."""

sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_allocate: Callable[[int, int, int], None] = getattr(os, "posix_fallocate", lambda _descriptor, _offset, _size: None)
"""Only Linux has both."""


class Pool:
    """All segments below the folder open as `root`."""

    def __init__(self, root: int, room: Room) -> None:
        self._root = root
        self._room = room
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._idle: list[Segment] = []
        self._cached: OrderedDict[str, Segment] = OrderedDict()
        self._spares: list[str] = []
        self._dead: dict[str, Segment] = {}
        # Dead segments of which tidying has not made an end yet: nobody may open them under their old names.
        self._leaving: set[str] = set()
        self._closed = False

    def close(self) -> None:
        """Retire what is idle, give unused room back and close every file that nobody uses."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for segment in idle:
            self._retire(segment)
        self.tidy(spares=0)
        with self._lock:
            spares, self._spares = self._spares, []
            for segment in self._cached.values():
                segment.close()
            self._cached.clear()
        for token in spares:
            self._unlink(layout.segment_path(token, layout.SPARE_SUFFIX))

    # Writing

    def take(self) -> Segment:
        """Return a segment to append one instance to; the caller's alone until `give`.

        Raises:
            SpoolFull: no room.
            SpoolIOError: no segment can be made.

        """
        if self._room.written(0):
            self.check_room()
        while True:
            with self._lock:
                segment = self._idle.pop() if self._idle else None
            if segment is None:
                return self._begin()
            # A person who deletes or truncates files under a running gateway must not have the next instances vanish with them.
            status = os.fstat(segment.descriptor)
            if status.st_nlink and status.st_size >= segment.end:
                return segment
            _log.error("spool_segment_vanished", segment=segment.token)
            self._retire(segment, trim=False)

    def give(self, segment: Segment, last_size: int = 0) -> None:
        """Give a segment back after an instance of `last_size` bytes, 0 where it was discarded."""
        left = SEGMENT_BYTES - segment.end
        with self._lock:
            keep = not (segment.failed or self._closed) and left > min(last_size, SEGMENT_BYTES // 16)
            if keep:
                segment.idle_since = time.monotonic()
                self._idle.append(segment)
        if not keep:
            self._retire(segment, trim=segment.failed or self._closed)

    def discarded(self, segment: Segment) -> None:
        """Take a segment back from an instance that is not kept, with the room that it had before."""
        if segment.allocated > SEGMENT_BYTES and not segment.failed:
            try:
                os.ftruncate(segment.descriptor, max(SEGMENT_BYTES, segment.end))
                segment.allocated = max(SEGMENT_BYTES, segment.end)
            except OSError:
                segment.failed = True
        self.give(segment)

    def committed(self, segment: Segment, offset: int, size: int) -> None:
        """Note the durable record of `size` bytes at `offset`."""
        with self._lock:
            segment.append(offset, size)

    def grow(self, segment: Segment, end: int) -> None:
        """Give `segment` room up to `end` at least.

        Raises:
            SpoolFull: that would take from the reserve.
            SpoolIOError: the operating system refused.

        """
        needed = record.aligned(end - segment.allocated)
        spare = self._room.spare_bytes()
        if spare <= needed and self._make_room():
            spare = self._room.spare_bytes()
        if spare <= needed:
            raise self._room.ran_short("would stay free")
        size = max(needed, record.aligned(min(_step(segment.allocated), spare // _SHARE)))
        try:
            _allocate(segment.descriptor, segment.allocated, size)
        except OSError as error:
            raise storage_error("a segment cannot be given room", error) from error
        segment.allocated += size

    def check_room(self) -> None:
        """Look at the free space; what can be given up goes first. Raises SpoolFull, SpoolIOError."""
        try:
            self._room.check()
        except SpoolFull:
            if not self._make_room():
                raise
            self._room.check()

    def _begin(self) -> Segment:
        with self._lock:
            token = self._spares.pop() if self._spares else None
        segment = self._from_spare(token) if token else None
        segment = segment or self._create()
        with self._lock:
            self._segments[segment.token] = segment
        return segment

    def _from_spare(self, token: str) -> Segment | None:
        """Take a spare. Its new name need not be durable: a spare that holds records is met as a segment at the next start."""
        path = layout.segment_path(token)
        try:
            os.rename(layout.segment_path(token, layout.SPARE_SUFFIX), path, src_dir_fd=self._root, dst_dir_fd=self._root)
            segment = Segment(token, self._root)
            segment.allocated = os.fstat(segment.open()).st_size
        except OSError as error:
            _log.warning("spool_spare_unusable", segment=token, error=error.strerror)
            return None
        return segment

    def _create(self) -> Segment:
        segment = Segment(layout.new_segment(time.time()), self._root)
        path = layout.segment_path(segment.token)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            segment.descriptor = os.open(path, flags, 0o600, dir_fd=self._root)
        except OSError as error:
            raise storage_error("a segment cannot be begun", error) from error
        try:
            os.fchmod(segment.descriptor, 0o600)
            self.grow(segment, layout.BLOCK_BYTES)
            os.fsync(segment.descriptor)
            sync_folder(layout.SEGMENTS, self._root)
        except BaseException as error:
            segment.close()
            self._unlink(path)
            if isinstance(error, OSError):
                raise storage_error("a segment cannot be made durable", error) from error
            raise
        return segment

    # Reading

    @contextmanager
    def reading(self, token: str) -> Iterator[Segment]:
        """Have a segment's file open inside the ``with``. Raises SpoolMissing where there is none, OSError."""
        segment = self.acquire(token)
        try:
            yield segment
        finally:
            self.release_reader(segment)

    def acquire(self, token: str) -> Segment:
        """Return the segment with its file open until `release_reader`. Raises SpoolMissing where there is none, OSError."""
        with self._lock:
            segment = self._segments.get(token)
            met = segment is None
            if token in self._leaving:
                raise SpoolMissing("the segment is not there")
            if segment is None:
                segment = Segment(token, self._root, retired=True, scanned=False)
            try:
                segment.open()
            except FileNotFoundError as error:
                raise SpoolMissing("the segment is not there") from error
            if met:
                self._segments[token] = segment
            segment.readers += 1
            self._cached.pop(token, None)
            return segment

    def release_reader(self, segment: Segment) -> None:
        """Say that the file is not read any more."""
        with self._lock:
            segment.readers -= 1
            if not segment.readers:
                self._unused(segment)

    def size_at(self, segment: Segment, offset: int) -> int | None:
        """Return the bytes of a record, 0 where it was released, None where there is none."""
        with self._lock:
            return segment.size_at(offset)

    def sizes_at(self, segment: Segment, offsets: Sequence[int]) -> list[int | None]:
        """Return `size_at` of each of `offsets`."""
        with self._lock:
            return [segment.size_at(offset) for offset in offsets]

    # Freeing

    def release(self, token: str, offsets: Sequence[int]) -> list[int]:
        """Strike records off; returns their bytes, 0 where one was not there. The segment is freed by `tidy` after its last one."""
        with self._lock:
            segment = self._segments.get(token)
            if segment is None:
                return [0] * len(offsets)
            sizes = [segment.release(offset) for offset in offsets]
            if any(sizes) and segment.dead:
                self._dead[token] = segment
            return sizes

    def tidy(self, *, spares: int = MAX_SPARES) -> None:
        """Retire what is idle for long, and make spares, up to so many, of dead segments; the others are deleted.

        While there is no room, nothing is kept back, and whether there is room now is looked at.
        """
        if self._room.short:
            self._make_room()
            with suppress(SpoolFull, SpoolIOError):
                self._room.check()
        horizon = time.monotonic() - IDLE_S
        with self._lock:
            cold = [segment for segment in self._idle if segment.idle_since < horizon]
            self._idle = [segment for segment in self._idle if segment.idle_since >= horizon]
        for one in cold:
            self._retire(one)
        self._bury(0 if self._room.short else spares)

    def _bury(self, spares: int) -> bool:
        """Make spares, up to so many, of dead segments and delete the others; tells whether there were any."""
        renewed: list[str] = []
        met = False
        while (segment := self._take_dead()) is not None:
            met = True
            wanted = len(self._spares) + len(renewed) < spares
            if wanted and segment.allocated >= SEGMENT_BYTES and not segment.failed and (token := self._renew(segment)):
                renewed.append(token)
            else:
                self._unlink(layout.segment_path(segment.token))
            segment.close()
            with self._lock:
                self._leaving.discard(segment.token)
        if renewed:
            self._keep_spares(renewed)
        return met

    def _make_room(self) -> bool:
        """Give up spares, dead segments and the unused room of idle ones; tells whether there was anything of it."""
        with self._lock:
            loose = [one for one in self._idle if not one.live or one.allocated - one.end >= FIRST_BYTES]
            self._idle = [one for one in self._idle if one not in loose]
        for segment in loose:
            self._retire(segment)
        buried = self._bury(0)
        return self._drop_spares() or buried or bool(loose)

    def pinned(self, *, before: float, fill: float, after: str) -> str | None:
        """Return the next retired segment behind `after`, made before that time, of which less than the part `fill` is wanted."""
        with self._lock:
            tokens = [
                segment.token
                for segment in self._segments.values()
                if segment.retired and segment.scanned and 0 < segment.live_bytes < fill * segment.end
            ]
        return min((token for token in tokens if token > after and layout.begun_at(token) < before), default=None)

    def sync_removals(self) -> None:
        """Make durable what was marked as removed, and the names of segments that went. Raises OSError."""
        with self._lock:
            unsynced = [segment.token for segment in self._segments.values() if segment.unsynced]
        for token in unsynced:
            with suppress(SpoolMissing), self.reading(token) as segment:
                segment.unsynced = False
                try:
                    sync_data(segment.descriptor)
                except OSError:
                    segment.unsynced = True
                    raise
        sync_folder(layout.SEGMENTS, self._root)

    # Start

    def forget(self) -> None:
        """Retire what is idle and know nothing of retired segments any more: they are scanned next."""
        with self._lock:
            idle, self._idle = self._idle, []
        for segment in idle:
            self._retire(segment)
        with self._lock:
            retired = [segment for segment in self._segments.values() if segment.retired]
            for segment in retired:
                del self._segments[segment.token]
                segment.scanned = False
                if not segment.readers:
                    segment.close()
            self._cached.clear()
            self._dead.clear()
            self._spares.clear()

    def adopt(self, segment: Segment) -> None:
        """Take a retired segment, whose table was made by a scan."""
        with self._lock:
            self._segments[segment.token] = segment
            if segment.dead:
                self._dead[segment.token] = segment
            self._unused(segment)

    def tokens(self) -> list[str]:
        """Return the tokens of all known segments, in order."""
        with self._lock:
            return sorted(self._segments)

    def writes(self, token: str) -> bool:
        """Tell whether the segment is not retired."""
        with self._lock:
            segment = self._segments.get(token)
            return segment is not None and not segment.retired

    def is_last(self, token: str, offset: int) -> bool:
        """Tell whether no record follows the one at `offset`."""
        with self._lock:
            segment = self._segments.get(token)
            return segment is not None and segment.is_last(offset)

    def offsets(self, token: str) -> list[int]:
        """Return where the records begin that are wanted of a segment."""
        with self._lock:
            segment = self._segments.get(token)
            return segment.offsets() if segment else []

    @property
    def spare_bytes(self) -> int:
        """Return how many bytes spares occupy, which are free as soon as they are needed."""
        return len(self._spares) * SEGMENT_BYTES

    def held(self) -> tuple[int, int]:
        """Return how many records are wanted, and their bytes."""
        with self._lock:
            segments = self._segments.values()
            return sum(segment.live for segment in segments), sum(segment.live_bytes for segment in segments)

    def occupied_bytes(self) -> int:
        """Return what segments occupy on disk, spares included."""
        with self._lock:
            return sum(max(segment.allocated, segment.end) for segment in self._segments.values()) + self.spare_bytes

    def _unused(self, segment: Segment) -> None:
        if segment.dead:
            self._dead[segment.token] = segment
        if not segment.retired or segment.descriptor < 0:
            return
        self._cached[segment.token] = segment
        if len(self._cached) > (0 if self._closed else MAX_OPEN):
            self._cached.popitem(last=False)[1].close()

    def _retire(self, segment: Segment, *, trim: bool = True) -> None:
        if trim and segment.allocated > segment.end > 0:
            with suppress(OSError):
                os.ftruncate(segment.descriptor, segment.end)
                segment.allocated = segment.end
        with self._lock:
            segment.retired = True
            if not segment.readers:
                self._unused(segment)

    def _take_dead(self) -> Segment | None:
        with self._lock:
            for token, segment in list(self._dead.items()):
                if segment.dead:
                    del self._dead[token]
                    self._leaving.add(token)
                    self._segments.pop(token, None)
                    self._cached.pop(token, None)
                    return segment
            return None

    def _renew(self, segment: Segment) -> str | None:
        token = layout.new_segment(time.time())
        old, new = layout.segment_path(segment.token), layout.segment_path(token, layout.SPARE_SUFFIX)
        try:
            if segment.allocated > SEGMENT_BYTES:
                os.ftruncate(segment.open(), SEGMENT_BYTES)
            os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)
        except OSError as error:
            _log.warning("spool_segment_not_renewed", segment=segment.token, error=error.strerror)
            return None
        return token

    def _keep_spares(self, tokens: list[str]) -> None:
        """The new names are durable before anything is written: under the old one, old records would be found again."""
        try:
            sync_folder(layout.SEGMENTS, self._root)
        except OSError as error:
            _log.warning("spool_segment_not_renewed", error=error.strerror)
            for token in tokens:
                self._unlink(layout.segment_path(token, layout.SPARE_SUFFIX))
            return
        with self._lock:
            self._spares += tokens

    def _drop_spares(self) -> bool:
        with self._lock:
            tokens, self._spares = self._spares, []
        for token in tokens:
            self._unlink(layout.segment_path(token, layout.SPARE_SUFFIX))
        return bool(tokens)

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path, dir_fd=self._root)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("spool_file_left", file=path, error=error.strerror)


def _step(allocated: int) -> int:
    """Return how much room a segment gets next: it doubles, so that little traffic takes little room, up to a whole segment."""
    if allocated < SEGMENT_BYTES:
        return min(max(FIRST_BYTES, allocated), SEGMENT_BYTES - allocated)
    return SEGMENT_BYTES


def sync_folder(path: str, root: int | None = None) -> None:
    """Make the names in the folder `path`, below the folder open as `root` where one is given, durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
