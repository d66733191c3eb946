import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.core.domain import DeliveryState
from gateway.core.errors import UsageError
from gateway.dicom.filenames import name_of
from gateway.intake import Exported, ExportOutcome, Releaser, export
from gateway.intake.export import file_name
from gateway.ledger import Ledger
from gateway.ledger.database.schema import deliveries
from gateway.ledger.deliveries.queue import Selection
from gateway.ledger.received import instances
from gateway.spool import Spool
from tests.support.storing import damage, data_set, part10_parts, path_of, request, store, taking

UID = "1.2.3.4"

Export = Callable[..., list[Exported]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


@pytest.fixture
def exported(spool: Spool, ledger: Ledger, out: Path) -> Export:
    def run(*, unrecorded: bool = False, **selection: tuple[object, ...]) -> list[Exported]:
        return list(export(spool, ledger, Selection(**selection), out, unrecorded=unrecorded))  # type: ignore[arg-type]

    return run


@pytest.fixture
def filled(spool: Spool, ledger: Ledger) -> list[str]:
    """Three instances: two with deliveries to a and b, the last one unrouted, each in a study of its own."""
    uids = [f"{UID}.{number}" for number in range(3)]
    with taking(
        spool, ledger, route=lambda found: {} if found.get("Modality") == "MR" else {"a": None, "b": None}, keywords={"Modality"}
    ) as intake:
        for number, uid in enumerate(uids):
            store(intake, request(uid), data_set(uid, study=f"1.9.{number}", modality="MR" if number == 2 else "CT"))
    return uids


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_kept_becomes_a_plain_dicom_file(exported: Export, filled: list[str], out: Path) -> None:
    assert {(one.sop_instance_uid, one.outcome) for one in exported()} == {(uid, ExportOutcome.WRITTEN) for uid in filled}
    assert names(out) == [f"{uid}.dcm" for uid in filled]
    assert out.stat().st_mode & 0o777 == 0o700
    for uid in filled:
        path = out / f"{uid}.dcm"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes()[:128] == bytes(128)
        assert dcmread(path).SOPInstanceUID == uid
        assert dcmread(path).file_meta.SourceApplicationEntityTitle == "ARCHIVE"
    assert part10_parts(out / f"{filled[0]}.dcm")[1] == data_set(filled[0], study="1.9.0")


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ({"studies": ("1.9.2",)}, [2]),
        ({"destinations": ("a",)}, [0, 1]),
        ({"destinations": ("a",), "studies": ("1.9.1",)}, [1]),
        ({"states": (DeliveryState.HELD,)}, []),
        ({"ids": (1,)}, [0]),
        ({"ids": (99,)}, []),
    ],
)
def test_a_selection_narrows_it(
    exported: Export, filled: list[str], selection: dict[str, tuple[object, ...]], wanted: list[int]
) -> None:
    assert [one.sop_instance_uid for one in exported(**selection)] == [filled[number] for number in wanted]


def test_an_export_is_repeated_without_writing_or_overwriting(exported: Export, filled: list[str], out: Path) -> None:
    exported()
    mine = out / f"{filled[0]}.dcm"
    mine.write_bytes(b"mine")
    written = (out / f"{filled[1]}.dcm").stat().st_mtime_ns
    first, second, _ = exported()
    assert (first.outcome, second.outcome) == (ExportOutcome.WRITTEN, ExportOutcome.THERE)
    assert mine.read_bytes() == b"mine"
    assert part10_parts(out / first.file)[1] == data_set(filled[0], study="1.9.0")
    assert (out / f"{filled[1]}.dcm").stat().st_mtime_ns == written
    assert exported()[0].outcome is ExportOutcome.THERE
    (out / first.file).write_bytes(b"mine too")
    assert exported()[0].outcome is ExportOutcome.FAILED
    assert not [name for name in names(out) if name.startswith(".")]


def test_a_file_system_without_links_gets_its_files_too(
    exported: Export, filled: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert len(exported()) == 3
    assert names(out) == [f"{uid}.dcm" for uid in filled]


def test_both_contents_of_a_conflict_are_written(spool: Spool, ledger: Ledger, exported: Export, out: Path) -> None:
    with taking(spool, ledger, route=lambda _attributes: {"a": None}) as intake:
        for filler in (b"one", b"two"):
            store(intake, request(UID), data_set(UID, filler=filler))
    files = [out / one.file for one in exported()]
    assert [part10_parts(file)[1] for file in files] == [data_set(UID, filler=b"one"), data_set(UID, filler=b"two")]


def test_what_is_damaged_or_gone_is_said_and_not_written(
    spool: Spool, ledger: Ledger, folder: Path, exported: Export, filled: list[str], out: Path
) -> None:
    with ledger.read() as connection:
        content = instances.find(connection, filled[1])[0].content
    damage(folder, content)
    assert [one.outcome for one in exported()] == [ExportOutcome.WRITTEN, ExportOutcome.FAILED, ExportOutcome.WRITTEN]
    assert names(out) == [f"{filled[0]}.dcm", f"{filled[2]}.dcm"]
    path_of(folder, content).unlink()
    assert [one.outcome for one in exported()].count(ExportOutcome.FAILED) == 3


def test_what_is_released_is_not_exported(spool: Spool, ledger: Ledger, exported: Export, filled: list[str]) -> None:
    ledger.write(lambda connection: connection.execute(deliveries.update().values(state="verified")))
    assert Releaser(spool, ledger, history_s=1).run_once() == 2
    assert [one.sop_instance_uid for one in exported(unrecorded=True)] == [filled[2]]


def test_without_its_ledger_the_spool_still_gives_its_files(spool: Spool, filled: list[str], folder: Path, out: Path) -> None:
    with Ledger(folder.parent / "another.sqlite") as empty:
        assert list(export(spool, empty, Selection(), out, unrecorded=False)) == []
        found = list(export(spool, empty, Selection(), out, unrecorded=True))
    assert sorted(one.sop_instance_uid for one in found) == filled
    assert names(out) == [f"{uid}.dcm" for uid in filled]


@pytest.mark.parametrize("uid", ["", "1\n2", "1.2.*"])
def test_what_is_no_uid_is_named_by_its_digest(uid: str) -> None:
    assert file_name(uid, "f" * 32) == f"unknown-{'f' * 16}.dcm"


@pytest.mark.parametrize("uid", [".", "..", ".1", "../../etc/passwd", "1/2", "a", "A", "1.2 3"])
def test_no_uid_becomes_anything_but_a_name(uid: str) -> None:
    assert file_name(uid, "f" * 32) == f"{name_of(uid)}.dcm"
    assert file_name(uid, "f" * 32, taken=True) == f"{name_of(uid)}-{'f' * 16}.dcm"


def test_a_folder_that_cannot_be_made_is_a_usage_error(spool: Spool, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        list(export(spool, ledger, Selection(), tmp_path / "file" / "out", unrecorded=False))


def test_closing_stops_between_files(spool: Spool, ledger: Ledger, filled: list[str], out: Path) -> None:
    events = export(spool, ledger, Selection(), out, unrecorded=False)
    next(events)
    assert len(filled) == 3
    assert len(names(out)) == 1
