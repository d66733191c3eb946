"""Many rows at a time: in parts that fit into one statement, and written by the driver's own words.

SQLAlchemy does more for each row than the row itself costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Table, Update, insert
from sqlalchemy.engine.interfaces import Dialect

T = TypeVar("T")

CHUNK = 500
"""Values in one ``IN``: within the limit of bound parameters of every database."""


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `values` in parts that fit into one ``IN``."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


_Arrange = Callable[[tuple[Any, ...]], Any]
"""Brings a row into the form that the driver takes for a statement."""


class _Rows(ABC):
    """A statement carried out for each of many rows, whose values come in the order of `names`."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._made: dict[str, tuple[str, _Arrange]] = {}

    def _run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Carry it out as one ``executemany`` and return how many rows changed."""
        if not rows:
            return 0
        statement, arrange = self._made.get(connection.dialect.name) or self._make(connection.dialect)
        return connection.exec_driver_sql(statement, [arrange(row) for row in rows]).rowcount

    def _make(self, dialect: Dialect) -> tuple[str, _Arrange]:
        compiled = self._compiled(dialect)
        same = {name: value for name, value in compiled.params.items() if name not in self._names}
        names = [*self._names, *same]
        if compiled.positional:
            # A row's values in the statement's order, which is not ours; the driver takes them by position.
            chosen, rest = itemgetter(*(names.index(name) for name in compiled.positiontup or ())), tuple(same.values())
            arrange: _Arrange = lambda row: chosen(row + rest)  # noqa: E731 - nothing may stand between a row and the driver
        else:
            arrange = lambda row: dict(zip(names, row + tuple(same.values()), strict=True))  # noqa: E731
        return self._made.setdefault(dialect.name, (str(compiled), arrange))

    @abstractmethod
    def _compiled(self, dialect: Dialect) -> Any:
        """Return the statement, compiled for `dialect`."""


class RowInsert(_Rows):
    """Inserts rows of the same columns into one table. Values go to the driver as they are: text, numbers, None."""

    def __init__(self, *columns: Column[Any]) -> None:
        """Insert `columns` of one table; the others get their defaults."""
        super().__init__(*(column.name for column in columns))
        self._table: Table = columns[0].table

    def __call__(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert `rows`, each with its values in the order of the columns."""
        self._run(connection, rows)

    def _compiled(self, dialect: Dialect) -> Any:
        return insert(self._table).inline().compile(dialect=dialect, column_keys=list(self._names))


class RowUpdate(_Rows):
    """Carries out one UPDATE for each of many rows. Values go to the driver as they are: text, numbers, None."""

    def __init__(self, statement: Update, *names: str) -> None:
        """Use `statement`, whose bound parameters `names` differ from row to row; its other values are the same for all."""
        super().__init__(*names)
        self._statement = statement

    def __call__(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Update with `rows`, each with its values in the order of the names; return how many rows of the table changed."""
        return self._run(connection, rows)

    def _compiled(self, dialect: Dialect) -> Any:
        return self._statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
