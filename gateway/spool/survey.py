"""The survey of the spool's folders at the start: partial files go, segments are scanned, damage is put aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import SpoolError
from gateway.core.log import get_logger
from gateway.spool import layout
from gateway.spool.segments import scan
from gateway.spool.segments.pool import Pool
from gateway.spool.segments.segment import Segment
from gateway.spool.single import SingleFiles

_log = get_logger()


@dataclass(slots=True)
class Swept:
    """The findings of a sweep: `unfinished` partial files, removed; `corrupt` stretches of segments without a record, put aside.

    `unreadable` are the prefixes of the locations in segments that could not be read: nothing is known of them.
    """

    unfinished: int = 0
    corrupt: int = 0
    unreadable: tuple[str, ...] = ()


def survey(folder: Path, root: int, pool: Pool, files: SingleFiles) -> Swept:
    """Sweep the spool's `folder`, open as `root`, and give every segment to `pool`.

    Raises:
        OSError: the folders cannot be read or changed.

    """
    swept = Swept(unfinished=files.sweep())
    for token in _segments(folder, root, pool):
        try:
            _take_in(Segment(token, root, retired=True), pool, files, swept)
        except OSError as error:
            swept.unreadable += (layout.segment_prefix(token),)
            _log.error("spool_file_unreadable", segment=token, error=error.strerror)
    return swept


def _segments(folder: Path, root: int, pool: Pool) -> Iterator[str]:
    foreign = 0
    for name in sorted(path.name for path in (folder / layout.SEGMENTS).iterdir()):
        named = layout.segment_of_file(name)
        if named is None:
            foreign += 1
        elif not pool.writes(named[0]) if named[1] == layout.LOG_SUFFIX else _was_begun(named[0], root):
            yield named[0]
    if foreign:
        _log.warning("spool_foreign_files", folder=layout.SEGMENTS, count=foreign)


def _was_begun(token: str, root: int) -> bool:
    """Tell whether a spare holds records, its new name having been lost to a power cut; else remove it."""
    spare = layout.segment_path(token, layout.SPARE_SUFFIX)
    descriptor = os.open(spare, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        begun = scan.read_frame(descriptor, token, 0) is not None
    finally:
        os.close(descriptor)
    if begun:
        os.rename(spare, layout.segment_path(token), src_dir_fd=root, dst_dir_fd=root)
    else:
        os.unlink(spare, dir_fd=root)
    return begun


def _take_in(segment: Segment, pool: Pool, files: SingleFiles, swept: Swept) -> None:
    descriptor = segment.open()
    try:
        size = os.fstat(descriptor).st_size
        found = scan.scan(descriptor, segment.token, size)
        for start, end in found.gaps:
            swept.corrupt += _put_aside(segment, files, start, end)
        if 0 < found.end < size:
            os.ftruncate(descriptor, found.end)
    except BaseException:
        segment.close()
        raise
    for offset, length, removed in found.records:
        segment.append(offset, length)
        if removed:
            segment.release(offset)
            # An earlier process marked it, and nobody knows whether it was made durable.
            segment.unsynced = True
    segment.allocated = min(size, found.end or size)
    pool.adopt(segment)


def _put_aside(segment: Segment, files: SingleFiles, start: int, end: int) -> int:
    """Copy what lies between two records to ``corrupt``; returns 1, or 0 where an earlier start has done so."""
    name = layout.moved_token(segment.token, start)
    path = f"{layout.CORRUPT}/{name}{layout.SUFFIX}"
    if _exists(path, segment.root):
        return 0
    try:
        files.copy(path, b"", segment.descriptor, (start, end - start))
    except SpoolError as error:
        _log.error("spool_record_corrupt", segment=segment.token, offset=start, bytes=end - start, error=str(error))
        return 1
    _log.error("spool_record_corrupt", segment=segment.token, offset=start, bytes=end - start, file=name)
    return 1


def _exists(path: str, root: int) -> bool:
    try:
        os.stat(path, dir_fd=root)
    except FileNotFoundError:
        return False
    return True
