from __future__ import annotations

import csv
import os
import signal
import socket
import zipfile
from pathlib import Path

import pydicom
import pytest

from tests.app.conftest import Run, running
from tests.support import gateway as support
from tests.support.gateway import Gateway
from tests.support.ports import HOST, free_port
from tests.support.processes import Running
from tests.support.waiting import wait_until


@pytest.fixture
def files(ct_series, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in ct_series(5):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def uids_in(folder: Path) -> list[str]:
    return sorted(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.rglob("*.dcm"))


def test_a_folder_arrives_verified_and_stays_as_it_is(run: Run, files: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in files.iterdir()}
    ended = run("send", files, "--to", "archive")
    assert ended.code == 0, ended.err
    assert "5/5 verified" in ended.out
    assert "everything delivered and verified" in ended.out
    assert uids_in(tmp_path / "archive") == uids_in(files)
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_the_same_command_again_sends_nothing_twice(run: Run, files: Path) -> None:
    run("send", files, "--to", "archive")
    again = run("send", files, "--to", "archive", "--json")
    assert again.code == 0
    counts = {kind: count for kind, count in again.document["counts"].items() if count}
    assert counts == {"settled": 5}
    assert again.document["destinations"]["archive"]["states"] == {"verified": 5}


def test_a_file_that_is_not_dicom_is_skipped_with_a_reason_and_no_failure(run: Run, files: Path, tmp_path: Path) -> None:
    (files / "notes.txt").write_text("hello")
    report = tmp_path / "report.csv"
    assert run("send", files, "--to", "archive", "--report", report).code == 0
    with report.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["path"], row["outcome"]) for row in rows] == [(str(files / "notes.txt"), "skipped")]
    assert rows[0]["reason"]


def test_of_two_files_with_one_uid_the_one_that_is_not_delivered_is_named(run: Run, files: Path) -> None:
    first, second, *others = sorted(files.iterdir())
    for path in others:
        path.unlink()
    changed = pydicom.dcmread(first)
    changed.InstanceNumber = 4711
    changed.save_as(second)
    ended = run("send", files, "--to", "archive", "--json")
    assert ended.code == 1
    assert [item["path"] for item in ended.document["undelivered"]] == [str(first)]
    assert "superseded" in ended.document["undelivered"][0]["reason"]


def test_an_unwritable_report_is_noticed_before_anything_is_sent(run: Run, files: Path, tmp_path: Path) -> None:
    ended = run("send", files, "--to", "archive", "--report", tmp_path / "nowhere" / "report.csv")
    assert ended.code == 2
    assert not (tmp_path / "archive").exists()


def test_a_folder_without_any_instance_is_not_done(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run("send", tmp_path / "empty", "--to", "archive")
    assert ended.code == 1
    assert "no DICOM instance found" in ended.out


@pytest.mark.parametrize(("path", "to", "says"), [("nowhere", "archive", "no such file"), ("in", "nobody", "known: archive")])
def test_what_is_not_there_is_a_usage_error(run: Run, files: Path, tmp_path: Path, path: str, to: str, says: str) -> None:
    ended = run("send", tmp_path / path, "--to", to)
    assert ended.code == 2
    assert says in ended.err


ROUTED = {
    "everything": ({}, 5, 0),
    "by a keyword that all have": ({"Modality": "CT"}, 5, 0),
    "by one that none has": ({"Modality": "MR"}, 0, 5),
    "by a number of some": ({"InstanceNumber": ["1", "3"]}, 2, 3),
    "by who calls": ({"calling_ae": "send"}, 5, 0),
    "by somebody else": ({"calling_ae": "PACS*"}, 0, 5),
    "by who is called": ({"called_ae": "GATEWAY"}, 5, 0),
    "by a source, which a file has not": ({"source": "pacs"}, 0, 5),
    "by both": ({"calling_ae": "send", "Modality": ["CT", "MR"]}, 5, 0),
    "by both, of which one is not so": ({"calling_ae": "send", "Modality": "MR"}, 0, 5),
}


@pytest.mark.parametrize("case", ROUTED)
def test_without_a_destination_the_routes_decide_for_each_instance(site: Gateway, run: Run, files: Path, case: str) -> None:
    when, taken, unrouted = ROUTED[case]
    site.write(routes=[{"name": "some", "to": ["archive"], "when": when}])
    ended = run("send", files, "--json")
    assert (ended.code, ended.document["instances"], ended.document["unrouted"]) == (0 if taken == 5 else 1, taken, unrouted)
    assert ended.document["counts"]["unrouted"] == unrouted
    assert sum(ended.document["destinations"].get("archive", {"states": {}})["states"].values()) == taken
    assert [item["outcome"] for item in ended.document["files"]] == ["unrouted"] * unrouted


def test_archive_members_are_routed_like_files_and_unrouted_ones_not_kept(site: Gateway, run: Run, files: Path) -> None:
    with zipfile.ZipFile(files / "a.zip", "w") as archive:
        for path in sorted(files.glob("*.dcm")):
            archive.write(path, path.name)
    for path in files.glob("*.dcm"):
        path.unlink()
    site.write(routes=[{"name": "some", "to": ["archive"], "when": {"InstanceNumber": "2"}}])
    document = run("send", files, "--json").document
    assert (document["instances"], document["unrouted"], document["found"]) == (1, 4, 5)
    assert run("status", "--json").document["spool"]["instances"] == 0


def test_what_no_route_takes_is_named_and_is_sent_once_one_does(site: Gateway, run: Run, files: Path, tmp_path: Path) -> None:
    site.write(routes=[{"name": "none", "to": ["archive"], "when": {"Modality": "MR"}}])
    ended = run("send", files)
    assert ended.code == 1
    assert "no route takes (5):" in ended.out
    assert "NOT sent: 5 instances that no route takes" in ended.out
    site.write(routes=[{"name": "all", "to": ["archive"]}])
    assert run("send", files).code == 0
    assert uids_in(tmp_path / "archive") == uids_in(files)


def test_without_any_route_a_destination_has_to_be_named(site: Gateway, run: Run, files: Path) -> None:
    site.config.write_text(site.config.read_text().replace("[[routes]]", "[[ignored]]").partition("[[ignored]]")[0])
    ended = run("send", files)
    assert ended.code == 2
    assert "--to (known: archive)" in ended.err


def test_a_program_on_our_port_is_no_hindrance_to_a_send(site: Gateway, run: Run, files: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        site.write(listen={"port": taken.getsockname()[1]})
        assert run("send", files).code == 0
        assert run("status").code == 0
        assert run("echo", "--all").code == 0


def test_a_send_whose_proof_comes_by_a_call_says_who_has_the_port(site: Gateway, run: Run, files: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        peer = support.dicom_destination(free_port(), verify="commitment")
        site.write(listen={"port": port}, destinations={"committing": peer}, routes=[{"name": "all", "to": ["committing"]}])
        ended = run("send", files)
    assert ended.code == 2
    assert f"{port}, which is in use: " in ended.err
    assert f"(process {os.getpid()}) listens on it" in ended.err
    assert "change `port` of [listen]" in ended.err


def mixed(folder: Path, files: Path) -> int:
    """Fill `folder` with what people have; return how many files that are, members of archives counted in their place."""
    whole = [path.read_bytes() for path in sorted(files.iterdir())]
    (folder / "deep" / "er").mkdir(parents=True)
    for number, data in enumerate(whole):
        (folder / f"{number}.dcm").write_bytes(data)
    (folder / "deep" / "copy.dcm").write_bytes(whole[0])
    (folder / "deep" / "er" / "copy of a copy.dcm").write_bytes(whole[0])
    (folder / "cut.dcm").write_bytes(whole[1][:200])
    (folder / "notes.txt").write_text("hello")
    (folder / "empty").write_bytes(b"")
    (folder / "DICOMDIR").write_bytes(b"")
    (folder / "no permission").symlink_to(folder / "gone")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/", b"")
        archive.writestr("in/same.dcm", whole[2])
        archive.writestr("in/notes.txt", "hello")
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.writestr("only/a/folder/", b"")
    (folder / "broken.zip").write_bytes((folder / "a.zip").read_bytes()[:100])
    return 5 + 2 + 1 + 3 + 1 + 2 + 1 + 1


@pytest.mark.parametrize("options", [(), ("--to", "archive"), ("--dry-run",)], ids=["routed", "named", "dry run"])
def test_the_numbers_of_a_send_add_up_to_the_files(run: Run, files: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    found = mixed(folder, files)
    document = run("send", folder, *options, "--json").document
    counts = document["counts"]
    assert sum(counts.values()) == document["found"] == found
    assert document["found"] == counts["queued"] + counts["skipped"] + counts["failed"] + counts["duplicate"]
    assert (counts["queued"], counts["duplicate"]) == (5, 3)
    assert document["instances"] == 5
    assert len(document["files"]) == counts["skipped"] + counts["failed"]


def test_the_files_of_one_run_that_are_the_same_instance_are_counted_once(run: Run, files: Path) -> None:
    first, *others = sorted(files.iterdir())
    for path in others:
        path.write_bytes(first.read_bytes())
    document = run("send", files, files, first, "--json").document
    assert document["instances"] == 1
    assert document["size_bytes"] < 2 * first.stat().st_size
    assert {kind: count for kind, count in document["counts"].items() if count} == {"queued": 1, "duplicate": 5}


def test_a_dry_run_says_what_would_go_where_and_changes_nothing(run: Run, files: Path, tmp_path: Path) -> None:
    first = next(files.iterdir())
    assert run("send", first).code == 0
    ended = run("send", files, "--dry-run", "--json")
    assert ended.code == 0
    assert ended.document["destinations"]["archive"]["states"] == {"to be sent": 4}
    assert {kind: count for kind, count in ended.document["counts"].items() if count} == {"queued": 4, "settled": 1}
    assert "nothing was sent (--dry-run)" in run("send", files, "--dry-run").out
    assert run("queue", "list", "--json").document["total"] == 0
    assert len(uids_in(tmp_path / "archive")) == 1
    assert sorted(path.name for path in (tmp_path / "site" / "state").iterdir() if path.name.startswith("previewing")) == []


def test_a_link_to_a_folder_is_followed_on_request_only(run: Run, files: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "more").symlink_to(files)
    refused = run("send", given)
    assert refused.code == 1
    assert f"{given / 'more'}: a link to a folder, not followed (--follow-links)" in refused.out
    assert run("send", given, "--follow-links").code == 0
    assert uids_in(tmp_path / "archive") == uids_in(files)


def test_a_send_can_be_left_to_the_gateway_and_reported_later(run: Run, site: Gateway, files: Path) -> None:
    with running(site):
        left = run("send", files, "--detach", "--json")
        assert left.code == 0
        number = str(left.document["job_id"])
        wait_until(lambda: run("jobs", "show", number, "--json").document["state"] == "done", "the send is done")
        report = run("jobs", "report", number)
        assert report.code == 0
        assert "everything delivered and verified" in report.out
        assert [(job["kind"], job["state"]) for job in run("jobs", "list", "--json").document["jobs"]] == [("send", "done")]


def test_a_send_that_was_left_is_carried_on_at_the_next_start(run: Run, site: Gateway, files: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "archive"
    blocked.write_text("a file where the destination's folder has to be")
    with site.serving():
        number = str(run("send", files, "--detach", "--json").document["job_id"])
        wait_until(lambda: run("queue", "list", "--json").document["total"] == 5, "five deliveries queued")
    blocked.unlink()
    with site.serving():
        wait_until(lambda: run("jobs", "show", number, "--json").document["state"] == "done", "the send is done")
        assert run("jobs", "report", number).code == 0
    assert uids_in(tmp_path / "archive") == uids_in(files)


def test_nothing_can_be_left_to_a_gateway_that_does_not_run(run: Run, files: Path, tmp_path: Path) -> None:
    ended = run("send", files, "--detach")
    assert ended.code == 2
    assert "none runs" in ended.err
    assert not (tmp_path / "archive").exists()


def test_a_dead_destination_is_awaited_until_the_timeout_then_reported(site: Gateway, run: Run, files: Path) -> None:
    site.write(destinations={"down": support.dicom_destination(free_port())})
    ended = run("send", files, "--to", "down", "--wait-timeout", "1", "--json")
    assert ended.code == 1
    assert ended.document["done"] is False
    assert {item["path"] for item in ended.document["undelivered"]} == {str(path) for path in files.iterdir()}


def test_an_interrupted_send_exits_130_and_the_same_command_carries_on(
    site: Gateway, run: Run, files: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "archive"
    blocked.write_text("a file where the destination's folder has to be")
    with Running(site.command("send", files, "--to", "archive"), cwd=site.folder, stop_timeout_s=20) as sending:
        # Another command asks the gateway that the sending one runs inside itself.
        wait_until(lambda: run("queue", "list", "--json").document["total"] == 5, "five deliveries queued")
        sending.process.send_signal(signal.SIGINT)
        assert sending.process.wait(20) == 130, sending.output
        assert "give the same command again to carry on" in sending.output
        assert "delivered once gateway serve runs" in sending.output
    blocked.unlink()
    ended = run("send", files, "--to", "archive")
    assert ended.code == 0, ended.err
    assert uids_in(tmp_path / "archive") == uids_in(files)


def encodings(path: Path, folder: Path) -> list[Path]:
    """Write an instance in three encodings to `folder`, which is otherwise empty."""
    for other in folder.iterdir():
        other.unlink()
    dataset = pydicom.dcmread(path)
    dataset.save_as(folder / "1.dcm", implicit_vr=False, little_endian=True)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(folder / "2.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(folder / "3.dcm", implicit_vr=True, little_endian=True)
    return sorted(folder.iterdir())


def test_encodings_of_one_instance_are_no_conflict_of_a_send(run: Run, files: Path, ct_series, tmp_path: Path) -> None:
    encodings(ct_series(1)[0], files)
    first = run("send", files, "--to", "archive", "--json")
    assert first.code == 0, first.out
    assert first.document["undelivered"] == []
    again = run("send", files, "--to", "archive", "--json")
    assert again.code == 0, again.out
    assert {kind: count for kind, count in again.document["counts"].items() if count} == {"settled": 1, "duplicate": 2}
    assert len(uids_in(tmp_path / "archive")) == 1


def test_a_file_whose_other_encoding_went_in_its_place_is_there_already(run: Run, files: Path, ct_series) -> None:
    older, *_ = encodings(ct_series(1)[0], files)
    assert run("send", files, "--to", "archive").code == 0
    again = run("send", older, "--to", "archive", "--json")
    assert again.code == 0, again.out
    assert again.document["counts"]["settled"] == 1


def test_a_file_of_superseded_content_has_one_line_a_delivery(run: Run, files: Path) -> None:
    first, second, *others = sorted(files.iterdir())
    for path in others:
        path.unlink()
    changed = pydicom.dcmread(first)
    changed.InstanceNumber = 4711
    changed.save_as(second)
    run("send", files, "--to", "archive")
    again = run("send", files, "--to", "archive")
    assert again.code == 1
    assert [line for line in again.out.splitlines() if str(first) in line] == [
        line for line in again.out.splitlines() if "gateway queue retry" in line
    ]
    assert again.out.count(str(first)) == 1
