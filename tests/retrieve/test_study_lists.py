"""List files as people make them: any separator, with a header or not, each value once."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UsageError
from gateway.retrieve import ListKind, decode_list, parse_list

UIDS = ("1.2.3.1", "1.2.3.2", "1.2.3.3")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_names_the_column_whatever_the_separator(separator: str, end: str) -> None:
    rows = [["Patient", "Study Instance UID", "Date"], *[["P1", uid, "20240101"] for uid in UIDS]]
    text = end.join(separator.join(row) for row in rows) + end

    found = parse_list(text)

    assert (found.kind, found.values, found.header) == (ListKind.STUDY, UIDS, True)


def test_a_plain_column_of_uids_needs_no_header() -> None:
    assert parse_list("\n".join(UIDS)) == parse_list("\n\n" + "\n\n".join(UIDS) + "\n")
    assert parse_list("\n".join(UIDS)).header is False


def test_a_byte_order_mark_is_no_part_of_the_first_value() -> None:
    assert parse_list("\ufeff" + "\n".join(UIDS)).values == UIDS
    assert parse_list(decode_list(b"\xef\xbb\xbfaccession\nA1\n")).values == ("A1",)
    assert parse_list(decode_list("accession\nA1\n".encode("utf-16"))).values == ("A1",)
    assert decode_list("Größe".encode("cp1252")) == "Größe"


def test_repeated_values_are_counted_as_duplicates_and_blanks_skipped() -> None:
    found = parse_list("accession,x\nA1,1\n,2\nA2,3\nA1,4\n  \n")

    assert (found.values, found.duplicates) == (("A1", "A2"), 1)


def test_a_column_is_named_without_regard_to_case_and_spaces() -> None:
    text = "study date;Accession Number;my key\n20240101;A1;K1\n"

    assert parse_list(text, column="accession_number").values == ("A1",)
    assert parse_list(text, column="MY KEY", kind=ListKind.PATIENT).values == ("K1",)


def test_a_column_is_given_by_its_position() -> None:
    assert parse_list("a;A1\nb;A2", column=2, kind=ListKind.ACCESSION).values == ("A1", "A2")
    assert parse_list("a;A1\nb;A2", column="2", kind=ListKind.ACCESSION).values == ("A1", "A2")
    assert parse_list("PatientID,Accession\nP1,A1", column=2).kind is ListKind.ACCESSION


def test_an_unknown_first_cell_is_a_header_if_only_it_has_no_digits() -> None:
    assert parse_list("Fallnummer\nA1\nA2\n", kind=ListKind.ACCESSION).values == ("A1", "A2")
    assert parse_list("A0\nA1\nA2\n", kind=ListKind.ACCESSION).values == ("A0", "A1", "A2")


def test_a_named_kind_finds_its_column() -> None:
    text = "StudyInstanceUID,AccessionNumber,PatientID\n1.2.3,A1,P1\n"

    assert parse_list(text).values == ("1.2.3",)
    assert parse_list(text, kind=ListKind.ACCESSION).values == ("A1",)
    assert parse_list(text, kind=ListKind.PATIENT).values == ("P1",)


def test_quoted_values_may_hold_separators() -> None:
    assert parse_list('accession,note\n"A,1",x\n"A""2",y\n').values == ("A,1", 'A"2')


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "empty"),
        ("accession\n", {}, "no value"),
        ("A1\nA2\n", {}, "nothing says"),
        ("accession\nA1\n", {"column": "study"}, "no column 'study'"),
        ("study\nnot a uid\n", {}, "row 2 'not a uid': it is no Study Instance UID"),
        ("accession\n*\n", {}, "nothing that can be asked for; row 2"),
        ('"accession\n', {}, "its quotes do not match"),
        ("1.2.3\n", {"column": 0}, "count from 1"),
        ("1.2.3\n", {"column": 4}, "no value"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(text: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_list(text, **options)  # type: ignore[arg-type]


_unfit = {"exclude_categories": ("Cc", "Zl", "Zp", "Zs"), "exclude_characters": "*?\\\ufffd"}
_values = st.text(st.characters(codec="utf-8", **_unfit), min_size=1, max_size=12)  # type: ignore[arg-type]


UID = "1.2.826.0.1.3680043.10.1999."

ACCOUNTED = {
    "a row that is no UID": (f"{UID}1\nnot-a-uid\n", [f"{UID}1"], [2]),
    "an empty cell": ("Accession Number,Name\nA1,x\n,y\nA2,z\n", ["A1", "A2"], [3]),
    "a short row": ("Name;Accession Number\nx;A1\nshort\ny;A2\n", ["A1", "A2"], [3]),
    "a tab before a value": ("Accession Number\nA1 \n\tA2\n", ["A1", "A2"], []),
    "a tab within a value": ("Accession Number\nA1\nA2\tx\n", ["A1"], [3]),
    "padding of spaces and NUL": (f"{UID}1 \n{UID}2\0\n", [f"{UID}1", f"{UID}2"], []),
    "NUL within a value": (f"{UID}1\n1.2.\0.3\n", [f"{UID}1"], [2]),
    "a comma within a name": ('Name,Accession\nDoe, J,A1\n"Doe, J",A2\n', ["A2"], [2]),
    "a comma in some names of a list with semicolons": ("Accession;Name\nA1;Doe, J\nA2;Roe\n", ["A1", "A2"], []),
    "trailing separators": ("Accession;Name\nA1;x;;\nA2;y\n", ["A1", "A2"], []),
    "rows of separators only": ("Accession;Name\nA1;x\n;\n;;\nA2;y\n", ["A1", "A2"], []),
    "a quote that is never closed": ('Accession,Name\nA1,x\n"A2,y\nA3,z\n', ["A1", "A3"], [3]),
    "a quote that a later row closes": ('Accession,Name\n"A1,x\nA2,y\n"A3",z\n', ["A2", "A3"], [2]),
    "a line break within another cell": ('Accession,Note\nA1,"two\nlines"\nA2,x\n', ["A1", "A2"], []),
    "a line break within the value": ('Accession,Note\n"A1\nA2",x\nA3,y\n', ["A3"], [2]),
    "marks of wildcards, which are taken as they stand": ("PatientID\nP*1\nP2\nP?\n", ["P*1", "P2", "P?"], []),
    "a wildcard for everything": ("PatientID\n*\nP2\n?*\n", ["P2"], [2, 4]),
    "several values": ("PatientID\nP1\\P2\nP2\n", ["P2"], [2]),
    "a wildcard in a UID": ("study\n1.2.*\n1.2.3\n1.2.?\n", ["1.2.3"], [2, 4]),
    "a backslash": ("PatientID\nP1\\P2\nP3\n", ["P3"], [2]),
    "a rounded number": ("Accession\n1.23457E+15\n12345\n", ["12345"], [2]),
    "a separator that only one row has": (f"{UID}1\n{UID}2;x\n", [f"{UID}1"], [2]),
    "an accession number among UIDs": (f"{UID}1\n{UID}2\nA1000\n", [f"{UID}1", f"{UID}2"], [3]),
    "a cell without end": (f"Accession\nA1\n{'x' * 300}\n", ["A1"], [3]),
    "old line ends": ("Accession\rA1\r\rA2\r", ["A1", "A2"], []),
    "UIDs that break the rules": (f"study\n1.2.abc.3\n{'1.' * 40}1\n1.2 .3\n", ["1.2.abc.3", "1." * 40 + "1", "1.2 .3"], []),
    "Excel's separator": ("sep=;\nAccession Number;X\nA1;1\n;2\n", ["A1"], [4]),
    "Excel's separator, quotes open": ('sep=;\nAccession Number;X\n"A1;1\nA2;2\n', ["A2"], [3]),
}


@pytest.mark.parametrize("name", ACCOUNTED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_row_is_a_value_or_a_problem_with_its_number(name: str, encoding: str) -> None:
    text, values, problems = ACCOUNTED[name]

    found = parse_list(decode_list(text.encode(encoding)))

    assert list(found.values) == values
    assert [problem.row for problem in found.problems] == problems
    assert all(problem.why for problem in found.problems)


def test_characters_that_cannot_be_read_are_a_problem_of_their_row() -> None:
    text = "Patient ID\nP1\n".encode("utf-16") + "P2".encode("utf-16-le") + b"\x00\xd8" + "\n".encode("utf-16-le")

    assert [problem.row for problem in parse_list(decode_list(text)).problems] == [3]


@given(st.text(st.sampled_from('A1,;\t"\r\n .*\0'), max_size=60))
def test_no_row_of_any_text_is_passed_over(text: str) -> None:
    try:
        found = parse_list("Accession\n" + text)
    except UsageError:
        return
    lines = [line for line in re.split("\r\n|\n|\r", text) if line.strip(' \t\0",;')]
    cells = len(found.values) + found.duplicates + len(found.problems)
    if '"' not in text:
        assert cells >= len(lines)


@given(st.lists(_values, min_size=1, max_size=20), st.sampled_from(",;\t"), st.booleans())
def test_what_csv_writes_is_read_back(values: list[str], separator: str, blank_lines: bool) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerow(["accession", "other"])
    writer.writerows([value, "x"] for value in values)
    text = out.getvalue().replace("\r\n", "\r\n\r\n") if blank_lines else out.getvalue()

    found = parse_list(text)

    assert found.values == tuple(dict.fromkeys(values))
    assert found.duplicates == len(values) - len(set(values))
