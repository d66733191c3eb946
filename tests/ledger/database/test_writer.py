"""The writer: what one change does to the others of its group, and what is durable once it was answered."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from gateway.core.errors import LedgerUnavailable
from gateway.ledger import Ledger
from gateway.ledger.peers import learned
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def note(name: str, value: str = "1") -> Callable[[Connection], None]:
    return lambda connection: learned.put(connection, name, "fact", value, now=0.0)


def noted(ledger: Ledger) -> set[str]:
    return set(ledger.ask(lambda connection: learned.all_of(connection, "fact", now=0.0)))


@contextmanager
def one_group(ledger: Ledger) -> Iterator[None]:
    """Keep the writer busy meanwhile, so that everything submitted becomes one group."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_connection: Connection) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    first = ledger.submit(wait)
    assert begun.wait(PATIENCE_S)
    yield
    go_on.set()
    first.result(PATIENCE_S)


def _answers(futures: list[Future[Any]]) -> list[str]:
    return ["done" if future.exception(10) is None else type(future.exception()).__name__ for future in futures]


def test_a_change_that_fails_takes_no_other_of_its_group_with_it(ledger: Ledger) -> None:
    def fail(connection: Connection) -> None:
        note("half done")(connection)
        raise ValueError("mine")

    def clash(connection: Connection) -> None:
        connection.execute(text("INSERT INTO learned (subject) VALUES ('no fact')"))

    with one_group(ledger):
        futures = [ledger.submit(change) for change in (note("a"), fail, note("b"), clash, note("c"))]
    assert _answers(futures) == ["done", "ValueError", "done", "ChangeRejected", "done"]
    assert noted(ledger) == {"a", "b", "c"}


def test_a_query_sees_what_was_written_before_it_was_let_go_on(ledger: Ledger) -> None:
    facts = ledger.ask(lambda connection: learned.all_of(connection, "fact", now=0.0), after=lambda: ledger.write(note("a")))
    assert set(facts) == {"a"}


def test_a_change_that_fails_alone_leaves_nothing(ledger: Ledger) -> None:
    def fail(connection: Connection) -> None:
        note("half done")(connection)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        ledger.write(fail)
    ledger.write(note("after"))
    assert noted(ledger) == {"after"}


def test_a_change_refused_as_the_disk_fills_up_is_not_recorded(ledger: Ledger) -> None:
    """SQLite rolls back the whole transaction by itself then: what came later in the group must not be recorded on its own."""

    def limit(connection: Connection) -> None:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={pages + 2}"))

    ledger.write(limit)
    with one_group(ledger):
        changes = [note("before"), note("large", "x" * 500_000), *(note(f"after-{number}") for number in range(3))]
        futures = [ledger.submit(change) for change in changes]
    told = dict(zip(["before", "large", "after-0", "after-1", "after-2"], _answers(futures), strict=True))
    assert told["large"] == "LedgerUnavailable"
    assert noted(ledger) == {name for name, answer in told.items() if answer == "done"}
    ledger.write(note("when there is room"))


def test_after_the_connection_broke_the_next_change_gets_another(ledger: Ledger) -> None:
    def break_the_connection(connection: Connection) -> None:
        note("never")(connection)
        connection.connection.driver_connection.close()  # type: ignore[union-attr]

    with pytest.raises(LedgerUnavailable):
        ledger.write(break_the_connection)
    ledger.write(note("after"))
    assert noted(ledger) == {"after"}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_the_ledger_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Ledger(tmp_path / "own.db") as ledger:
            ledger.write(note("a"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("own.db*")}
    finally:
        os.umask(before)
    assert modes == {"own.db": 0o600, "own.db-wal": 0o600, "own.db-shm": 0o600}


def test_a_ledger_that_was_readable_for_others_is_not_any_more(tmp_path: Path) -> None:
    (tmp_path / "own.db").touch(0o644)
    with Ledger(tmp_path / "own.db") as ledger:
        ledger.write(note("a"))
    assert stat.S_IMODE((tmp_path / "own.db").stat().st_mode) == 0o600


def _damaged_header(path: Path) -> None:
    path.write_bytes(b"this is no database at all " * 400)


def _damaged_schema(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.write(note("a"))
    content = bytearray(path.read_bytes())
    content[100:4000] = os.urandom(3900)
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("damage", [_damaged_header, _damaged_schema, _folder])
def test_a_ledger_that_cannot_be_read_is_a_clear_error_and_left_as_it_is(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "ledger.db"
    damage(path)
    content = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db.*docs/operations\.md"):
        Ledger(path)
    assert (path.read_bytes() if path.is_file() else None) == content
