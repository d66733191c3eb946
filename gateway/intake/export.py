"""Getting plain DICOM files out: what the spool holds, each instance as a Part 10 file (PS3.10 §7) in a folder.

A file that `gateway send` sends in place is copied where its delivery is named, for as long as it is what it was.

Files are 0600, a folder that is made is 0700; the preamble is zeroes; nothing is ever overwritten. A file appears whole, durably,
and only where its data set has the digest that it came with. Its name is the SOP Instance UID (`gateway.dicom.filenames`), with the
digest behind it where another content has the name already. A file already there is not written again, so that an export that was
interrupted can be repeated. The ledger stays as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from gateway.core.domain import Content, InstanceIdentity, printable
from gateway.core.errors import SpoolError, SpoolMissing, UsageError
from gateway.core.files import NO_LINKS, make_private_folder, unusable
from gateway.dicom.filenames import UNKNOWN, name_of
from gateway.dicom.part10 import PREAMBLE, PREAMBLE_LENGTH, PREFIX, head_of
from gateway.ledger import Ledger
from gateway.ledger.deliveries.queue import Selection, instance_ids
from gateway.ledger.received.instances import MISSING_REASON, BytesState, StoredInstance, get, with_location_prefix
from gateway.spool import OpenContent, Spool, copy_bytes, digest_of, in_place, sync_folder

RELEASED_REASON = "nothing is kept of it any more: every delivery of it was verified or dropped"

_PAGE = 500


class ExportOutcome(StrEnum):
    """The result of exporting one instance."""

    WRITTEN = "written"
    THERE = "already there"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Exported:
    """One instance that was to be exported. `file` is its name in the folder; `reason` is for people and holds no patient data."""

    sop_instance_uid: str
    outcome: ExportOutcome
    length: int = 0
    file: str = ""
    reason: str = ""


def export(
    spool: Spool, ledger: Ledger, selection: Selection, folder: Path, *, unrecorded: bool
) -> Generator[Exported, None, None]:
    """Write what `spool` holds of the selected deliveries' instances to `folder`, one after another as they are asked for.

    A selection that narrows nothing means all that is held, also what has no delivery. With `unrecorded`, what the ledger does not
    know is exported too; nothing else may write to the spool meanwhile, which is swept for it.

    Raises:
        UsageError: the folder cannot be made.
        LedgerUnavailable, SpoolError: the rest is not exported.

    """
    try:
        make_private_folder(folder)
    except OSError as error:
        raise UsageError(str(unusable(error, "cannot export", folder))) from error
    after = 0
    while page := _page(ledger, selection, after):
        after = page[-1]
        for instance_id in page:
            yield _recorded(spool, ledger, instance_id, folder)
    if unrecorded and selection.is_everything:
        yield from _orphans(spool, ledger, folder)


def file_name(sop_instance_uid: str, digest: str, *, taken: bool = False) -> str:
    """Return the name of an instance's file; pure."""
    name = name_of(sop_instance_uid)
    return f"{name}-{digest[:16]}.dcm" if taken or name == UNKNOWN else f"{name}.dcm"


def _page(ledger: Ledger, selection: Selection, after: int) -> list[int]:
    return ledger.ask(lambda connection: instance_ids(connection, selection, after=after, limit=_PAGE))


def _recorded(spool: Spool, ledger: Ledger, instance_id: int, folder: Path) -> Exported:
    """Export one row; what is moved within the spool meanwhile is looked for once more."""
    instance = _row(ledger, instance_id)
    if instance is None:
        return Exported("", ExportOutcome.FAILED, reason=MISSING_REASON)
    uid, file = instance.identity.sop_instance_uid, in_place(instance.content.location)
    if file is None and instance.bytes_state is not BytesState.KEPT:
        gone = RELEASED_REASON if instance.bytes_state is BytesState.RELEASED else MISSING_REASON
        return Exported(uid, ExportOutcome.FAILED, reason=gone)
    exported = _exported(spool, instance.identity, instance.content, folder)
    if exported.outcome is ExportOutcome.FAILED and file is not None:
        return replace(exported, reason=f"{printable(str(file.path))}, which is sent in place: {exported.reason}")
    if exported.outcome is ExportOutcome.FAILED:
        now = _row(ledger, instance_id)
        if now is not None and now.content != instance.content:
            return _exported(spool, now.identity, now.content, folder)
    return exported


def _row(ledger: Ledger, instance_id: int) -> StoredInstance | None:
    return ledger.ask(lambda connection: get(connection, instance_id))


def _orphans(spool: Spool, ledger: Ledger, folder: Path) -> Iterator[Exported]:
    spool.sweep()
    for prefix, locations in spool.locations():
        rows = ledger.ask(partial(with_location_prefix, prefix=prefix))
        known = {location for _, location, _ in rows}
        for location in locations:
            if location in known:
                continue
            try:
                entry = spool.describe(location)
            except SpoolError as error:
                # Nobody was told that an unfinished record is kept.
                if not (isinstance(error, SpoolMissing) and spool.is_last(location)):
                    yield Exported("", ExportOutcome.FAILED, reason=f"{location}: {error}")
                continue
            yield _exported(spool, entry.identity, entry.content, folder)


def _exported(spool: Spool, identity: InstanceIdentity, content: Content, folder: Path) -> Exported:
    sop_instance_uid = identity.sop_instance_uid
    try:
        with spool.open(content) as source:
            file, outcome = _put(source, identity, content, folder)
    except SpoolMissing as error:
        return Exported(sop_instance_uid, ExportOutcome.FAILED, reason=f"bytes missing: {error}")
    except SpoolError as error:
        return Exported(sop_instance_uid, ExportOutcome.FAILED, reason=str(error))
    except OSError as error:
        return Exported(sop_instance_uid, ExportOutcome.FAILED, reason=error.strerror or type(error).__name__)
    return Exported(sop_instance_uid, outcome, content.length, file)


def _put(source: OpenContent, identity: InstanceIdentity, content: Content, folder: Path) -> tuple[str, ExportOutcome]:
    """Write one file under the first name that is free. Raises SpoolMissing, OSError."""
    sop_instance_uid = identity.sop_instance_uid
    names = (file_name(sop_instance_uid, content.digest), file_name(sop_instance_uid, content.digest, taken=True))
    for name in names:
        if _holds(folder / name, content):
            return name, ExportOutcome.THERE
    aside = folder / f".{content.digest}.part"
    aside.unlink(missing_ok=True)
    try:
        _write(aside, source, identity, content)
        for name in names:
            if _publish(aside, folder / name):
                return name, ExportOutcome.WRITTEN
    finally:
        aside.unlink(missing_ok=True)
    raise OSError(errno.EEXIST, f"{names[-1]} is there with other content")


def _write(path: Path, source: OpenContent, identity: InstanceIdentity, content: Content) -> None:
    head = os.pread(source.fileno(), source.offset - source.start, source.start)
    if head[PREAMBLE_LENGTH : len(PREAMBLE)] != PREFIX:
        # A file sent in place may be a bare data set.
        head = head_of(identity.sop_class_uid, identity.sop_instance_uid, identity.transfer_syntax_uid)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, PREAMBLE + head[len(PREAMBLE) :])
        copy_bytes(source.fileno(), source.offset, source.length, descriptor)
        if digest_of(descriptor, len(head), content.length) != content.digest:
            raise SpoolMissing("they are not what was received")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(aside: Path, target: Path) -> bool:
    """Give the file its name; False where the name is taken. Raises OSError."""
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            return False
        aside.rename(target)
    sync_folder(str(target.parent))
    return True


def _holds(path: Path, content: Content) -> bool:
    """Tell whether the file ends with the data set."""
    try:
        with path.open("rb") as file:
            begin = os.fstat(file.fileno()).st_size - content.length
            return begin > 0 and digest_of(file.fileno(), begin, content.length) == content.digest
    except (FileNotFoundError, IsADirectoryError):
        return False
