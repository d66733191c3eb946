"""Reading list files: one study UID, accession number or patient id a row. Pure.

A list is CSV with or without a header, separated by comma, semicolon or tab, with or without a byte order mark or Excel's line
``sep=;``, or just one value a line. The column is named, given by position, or found: by a header that says what it holds, else
the first. Every row is accounted for: its value is asked for, or repeats one that is, or the row is among `StudyList.problems`.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.domain import is_uid
from gateway.core.errors import UsageError

SEPARATORS = (",", ";", "\t")

NO_SEPARATOR = "\x1f"
"""Stands for a list of one column: the unit separator is in no list, and `csv` wants one."""

MAX_VALUE_CHARS = 256
"""Four times what an LO may hold (PS3.5 §6.2); a longer cell is the rest of a file behind a quote that was never closed."""

NO_VALUE = "it has no value in this column"


class ListKind(StrEnum):
    """The attribute that the values of a list are matched against."""

    STUDY = "study"
    ACCESSION = "accession"
    PATIENT = "patient"


@dataclass(frozen=True)
class RowProblem:
    """A row that names nothing to ask for: its line number from 1, its value as it stands (empty where it has none), and why."""

    row: int
    value: str
    why: str

    def __str__(self) -> str:
        value = f" {self.value!r}" if self.value else ""
        return f"row {self.row}{value}: {self.why}"


@dataclass(frozen=True)
class StudyList:
    """The values of a list in their order, each once; how many repeat one of them; and the rows that name nothing to ask for."""

    kind: ListKind
    values: tuple[str, ...]
    header: bool
    duplicates: int
    problems: tuple[RowProblem, ...] = ()


@dataclass(frozen=True)
class _Row:
    """One row: the number of its first line, its cells, and why it could not be cut into cells."""

    number: int
    cells: tuple[str, ...]
    problem: str = ""


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

_DECLARED = re.compile(r"\s*\"?sep=(.)\"?\s*(?:\r\n|\n|\r|$)", re.IGNORECASE)
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)


def parse_list(text: str, *, kind: ListKind | None = None, column: str | int | None = None) -> StudyList:
    """Return the values of one column of `text`.

    `column` is a name of the header (case, spaces and underscores do not matter) or a position from 1; a name that is all
    digits is a position. `kind` says what the values are; without it the header says it, and without a header the values
    do: where most are UIDs, they are study UIDs. Blank lines do not count as rows.

    Raises:
        UsageError: there is no such column, no value that can be asked for, or nothing says what the values are.

    """
    rows = _rows(text)
    whole = [row for row in rows if not row.problem]
    if not rows:
        raise UsageError("the list is empty")
    if not whole:
        raise UsageError(f"no row of the list can be read; {rows[0]}" if len(rows) > 1 else str(_of(rows[0])))
    first = whole[0].cells
    header = _is_header(first, [row.cells for row in whole[1:]], column)
    position = _position(first, header=header, kind=kind, column=column)
    named = _NAMES.get(_plain(first[position])) if header and position < len(first) else None
    data = [row for row in rows if not (header and row is whole[0])]
    width = len(first) if header else Counter(len(row.cells) for row in whole).most_common(1)[0][0]
    cells = [(row, _cell(row, position)) for row in data]
    if not any(value for _, value in cells):
        raise UsageError(f"column {position + 1} of the list holds no value")
    found = kind or named or _kind_of([value for _, value in cells if value])
    guessed = kind is None and named is None
    values: list[str] = []
    problems: list[RowProblem] = []
    for row, value in cells:
        why = row.problem or _misfit(row, position, width) or _flaw(value, found, guessed=guessed)
        if why:
            problems.append(RowProblem(row.number, value, why))
        else:
            values.append(value)
    if not values:
        raise UsageError(f"the list names nothing that can be asked for; {problems[0]}")
    unique = tuple(dict.fromkeys(values))
    return StudyList(found, unique, header, duplicates=len(values) - len(unique), problems=tuple(problems))


def decode_list(content: bytes) -> str:
    """Return the text of a list file.

    It is UTF-8, UTF-16 or UTF-32 with a byte order mark; without one UTF-16 where every other byte is zero, UTF-8 where it can
    be, else Windows-1252.
    """
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    half = len(content) // 2
    for zeros, encoding in ((content[1::2], "utf-16-le"), (content[::2], "utf-16-be")):
        if half > 1 and zeros.count(0) * 2 > half:
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _rows(text: str) -> list[_Row]:
    """Return the rows of `text` that hold anything, cut by the separator that cuts all of them alike.

    Where none does, the separator that cuts the first row counts, and rows of another width are misfits; where none cuts the
    first row, the list has one column.
    """
    text = text.lstrip("\ufeff")
    if declared := _DECLARED.match(text):
        rest = text[declared.end() :]
        return _cut(rest, declared.group(1), behind=1) or _lines(rest, declared.group(1), behind=1)
    ranked = []
    for separator in SEPARATORS:
        rows = _cut(text, separator)
        if rows and len(rows[0].cells) > 1:
            alike = sum(len(row.cells) == len(rows[0].cells) for row in rows)
            names = sum(_plain(cell) in _NAMES for cell in rows[0].cells)
            ranked.append(((alike == len(rows), names, alike, len(rows[0].cells)), rows))
    if ranked:
        return max(ranked, key=lambda rank: rank[0])[1]
    if rows := _cut(text, NO_SEPARATOR):
        return rows
    head = next((line for line in text.splitlines() if line.strip()), "")
    return _lines(text, max((*SEPARATORS, NO_SEPARATOR), key=head.count))


def _cut(text: str, separator: str, *, behind: int = 0) -> list[_Row]:
    """Return the rows of `text`, which begins `behind` lines into the file; none where its quotes do not match."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    number = behind + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_Row(number, tuple(cells)))
            number = behind + reader.line_num + 1
    except csv.Error:
        return []
    return rows


def _lines(text: str, separator: str, *, behind: int = 0) -> list[_Row]:
    """Return a row a line: where a quote does not match, the line that holds it is lost and no other."""
    rows = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), behind + 1):
        if line.strip():
            rows += _cut(line, separator, behind=number - 1) or [_Row(number, (line,), "its quotes do not match")]
    return rows


def _of(row: _Row) -> RowProblem:
    return RowProblem(row.number, "", row.problem)


def _cell(row: _Row, position: int) -> str:
    """Return the value of a row, without the padding of a UID or a text (PS3.5 §6.2)."""
    return row.cells[position].strip(" \t\r\n\0\u00a0") if position < len(row.cells) else ""


def _misfit(row: _Row, position: int, width: int) -> str:
    """Return why it cannot be told which cell of `row` is the value; empty where it can."""
    filled = len(row.cells)
    while filled > width and not row.cells[filled - 1].strip():
        filled -= 1
    if filled > width:
        return f"it has {filled} cells where others have {width}: a separator within a cell needs quotes around it"
    if len(row.cells) <= position:
        return NO_VALUE
    if width == 1 and any(separator in row.cells[0].strip() for separator in SEPARATORS):
        return "it holds a separator that other rows do not have; a value that holds one needs a header and a second column"
    return ""


def _flaw(value: str, kind: ListKind, *, guessed: bool) -> str:
    """Return why `value` cannot be asked for as the one value of a key (PS3.4 §C.2.2.2.1); empty where it can."""
    flaws = (
        (not value, NO_VALUE),
        (len(value) > MAX_VALUE_CHARS, f"it has {len(value)} characters"),
        (
            any(unicodedata.category(character) == "Cc" for character in value),
            "it holds a line break, a tab or another control character",
        ),
        ("\ufffd" in value, "it holds characters that cannot be read; save the list as UTF-8"),
        (
            "\\" in value or (kind is ListKind.STUDY and not {"*", "?"}.isdisjoint(value)),
            "it holds * ? or \\, which stand for other values in a query; name one value a row",
        ),
        (not value.strip("*? "), "it is a wildcard that matches every study; name one value a row"),
        (_ROUNDED.fullmatch(value), "a spreadsheet has rounded it; format the column as text before it is saved"),
        (
            kind is ListKind.STUDY and not (_like_a_uid(value) if guessed else any(map(str.isdigit, value))),
            "it is no Study Instance UID",
        ),
    )
    return next((why for wrong, why in flaws if wrong), "")


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
    if sum(map(_like_a_uid, values)) * 2 >= len(values):
        return ListKind.STUDY
    raise UsageError("nothing says what the list holds: name its column (StudyInstanceUID, AccessionNumber, PatientID) or its kind")


def _like_a_uid(value: str) -> bool:
    return is_uid(value) and value.count(".") >= 2
