import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import Connection

from gateway.core.domain import DeliveryState
from gateway.core.errors import LedgerUnavailable, SpoolMissing
from gateway.intake import FileEvent, FileOutcome, Releaser, bring, recover, register
from gateway.intake import files as intake_files
from gateway.ledger import Ledger
from gateway.ledger.database import transitions
from gateway.ledger.database.schema import deliveries
from gateway.ledger.deliveries import progress
from gateway.ledger.jobs import retrievals
from gateway.ledger.received import instances
from gateway.ledger.received.instances import SUPERSEDED, BytesState, Recorded, StoredInstance
from gateway.spool import Spool
from tests.support import data as real
from tests.support.storing import CT_STORAGE, data_set, element, kept, part10_files, read, states

Send = Callable[..., list[FileEvent]]


def ignore(_recorded: Recorded) -> None:
    """Nobody listens."""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@pytest.fixture
def send(spool: Spool, ledger: Ledger, inbox: Path) -> Send:
    def run(*paths: Path, to: tuple[str, ...] = ("a",), recorded: Callable[[Recorded], None] = ignore) -> list[FileEvent]:
        return list(register(paths or (inbox,), to, spool, ledger, ae_title="GATEWAY", recorded=recorded))

    return run


def part10(data: bytes, *, syntax: bytes = b"1.2.840.10008.1.2.1", sop_class: str = CT_STORAGE, uid: bytes = b"1.2.3") -> bytes:
    group = element(0x00020001, "OB", b"\x00\x01") + element(0x00020002, "UI", sop_class.encode()) + element(0x00020003, "UI", uid)
    if syntax:
        group += element(0x00020010, "UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(group))) + group + data


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(ledger: Ledger, uid: str) -> list[StoredInstance]:
    with ledger.read() as connection:
        return instances.find(connection, uid)


def outcomes(events: list[FileEvent]) -> list[str]:
    return [event.outcome.value for event in events]


def settle(ledger: Ledger, state: DeliveryState = DeliveryState.VERIFIED) -> None:
    with ledger.read() as connection:
        ids = list(connection.execute(deliveries.select().with_only_columns(deliveries.c.id)).scalars())
    path = {DeliveryState.VERIFIED: (DeliveryState.SENDING, DeliveryState.DELIVERED, state)}.get(state, (state,))
    for step in path:
        ledger.write(lambda connection, step=step: transitions.move(connection, ids, step, now=1.0))


def test_a_file_is_registered_where_it_lies(send: Send, spool: Spool, ledger: Ledger, inbox: Path, folder: Path) -> None:
    path = put(inbox / "a.dcm", part10(data_set("1.2.3")))
    (event,) = send(to=("a", "b"))
    assert (event.path, event.outcome, event.queued) == (str(path), FileOutcome.QUEUED, ("a", "b"))
    (instance,) = found(ledger, "1.2.3")
    assert instance.content.location.startswith("file:")
    assert read(spool, instance.content) == data_set("1.2.3")
    assert (instance.identity.study_instance_uid, instance.identity.transfer_syntax_uid) == ("1.2.3", "1.2.840.10008.1.2.1")
    assert states(ledger) == {(instance.id, "a"): "pending", (instance.id, "b"): "pending"}
    assert kept(folder) == []


def test_every_real_instance_is_taken_with_equal_bytes(send: Send, spool: Spool, ledger: Ledger, inbox: Path) -> None:
    sources = real.real_files()
    real.copy_all(sources, inbox)
    assert outcomes(send()) == ["queued"] * len(sources)
    for path, syntax, data in part10_files(sources):
        (instance,) = found(ledger, real.identity(path)[2])
        assert read(spool, instance.content) == data
        assert instance.identity.transfer_syntax_uid == syntax


@pytest.mark.filterwarnings("ignore")
def test_pydicoms_own_files_are_told_apart(send: Send, inbox: Path) -> None:
    root = Path(pydicom.data.__file__).parent / "test_files"
    wrong = []
    for event in send(root):
        path = Path(event.path)
        holds = instance_in(path)
        if (event.outcome in (FileOutcome.QUEUED, FileOutcome.SETTLED)) != holds:
            wrong.append((path.name, event.outcome.value, event.reason))
    assert wrong == []


def instance_in(path: Path) -> bool:
    """Ask pydicom, as tolerant as it gets."""
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        uid = dataset.get("SOPInstanceUID") or dataset.file_meta.get("MediaStorageSOPInstanceUID")
    except (AttributeError, KeyError, ValueError, NotImplementedError, EOFError, struct.error):
        return False
    return bool(uid) and "DICOMDIR" not in path.name


@pytest.mark.parametrize(
    ("kind", "offset"),
    [("preamble lost", 4), ("preamble and prefix lost", 0), ("bare explicit", 0), ("bare implicit", 0), ("bare big endian", 0)],
)
def test_files_without_preamble_are_recognised(send: Send, ledger: Ledger, inbox: Path, kind: str, offset: int) -> None:
    whole = part10(data_set("1.2.3"))
    data = {
        "preamble lost": whole[128:],
        "preamble and prefix lost": whole[132:],
        "bare explicit": data_set("1.2.3"),
        "bare implicit": bare("1.2.3", "<"),
        "bare big endian": bare("1.2.3", ">"),
    }[kind]
    put(inbox / "x", data)
    assert outcomes(send()) == ["queued"]
    (instance,) = found(ledger, "1.2.3")
    syntax = {"bare implicit": ImplicitVRLittleEndian, "bare big endian": "1.2.840.10008.1.2.2"}.get(kind, "1.2.840.10008.1.2.1")
    assert instance.identity.transfer_syntax_uid == syntax
    assert instance.content.offset + instance.content.length == len(data)
    assert (instance.content.offset == 0) is kind.startswith("bare")
    assert offset <= instance.content.offset


def bare(uid: str, order: str) -> bytes:
    parts = []
    for tag, value in ((0x0016, CT_STORAGE), (0x0018, uid)):
        raw = value.encode() + b"\x00" * (len(value) % 2)
        vr = b"UI" + struct.pack(">H", len(raw)) if order == ">" else struct.pack("<L", len(raw))
        parts.append(struct.pack(order + "HH", 0x0008, tag) + vr + raw)
    return b"".join(parts)


def test_a_missing_transfer_syntax_is_seen_from_the_data_set(send: Send, ledger: Ledger, inbox: Path) -> None:
    put(inbox / "x", part10(data_set("1.2.3"), syntax=b""))
    assert outcomes(send()) == ["queued"]
    assert found(ledger, "1.2.3")[0].identity.transfer_syntax_uid == "1.2.840.10008.1.2.1"


NOT_DICOM = {
    "empty": b"",
    "text": b"Study of Jane Doe\n" * 50,
    "png": b"\x89PNG\r\n\x1a\n" + os.urandom(500),
    "zeros": bytes(1000),
    "group 8 by chance": b"\x08\x00\x16\x00" + os.urandom(500),
    "no uids": element(0x00080060, "CS", b"CT") * 20,
    "uid that is none": element(0x00080016, "UI", b"../../etc") + element(0x00080018, "UI", b"1.2"),
}


@pytest.mark.parametrize("kind", NOT_DICOM)
def test_other_files_are_listed_with_the_reason(send: Send, ledger: Ledger, inbox: Path, kind: str) -> None:
    put(inbox / "x", NOT_DICOM[kind])
    (event,) = send()
    assert event.outcome is FileOutcome.SKIPPED
    assert event.reason in ("empty", "not DICOM")
    assert states(ledger) == {}


def test_a_dicomdir_is_skipped_and_dicom_without_uids_is_a_failure(send: Send, inbox: Path) -> None:
    put(inbox / "DICOMDIR", part10(element(0x00041130, "CS", b"X"), sop_class="1.2.840.10008.1.3.10"))
    put(inbox / "x.dcm", part10(element(0x00080060, "CS", b"CT"), uid=b""))
    directory, unnamed = send()
    assert (directory.outcome, directory.reason) == (FileOutcome.SKIPPED, "a DICOMDIR")
    assert (unnamed.outcome, "SOP Instance UID" in unnamed.reason) == (FileOutcome.FAILED, True)


def test_folders_are_walked_in_order_and_symbolic_links_never_loop(send: Send, inbox: Path) -> None:
    for name in ("b/2.dcm", "a/1.dcm", "c.dcm"):
        put(inbox / name, part10(data_set(f"1.2.{name[0].encode()[0]}")))
    (inbox / "a" / "loop").symlink_to(inbox)
    (inbox / "b" / "self").symlink_to("self")
    (inbox / "z").symlink_to(inbox / "c.dcm")
    os.mkfifo(inbox / "y")
    events = {Path(event.path).relative_to(inbox.resolve()).as_posix(): event.outcome.value for event in send()}
    assert events == {
        "a/1.dcm": "queued",
        "a/loop": "link",
        "b/2.dcm": "queued",
        "b/self": "failed",
        "c.dcm": "queued",
        "y": "skipped",
        "z": "queued",
    }


def test_what_is_not_there_is_a_failure_and_the_rest_goes_on(send: Send, inbox: Path) -> None:
    put(inbox / "a.dcm", part10(data_set("1.2.3")))
    assert outcomes(send(inbox / "missing", inbox)) == ["failed", "queued"]


def test_names_of_any_bytes_are_taken_and_shown_safely(send: Send, spool: Spool, ledger: Ledger, inbox: Path) -> None:
    name = os.fsencode(inbox) + b"/\xff\x1b[31m\xc3\xbc.dcm"
    Path(os.fsdecode(name)).write_bytes(part10(data_set("1.2.3")))
    (event,) = send()
    assert event.path.isprintable()
    assert read(spool, found(ledger, "1.2.3")[0].content) == data_set("1.2.3")


def test_the_same_command_sends_only_what_is_missing(send: Send, ledger: Ledger, inbox: Path) -> None:
    for number in range(3):
        put(inbox / f"{number}.dcm", part10(data_set(f"1.2.{number}")))
    send()
    settle(ledger)
    put(inbox / "3.dcm", part10(data_set("1.2.33")))
    assert outcomes(send()) == ["settled", "settled", "settled", "queued"]
    assert outcomes(send(to=("a", "b"))) == ["queued"] * 4
    assert sorted(state for (_, name), state in states(ledger).items() if name == "a") == [
        "pending",
        "verified",
        "verified",
        "verified",
    ]


def test_a_known_file_is_not_read_again(send: Send, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inbox / "a.dcm", part10(data_set("1.2.3")))
    send()

    def fail(_file: object) -> None:
        raise AssertionError

    monkeypatch.setattr(intake_files, "_inspect", fail)
    assert outcomes(send()) == ["queued"]


def test_what_is_held_is_tried_again_by_the_same_command(send: Send, ledger: Ledger, inbox: Path) -> None:
    put(inbox / "a.dcm", part10(data_set("1.2.3")))
    send()
    settle(ledger, DeliveryState.HELD)
    assert outcomes(send()) == ["queued"]
    assert set(states(ledger).values()) == {"pending"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_is_sent_again_after_a_drop_is_delivered(send: Send, ledger: Ledger, inbox: Path, moved: bool) -> None:
    path = put(inbox / "a.dcm", part10(data_set("1.2.3")))
    send()
    settle(ledger, DeliveryState.DROPPED)
    if moved:
        path.rename(inbox / "b.dcm")
    assert outcomes(send()) == ["queued"]
    assert set(states(ledger).values()) == {"pending"}
    settle(ledger)
    assert outcomes(send()) == ["settled"]


def test_copies_of_one_instance_are_one_instance(send: Send, ledger: Ledger, inbox: Path) -> None:
    for name in ("a", "b", "c"):
        put(inbox / name, part10(data_set("1.2.3")))
    assert outcomes(send()) == ["queued"] * 3
    assert len(found(ledger, "1.2.3")) == 1


def test_another_content_under_the_same_uid_is_a_conflict(send: Send, ledger: Ledger, inbox: Path) -> None:
    put(inbox / "a", part10(data_set("1.2.3")))
    put(inbox / "b", part10(data_set("1.2.3", filler=b"other!")))
    events = send()
    assert "supersedes" in events[1].reason
    newer, older = found(ledger, "1.2.3")
    assert older.superseded_by == newer.id
    assert states(ledger) == {(older.id, "a"): "held", (newer.id, "a"): "pending"}


def test_superseded_content_that_is_sent_again_is_reported_as_held(send: Send, ledger: Ledger, inbox: Path) -> None:
    put(inbox / "a", part10(data_set("1.2.3")))
    put(inbox / "b", part10(data_set("1.2.3", filler=b"other!")))
    send()
    settle(ledger)
    assert outcomes(send()) == ["held", "settled"]
    assert outcomes(send(to=("new",))) == ["queued", "queued"]
    newer, older = found(ledger, "1.2.3")
    assert states(ledger)[older.id, "new"] == "held"
    with ledger.read() as connection:
        waiting = progress.undelivered(connection, progress.Scope(instance_ids=(older.id, newer.id), destinations=("a",)))
    assert [(item.instance_id, item.state, item.reason) for item in waiting] == [(older.id, "held", SUPERSEDED)]


def test_a_file_that_moved_is_sent_from_where_it_is_now(send: Send, spool: Spool, ledger: Ledger, inbox: Path) -> None:
    path = put(inbox / "a", part10(data_set("1.2.3")))
    send()
    settle(ledger, DeliveryState.HELD)
    path.rename(inbox / "elsewhere")
    assert outcomes(send()) == ["queued"]
    (instance,) = found(ledger, "1.2.3")
    assert read(spool, instance.content) == data_set("1.2.3")


def test_a_changed_file_is_never_sent_as_its_earlier_content(send: Send, spool: Spool, ledger: Ledger, inbox: Path) -> None:
    path = put(inbox / "a", part10(data_set("1.2.3")))
    send()
    path.write_bytes(part10(data_set("1.2.3", filler=b"changed")))
    with pytest.raises(SpoolMissing):
        spool.open(found(ledger, "1.2.3")[0].content)
    assert outcomes(send()) == ["queued"]
    assert read(spool, found(ledger, "1.2.3")[0].content) == data_set("1.2.3", filler=b"changed")


def test_a_file_in_place_outlives_its_release(send: Send, spool: Spool, ledger: Ledger, inbox: Path) -> None:
    path = put(inbox / "a", part10(data_set("1.2.3")))
    send()
    settle(ledger)
    assert Releaser(spool, ledger, history_s=1).run_once() == 1
    recover(spool, ledger, route=lambda _attributes: {})
    assert path.exists()
    assert outcomes(send()) == ["settled"]
    assert outcomes(send(to=("b",))) == ["queued"]
    assert found(ledger, "1.2.3")[0].bytes_state is BytesState.KEPT


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_members_of_archives_are_spooled(send: Send, spool: Spool, ledger: Ledger, inbox: Path, folder: Path) -> None:
    path = zipped(
        inbox / "study.zip",
        {
            "1/a.dcm": part10(data_set("1.2.3")),
            "../../../evil.dcm": part10(data_set("1.2.4")),
            "/abs.dcm": part10(data_set("1.2.5", filler=bytes(200_000))),
            "readme.txt": b"hello",
            "inner.zip": zipped(inbox.parent / "inner.zip", {"x": b"x"}).read_bytes(),
        },
    )
    events = {event.path.removeprefix(f"{path}!"): (event.outcome.value, event.reason) for event in send()}
    assert events == {
        "1/a.dcm": ("queued", ""),
        "../../../evil.dcm": ("queued", ""),
        "/abs.dcm": ("queued", ""),
        "readme.txt": ("skipped", "not DICOM"),
        "inner.zip": ("skipped", "an archive within an archive"),
    }
    assert read(spool, found(ledger, "1.2.5")[0].content) == data_set("1.2.5", filler=bytes(200_000))
    assert len(kept(folder)) == 3


def test_an_archive_sent_again_is_settled_and_leaves_nothing_in_the_spool(
    send: Send, spool: Spool, ledger: Ledger, inbox: Path, folder: Path
) -> None:
    zipped(inbox / "study.zip", {"a": part10(data_set("1.2.3"))})
    send()
    settle(ledger)
    Releaser(spool, ledger, history_s=1).run_once()
    assert outcomes(send()) == ["settled"]
    assert spool.usage().instances == 0
    assert outcomes(send(to=("b",))) == ["queued"]
    assert spool.usage().instances == 1


def test_a_bomb_in_an_archive_costs_its_first_bytes_only(send: Send, inbox: Path, folder: Path) -> None:
    zipped(inbox / "bomb.zip", {"bomb": bytes(300 << 20)})
    assert outcomes(send()) == ["skipped"]
    assert kept(folder) == []


def test_a_dicom_bomb_in_an_archive_is_stopped_by_the_reserve(ledger: Ledger, folder: Path, inbox: Path, spool: Spool) -> None:
    zipped(inbox / "bomb.zip", {"bomb": part10(data_set("1.2.3", filler=bytes(80 << 20)))})
    free = spool.usage().free_bytes
    with Spool(folder, reserve_bytes=free + (1 << 40)) as full:
        (event,) = register([inbox], ["a"], full, ledger, ae_title="GATEWAY")
    assert (event.outcome, "reserve" in event.reason) == (FileOutcome.FAILED, True)
    assert kept(folder) == []


def broken_archives() -> Iterator[tuple[str, bytes]]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", part10(data_set("1.2.3", filler=os.urandom(100_000))))
    whole = buffer.getvalue()
    yield "truncated", whole[:5000]
    yield "damaged", whole[:60_000] + bytes(100) + whole[60_100:]
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
    yield "encrypted", bytes(encrypted)
    yield "only a magic", b"PK\x03\x04"


@pytest.mark.parametrize(("kind", "data"), [*broken_archives()])
def test_a_broken_archive_is_a_failure_and_leaves_nothing(send: Send, inbox: Path, folder: Path, kind: str, data: bytes) -> None:
    put(inbox / "x.zip", data)
    put(inbox / "y.dcm", part10(data_set("1.2.9")))
    assert outcomes(send()) == ["failed", "queued"], kind
    assert kept(folder) == []


def test_an_archive_in_an_unsupported_compression_is_a_failure(send: Send, inbox: Path) -> None:
    zipped(inbox / "x.zip", {"a": part10(data_set("1.2.3"))}, zipfile.ZIP_LZMA)
    (event,) = send()
    assert (event.outcome, "compression" in event.reason) == (FileOutcome.FAILED, True)


def test_a_member_that_a_crash_orphaned_is_not_routed(send: Send, spool: Spool, ledger: Ledger, inbox: Path, folder: Path) -> None:
    zipped(inbox / "study.zip", {"a": part10(data_set("1.2.3"))})
    send()
    with Ledger(folder.parent / "other.sqlite") as other:
        recover(spool, other, route=lambda _attributes: {"elsewhere": None})
        assert states(other) == {}
    assert kept(folder) == []


def test_closing_the_events_stops_between_files(spool: Spool, ledger: Ledger, inbox: Path) -> None:
    for number in range(200):
        put(inbox / f"{number:03d}", part10(data_set(f"1.2.{number}")))
    events = register([inbox], ["a"], spool, ledger, ae_title="GATEWAY")
    assert next(events).outcome is FileOutcome.QUEUED
    events.close()  # type: ignore[attr-defined]
    assert 0 < len(states(ledger)) < 200
    assert [event.outcome for event in register([inbox], ["a"], spool, ledger, ae_title="GATEWAY")] == [FileOutcome.QUEUED] * 200
    assert len(states(ledger)) == 200


def test_a_ledger_that_fails_ends_the_events_and_leaves_nothing(spool: Spool, ledger: Ledger, inbox: Path, folder: Path) -> None:
    zipped(inbox / "a.zip", {"a": part10(data_set("1.2.3"))})
    ledger.close()
    with pytest.raises(LedgerUnavailable):
        list(register([inbox], ["a"], spool, ledger, ae_title="GATEWAY"))
    assert kept(folder) == []


def test_each_instance_is_announced_once_it_is_durable(send: Send, ledger: Ledger, inbox: Path) -> None:
    put(inbox / "a", part10(data_set("1.2.3")))
    heard: list[tuple[str, int]] = []
    send(recorded=lambda recorded: heard.append((recorded.arrival.identity.sop_instance_uid, len(states(ledger)))))
    assert heard == [("1.2.3", 1)]


@pytest.fixture
def retrieval(ledger: Ledger) -> int:
    def change(connection: Connection) -> int:
        job = retrievals.open_job(connection, "compare", "fingerprint", "{}", destinations=("a",), now=1.0)
        return retrievals.open_retrieval(connection, job.id, "(folder)", "1.2.3", now=1.0).id

    return ledger.write(change)


@pytest.fixture
def brought(spool: Spool, ledger: Ledger, retrieval: int) -> Callable[..., list[FileEvent]]:
    def run(files: dict[str, Path]) -> list[FileEvent]:
        return list(bring(files, "a", retrieval, spool, ledger, ae_title="GATEWAY"))

    return run


def received(ledger: Ledger, retrieval: int) -> set[str]:
    with ledger.read() as connection:
        return set(retrievals.received_for(connection, retrieval, ("a",)))


@pytest.mark.parametrize("before", [DeliveryState.VERIFIED, DeliveryState.DROPPED, DeliveryState.HELD])
def test_a_retrieved_file_is_queued_again_whatever_state_it_had(
    send: Send, brought: Send, ledger: Ledger, inbox: Path, retrieval: int, before: DeliveryState
) -> None:
    path = put(inbox / "a.dcm", part10(data_set("1.2.3")))
    send()
    settle(ledger, before)
    assert outcomes(send()) == ["settled" if before is DeliveryState.VERIFIED else "queued"]
    settle(ledger, before)
    if before is DeliveryState.HELD:
        settle(ledger, before)

    (event,) = brought({"1.2.3": path})

    assert (event.outcome, event.queued) == (FileOutcome.QUEUED, ("a",))
    assert list(states(ledger).values()) == ["pending"]
    assert received(ledger, retrieval) == {"1.2.3"}


def test_a_file_is_delivered_over_what_came_after_it_under_its_uid(
    send: Send, brought: Send, spool: Spool, ledger: Ledger, inbox: Path
) -> None:
    older = put(inbox / "older.dcm", part10(data_set("1.2.3", filler=b"older")))
    send(older)
    newer = put(inbox / "newer.dcm", part10(data_set("1.2.3", filler=b"newer")))
    send(newer)

    brought({"1.2.3": older})

    second, first = found(ledger, "1.2.3")
    assert states(ledger) == {(first.id, "a"): "pending", (second.id, "a"): "held"}
    assert (first.superseded_by, second.superseded_by) == (None, first.id)
    assert read(spool, first.content) == data_set("1.2.3", filler=b"older")


def test_a_file_that_became_another_one_is_not_taken_for_what_is_wanted(brought: Send, ledger: Ledger, inbox: Path) -> None:
    other = put(inbox / "a.dcm", part10(data_set("1.2.4")))
    archive = inbox / "b.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.dcm", part10(data_set("1.2.5")))
    gone = inbox / "c.dcm"

    events = brought({"1.2.3": other, "1.2.5": archive, "1.2.6": gone})

    assert outcomes(events) == ["skipped", "skipped", "failed"]
    assert states(ledger) == {}


def far(uid: str, *, before: int = 300_000) -> bytes:
    """Return a data set whose Study Instance UID stands behind a sequence of about `before` bytes."""
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", 26) + element(0x00081155, "UI", b"1.2.3.4.5.6.7.8.9")
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item * (before // len(item))
    whole = data_set(uid)
    place = whole.index(b"\x10\x00\x10\x00")
    return whole[:place] + sequence + b"\xfe\xff\xdd\xe0" + bytes(4) + whole[place:]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("before", [70_000, 300_000, 5_000_000])
def test_a_member_is_known_by_what_stands_far_in_it(
    send: Send, inbox: Path, spool: Spool, ledger: Ledger, method: int, before: int
) -> None:
    data = far("1.2.3", before=before)
    with zipfile.ZipFile(inbox / "in.zip", "w", method) as archive:
        archive.writestr("far.dcm", part10(data))
        archive.writestr("near.dcm", part10(data_set("1.2.4"), uid=b"1.2.4"))
    assert [event.outcome for event in send()] == [FileOutcome.QUEUED] * 2
    for uid, wanted in (("1.2.3", data), ("1.2.4", data_set("1.2.4"))):
        (instance,) = found(ledger, uid)
        assert (instance.identity.study_instance_uid, instance.identity.series_instance_uid) == ("1.2.3", "1.2.3.1")
        assert read(spool, instance.content) == wanted


def test_a_damaged_member_is_noticed_also_where_it_was_read_ahead(send: Send, inbox: Path, ledger: Ledger) -> None:
    path = inbox / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("far.dcm", part10(far("1.2.3")))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"Secret")] ^= 1
    path.write_bytes(raw)
    (event,) = send()
    assert (event.outcome, event.reason) == (
        FileOutcome.FAILED,
        "cannot be unpacked (it is no whole ZIP archive, or a checksum does not fit)",
    )
    assert found(ledger, "1.2.3") == []


def test_a_member_that_ends_within_its_header_is_a_failure(send: Send, inbox: Path) -> None:
    whole = part10(data_set("1.2.3"))
    head = len(whole) - len(data_set("1.2.3"))
    with zipfile.ZipFile(inbox / "in.zip", "w") as archive:
        for size in (132, head - 6, head, head + 7):
            archive.writestr(f"{size}.dcm", whole[:size])
    assert {(event.outcome, event.reason) for event in send()} == {(FileOutcome.FAILED, "ends within its header")}


@pytest.mark.parametrize("uid", ["1.2.abc", "1" * 80, "1.2 3", "../../evil"])
def test_files_with_odd_uids_are_taken(send: Send, inbox: Path, ledger: Ledger, uid: str) -> None:
    put(inbox / "odd.dcm", part10(data_set(uid, study=uid), uid=uid.encode()))
    (event,) = send()
    assert (event.outcome, event.reason) == (FileOutcome.QUEUED, "")
    assert found(ledger, uid)[0].identity.study_instance_uid == uid
