"""Inserting many rows by the driver's own words: what SQLAlchemy does for each row costs more than the row itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, insert
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
