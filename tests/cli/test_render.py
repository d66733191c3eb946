from typing import Any

import pytest

from gateway.cli.commands import pull, send, status
from gateway.cli.commands.peers import keys_of, matches_table
from gateway.cli.commands.pull import at
from gateway.cli.commands.send import lines
from gateway.cli.output import render
from gateway.cli.output.progress import Amount, detail, total
from gateway.core.errors import UsageError


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (525_000, "525.0 kB"), (2**31, "2.1 GB"), (5e15, "5000.0 TB")]
)
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert render.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert render.duration(seconds) == text


def test_a_peers_value_cannot_steer_the_terminal() -> None:
    assert render.printable("a\x1b[31mb\nc") == "a�[31mb�c"


def test_markup_in_a_peers_value_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    render.show(render.Table(("name",), [("[red]DOE[/red]",)]))
    assert capsys.readouterr().out == "name\n[red]DOE[/red]\n"


STUDIES = render.Table(
    ("study", "received", "note"), [("1.2." + "3" * 60, "30", "the source went quiet"), ("1.4", "7", "")], apart=("note", "study")
)


def test_without_a_terminal_a_row_is_a_line_without_trailing_spaces() -> None:
    heading, *rows = render.layout(STUDIES, None)
    assert heading.split() == ["study", "received", "note"]
    assert rows == [f"1.2.{'3' * 60}  30        the source went quiet", f"1.4{' ' * 61}  7"]


def test_columns_too_wide_for_the_terminal_move_below_their_row() -> None:
    assert render.layout(STUDIES, 80) == [
        f"study{' ' * 59}  received",
        f"1.2.{'3' * 60}  30",
        "  note: the source went quiet",
        f"1.4{' ' * 61}  7",
    ]
    assert render.layout(STUDIES, 40) == [
        "received",
        "30",
        f"  study: 1.2.{'3' * 60}",
        "  note: the source went quiet",
        "7",
        "  study: 1.4",
    ]


def test_wide_characters_are_counted_as_wide() -> None:
    assert render.layout(render.Table(("a", "b"), [("日本", "x"), ("y", "z")]), None) == ["a     b", "日本  x", "y     z"]


MATCH = {
    "SpecificCharacterSet": "ISO_IR 100",
    "StudyDate": "20240101",
    "StudyTime": "120000",
    "PatientID": "0815",
    "StudyDescription": "",
    "ModalitiesInStudy": "CT",
    "StudyInstanceUID": "1.2." + "3" * 60,
    "NumberOfStudyRelatedSeries": "1",
    "NumberOfStudyRelatedInstances": "30",
}


def test_matches_show_what_a_person_looks_for_and_fit_on_80_columns() -> None:
    assert render.layout(matches_table("study", {"StudyDate": "2024-"}, [MATCH]), 80) == [
        "StudyDate  Modalities  PatientID  Instances",
        "20240101   CT          0815       30",
        f"  StudyInstanceUID: 1.2.{'3' * 60}",
    ]


def test_a_named_key_becomes_a_column_and_a_queried_uid_does_not() -> None:
    keys = {"StudyTime": "", "StudyInstanceUID": MATCH["StudyInstanceUID"], "InstitutionName": ""}
    assert matches_table("study", keys, [MATCH]).columns == ["StudyDate", "Modalities", "PatientID", "Instances", "StudyTime"]


def _pulled(*kinds: str, delivered: bool = True) -> dict[str, Any]:
    studies = [{"kind": kind, "destinations": {"a": {}} if kind != "empty" else {}} for kind in kinds]
    return {"studies": studies, "delivered": delivered, "done": delivered and set(kinds) == {"complete"}}


@pytest.mark.parametrize(
    ("summary", "last_line"),
    [
        (_pulled("complete"), "1 study: 1 complete; everything delivered and verified"),
        (_pulled("complete", "incomplete"), "2 studies: 1 complete, 1 incomplete; what came is delivered and verified"),
        (_pulled("complete", "empty"), "2 studies: 1 complete, 1 empty; what came is delivered and verified"),
        (_pulled("empty"), "1 study: 1 empty; nothing to deliver"),
        (_pulled("complete", delivered=False), "1 study: 1 complete; NOT everything is delivered"),
        (_pulled(), "no study; nothing to deliver"),
    ],
)
def test_the_last_line_of_a_pull_says_everything_only_when_it_is(summary: dict[str, Any], last_line: str) -> None:
    assert pull.conclusion(summary, waited=True) == last_line


@pytest.mark.parametrize(
    ("failed", "unrouted", "delivered", "last_line"),
    [
        (0, 0, True, "everything delivered and verified"),
        (2, 0, True, "the others are delivered and verified; NOT sent: 2 DICOM files that could not be read"),
        (0, 1, True, "the others are delivered and verified; NOT sent: 1 instance that no route takes"),
        (1, 0, False, "NOT everything is delivered; NOT sent: 1 DICOM file that could not be read"),
        (0, 0, False, "NOT everything is delivered"),
    ],
)
def test_the_last_line_of_a_send_says_everything_only_when_it_is(
    failed: int, unrouted: int, delivered: bool, last_line: str
) -> None:
    summary = {"instances": 3, "counts": {"failed": failed}, "unrouted": unrouted, "delivered": delivered}
    assert send.conclusion(summary, waited=True) == last_line


def test_a_send_of_which_no_route_takes_anything_says_so() -> None:
    summary = {"instances": 0, "counts": {"failed": 0}, "unrouted": 2, "delivered": True}
    assert send.conclusion(summary, waited=True) == "NOT sent: 2 instances that no route takes"


def test_a_send_that_does_not_wait_ends_by_counting_the_unreadable_files() -> None:
    summary = {"instances": 3, "counts": {"failed": 1}, "unrouted": 0, "delivered": False}
    expected = "deliveries go on (gateway status); NOT sent: 1 DICOM file that could not be read"
    assert send.conclusion(summary, waited=False) == expected


SENT = {
    "instances": 2,
    "found": 6,
    "size_bytes": 2_000_000,
    "counts": {"queued": 2, "duplicate": 1, "skipped": 2, "failed": 1},
    "unrouted": 0,
    "files": [
        {"path": "/in/cut.dcm", "outcome": "failed", "reason": "ends within its header"},
        {"path": "/in/up", "outcome": "link", "reason": "a link to a folder, not followed (--follow-links)"},
        {"path": "/in/readme.txt", "outcome": "skipped", "reason": "not DICOM"},
        {"path": "/in/empty", "outcome": "skipped", "reason": "empty"},
    ],
    "undelivered": [
        {
            "path": "/in/1.dcm",
            "destination": "a",
            "sop_instance_uid": "1.2",
            "state": "held",
            "status": 0xA900,
            "reason": "no match",
        }
    ],
    "destinations": {"a": {"states": {"verified": 1, "held": 1}, "proofs": {"exists": 1}}},
    "delivered": False,
    "done": False,
}


def test_a_send_is_told_with_what_failed_first_and_what_is_no_dicom_last(capsys: pytest.CaptureFixture[str]) -> None:
    send.show_sent(SENT, waited=True)
    assert capsys.readouterr().out.splitlines() == [
        "not delivered (1):",
        "  /in/1.dcm: held at a: [A900] no match",
        "could not be read (1):",
        "  /in/cut.dcm: ends within its header",
        "not followed (1):",
        "  /in/up: a link to a folder, not followed (--follow-links)",
        "destination  instances",
        "a            1/2 verified (exists), 1 held",
        "6 files: 2 queued, 1 duplicate, 2 skipped, 1 failed; 2 instances, 2.0 MB",
        "NOT everything is delivered; NOT sent: 1 DICOM file that could not be read",
        "skipped 2 files: 1 not DICOM, 1 empty (--report FILE.csv has them all)",
    ]


def study(kind: str, uid: str, state: str = "verified", **more: Any) -> dict[str, Any]:
    told = {"study_instance_uid": uid, "asked": uid, "expected": 3, "received": 3, "skipped": 0, "basis": "uids", "note": ""}
    return told | {"kind": kind, "missing": [], "destinations": {"a": {"states": {state: 3}, "proofs": {}}}} | more


def test_a_pull_is_told_with_the_studies_that_are_not_through_first(capsys: pytest.CaptureFixture[str]) -> None:
    studies = [
        study("complete", "1.1"),
        study("incomplete", "1.2", note="the source went quiet", missing=["9.9"]),
        study("complete", "1.3", "held"),
    ]
    pull.show_pulled(
        {"studies": studies, "undelivered": [], "unrouted": 0, "error": "", "delivered": False, "done": False}, waited=True
    )
    told = capsys.readouterr().out
    places = [told.index(text) for text in ("1.2 ", "the source went quiet", "1.3 ", "missing of 1.2 (1):", "1.1 ", "3 studies:")]
    assert places == sorted(places)


FINE: dict[str, Any] = {
    "gateway": {"role": "gateway"},
    "spool": {"has_room": True},
    "instances": {"missing": 0, "unrouted": 0, "conflicts": 3},
    "held": [],
    "destinations": [{"name": "a", "circuit": {"state": "closed"}}, {"name": "b", "circuit": None}],
    "syncs": [{"name": "day", "cycle": {"error": ""}}, {"name": "new", "cycle": None}],
    "comparisons": [{"name": "week", "error": "", "different": 0}, {"name": "never", "error": "", "different": None}],
    "certificates": [{"path": "a.crt", "warning": None}],
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, None),
        ({"gateway": {"role": "desk"}}, "no gateway runs (gateway serve)"),
        ({"spool": {"has_room": False}}, "the spool is full: instances are refused until there is room"),
        ({"instances": {"missing": 1, "unrouted": 0}}, "1 instance that lost their bytes"),
        ({"instances": {"missing": 0, "unrouted": 2}}, "2 instances that are kept without a route"),
        ({"held": [{"destination": "a", "count": 2, "reason": "A900"}]}, "a: 2 instances held: A900"),
        ({"destinations": [{"name": "a", "circuit": {"state": "open", "reason": "refused"}}]}, "a is down: refused"),
        ({"syncs": [{"name": "day", "cycle": {"error": "no answer"}}]}, "sync day: no answer"),
        ({"comparisons": [{"name": "week", "error": "", "different": 2}]}, "comparison week: 2 differences"),
        ({"comparisons": [{"name": "week", "error": "no answer", "different": None}]}, "comparison week: no answer"),
        ({"certificates": [{"path": "a.crt", "warning": "expires in 3 days"}]}, "certificate a.crt: expires in 3 days"),
    ],
)
def test_a_status_says_what_needs_a_person(changed: dict[str, Any], says: str | None) -> None:
    assert list(status.wants_a_person(FINE | changed)) == ([says] if says else [])


def test_progress_tells_instances_bytes_rate_and_what_is_left() -> None:
    assert detail(Amount(30, 120, 3_000_000), 10) == "30/120 instances, 3.0 MB, 300.0 kB/s, 30 s left"


def test_progress_without_a_known_total_tells_no_remaining_time() -> None:
    assert detail(Amount(30, None, 3_000_000), 10) == "30 instances, 3.0 MB, 300.0 kB/s"


def test_studies_add_up_and_one_unknown_total_makes_the_sum_unknown() -> None:
    assert total([Amount(1, 10, 100), Amount(2, 20, 200)]) == Amount(3, 30, 300)
    assert total([Amount(1, 10), Amount(2, None)]).of is None


def test_a_destination_shows_its_verified_share_the_proof_and_the_rest() -> None:
    assert at({"states": {"verified": 9, "held": 1}, "proofs": {"exists": 9}}) == "9/10 verified (exists), 1 held"
    assert at(None) == "-"


def test_keys_are_keyword_and_value_and_the_value_may_hold_equals_signs() -> None:
    assert keys_of(["StudyDate=20240101-", "PatientID=a=b"]) == {"StudyDate": "20240101-", "PatientID": "a=b"}


def test_a_key_alone_is_asked_for_where_that_makes_sense() -> None:
    assert keys_of(["PatientID=1", "InstitutionName"], bare=True) == {"PatientID": "1", "InstitutionName": ""}


@pytest.mark.parametrize("wrong", ["DOE^JOHN", "=DOE", "Patient Name=DOE^JOHN"])
def test_a_malformed_key_is_refused_without_repeating_its_value(wrong: str) -> None:
    with pytest.raises(UsageError, match="key 1: expected KEYWORD=VALUE") as raised:
        keys_of([wrong])
    assert "DOE" not in str(raised.value)


def test_the_report_has_a_line_with_the_reason_for_each_undelivered_file() -> None:
    undelivered = {"path": "/in/1.dcm", "state": "held", "destination": "a", "sop_instance_uid": "1.2", "status": 0xA900}
    summary = {
        "files": [{"path": "/in/readme.txt", "outcome": "skipped", "reason": "no DICOM"}],
        "undelivered": [undelivered | {"reason": "no match"}],
    }
    assert list(lines(summary)) == [
        ("/in/1.dcm", "held", "a", "1.2", "A900", "no match"),
        ("/in/readme.txt", "skipped", "", "", "", "no DICOM"),
    ]


@pytest.mark.parametrize(
    ("line", "width", "lines"),
    [
        ("short", 80, ["short"]),
        ("a line of prose that goes on", None, ["a line of prose that goes on"]),
        ("a line of prose that goes on", 16, ["a line of prose", "  that goes on"]),
        ("  1.2.3: it came otherwise", 16, ["  1.2.3: it came", "    otherwise"]),
        (f"not {'1' * 40} here", 20, ["not", f"  {'1' * 40}", "  here"]),
        ("pylibjpeg-openjpeg 2.6.0", 14, ["pylibjpeg-openjpeg", "  2.6.0"]),
        ("", 80, [""]),
        ("one two three", 1, ["one", "  two", "  three"]),
    ],
)
def test_prose_is_continued_between_words_and_no_word_is_broken(line: str, width: int | None, lines: list[str]) -> None:
    assert render.wrapped(line, width) == lines


def test_a_note_is_continued_below_its_row() -> None:
    noted = render.Table(("study", "note"), [("1.2.3", "the source answered A702 and nothing came of it")], apart=("note",))
    assert render.layout(noted, 31) == ["study", "1.2.3", "  note: the source answered", "    A702 and nothing came of it"]


def test_an_instance_that_came_unfit_is_named_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    study = {
        "study_instance_uid": "1.2",
        "asked": "1.2",
        "kind": "incomplete",
        "basis": "uids",
        "expected": 3,
        "received": 1,
        "skipped": 0,
        "missing": ["1.2.1", "1.2.2"],
        "unfit": {"1.2.2": "inside another study", "1.2.9": "inside another series"},
        "destinations": {},
        "note": "",
    }
    pull.print_studies({"error": "", "studies": [study], "undelivered": [], "unrouted": 0})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "missing of 1.2 (3):",
        "  1.2.1",
        "  1.2.2: it came inside another study",
        "  1.2.9: it came inside another series",
    ]
