"""Pulling from a real archive through the command line, with and without a running gateway."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.conftest import Run, running
from tests.app.test_send import uids_in
from tests.support import data
from tests.support import gateway as support
from tests.support.dcmtk import DcmQrScp, dcmqrscp
from tests.support.gateway import Gateway
from tests.support.orthanc import orthanc
from tests.support.ports import HOST, free_port
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers("dcmqrscp", "dcmqridx", "echoscu")

STUDY = f"{data.UID_ROOT}.1.1"


@pytest.fixture
def archive(site: Gateway, tmp_path: Path) -> Iterator[DcmQrScp]:
    files = data.ct_series(tmp_path / "ct", 8)
    with dcmqrscp(tmp_path / "pacs", "-x=", hosts={"GATEWAY": (HOST, site.port)}, files=files) as peer:
        site.write(sources={"archive": support.source(peer.port, settle_s=0.5)})
        yield peer


def test_a_study_is_pulled_delivered_and_proved_without_a_running_gateway(run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    ended = run("pull", "archive", "--study", STUDY)
    assert ended.code == 0, ended.err + ended.out
    assert "8/8 verified" in ended.out
    assert "everything delivered and verified" in ended.out
    assert uids_in(tmp_path / "archive") == sorted(archive.files)


def test_a_study_is_pulled_through_the_running_gateway(site: Gateway, run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    with running(site):
        document = run("pull", "archive", "--accession", "ACC1", "--json").document
        verdicts = run("status", "--json").document["verdicts"]
    (study,) = document["studies"]
    assert (study["kind"], study["expected"], study["received"], study["missing"]) == ("complete", 8, 8, [])
    assert study["destinations"]["archive"]["states"] == {"verified": 8}
    assert document["done"] is True
    assert [(verdict["study_instance_uid"], verdict["verdict"]) for verdict in verdicts] == [(STUDY, "complete")]


def test_what_the_source_does_not_know_is_empty_and_not_done(run: Run, archive: DcmQrScp) -> None:
    ended = run("pull", "archive", "--study", "1.2.3.4.5", "--json")
    assert ended.code == 1
    assert [study["kind"] for study in ended.document["studies"]] == ["empty"]


def test_a_list_names_studies_by_a_column(run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("name;Accession Number\nx;ACC1\n")
    document = run("pull", "archive", "--list", listed, "--json").document
    assert [study["kind"] for study in document["studies"]] == ["complete"]


def test_bad_rows_of_a_list_are_reported_and_the_others_done(run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("name;Accession Number\nx;ACC1\ny;\nz;ACC\\1\nx;ACC1\n")

    ended = run("pull", "archive", "--list", listed, "--json")

    assert ended.code == 1
    assert [study["kind"] for study in ended.document["studies"]] == ["complete"]
    accounted = ended.document["list"]
    assert (accounted["values"], accounted["duplicates"]) == (1, 1)
    assert [(row["row"], row["value"]) for row in accounted["not_asked_for"]] == [(3, ""), (4, "ACC\\1")]
    assert "2 rows of the list are NOT asked for" in ended.err
    assert "row 4 'ACC\\\\1': it holds" in ended.err


def test_what_the_destination_holds_is_skipped_when_asked_to(run: Run, archive: DcmQrScp) -> None:
    assert run("pull", "archive", "--study", STUDY).code == 0
    again = run("pull", "archive", "--study", STUDY, "--skip-existing", "--json")
    (study,) = again.document["studies"]
    assert (again.code, study["kind"], study["skipped"]) == (0, "complete", 8)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("archive",), "name the studies in one way"),
        (("nobody", "--study", "1.2"), "nobody"),
        (("archiv", "--study", "1.2"), "did you mean 'archive'?"),
        (("archive", "--study", "1.2.*"), "not a Study Instance UID"),
        (("archive", "--study", "1.2", "--patient", "P"), "in one way"),
        (("archive", "--list", "/nowhere.csv"), "/nowhere.csv"),
        (("archive", "--column", "1"), "--list"),
    ],
)
def test_a_pull_that_cannot_be_meant_is_a_usage_error(run: Run, archive: DcmQrScp, arguments: tuple[str, ...], says: str) -> None:
    ended = run("pull", *arguments)
    assert ended.code == 2
    assert says in ended.err


def test_no_patient_id_or_accession_number_is_logged(site: Gateway, archive: DcmQrScp) -> None:
    site.write(log={"level": "debug"})
    with site.serving() as serving:
        assert site.run("pull", "archive", "--patient", "TEST1").returncode == 0
        assert site.run("pull", "archive", "--accession", "ACC1").returncode == 0
        output = serving.output
    assert "study_ended" in output
    assert "TEST1" not in output
    assert "ACC1" not in output


def test_an_interrupted_pull_exits_130_and_the_same_command_carries_on(
    site: Gateway, run: Run, archive: DcmQrScp, tmp_path: Path
) -> None:
    (tmp_path / "archive").write_text("a file where the destination's folder has to be")
    with Running(site.command("pull", "archive", "--study", STUDY), cwd=site.folder, stop_timeout_s=20) as pulling:
        wait_until(lambda: run("queue", "list", "--json").document["total"] == 8, "eight deliveries queued")
        pulling.process.send_signal(signal.SIGINT)
        assert pulling.process.wait(20) == 130, pulling.output
    (tmp_path / "archive").unlink()
    assert run("pull", "archive", "--study", STUDY).code == 0
    assert uids_in(tmp_path / "archive") == sorted(archive.files)


def test_a_pull_told_to_wait_no_longer_names_what_is_not_delivered(site: Gateway, run: Run, archive: DcmQrScp) -> None:
    site.write(destinations={"down": support.dicom_destination(free_port())})
    ended = run("pull", "archive", "--study", STUDY, "--wait-timeout", "1")
    assert ended.code == 1
    assert "NOT everything is delivered" in ended.out
    assert "not delivered (8)" in ended.out


def test_a_source_is_asked_what_it_has(run: Run, archive: DcmQrScp) -> None:
    document = run("find", "archive", "PatientID=TEST1", "StudyInstanceUID=", "--json").document
    assert [match["StudyInstanceUID"] for match in document["matches"]] == [STUDY]
    assert run("find", "archive", "PatientID=nobody").out.strip() == "0 matches"


def test_sources_and_destinations_are_asked_whether_they_are_there(site: Gateway, run: Run, archive: DcmQrScp) -> None:
    results = run("echo", "--all", "--json").document
    assert [(result["name"], result["ok"]) for result in results] == [("archive", True), ("archive", True)]
    assert results[0]["echo_ms"] > 0
    assert results[0]["implementation"].startswith("OFFIS_DCMTK")
    assert "[sources.archive]" in run("echo", "archive").out
    assert "if it is an Orthanc" in run("register", "archive", "--host", "127.0.0.1").out
    site.write(destinations={"down": support.dicom_destination(free_port())})
    failed = run("echo", "down")
    assert failed.code == 1
    assert "FAILED" in failed.out


@contextmanager
def _orthanc(folder: Path, site: Gateway) -> Iterator[str]:
    with orthanc(
        folder, AuthenticationEnabled=True, RegisteredUsers={"gateway": "secret"}, credentials=("gateway", "secret")
    ) as peer:
        rest = {"url": str(peer.rest.base_url), "username": "gateway", "password": "secret"}
        site.write(sources={"orthanc": support.source(peer.port, ae_title="ORTHANC", rest=rest)})
        yield str(peer.rest.base_url)


@pytest.mark.peers("Orthanc")
def test_an_orthanc_is_told_about_us_over_rest_and_calls_back(site: Gateway, run: Run, tmp_path: Path) -> None:
    with _orthanc(tmp_path / "orthanc", site):
        unreachable = run("register", "orthanc", "--json")
        assert unreachable.code == 1
        assert unreachable.document["rest"]["entered"] is True
        with running(site):
            registered = run("register", "orthanc")
    assert registered.code == 0, registered.err
    assert "C-ECHO answered" in registered.out


@pytest.mark.peers("Orthanc")
def test_a_wrong_password_is_told_apart(site: Gateway, run: Run, tmp_path: Path) -> None:
    with _orthanc(tmp_path / "orthanc", site):
        site.tables["sources"]["orthanc"]["rest"]["password"] = "wrong"
        site.write()
        refused = run("register", "orthanc")
    assert refused.code == 1
    assert "401" in refused.err
    assert "wrong" not in refused.err


def test_a_dry_run_lists_what_would_come_and_moves_nothing(run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    ended = run("pull", "archive", "--study", STUDY, "--study", "1.2.3.4.5", "--dry-run", "--json")
    assert ended.code == 1
    (study,) = ended.document["studies"]
    assert (study["study_instance_uid"], ended.document["not_found"], ended.document["to"]) == (STUDY, 1, ["archive"])
    assert "1 study would be retrieved, to archive (--dry-run)" in run("pull", "archive", "--study", STUDY, "--dry-run").out
    assert not (tmp_path / "archive").exists()
    assert run("status", "--json").document["verdicts"] == []


def test_a_dry_run_of_a_migration_counts_studies_and_moves_nothing(run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"study\n{STUDY}\n1.2.3.4.5\n")
    document = run("migrate", "archive", "--list", listed, "--dry-run", "--json").document
    assert [portion["studies"] for portion in document["portions"]] == [1, 0]
    assert (document["studies"], document["to"]) == (1, ["archive"])
    assert run("jobs", "list").out == "no job\n"
    assert not (tmp_path / "archive").exists()


def test_a_list_may_come_from_standard_input(site: Gateway, archive: DcmQrScp) -> None:
    command = site.command("pull", "archive", "--list", "-", "--dry-run", "--json")
    done = subprocess.run(command, input=f"StudyInstanceUID\n{STUDY}\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [study["study_instance_uid"] for study in json.loads(done.stdout)["studies"]] == [STUDY]


def test_a_pull_can_be_left_to_the_gateway_and_reported_later(site: Gateway, run: Run, archive: DcmQrScp, tmp_path: Path) -> None:
    with running(site):
        number = str(run("pull", "archive", "--study", STUDY, "--detach", "--json").document["job_id"])
        wait_until(lambda: run("jobs", "show", number, "--json").document["state"] == "done", "the pull is done")
        report = run("jobs", "report", number)
    assert report.code == 0
    assert "8/8 verified" in report.out
    assert uids_in(tmp_path / "archive") == sorted(archive.files)
