import pytest

from gateway.cli import render
from gateway.cli.peers import keys_of
from gateway.cli.progress import Amount, detail
from gateway.cli.pull import at, total
from gateway.cli.send import lines
from gateway.errors import UsageError


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


def test_markup_in_a_peers_value_is_shown_as_it_is() -> None:
    console = render.console()
    with console.capture() as captured:
        console.print(render.table("", ("name",), [("[red]DOE[/red]",)]))
    assert "[red]DOE[/red]" in captured.get()


def test_progress_tells_instances_bytes_rate_and_what_is_left() -> None:
    assert detail(Amount(30, 120, 3_000_000), 10) == "30/120 instances, 3.0 MB, 300.0 kB/s, 30 s left"


def test_progress_without_a_known_total_tells_no_remaining_time() -> None:
    assert detail(Amount(30, None, 3_000_000), 10) == "30 instances, 3.0 MB, 300.0 kB/s"


def test_studies_add_up_and_one_unknown_total_makes_the_sum_unknown() -> None:
    assert total([Amount(1, 10, 100), Amount(2, 20, 200)]) == Amount(3, 30, 300)
    assert total([Amount(1, 10), Amount(2, None)]).of is None


def test_a_destination_tells_what_is_verified_by_what_and_what_the_rest_does() -> None:
    assert at({"states": {"verified": 9, "held": 1}, "proofs": {"exists": 9}}) == "9/10 verified (exists), 1 held"
    assert at(None) == "-"


def test_keys_are_keyword_and_value_and_the_value_may_hold_equals_signs() -> None:
    assert keys_of(["StudyDate=20240101-", "PatientID=a=b"]) == {"StudyDate": "20240101-", "PatientID": "a=b"}


@pytest.mark.parametrize("wrong", ["DOE^JOHN", "=DOE", "Patient Name=DOE^JOHN"])
def test_a_key_that_is_none_is_refused_without_repeating_what_may_name_a_patient(wrong: str) -> None:
    with pytest.raises(UsageError, match="key 1: expected KEYWORD=VALUE") as raised:
        keys_of([wrong])
    assert "DOE" not in str(raised.value)


def test_the_report_has_a_line_for_each_file_that_did_not_get_there_and_why() -> None:
    undelivered = {"path": "/in/1.dcm", "state": "held", "destination": "a", "sop_instance_uid": "1.2", "status": 0xA900}
    summary = {
        "files": [{"path": "/in/readme.txt", "outcome": "skipped", "reason": "no DICOM"}],
        "undelivered": [undelivered | {"reason": "no match"}],
    }
    assert list(lines(summary)) == [
        ("/in/readme.txt", "skipped", "", "", "", "no DICOM"),
        ("/in/1.dcm", "held", "a", "1.2", "A900", "no match"),
    ]
