"""One writer, group commit: changes of many threads become one durable transaction.

Where a transaction has several changes, each runs in a savepoint of its own, so that one that fails takes no other with it.
Nobody gets an answer before the commit that holds the change is on disk (``synchronous=FULL``). Runs on one thread of its own,
named ``ledger``, on a connection that it keeps while nothing goes wrong: taking one from the pool and giving it back costs as
much as a small change.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.core.domain import DEFAULT_NODE
from gateway.core.errors import ChangeRejected, GatewayError, LedgerDamaged, LedgerTooNew, LedgerUnavailable, UsageError
from gateway.core.urls import sqlite_file
from gateway.ledger.database import health, ownership
from gateway.ledger.database.ballast import Ballast
from gateway.ledger.database.migrations import Incomplete, migrate
from gateway.ledger.database.ownership import Owner

T = TypeVar("T")

MAX_GROUP = 256
"""Changes in one transaction: enough to share an fsync, few enough that the first one's caller does not wait long."""

WAL_CHECKPOINT_PAGES = 4000
"""About 16 MiB of WAL between checkpoints, which the writer's connection alone performs."""

_CUT_WAIT_MS = 200
"""The longest wait for readers before the write-ahead log is cut on a full disk: every change waits meanwhile."""

CHECKED_BYTES = 64 * 1024 * 1024
"""A ledger up to this size is gone through page by page when a gateway starts: some tenths of a second."""

_NO_ROOM = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_CANTOPEN,
    }
)
"""All but the first may have other reasons; then giving up the room costs nothing, for it is taken back."""

_Job = tuple[Callable[[Connection], Any], Future[Any]]
_Outcome = tuple[Any, Exception | None]


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself, or savepoints are lost (SQLAlchemy's documented pysqlite setting).
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _engine(url: URL, owner: Owner, *, checkpoint_pages: int) -> Engine:
    engine = create_engine(url, execution_options={ownership.OPTION: owner})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _begin)

        def checkpoint(connection: Any, _record: Any) -> None:
            connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}").close()

        event.listen(engine, "connect", checkpoint)
    return engine


class Ledger:
    """The database behind one writer thread and any number of readers. Use as a context manager."""

    def __init__(self, place: Path | str, *, node: str = DEFAULT_NODE, ballast: Ballast | None = None, begun: bool = False) -> None:
        """Open or create the ledger at `place`, a URL or the path of a SQLite file, mode 0600, and migrate it.

        A row that is claimed through it belongs to `node`. `ballast` is its own room on a full disk.
        With `begun` instances were received before: a file that is there and empty is one that was cut short. One that is not there
        was moved away by a person, and is made anew.

        Raises:
            UsageError: the URL is of another database than SQLite.
            LedgerTooNew: a newer gateway wrote it.
            LedgerForeign: it is a database of another program.
            LedgerDamaged: it is damaged or cut short.
            LedgerUnavailable: it cannot be opened.

        """
        try:
            path = place if isinstance(place, Path) else sqlite_file(place)
        except ValueError as error:
            raise UsageError(f"the ledger cannot be opened by this URL: expected {error}") from error
        self.owner = Owner(node)
        self.ballast = ballast or Ballast(path.with_suffix(".ballast"))
        url = URL.create("sqlite", database=str(path))
        self._writer_engine = _engine(url, self.owner, checkpoint_pages=WAL_CHECKPOINT_PAGES)
        self._reader_engine = _engine(url, self.owner, checkpoint_pages=0)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._path = path
        self._damage: LedgerDamaged | None = None
        try:
            new = _make_private(path)
            health.examine(path, begun=begun and not new)
            try:
                self._migrate()
            except SQLAlchemyError as error:
                if not (_is_room(error) and self.ballast.give_up()):
                    raise
                self._migrate()
            self._sight = health.look(path)
        except (SQLAlchemyError, OSError, Incomplete) as error:
            self._writer_engine.dispose()
            if isinstance(error, Incomplete) or health.is_damage(error) or health.has_foreign_wal(path):
                raise health.damaged(path, f"is damaged ({_describe(error)})") from error
            raise LedgerUnavailable(
                f"the ledger {path} cannot be opened ({_describe(error)}); received instances are safe in the spool beside it: "
                "docs/operations.md says what to do"
            ) from error
        except LedgerTooNew as error:
            self._writer_engine.dispose()
            raise LedgerTooNew(f"{path}: {error}") from error
        except GatewayError:
            self._writer_engine.dispose()
            raise
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is waiting, then stop the writer and close all connections."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._reader_engine.dispose()
        self._writer_engine.dispose()

    def submit(self, change: Callable[[Connection], T]) -> Future[T]:
        """Queue `change` for the writer; the future is done once the change is durable, or has its exception.

        `change` runs on the writer thread, inside a transaction with the changes of others, all of it or nothing. It must
        not do any I/O but on the connection.
        """
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                future.set_exception(LedgerUnavailable("the ledger is closed"))
            elif self._damage is not None:
                future.set_exception(self._damage)
            else:
                self._jobs.put((change, future))
        return future

    def write(self, change: Callable[[Connection], T]) -> T:
        """Run `change` on the writer and return its result once it is durable.

        Raises:
            LedgerUnavailable: the database cannot take it now.
            ChangeRejected: the database never takes it; and whatever `change` raises.

        """
        return self.submit(change).result()

    def enter(self) -> None:
        """Begin a new epoch of this node: what it held in earlier ones is to be reset, and what they still report is void.

        Raises:
            LedgerUnavailable: it cannot be recorded.
        """
        self.owner.epoch = self.write(lambda connection: ownership.enter(connection, time.time()))

    def check_room(self) -> None:
        """Tell whether there is room to record more arrivals: its last room is for deliveries and releases, which empty the disk.

        Raises:
            LedgerUnavailable: there is not.

        """
        if self.ballast.missing_bytes:
            self.ballast.take()
            if self.ballast.missing_bytes:
                raise LedgerUnavailable("the ledger's file system is full")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading a consistent snapshot.

        Raises:
            LedgerUnavailable: the database cannot be read now.
            LedgerDamaged: it is damaged; from then on nothing is read or written any more.

        """
        if self._damage is not None:
            raise self._damage
        try:
            with self._reader_engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._failure(error) from error

    def ask(self, query: Callable[[Connection], T], *, after: Callable[[], object] | None = None) -> T:
        """Return what `query` reads of a consistent snapshot, once `after` has returned.

        Raises:
            LedgerUnavailable, LedgerDamaged: as `read`; and whatever `after` and `query` raise.

        """
        if after is not None:
            after()
        with self.read() as connection:
            return query(connection)

    @property
    def damage(self) -> LedgerDamaged | None:
        """Return why nothing is read or written any more, None while all is well. Costs nothing."""
        return self._damage

    def look(self) -> None:
        """See whether the file is still there and whole; any thread, some microseconds.

        Raises:
            LedgerDamaged: it is not, from now on.
        """
        if self._damage is not None:
            raise self._damage
        try:
            self._sight = health.look(self._path, self._sight)
        except LedgerDamaged as error:
            self._damage = error
            raise

    def check(self, most_bytes: int = CHECKED_BYTES) -> None:
        """Have SQLite go through every page of a ledger of at most `most_bytes`: a larger one takes too long.

        Raises:
            LedgerDamaged: a page is not what it should be.
        """
        if self._sight.length > most_bytes:
            return
        with self.read() as connection:
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if said != "ok":
            self._damage = health.damaged(self._path, "is damaged (a page is not what it should be)")
            raise self._damage

    def _migrate(self) -> None:
        with self._writer_engine.begin() as connection:
            migrate(connection)

    def _run(self) -> None:
        connection: Connection | None = None
        more = True
        while more and (first := self._jobs.get()) is not None:
            group, more = self._gather(first)
            connection = self._commit(connection, group)
        _give_back(connection)

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, False
            group.append(job)
        return group, True

    def _commit(self, connection: Connection | None, group: list[_Job], *, again: bool = True) -> Connection | None:
        """Make the changes of `group` durable together and give each its outcome; return the connection if it is still good.

        With `again` they are tried once more where room could be made for them.
        """
        try:
            connection = connection or self._writer_engine.connect()
            with connection.begin():
                outcomes = _outcomes(connection, [change for change, _ in group])
        except Exception as error:  # noqa: BLE001 - the root of the writer: every caller of the group learns of it
            # The transaction may be in any state, which the pool sees to.
            _give_back(connection)
            if again and _is_room(error) and self._made_room():
                return self._commit(None, group, again=False)
            failure = self._failure(error)
            for _, future in group:
                future.set_exception(failure)
            return None
        for (_, future), (result, problem) in zip(group, outcomes, strict=True):
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(self._failure(problem))
        return connection

    def _made_room(self) -> bool:
        """Give up the ballast, and cut the write-ahead log, whose pages go where they belong; tells whether either gave any room.

        A log grows by what is new and changed between two checkpoints, on a small disk by more than the ballast holds.
        """
        given = self.ballast.give_up()
        before = self._wal_bytes()
        # A reader may need the log, and a checkpoint room too: what is not cut stays valid.
        with suppress(SQLAlchemyError, sqlite3.Error), closing(self._writer_engine.raw_connection()) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(f"PRAGMA busy_timeout={_CUT_WAIT_MS}")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                # The pool must not give out a connection that waits for so short a time.
                connection.invalidate()
        return given or self._wal_bytes() < before

    def _wal_bytes(self) -> int:
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def _failure(self, error: Exception) -> Exception:
        """Return the error of ours that `error` is; the first damage is remembered."""
        if self._damage is None and health.is_damage(error):
            self._damage = health.damaged(self._path, f"is damaged ({_describe(error)})")
            self._damage.__cause__ = error
        return self._damage if self._damage is not None and health.is_damage(error) else _failure(error)


def _is_room(error: Exception) -> bool:
    """Tell whether SQLite may have failed for want of room: of bytes, of a quota, of an inode for one of its files."""
    return getattr(getattr(error, "orig", None), "sqlite_errorcode", None) in _NO_ROOM


def _give_back(connection: Connection | None) -> None:
    """Return a connection to the pool, which resets or replaces it."""
    if connection is not None:
        with suppress(SQLAlchemyError):
            connection.close()


def _make_private(path: Path) -> bool:
    """Make sure that the file is there and its owner's alone; True where it was not. SQLite gives its companions the same mode."""
    new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return new


def _outcomes(connection: Connection, changes: Sequence[Callable[[Connection], Any]]) -> list[_Outcome]:
    """Run the changes; a lone one needs no savepoint, because the transaction is its own."""
    if len(changes) == 1:
        return [(changes[0](connection), None)]
    return [_attempt(connection, change) for change in changes]


def _attempt(connection: Connection, change: Callable[[Connection], Any]) -> _Outcome:
    # Savepoints by the driver's own words: SQLAlchemy's nested transactions cost as much as a small change.
    connection.exec_driver_sql("SAVEPOINT one_change")
    try:
        outcome: _Outcome = (change(connection), None)
    except Exception as error:  # noqa: BLE001 - belongs to the one who asked for the change
        # A full disk or an I/O error ends SQLite's whole transaction: then this raises, and the group fails as one.
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one_change")
        outcome = (None, _failure(error))
    connection.exec_driver_sql("RELEASE SAVEPOINT one_change")
    return outcome


def _failure(error: Exception) -> Exception:
    if not isinstance(error, SQLAlchemyError):
        return error
    kind = ChangeRejected if isinstance(error, IntegrityError | DataError) else LedgerUnavailable
    failure = kind(_describe(error))
    failure.__cause__ = error
    return failure


def _describe(error: BaseException) -> str:
    # SQLAlchemy's own text quotes statement parameters; only the driver's words are shown.
    cause = getattr(error, "orig", None) or error
    return f"{cause.__class__.__name__}: {cause}"
