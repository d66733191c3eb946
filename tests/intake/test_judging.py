"""An instance in another transfer syntax than its presentation context's is recorded in its real one, or held."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from gateway.codec import declared
from gateway.codec.workers.pool import Pool
from gateway.core.errors import Refusal
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, J2K_LOSSLESS, JPEG_BASELINE, JPEG_LOSSLESS_SV1
from gateway.intake import FileOutcome, Judging, StorageIntake, recover, register
from gateway.ledger import Ledger
from gateway.ledger.database.schema import deliveries
from gateway.ledger.database.schema import instances as table
from gateway.ledger.received import instances
from gateway.spool import Spool
from tests.support.data import real_file
from tests.support.storing import read, request, states, store, taking
from tests.support.transcoding import DataSet, of_file


@pytest.fixture(scope="module")
def judging() -> Iterator[Judging]:
    with Pool(1) as pool:
        yield Judging(pool)


@pytest.fixture
def intake(spool: Spool, ledger: Ledger, judging: Judging) -> Iterator[StorageIntake]:
    with taking(spool, ledger, route=lambda _attributes: {"a": None, "b": None}, judging=judging) as opened:
        yield opened


def of(name: str) -> tuple[DataSet, str]:
    """Return the data set of a real file, and its SOP Instance UID."""
    made = of_file(real_file(name))
    return made, str(made.read().SOPInstanceUID)


def recorded(ledger: Ledger) -> list[tuple[str, str]]:
    """Return the transfer syntax of each instance, and why it is unfit."""
    with ledger.read() as connection:
        rows = connection.execute(select(table.c.transfer_syntax_uid, table.c.unfit).order_by(table.c.id))
        return [(row.transfer_syntax_uid, row.unfit or "") for row in rows]


def reasons(ledger: Ledger) -> list[str | None]:
    with ledger.read() as connection:
        return list(connection.execute(select(deliveries.c.reason).order_by(deliveries.c.id)).scalars())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("JPEG-LL.dcm", J2K_LOSSLESS),
        ("JPEG-LL.dcm", EXPLICIT_LITTLE),
        ("SC_rgb_jpeg_dcmtk.dcm", J2K_LOSSLESS),
        ("emri_small_RLE.dcm", JPEG_BASELINE),
        ("MR_small_jpeg_ls_lossless.dcm", J2K_LOSSLESS),
        ("CT_small.dcm", J2K_LOSSLESS),
        ("MR_small_implicit.dcm", EXPLICIT_LITTLE),
        ("MR_small_implicit.dcm", J2K_LOSSLESS),
        ("CT_small.dcm", IMPLICIT_LITTLE),
        ("rtplan.dcm", JPEG_BASELINE),
        ("MR_small_jp2klossless.dcm", JPEG_LOSSLESS_SV1),
    ],
)
def test_what_is_proved_is_recorded_as_what_it_is(
    intake: StorageIntake, ledger: Ledger, spool: Spool, name: str, label: str
) -> None:
    made, uid = of(name)
    with capture_logs() as logs:
        assert store(intake, request(uid, syntax=label), made.data) == 0
    assert recorded(ledger) == [(made.syntax, "")]
    assert set(states(ledger).values()) == {"pending"}
    with ledger.read() as connection:
        (there,) = instances.find(connection, uid)
    assert read(spool, there.content) == made.data
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["transfer_syntax_corrected"]


def test_what_is_not_proved_is_durable_and_held_everywhere(intake: StorageIntake, ledger: Ledger, spool: Spool) -> None:
    made, uid = of("JPEG-LL.dcm")
    cut = made.data[:-3000]
    assert store(intake, request(uid, syntax=EXPLICIT_LITTLE), cut + b"\xfe\xff\xdd\xe0\0\0\0\0") == 0
    ((syntax, unfit),) = recorded(ledger)
    assert syntax == EXPLICIT_LITTLE
    assert unfit
    assert set(states(ledger).values()) == {"held"}
    assert reasons(ledger) == [f"it came {unfit}"] * 2


def test_a_good_one_takes_the_place_of_an_unfit_one_and_not_the_other_way(intake: StorageIntake, ledger: Ledger) -> None:
    made, uid = of("CT_small.dcm")
    short = made.data[:-1000]
    place = made.data.rindex(b"\xe0\x7f\x10\x00")
    short = short[: place + 8] + (len(short) - place - 12).to_bytes(4, "little") + short[place + 12 :]
    store(intake, request(uid), short)
    store(intake, request(uid), made.data)
    store(intake, request(uid), short)
    assert [bool(unfit) for _, unfit in recorded(ledger)][:2] == [True, False]
    with ledger.read() as connection:
        current = [one for one in instances.find(connection, uid) if one.superseded_by is None]
    assert [one.content.length for one in current] == [len(made.data)]


def test_an_ordinary_instance_is_not_examined(intake: StorageIntake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "examine", lambda *_: pytest.fail("it was examined"))
    for name in (
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "JPEG-LL.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
        "test-SR.dcm",
    ):
        made, uid = of(name)
        assert store(intake, request(uid, syntax=made.syntax), made.data) == 0
    assert all(not unfit for _, unfit in recorded(ledger))


def test_while_the_gateway_stops_it_is_left_to_the_source(spool: Spool, ledger: Ledger) -> None:
    pool = Pool(1)
    pool.close()
    made, uid = of("JPEG-LL.dcm")
    with taking(spool, ledger, route=lambda _attributes: {"a": None}, judging=Judging(pool)) as intake:
        with pytest.raises(Refusal) as refused:
            store(intake, request(uid, syntax=J2K_LOSSLESS), made.data)
        assert refused.value.status == 0xA700
    assert recorded(ledger) == []


def test_a_start_adopts_it_as_what_it_is(spool: Spool, ledger: Ledger, judging: Judging, folder: Path) -> None:
    made, uid = of("JPEG-LL.dcm")
    with taking(spool, ledger, route=lambda _attributes: {"a": None}, judging=judging) as intake:
        intake.recorder.put = lambda _arrival: None  # type: ignore[method-assign]
        assert store(intake, request(uid, syntax=J2K_LOSSLESS), made.data) == 0
    assert recorded(ledger) == []
    recover(spool, ledger, route=lambda _attributes: {"a": None}, judging=judging)
    assert recorded(ledger) == [(JPEG_LOSSLESS_SV1, "")]


def mislabelled(name: str, label: str) -> bytes:
    made, _ = of(name)
    return DataSet(made.data, label).part10()


def test_files_of_send_are_recorded_as_what_they_are_or_held(
    tmp_path: Path, spool: Spool, ledger: Ledger, judging: Judging
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "good.dcm").write_bytes(mislabelled("CT_small.dcm", J2K_LOSSLESS))
    data, _ = of("MR_small_RLE.dcm")
    (files / "unfit.dcm").write_bytes(DataSet(data.data, EXPLICIT_LITTLE).part10().replace(b"\x40\0\0\0" * 1, b"\x41\0\0\0", 1))
    with zipfile.ZipFile(files / "more.zip", "w") as archive:
        archive.writestr("one.dcm", mislabelled("JPEG-LL.dcm", J2K_LOSSLESS))

    def events() -> dict[str, FileOutcome]:
        taken = register([files], ["a"], spool, ledger, ae_title="GATEWAY", judging=judging)
        return {event.path.rpartition("/")[2]: event.outcome for event in taken}

    first = events()
    assert first["good.dcm"] is first["more.zip!one.dcm"] is FileOutcome.QUEUED
    assert first["unfit.dcm"] is FileOutcome.HELD
    assert events()["unfit.dcm"] is FileOutcome.HELD
    assert {syntax for syntax, unfit in recorded(ledger) if not unfit} == {EXPLICIT_LITTLE, JPEG_LOSSLESS_SV1}
    assert sorted(states(ledger).values()) == ["held", "pending", "pending"]
