"""The ledger's own room: taken, given up on a full disk, taken back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.core.errors import LedgerUnavailable
from gateway.ledger import Ballast, Ledger
from gateway.ledger.database import ballast


@pytest.fixture
def kept(tmp_path: Path) -> Ballast:
    made = Ballast(tmp_path / "ledger.ballast")
    made.take()
    return made


def test_it_is_really_there_and_private(kept: Ballast, tmp_path: Path) -> None:
    status = (tmp_path / "ledger.ballast").stat()
    assert status.st_mode & 0o777 == 0o600
    assert 0 < status.st_blocks * 512 <= ballast.BALLAST_BYTES + 4096
    assert kept.missing_bytes == 0


def test_what_was_given_up_is_missing_until_it_is_taken_back(kept: Ballast, tmp_path: Path) -> None:
    assert kept.give_up()
    assert kept.missing_bytes > 0
    assert not kept.give_up(), "there is nothing more"
    kept.take()
    assert kept.missing_bytes == 0
    assert (tmp_path / "ledger.ballast").exists()


def test_it_is_not_taken_where_not_as_much_again_would_stay_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[4] = 0  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    made = Ballast(tmp_path / "ledger.ballast")
    made.take()
    assert made.missing_bytes > 0
    assert not (tmp_path / "ledger.ballast").exists()


@pytest.mark.parametrize(("number", "missing"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EOPNOTSUPP, False)])
def test_a_file_system_that_cannot_set_room_aside_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, missing: bool
) -> None:
    def refuse(*_arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ballast, "_allocate", refuse)
    made = Ballast(tmp_path / "ledger.ballast")
    made.take()
    assert (made.missing_bytes > 0) is missing


def test_a_transaction_without_room_uses_the_ballast_and_succeeds(kept: Ballast, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", ballast=kept) as ledger:
        tries: list[int] = []

        def change(connection: object) -> str:
            tries.append(1)
            if len(tries) == 1:
                connection.execute(text("PRAGMA max_page_count=1"))  # type: ignore[attr-defined]
                connection.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000) AS b"))  # type: ignore[attr-defined]
            connection.execute(text("PRAGMA max_page_count=1000000"))  # type: ignore[attr-defined]
            return "done"

        assert ledger.write(change) == "done"
        assert len(tries) == 2
        assert kept.missing_bytes > 0


def test_without_ballast_the_write_ahead_log_is_cut_once(tmp_path: Path) -> None:
    wal = tmp_path / "ledger.db-wal"
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.write(lambda connection: connection.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000) AS b")))
        assert wal.stat().st_size > 1_000_000
        lengths: list[int] = []

        def change(connection: object) -> None:
            lengths.append(wal.stat().st_size)
            connection.execute(text("PRAGMA max_page_count=1"))  # type: ignore[attr-defined]
            connection.execute(text("CREATE TABLE more AS SELECT zeroblob(1000000) AS b"))  # type: ignore[attr-defined]

        with pytest.raises(LedgerUnavailable, match="full"):
            ledger.write(change)
        assert len(lengths) == 2 and lengths[1] == 0
        ledger.write(lambda connection: connection.execute(text("INSERT INTO big VALUES (1)")))
        with ledger.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM big")).scalar_one() == 2


def test_no_more_arrivals_are_taken_while_it_is_given_up(kept: Ballast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path / "ledger.db", ballast=kept) as ledger:
        ledger.check_room()
        kept.give_up()
        monkeypatch.setattr(kept, "_make", lambda: False)
        with pytest.raises(LedgerUnavailable, match="full"):
            ledger.check_room()
        monkeypatch.undo()
        ledger.check_room()
