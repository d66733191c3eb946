from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from tests.app.conftest import Run, running
from tests.support import gateway as support
from tests.support.archive import Archive
from tests.support.gateway import Gateway
from tests.support.load import Ledger as Sender
from tests.support.load import Template
from tests.support.ports import free_port


@pytest.fixture
def waiting(site: Gateway, run: Run, ct_series) -> list[int]:
    """Three deliveries to a destination that is down; the numbers that `queue list` gives them."""
    folder = ct_series(3)[0].parent
    site.write(destinations={"down": support.dicom_destination(free_port()), **site.tables["destinations"]})
    assert run("send", folder, "--to", "down", "--no-wait").code == 0
    return [entry["id"] for entry in run("queue", "list", "--json").document["entries"]]


def states(run: Run, *ids: int) -> list[str]:
    return [entry["state"] for entry in run("queue", "list", *map(str, ids), "--json").document["entries"]]


def test_the_queue_lists_what_is_not_done(run: Run, waiting: list[int]) -> None:
    ended = run("queue", "list", "--destination", "down")
    assert ended.code == 0
    assert len(waiting) == 3
    assert all(str(number) in ended.out for number in waiting)


def test_a_delivery_is_held_released_dropped_and_retried(run: Run, waiting: list[int]) -> None:
    first = waiting[0]
    for action, becomes in (("hold", "held"), ("release", "pending"), ("drop", "dropped"), ("retry", "pending")):
        yes = ["--yes"] if action == "drop" else []
        assert run("queue", action, str(first), *yes).code == 0
        assert states(run, first) == [becomes]
    assert set(states(run, *waiting[1:])) <= {"pending", "deferred"}


def test_a_bulk_action_needs_a_filter_or_all(run: Run, waiting: list[int]) -> None:
    refused = run("queue", "hold")
    assert refused.code == 2
    assert "--all" in refused.err
    assert run("queue", "hold", "--all", "--json").document == {"action": "hold", "changed": 3}


def test_dropping_asks_and_where_nobody_can_be_asked_wants_yes(run: Run, waiting: list[int]) -> None:
    assert run("queue", "drop", "--all").code == 2
    assert set(states(run, *waiting)) <= {"pending", "deferred"}


def test_an_action_that_changes_no_delivery_exits_with_1(run: Run, waiting: list[int]) -> None:
    assert run("queue", "release", str(waiting[0])).code == 1


@pytest.mark.parametrize("action", ["retry", "release", "hold", "drop"])
def test_an_action_that_changes_nothing_says_why(run: Run, waiting: list[int], action: str) -> None:
    yes = ["--yes"] if action == "drop" else []
    unknown = run("queue", action, "999999", str(waiting[0]), *yes)
    assert unknown.code == 1
    assert "not changed: 1 (999999): no such delivery" in unknown.out
    nothing = run("queue", action, "--state", "verified", *yes)
    assert nothing.code == 1
    assert "no delivery" in nothing.out
    assert run("queue", action, "--study", "1.2.3.4.5", "--json", *yes).code == 1


def test_what_was_dropped_comes_back_when_it_is_sent_again(run: Run, waiting: list[int], ct_series) -> None:
    assert run("queue", "drop", "--all", "--yes").code == 0
    broad = run("queue", "retry", "--destination", "down")
    assert (broad.code, states(run, *waiting)) == (1, ["dropped"] * 3)
    assert run("send", ct_series(3)[0].parent, "--to", "down", "--no-wait").code == 0
    assert set(states(run, *waiting)) <= {"pending", "deferred"}
    assert run("queue", "drop", str(waiting[0]), "--yes").code == 0
    assert run("queue", "retry", str(waiting[0])).code == 0


def test_a_file_that_is_sent_in_place_is_shown_and_exported(run: Run, waiting: list[int], ct_series, tmp_path: Path) -> None:
    path = ct_series(3)[0]
    shown = [run("queue", "show", str(number), "--json").document["entries"][0]["path"] for number in waiting]
    assert str(path) in shown
    exported = run("queue", "export", *map(str, waiting), "--to", tmp_path / "out", "--json")
    assert exported.document["counts"] == {"written": 3, "already there": 0, "failed": 0}
    one = pydicom.dcmread(path)
    assert pydicom.dcmread(tmp_path / "out" / f"{one.SOPInstanceUID}.dcm") == one


def test_everything_known_of_a_delivery_is_shown(run: Run, waiting: list[int]) -> None:
    shown = run("queue", "show", str(waiting[0]))
    assert shown.code == 0
    assert "sop instance uid" in shown.out
    assert run("queue", "show", "999999").code == 2


def test_a_study_that_is_no_uid_is_a_usage_error(run: Run, site: Gateway) -> None:
    assert run("queue", "list", "--study", "1.2.*").code == 2


def test_status_tells_the_depth_of_the_queue_and_its_oldest(run: Run, waiting: list[int], tmp_path: Path) -> None:
    document = run("status", "--json").document
    down = next(item for item in document["destinations"] if item["name"] == "down")
    assert sum(down["queue"]["states"].values()) == 3
    assert down["queue"]["oldest_s"] >= 0
    assert document["gateway"]["role"] == "desk"
    assert "not running" in run("status").out


@pytest.fixture
def unrouted(site: Gateway, run: Run, tmp_path: Path) -> list[str]:
    """Two instances in the spool that no route takes; no gateway runs."""
    sender = Sender(Template(tmp_path / "template"))
    site.write(routes=[{"name": "none", "when": {"Modality": "ZZ"}, "to": ["archive"]}])
    with running(site):
        assert sender.send(site.port, 2)
        assert run("queue", "export", "--to", tmp_path / "while-it-runs").code == 0
    assert len(list((tmp_path / "while-it-runs").iterdir())) == 2
    return sorted(sender.acknowledged)


def test_export_writes_dicom_files_of_what_is_kept_without_a_gateway_too(run: Run, unrouted: list[str], tmp_path: Path) -> None:
    ended = run("queue", "export", "--to", tmp_path / "out", "--json")
    assert ended.code == 0
    assert ended.document["counts"] == {"written": 2, "already there": 0, "failed": 0}
    assert sorted(str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "out").iterdir()) == unrouted
    again = run("queue", "export", "--to", tmp_path / "out")
    assert (again.code, "2 already there" in again.out) == (0, True)


def test_export_gets_the_files_out_when_the_ledger_is_lost(run: Run, site: Gateway, unrouted: list[str], tmp_path: Path) -> None:
    for path in site.state.glob("ledger*"):
        path.unlink()
    assert run("queue", "export", "--to", tmp_path / "out").code == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == unrouted


def test_export_of_nothing_that_was_named_says_so_by_its_exit_code(run: Run, unrouted: list[str], tmp_path: Path) -> None:
    assert run("queue", "export", "--destination", "nobody", "--to", tmp_path / "out").code == 1
    assert run("queue", "export").code == 2
    (tmp_path / "file").write_bytes(b"")
    assert run("queue", "export", "--to", tmp_path / "file" / "x").code == 2


def test_a_transcoded_delivery_is_shown_with_both_transfer_syntaxes(site: Gateway, run: Run, ct_series) -> None:
    with Archive().running(syntaxes=[JPEG2000Lossless]) as archive:
        thin = support.dicom_destination(archive.port, ae_title="ARCHIVE", verify="status")
        site.write(destinations={"thin": thin, **site.tables["destinations"]})
        sent = run("send", ct_series(3)[0].parent, "--to", "thin")
        assert sent.code == 0, sent.err
    assert len(archive.held) == 3
    entries = run("queue", "list", "--state", "verified", "--json").document["entries"]
    assert {entry["sent_as"] for entry in entries} == {JPEG2000Lossless}
    shown = run("queue", "show", str(entries[0]["id"])).out
    assert "Explicit VR Little Endian (1.2.840.10008.1.2.1)" in shown
    assert "JPEG 2000 Lossless (1.2.840.10008.1.2.4.90)" in shown
