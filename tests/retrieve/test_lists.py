"""List files as people make them: any separator, with a header or not, each value once."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UsageError
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


def test_repeated_values_are_dropped_and_counted_and_blank_cells_passed_over() -> None:
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


def test_an_unknown_header_is_one_when_values_below_have_digits_and_it_has_none() -> None:
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
        ("1.2.3\nnot a uid\n", {"kind": ListKind.STUDY}, "value 2 of the list"),
        ("1.2.3\n", {"column": 0}, "count from 1"),
        ("1.2.3\n", {"column": 4}, "no value"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(text: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_list(text, **options)  # type: ignore[arg-type]


_values = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=12)


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
