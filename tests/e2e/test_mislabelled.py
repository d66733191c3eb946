"""Instances that a source sends in the name of another transfer syntax, by C-MOVE and by C-GET, through a whole gateway.

What decoding proves is delivered as what it is, with a warning; the rest is asked for again, then held and named, and the
study is not complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import _config

from tests.support import data
from tests.support.dcmtk import dcmqrscp, storescp
from tests.support.gateway import Gateway, deliveries, dicom_destination, folder_destination, source
from tests.support.mislabelled import GOOD, PROVABLE, UNPROVABLE, Kind, series_of, slice_of
from tests.support.orthanc import orthanc
from tests.support.pacs import Order, Pacs, Script
from tests.support.ports import HOST

SEED = 961
ACCESSION = f"ACC{SEED}"
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}

BY_J2K = ("RLE as J2K", "JPEG-LS as J2K")
"""What dcmqrscp and Orthanc send as it lies there: DCMTK writes no native pixels as J2K, and nothing compressed as native."""


def chosen(*names: str) -> dict[str, Kind]:
    every = {**GOOD, **PROVABLE, **UNPROVABLE}
    return {name: every[name] for name in names}


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path / "gateway")


@contextmanager
def archive(kind: str, folder: Path, gateway: Gateway, files: list[Path]) -> Iterator[int]:
    """A real archive that has `files` as they are, and knows the gateway as a move destination."""
    hosts = {"GATEWAY": (HOST, gateway.port)}
    if kind == "orthanc":
        with orthanc(folder, ae_title="ARCHIVE", modalities=hosts, DicomAlwaysAllowGet=True) as peer:
            assert len(peer.upload(files)) == len(files)
            yield peer.port
    else:
        with dcmqrscp(folder, "-xv", "+xv", hosts=hosts, files=files) as peer:
            assert len(peer.files) == len(files)
            yield peer.port


def logged(done: Any, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def same_pixels(file: Path, uid: str) -> bool:
    number = int(uid.rpartition(".")[2])
    return bool((pydicom.dcmread(file).pixel_array == data.ct_dataset(seed=SEED, number=number).pixel_array).all())


def assert_delivered(files: Mapping[str, Path], kinds: Mapping[str, Kind], *, native: bool = False) -> None:
    """Every file that arrived has the pixels of its slice, and says the transfer syntax that they are in."""
    syntaxes = dict(zip(files, (kind[0] for kind in kinds.values()), strict=True))
    for uid, path in files.items():
        says = str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        assert says in NATIVE if native else says == syntaxes[uid], uid
        assert same_pixels(path, uid), uid


@pytest.mark.peers
@pytest.mark.parametrize("retrieve", ["move", "get"])
@pytest.mark.parametrize("kind", ["dcmqrscp", "orthanc"])
def test_a_real_source_s_mislabelled_instances_are_delivered_as_they_are(
    tmp_path: Path, gateway: Gateway, kind: str, retrieve: str
) -> None:
    kinds = chosen("native", "J2K", *BY_J2K)
    files = series_of(tmp_path / "in", kinds, seed=SEED)
    with (
        archive(kind, tmp_path / "archive", gateway, list(files.values())) as port,
        storescp(tmp_path / "plain", "+x=") as plain,
    ):
        gateway.write(
            sources={"archive": source(port, retrieve=retrieve, settle_s=0.3)},
            destinations={
                "folder": folder_destination(tmp_path / "out"),
                "plain": dicom_destination(plain.port, ae_title="STORESCP", verify="status"),
            },
        )
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
        received = plain.received()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 study: 1 complete; everything delivered and verified" in done.stdout
    corrected = logged(done, "transfer_syntax_corrected")
    assert {line["sop_instance_uid"] for line in corrected} == set(list(files)[2:])
    assert {line["found"] for line in corrected} == {"RLE Lossless", "JPEG-LS Lossless"}
    out = {uid: next((tmp_path / "out").rglob(f"{uid}.dcm")) for uid in files}
    assert_delivered(out, kinds)
    assert_delivered({uid: received[uid] for uid in files}, kinds, native=True)


@pytest.mark.peers
@pytest.mark.parametrize("retrieve", ["move", "get"])
@pytest.mark.parametrize("kind", ["dcmqrscp", "orthanc"])
def test_what_a_real_source_cannot_send_well_is_named_and_held(tmp_path: Path, gateway: Gateway, kind: str, retrieve: str) -> None:
    kinds = chosen("native", "J2K", *BY_J2K, "damaged RLE as J2K", "damaged JPEG-LS as J2K")
    files = series_of(tmp_path / "in", kinds, seed=SEED)
    bad = set(list(files)[-2:])
    with archive(kind, tmp_path / "archive", gateway, list(files.values())) as port:
        gateway.write(
            sources={"archive": source(port, retrieve=retrieve, settle_s=0.3)},
            destinations={"folder": folder_destination(tmp_path / "out")},
        )
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
        assert done.returncode == 1, done.stdout + done.stderr
        again = gateway.run("pull", "archive", "--accession", ACCESSION, "--json")
        assert again.returncode == 1, again.stdout + again.stderr
        assert again.stdout, again.stderr
    (study,) = json.loads(again.stdout)["studies"]
    assert (study["kind"], study["expected"], study["received"]) == ("incomplete", 6, 4)
    assert set(study["missing"]) == set(study["unfit"]) == bad
    assert all("not proved" in reason for reason in study["unfit"].values())
    lines = done.stdout.splitlines()
    for uid in bad:
        named = [line for line in lines if line.startswith(f"  {uid}: it came with Pixel Data in ")]
        assert len(named) == 1, done.stdout
        assert "\N{REPLACEMENT CHARACTER}" not in named[0]
    asked = Counter(line["sop_instance_uid"] for line in logged(done, "instance_unfit"))
    assert set(asked) == bad
    assert min(asked.values()) > 1, "asked for again"
    rows = deliveries(gateway)
    assert {row.uid for row in rows if row.state == "held"} == bad
    assert {row.uid for row in rows if row.state == "verified"} == set(files) - bad
    assert not any(next((tmp_path / "out").rglob(f"{uid}.dcm"), None) for uid in bad)


def read(kind: Kind, number: int) -> Dataset:
    """Return a slice as pynetdicom sends it: its elements, and the transfer syntax that it is declared in."""
    return pydicom.dcmread(BytesIO(slice_of(kind, seed=SEED, number=number)))


def labelled(kinds: Mapping[str, Kind]) -> list[Dataset]:
    """Return what the scripted source lists."""
    return [data.ct_dataset(seed=SEED, number=number) for number in range(1, len(kinds) + 1)]


def sending_files(files: Mapping[str, Path], otherwise: Callable[[Order], bool] = lambda _order: False) -> Script:
    """A source that sends `files` byte for byte in the transfer syntaxes that they say; well where `otherwise` says so."""

    def script(order: Order) -> None:
        wanted = [str(dataset.SOPInstanceUID) for dataset in order.selected]
        if otherwise(order):
            with order.sending() as send:
                for dataset in order.selected:
                    send(dataset)
        else:
            order.propose = [_declared(dataset, files[str(dataset.SOPInstanceUID)]) for dataset in order.selected]
            with order.sending() as send:
                for uid in wanted:
                    send(_File(files[uid], uid))  # type: ignore[arg-type]
        order.final(0x0000, len(wanted))

    return script


def _declared(dataset: Dataset, file: Path) -> Dataset:
    """Return what presentation context a file asks for; pydicom cannot read those whose headers are mislabelled."""
    made = Dataset()
    made.SOPClassUID, made.file_meta = dataset.SOPClassUID, pydicom.filereader.read_file_meta_info(file)
    return made


class _File(str):
    """The path of a file, which stock pynetdicom sends in chunks as it lies there."""

    SOPInstanceUID: str

    def __new__(cls, path: Path, uid: str) -> _File:
        made = super().__new__(cls, str(path))
        made.SOPInstanceUID = uid
        return made


@pytest.fixture
def as_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@contextmanager
def scripted(gateway: Gateway, tmp_path: Path, pacs: Pacs, **more: Any) -> Iterator[Pacs]:
    with pacs.running():
        gateway.write(
            sources={"archive": source(pacs.port, settle_s=0.3, progress_timeout_s=5.0, **more)},
            destinations={"folder": folder_destination(tmp_path / "out")},
        )
        yield pacs


@pytest.mark.usefixtures("as_files")
def test_whatever_is_proved_is_complete_and_delivered_as_it_is(tmp_path: Path, gateway: Gateway) -> None:
    files = series_of(tmp_path / "in", PROVABLE, seed=SEED)
    pacs = Pacs({"GATEWAY": (HOST, gateway.port)}, labelled(PROVABLE), sending_files(files))
    with scripted(gateway, tmp_path, pacs):
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(logged(done, "transfer_syntax_corrected")) == len(PROVABLE)
    assert_delivered({uid: next((tmp_path / "out").rglob(f"{uid}.dcm")) for uid in files}, PROVABLE)


@pytest.mark.usefixtures("as_files")
def test_what_is_not_proved_is_asked_for_in_every_order_and_held(tmp_path: Path, gateway: Gateway) -> None:
    kinds = {**chosen("native", "RLE as J2K"), **UNPROVABLE}
    files = series_of(tmp_path / "in", kinds, seed=SEED)
    pacs = Pacs({"GATEWAY": (HOST, gateway.port)}, labelled(kinds), sending_files(files))
    with scripted(gateway, tmp_path, pacs):
        done = gateway.json("pull", "archive", "--accession", ACCESSION, exit_codes=[1])
    (study,) = done["studies"]
    bad = set(list(files)[2:])
    assert (study["kind"], study["received"]) == ("incomplete", 2)
    assert set(study["missing"]) == set(study["unfit"]) == bad
    assert min(Counter(pacs.sent)[uid] for uid in bad) >= 3
    assert {row.uid: row.state for row in deliveries(gateway)} == {uid: "held" if uid in bad else "verified" for uid in files}


@pytest.mark.usefixtures("as_files")
def test_a_later_fit_instance_is_delivered_and_nothing_is_held(tmp_path: Path, gateway: Gateway) -> None:
    files = series_of(tmp_path / "in", UNPROVABLE, seed=SEED)
    script = sending_files(files, otherwise=lambda order: order.number > 1)
    pacs = Pacs({"GATEWAY": (HOST, gateway.port)}, labelled(UNPROVABLE), script)
    with scripted(gateway, tmp_path, pacs):
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
        assert done.returncode == 0, done.stdout + done.stderr
        assert gateway.json("queue", "list")["total"] == 0
        assert gateway.run("status", "--exit-code").stdout.endswith("Needs a person:\n  no gateway runs (gateway serve)\n")
    assert all(same_pixels(next((tmp_path / "out").rglob(f"{uid}.dcm")), uid) for uid in files)


@pytest.mark.usefixtures("as_files")
def test_what_c_move_sends_badly_is_asked_for_by_c_get(tmp_path: Path, gateway: Gateway) -> None:
    files = series_of(tmp_path / "in", UNPROVABLE, seed=SEED)
    pacs = Pacs({"GATEWAY": (HOST, gateway.port)}, labelled(UNPROVABLE), sending_files(files), gets=lambda _nth, _uid: None)
    with scripted(gateway, tmp_path, pacs):
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(set(pacs.got)) == sorted(files)
    assert all(same_pixels(next((tmp_path / "out").rglob(f"{uid}.dcm")), uid) for uid in files)


@pytest.mark.parametrize("proved", [True, False])
def test_mislabelled_instances_that_come_by_c_get_are_judged_too(tmp_path: Path, gateway: Gateway, proved: bool) -> None:
    every = PROVABLE if proved else UNPROVABLE
    kinds = {name: kind for name, kind in every.items() if "implicit" not in name}  # pynetdicom writes the headers itself
    datasets = [read(kind, number) for number, kind in enumerate(kinds.values(), 1)]
    pacs = Pacs({}, datasets, gets=lambda _nth, _uid: None)
    with scripted(gateway, tmp_path, pacs, retrieve="get"):
        done = gateway.run("pull", "archive", "--accession", ACCESSION)
        again = gateway.json("pull", "archive", "--accession", ACCESSION, exit_codes=[0 if proved else 1])
    (study,) = again["studies"]
    uids = set(pacs.uids())
    if proved:
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(logged(done, "transfer_syntax_corrected")) == len(kinds)
        assert_delivered({uid: next((tmp_path / "out").rglob(f"{uid}.dcm")) for uid in pacs.uids()}, kinds)
    else:
        assert done.returncode == 1, done.stdout + done.stderr
        assert set(study["missing"]) == set(study["unfit"]) == uids
        assert {row.state for row in deliveries(gateway)} == {"held"}
        assert min(Counter(pacs.got)[uid] for uid in uids) > 1
