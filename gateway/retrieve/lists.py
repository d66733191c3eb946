"""Reading list files: one study UID, accession number or patient id a row. Pure.

A list is CSV with or without a header, separated by comma, semicolon or tab, with or without a byte order mark, or just one
value a line. The column is named, given by position, or found: by a header that says what it holds, else the first.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain import is_conforming_uid, is_uid
from gateway.errors import UsageError


class ListKind(StrEnum):
    """What the values of a list are."""

    STUDY = "study"
    ACCESSION = "accession"
    PATIENT = "patient"


@dataclass(frozen=True)
class StudyList:
    """The values of a list in their order, each once, and whether the first row was taken as a header."""

    kind: ListKind
    values: tuple[str, ...]
    header: bool
    duplicates: int


_NAMES = {
    "studyinstanceuid": ListKind.STUDY,
    "studyuid": ListKind.STUDY,
    "studyiuid": ListKind.STUDY,
    "suid": ListKind.STUDY,
    "study": ListKind.STUDY,
    "uid": ListKind.STUDY,
    "0020000d": ListKind.STUDY,
    "accessionnumber": ListKind.ACCESSION,
    "accession": ListKind.ACCESSION,
    "accessionno": ListKind.ACCESSION,
    "acc": ListKind.ACCESSION,
    "00080050": ListKind.ACCESSION,
    "patientid": ListKind.PATIENT,
    "patient": ListKind.PATIENT,
    "pid": ListKind.PATIENT,
    "00100020": ListKind.PATIENT,
}


def parse_list(text: str, *, kind: ListKind | None = None, column: str | int | None = None) -> StudyList:
    """Return the values of one column of `text`.

    `column` is a name of the header (case, spaces and underscores do not matter) or a position from 1; a name that is all
    digits is a position. `kind` says what the values are; without it the header says it, and without a header the values
    do: all of them UIDs are study UIDs. Blank lines and empty cells are passed over, repeated values are counted and
    dropped.

    Raises:
        UsageError: there is no such column, no value, nothing says what the values are, or a study UID is none.

    """
    rows = _rows(text)
    if not rows:
        raise UsageError("the list is empty")
    header = _is_header(rows[0], rows[1:], column)
    position = _position(rows[0], header=header, kind=kind, column=column)
    named = _NAMES.get(_plain(rows[0][position])) if header and position < len(rows[0]) else None
    cells = [row[position].strip() for row in rows[1 if header else 0 :] if position < len(row)]
    values = [cell for cell in cells if cell]
    if not values:
        raise UsageError(f"column {position + 1} of the list holds no value")
    found = kind or named or _kind_of(values)
    if found is ListKind.STUDY:
        _check_uids(values)
    unique = tuple(dict.fromkeys(values))
    return StudyList(kind=found, values=unique, header=header, duplicates=len(values) - len(unique))


def decode_list(content: bytes) -> str:
    """Return the text of a list file: UTF-8 or UTF-16 with a byte order mark, UTF-8 without, else Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    reader = csv.reader(lines, delimiter=_separator(lines), skipinitialspace=True)
    return [row for row in reader if any(cell.strip() for cell in row)]


def _separator(lines: Sequence[str]) -> str:
    """Return the one of comma, semicolon and tab that most lines have; ties go to the first line's most frequent."""
    head = lines[0] if lines else ""

    def weight(separator: str) -> tuple[int, int]:
        return sum(separator in line for line in lines[:100]), head.count(separator)

    return max((",", ";", "\t"), key=weight)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _is_header(first: Sequence[str], others: Sequence[Sequence[str]], column: str | int | None) -> bool:
    """Decide whether `first` names columns rather than holding values.

    It does when a column of that name was asked for, when a cell is a known name, or when it has no digit anywhere while a
    row below has one: values are UIDs and numbers, names of columns seldom hold digits.
    """
    names = [_plain(cell) for cell in first]
    if isinstance(column, str) and not column.isdigit():
        return True
    if any(name in _NAMES for name in names):
        return True
    digits_below = any(any(map(str.isdigit, cell)) for row in others for cell in row)
    return digits_below and not any(any(map(str.isdigit, cell)) for cell in first)


def _position(first: Sequence[str], *, header: bool, kind: ListKind | None, column: str | int | None) -> int:
    if isinstance(column, str) and not column.isdigit():
        names = [_plain(cell) for cell in first]
        if _plain(column) not in names:
            raise UsageError(f"the list has no column {column!r}; it has {', '.join(cell.strip() for cell in first)}")
        return names.index(_plain(column))
    if column is not None:
        if int(column) < 1:
            raise UsageError("columns count from 1")
        return int(column) - 1
    return _guess(first, kind) if header else 0


def _guess(first: Sequence[str], kind: ListKind | None) -> int:
    """Return the first column whose name says what is looked for; study UIDs before accession numbers before patient ids."""
    kinds = [_NAMES.get(_plain(cell)) for cell in first]
    for wanted in (kind,) if kind else tuple(ListKind):
        if wanted in kinds:
            return kinds.index(wanted)
    return 0


def _kind_of(values: Sequence[str]) -> ListKind:
    if all(is_conforming_uid(value) and value.count(".") >= 2 for value in values):
        return ListKind.STUDY
    raise UsageError("nothing says what the list holds: name its column (StudyInstanceUID, AccessionNumber, PatientID) or its kind")


def _check_uids(values: Sequence[str]) -> None:
    wrong = [row for row, value in enumerate(values, 1) if not is_uid(value)]
    if wrong:
        raise UsageError(f"value {wrong[0]} of the list is no Study Instance UID, and {len(wrong) - 1} more")
