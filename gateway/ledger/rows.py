"""Writing many rows by the driver's own words: what SQLAlchemy does for each row costs more than the row itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, Update, insert
from sqlalchemy.engine.interfaces import Dialect


class RowInsert:
    """Inserts rows of the same columns into one table. Values go to the driver as they are: text, numbers, None."""

    def __init__(self, *columns: Column[Any]) -> None:
        """Insert `columns` of one table; the others get their defaults."""
        self._table: Table = columns[0].table
        self._names = [column.name for column in columns]
        self._made: dict[str, tuple[str, Sequence[str] | None]] = {}

    def __call__(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert `rows`, each with its values in the order of the columns, as one ``executemany``."""
        if not rows:
            return
        statement, order = self._made.get(connection.dialect.name) or self._make(connection.dialect)
        if order == self._names:
            connection.exec_driver_sql(statement, list(rows))
            return
        named = [dict(zip(self._names, row, strict=True)) for row in rows]
        connection.exec_driver_sql(statement, named if order is None else [tuple(row[name] for name in order) for row in named])

    def _make(self, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
        compiled = insert(self._table).inline().compile(dialect=dialect, column_keys=self._names)
        made = str(compiled), compiled.positiontup if compiled.positional else None
        return self._made.setdefault(dialect.name, made)


class RowUpdate:
    """Carries out one UPDATE for each of many rows. Values go to the driver as they are: text, numbers, None."""

    def __init__(self, statement: Update, *names: str) -> None:
        """Use `statement`, whose bound parameters `names` differ from row to row; its other values are the same for all."""
        self._statement = statement
        self._names = names
        self._made: dict[str, tuple[str, Sequence[str] | None, Mapping[str, Any]]] = {}

    def __call__(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Update with `rows`, each with its values in the order of the names, as one ``executemany``; return how many changed."""
        if not rows:
            return 0
        statement, order, same = self._made.get(connection.dialect.name) or self._make(connection.dialect)
        named = [{**same, **dict(zip(self._names, row, strict=True))} for row in rows]
        values = named if order is None else [tuple(row[name] for name in order) for row in named]
        return connection.exec_driver_sql(statement, values).rowcount

    def _make(self, dialect: Dialect) -> tuple[str, Sequence[str] | None, Mapping[str, Any]]:
        compiled = self._statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        same = {name: value for name, value in compiled.params.items() if name not in self._names}
        made = str(compiled), compiled.positiontup if compiled.positional else None, same
        return self._made.setdefault(dialect.name, made)
