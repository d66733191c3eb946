"""Files as careless writers make them, sent to DCMTK, to an Orthanc and into a folder: verified whole, or not at all."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from pathlib import Path

import pydicom
import pytest

from tests.support import dcmtk, meta, raw
from tests.support.gateway import Gateway, deliveries, dicom_destination, folder_destination, settled
from tests.support.meta import CT, EXPLICIT, IMPLICIT, ITEM, ITEM_END, SEQUENCE_END, explicit, implicit, uid
from tests.support.orthanc import orthanc
from tests.support.reading import by_pydicom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = "1.2.826.0.1.3680043.10.1338.810"
QUICK = {"attempts": 2, "first_s": 0.1, "max_s": 0.3}
SEQUENCE = explicit(0x00020103, b"SQ", ITEM + explicit(0x00080100, b"SH", b"AB") + ITEM_END + SEQUENCE_END, undefined=True)


def image(number: int) -> list[tuple[int, bytes, bytes]]:
    """Return the elements of an image that every peer takes."""
    us = [(0x00280002, 1), (0x00280010, 4), (0x00280011, 4), (0x00280100, 16), (0x00280101, 16), (0x00280102, 15), (0x00280103, 0)]
    elements = meta.values(f"{ROOT}.1.{number}", study=ROOT, series=f"{ROOT}.1")
    elements = [one for one in elements if one[0] not in (0x00280010,)]
    elements += [(0x00080020, b"DA", b"20240101"), (0x00100010, b"PN", b"Odd^File"), (0x00280004, b"CS", b"MONOCHROME2 ")]
    return sorted([*elements, *((tag, b"US", struct.pack("<H", value)) for tag, value in us)])


def shapes() -> dict[str, tuple[str, bytes]]:
    """Return files that everybody can read, by name, each with its transfer syntax."""
    made: dict[str, tuple[str, bytes]] = {}

    def add(name: str, syntax: str, *, before: bytes = b"", order: int = 0, odd: bytes = b"", **options: object) -> None:
        number = len(made) + 1
        elements = image(number)
        if order:
            random.Random(order).shuffle(elements)
        data = before + odd + meta.data_set(syntax, elements)
        made[name] = (syntax, meta.meta(syntax, f"{ROOT}.1.{number}", **options) + data)  # type: ignore[arg-type]

    references = (ITEM + uid(0x00081150, CT) + uid(0x00081155, "1.2.3.4") + ITEM_END) * 3000
    far = explicit(0x00081140, b"SQ", references + SEQUENCE_END, undefined=True)
    for syntax in (EXPLICIT, IMPLICIT):
        add(f"plain {syntax}", syntax)
        add(f"no group length {syntax}", syntax, length=None)
        add(f"group length too long {syntax}", syntax, length=8)
        add(f"group length too short {syntax}", syntax, length=-8)
        add(f"a sequence in its meta {syntax}", syntax, extra=SEQUENCE)
        add(f"70,000 private bytes {syntax}", syntax, extra=explicit(0x00020102, b"OB", bytes(70_000)))
        add(f"shuffled {syntax}", syntax, order=7)
        add(f"shuffled again {syntax}", syntax, order=8)
    add("far behind a sequence", EXPLICIT, odd=far)
    add("group 2 in its data set", IMPLICIT, before=implicit(0x00020003, b"1.2.3"))
    add("twice group 2 in its data set", IMPLICIT, before=implicit(0x00020002, CT.encode()) + implicit(0x00020003, b"1.2.3"))
    add("a transfer syntax twice", EXPLICIT, extra=uid(0x00020010, IMPLICIT))
    add("a second transfer syntax behind", EXPLICIT, before=uid(0x00020010, IMPLICIT))
    return made


def deflated(number: int, syntax: str) -> bytes:
    elements = [one for one in image(number) if one[0] < 0x7FE00000]
    if syntax != "1.2.840.10008.1.2.1.99":
        elements.append((0x00287FE0, b"UT", b"http://127.0.0.1/x"))
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(meta.data_set(EXPLICIT, elements)) + packer.flush()
    return meta.meta(syntax, f"{ROOT}.1.{number}") + packed + bytes(len(packed) % 2)


@pytest.mark.peers
def test_files_of_every_shape_arrive_whole_where_they_belong(tmp_path: Path) -> None:
    inbox, archive = tmp_path / "inbox", tmp_path / "archive"
    inbox.mkdir()
    made = shapes()
    for name, (_, file) in made.items():
        (inbox / f"{name}.dcm").write_bytes(file)
    with dcmtk.storescp(tmp_path / "scp", "-B") as scp, orthanc(tmp_path / "orthanc") as peer:
        gateway = Gateway(
            tmp_path / "gateway",
            {
                "destinations": {
                    "scp": dicom_destination(scp.port, ae_title="STORESCP", verify="status", retry=QUICK),
                    "orthanc": dicom_destination(peer.port, ae_title="ORTHANC", verify="exists", quiet_s=0.5, retry=QUICK),
                    "files": folder_destination(archive),
                }
            },
        )
        done = gateway.run("send", inbox, "--to", "scp", "--to", "orthanc", "--to", "files")
        assert done.returncode == 0, done.stdout + done.stderr
        rows = deliveries(gateway)
        assert {(row.destination, row.state, row.proof) for row in rows} == {
            ("scp", "verified", "status"),
            ("orthanc", "verified", "exists"),
            ("files", "verified", "exists"),
        }
        assert len(rows) == 3 * len(made)
        held = peer.instances()
        received = scp.received()
    for number, (name, (syntax, file)) in enumerate(made.items(), 1):
        target = archive / ROOT / f"{ROOT}.1" / f"{ROOT}.1.{number}.dcm"
        data_set = file[-60:]
        assert target.read_bytes().endswith(data_set), name
        assert pydicom.dcmread(target, force=True).file_meta.TransferSyntaxUID == syntax, name
        assert by_pydicom(target.read_bytes())[1] == by_pydicom(file)[1], name  # type: ignore[index]
        stored, sent = (by_pydicom(each)[1] for each in (received[f"{ROOT}.1.{number}"].read_bytes(), file))  # type: ignore[index]
        # storescp sorts, and writes sequences with lengths.
        assert stored.keys() == sent.keys(), name
        assert all(stored[tag][2] == sent[tag][2] for tag in sent if tag != 0x00081140), name
        assert f"{ROOT}.1.{number}" in held, name


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_deflated_files_are_filed_under_their_study(tmp_path: Path, syntax: str) -> None:
    (tmp_path / "in.dcm").write_bytes(deflated(1, syntax))
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"files": folder_destination(tmp_path / "archive")}})
    assert gateway.run("send", tmp_path / "in.dcm", "--to", "files").returncode == 0
    target = tmp_path / "archive" / ROOT / f"{ROOT}.1" / f"{ROOT}.1.1.dcm"
    assert target.read_bytes()[-20:] == deflated(1, syntax)[-20:]


ODD = ("1.2.abc", "ABC.1", "abc.1", "1" * 65, "9." * 100 + "1", "1.2 3", "a/b", "..", "it's 1; --", "%41")


@pytest.mark.peers
def test_odd_uids_pass_as_they_are(tmp_path: Path) -> None:
    """By C-STORE, to an archive that is asked for them, and into a folder, in which each has a place of its own."""
    archive = tmp_path / "archive"
    with orthanc(tmp_path / "orthanc") as peer:
        gateway = Gateway(
            tmp_path / "gateway",
            {
                "destinations": {
                    "orthanc": dicom_destination(peer.port, ae_title="ORTHANC", verify="exists", quiet_s=0.5, retry=QUICK),
                    "files": folder_destination(archive),
                },
                "routes": [{"name": "all", "when": {"Modality": "CT"}, "to": ["orthanc", "files"]}],
            },
        )
        with gateway.serving(), socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as plain:
            connection = raw.Connection(plain)
            connection.send(raw.associate_rq("RAW", "GATEWAY", [(1, CT, [EXPLICIT])]))
            connection.receive()
            for number, odd in enumerate(ODD, 1):
                elements = image(number)
                named = {0x00080018: odd, 0x0020000D: odd, 0x0020000E: odd}
                changed = [(tag, vr, named[tag].encode() if tag in named else value) for tag, vr, value in elements]
                data = meta.data_set(EXPLICIT, changed)
                command = raw.command_set(
                    affected_sop_class=CT,
                    command_field=1,
                    message_id=number,
                    priority=0,
                    data_set_type=1,
                    affected_sop_instance=odd,
                )
                connection.send(raw.pdu(4, raw.pdv(1, command, command=True, last=True)))
                connection.send(raw.pdu(4, raw.pdv(1, data, command=False, last=True)))
                _, answer, _, _ = next(iter(connection.messages()))
                assert raw.number(raw.parse_command(answer), "status") == 0, odd
            rows = settled(gateway, 2 * len(ODD), "verified", "held", deadline_s=90)
        verified = {(row.destination, row.uid) for row in rows if row.state == "verified"}
        assert {uid for destination, uid in verified if destination == "files"} == set(ODD)
        # Orthanc's DCMTK takes no UID of more than 64 characters, and drops spaces within: such instances are held with the reason.
        at_orthanc = {uid for destination, uid in verified if destination == "orthanc"}
        assert {"1.2.abc", "a/b", ".."} <= at_orthanc <= set(peer.instances())
        assert {row.uid for row in rows} == set(ODD)
    assert len({path.relative_to(archive).as_posix().lower() for path in archive.rglob("*.dcm")}) == len(ODD)
    held = [by_pydicom(path.read_bytes()) for path in archive.rglob("*.dcm")]
    assert {one[1][0x00080018][2].decode().strip("\0 ") for one in held if one} == set(ODD)


def test_cut_files_are_failures_that_say_so(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    whole = meta.meta(instance=f"{ROOT}.1.1") + meta.data_set(EXPLICIT, image(1))
    head = len(meta.meta(instance=f"{ROOT}.1.1"))
    for size in (132, 140, head - 6, head - 1, head, head + 4, head + 11, head + 40):
        (inbox / f"{size}.dcm").write_bytes(whole[:size])
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"files": folder_destination(tmp_path / "archive")}})
    done = gateway.run("send", inbox, "--to", "files")
    assert done.returncode == 1
    assert done.stdout.count("ends within its header") == 8, done.stdout
    assert deliveries(gateway) == []
