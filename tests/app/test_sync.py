"""Two real servers and a sync between them, through the command line and by configuration: what dicom_mover's README tells."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import Run, running
from tests.support import gateway as support
from tests.support import studies
from tests.support.dcmtk import dcmqrscp
from tests.support.gateway import Gateway
from tests.support.orthanc import Orthanc, orthanc
from tests.support.ports import HOST, free_port
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers("Orthanc")


@dataclass
class Pair:
    """The server that has everything, the one that is supplied, and the gateway between them."""

    remote: Orthanc
    local: Orthanc
    site: Gateway
    folder: Path

    def scan(self, seed: int, series: int, count: int, *, first: int = 1, **more: Any) -> set[str]:
        """Have the remote server receive `count` instances of a series; returns their SOP Instance UIDs."""
        numbers = range(first, first + count)
        self.remote.upload(studies.write(self.folder, seed, series, numbers, **more))
        return studies.uids(seed, series, numbers)

    def held(self) -> set[str]:
        """SOP Instance UIDs that the local server holds."""
        return set(self.local.instances())

    def lose(self, *uids: str) -> None:
        """Delete instances of the local server."""
        known = self.local.instances()
        for uid in uids:
            self.local.rest.delete(f"/instances/{known[uid]}").raise_for_status()

    def holds(self, *wanted: set[str], deadline_s: float = 40.0) -> None:
        """Wait until the local server holds exactly that."""
        exactly = set().union(*wanted)
        wait_until(lambda: self.held() == exactly, f"{len(exactly)} instances, and has {len(self.held())}", deadline_s=deadline_s)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, Orthanc]]:
    folder = tmp_path_factory.mktemp("servers")
    with orthanc(folder / "remote", ae_title="REMOTE") as remote, orthanc(folder / "local", ae_title="LOCAL") as local:
        yield remote, local


@pytest.fixture
def pair(servers: tuple[Orthanc, Orthanc], site: Gateway, tmp_path: Path) -> Pair:
    remote, local = servers
    for server in servers:
        server.clear()
    remote.add_modality("gateway", "GATEWAY", site.port)
    connect(site, remote.port, local.port)
    return Pair(remote, local, site, tmp_path / "files")


def connect(site: Gateway, remote: int, local: int) -> None:
    site.write(
        sources={"remote": support.source(remote, ae_title="REMOTE", settle_s=0.1)},
        destinations={"local": support.dicom_destination(local, ae_title="LOCAL", quiet_s=0.2)},
    )


def three_series(pair: Pair) -> list[set[str]]:
    return [
        pair.scan(1, 1, 6, description="Thorax thin"),
        pair.scan(1, 2, 2, modality="MR", description="Localizer"),
        pair.scan(1, 3, 4, description="thorax 5.0"),
    ]


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ((), {0, 1, 2}),
        (("--series", "smallest"), {1}),
        (("--fewer-than", "5"), {1, 2}),
        (("--modality", "ct"), {0, 2}),
        (("--series", "smallest", "--description", "thorax*"), {2}),
    ],
)
def test_the_series_that_are_asked_for_are_fetched(pair: Pair, run: Run, options: tuple[str, ...], taken: set[int]) -> None:
    series = three_series(pair)
    pair.scan(2, 1, 3, hours_ago=30)

    ended = run("sync", "remote", "--once", *options, "--json")

    assert ended.code == 0, ended.err + ended.out
    assert pair.held() == set().union(*(series[number] for number in taken))
    cycle = ended.document["cycle"]
    counts = {key: cycle[key] for key in ("found", "started", "moved", "series", "instances", "unfinished")}
    instances = sum(len(series[number]) for number in taken)
    assert counts == {"found": 1, "started": 1, "moved": 1, "series": len(taken), "instances": instances, "unfinished": 0}


def test_a_dry_run_says_what_would_be_moved_and_moves_nothing(pair: Pair, run: Run) -> None:
    three_series(pair)
    ended = run("sync", "remote", "--dry-run", "--series", "smallest", "--json")
    assert ended.code == 0
    (study,) = ended.document["studies"]
    assert (study["study_instance_uid"], study["series_instance_uids"]) == (studies.study_of(1), [studies.series_of(1, 2)])
    assert (study["series"], study["instances"]) == (1, 2)
    assert "1 would be moved" in run("sync", "remote", "--dry-run").out
    assert pair.held() == set()


def test_the_days_of_a_window_are_asked_for(pair: Pair, run: Run) -> None:
    old, new = pair.scan(1, 1, 2, hours_ago=24), pair.scan(2, 1, 3, hours_ago=0)
    assert run("sync", "remote", "--once", "--day", "yesterday").code == 0
    assert pair.held() == old
    assert run("sync", "remote", "--once", "--patient", "TEST2").code == 0
    assert pair.held() == old | new


def test_instances_that_the_destination_lost_come_again_and_no_others(pair: Pair, run: Run) -> None:
    (first, second, third) = three_series(pair)
    assert run("sync", "remote", "--once").code == 0
    pair.lose(min(first), *second)
    document = run("sync", "remote", "--once", "--json").document
    assert (document["cycle"]["series"], document["cycle"]["instances"]) == (2, 3)
    assert pair.held() == first | second | third


def test_equal_counts_with_other_instances_are_seen(pair: Pair, run: Run) -> None:
    first = pair.scan(1, 1, 4)
    assert run("sync", "remote", "--once").code == 0
    pair.lose(min(first))
    extra = studies.write(pair.folder, 1, 1, range(9, 10))
    pair.local.upload(extra)
    assert run("sync", "remote", "--once").code == 0
    assert pair.held() == first | studies.uids(1, 1, range(9, 10))


def test_nothing_missing_is_done(pair: Pair, run: Run) -> None:
    three_series(pair)
    assert run("sync", "remote", "--once").code == 0
    again = run("sync", "remote", "--once", "--json")
    assert again.code == 0
    assert (again.document["cycle"]["missing"], again.document["studies"]) == (0, [])
    assert "1 found, 0 missing" in run("sync", "remote", "--once").out


def test_an_orthanc_is_asked_over_rest_where_its_table_says_so(pair: Pair, run: Run) -> None:
    rest = {"url": str(pair.local.rest.base_url)}
    table = support.dicom_destination(pair.local.port, ae_title="LOCAL", quiet_s=0.2, rest=rest)
    pair.site.write(destinations={"local": table})
    first = pair.scan(1, 1, 4)
    for _ in range(2):
        assert run("sync", "remote", "--once").code == 0
        assert pair.held() == first
        pair.lose(min(first))


def test_a_folder_is_supplied_also_one_that_has_the_source_s_name(pair: Pair, run: Run, tmp_path: Path) -> None:
    pair.site.write(destinations={"remote": support.folder_destination(tmp_path / "shelf")})
    pair.scan(1, 1, 4)
    assert run("sync", "remote", "--once", "--to", "remote").code == 0
    files = [path for path in (tmp_path / "shelf").rglob("*.dcm") if path.is_file()]
    assert len(files) == 4
    files[0].unlink()
    document = run("sync", "remote", "--once", "--to", "remote", "--json").document
    assert (document["cycle"]["instances"], files[0].is_file()) == (1, True)
    assert run("sync", "remote", "--dry-run", "--to", "remote", "--json").document["studies"] == []


def test_our_own_ledger_can_say_what_a_destination_holds(pair: Pair, run: Run) -> None:
    first = pair.scan(1, 1, 4)
    assert run("sync", "remote", "--once", "--known", "ledger").code == 0
    pair.lose(min(first))
    assert run("sync", "remote", "--once", "--known", "ledger", "--json").document["cycle"]["missing"] == 0
    assert run("sync", "remote", "--once").code == 0
    assert pair.held() == first


def test_a_source_that_is_down_is_not_done(site: Gateway, run: Run) -> None:
    connect(site, free_port(), free_port())
    ended = run("sync", "remote", "--once", "--json")
    assert ended.code == 1
    assert "REMOTE@" in ended.document["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody",), "no source is called 'nobody'"),
        (("remote", "--to", "nowhere"), "no destination is called 'nowhere'"),
        (("remote", "--last", "12"), "--last: expected a duration such as"),
        (("remote", "--day", "tomorrow"), "--day: expected"),
        (("remote", "--last", "1h", "--day", "today"), "last or days, not both"),
        (("remote", "--series", "fewer_than"), "fewer_than = N"),
        (("remote", "--when", "never"), "no schedule is called 'never'"),
        (("remote", "--once", "--stable-for", "5m"), "--once takes what is there"),
        (("remote", "Nonsense=1"), "Nonsense"),
    ],
)
def test_a_sync_that_cannot_be_meant_is_a_usage_error(site: Gateway, run: Run, arguments: tuple[str, ...], says: str) -> None:
    connect(site, free_port(), free_port())
    ended = run("sync", *arguments)
    assert ended.code == 2, ended.err + ended.out
    assert says in ended.err


def configured(pair: Pair, **more: Any) -> None:
    pair.site.write(sync=[{"name": "day", "source": "remote", "interval_s": 0.3, **more}])


def test_a_study_that_grows_while_it_is_watched_comes_whole(pair: Pair, run: Run) -> None:
    configured(pair)
    first = pair.scan(1, 1, 3)
    with running(pair.site):
        command = Running(pair.site.command("sync", "day", "--json"), cwd=pair.site.folder, stop_signal=signal.SIGINT)
        with command:
            pair.holds(first)
            grown = pair.scan(1, 1, 2, first=4)
            pair.holds(first, grown)
            late = pair.scan(1, 2, 3)
            pair.holds(first, grown, late)
            pair.lose(min(first))
            pair.holds(first, grown, late)
            wait_until(lambda: sum(moved(command)) >= 9, "nine instances reported as moved")
            assert command.stop() == 130
    assert sum(moved(command)) == 9


def moved(command: Running) -> list[int]:
    """The instances that each cycle reported as moved."""
    return [json.loads(line)["instances"] for line in command.output.splitlines() if line.startswith("{")]


def test_without_a_running_gateway_it_goes_on_until_it_is_interrupted(pair: Pair) -> None:
    first = pair.scan(1, 1, 3)
    command = pair.site.command("sync", "remote", "--interval", "1", "--stable-for", "1s")
    with Running(command, cwd=pair.site.folder, stop_signal=signal.SIGINT) as syncing:
        pair.holds(first)
        second = pair.scan(2, 1, 2)
        pair.holds(first, second)
        syncing.wait_for_line("moved 1 study, 1 series, 3 instances")
        assert syncing.stop() == 130
    assert "Traceback" not in syncing.output


def test_a_serving_gateway_runs_its_syncs_and_resumes_after_a_restart(pair: Pair, run: Run) -> None:
    configured(pair, to=["local"])
    first = pair.scan(1, 1, 3)
    with pair.site.serving() as serving:
        pair.holds(first)
        serving.kill()
    second = pair.scan(2, 1, 4)
    pair.lose(min(first))
    with pair.site.serving() as serving:
        pair.holds(first, second)
        serving.wait_for_line("sync_cycle")
        status = pair.site.json("status")
        output = pair.site.run("status").stdout
    (sync,) = status["syncs"]
    assert (sync["name"], sync["to"], sync["cycle"]["found"]) == ("day", ["local"], 2)
    assert "Syncs" in output
    assert status["stopped_jobs"] == 0


def test_a_source_that_was_down_is_found_again(pair: Pair, tmp_path: Path) -> None:
    port = free_port()
    connect(pair.site, port, pair.local.port)
    configured(pair)
    with pair.site.serving() as serving:
        serving.wait_for_line("sync_look_failed")
        modalities = {"GATEWAY": (HOST, pair.site.port)}
        with orthanc(tmp_path / "remote", ae_title="REMOTE", modalities=modalities, port=port) as remote:
            remote.upload(studies.write(pair.folder, 1, 1, range(1, 4)))
            pair.holds(studies.uids(1, 1, range(1, 4)))


def test_routes_that_lead_elsewhere_are_not_asked_again_and_again(pair: Pair, run: Run, tmp_path: Path) -> None:
    """Instances that the routes keep from a destination are not missing there."""
    with orthanc(tmp_path / "third", ae_title="THIRD") as third:
        third_table = support.dicom_destination(third.port, ae_title="THIRD", quiet_s=0.2)
        pair.site.write(
            destinations={**pair.site.tables["destinations"], "third": third_table},
            routes=[
                {"name": "ct", "when": {"Modality": "CT"}, "to": ["local"]},
                {"name": "mr", "when": {"Modality": "MR"}, "to": ["third"]},
            ],
        )
        (first, second, third_series) = three_series(pair)
        assert run("sync", "remote", "--once").code == 0
        assert (pair.held(), set(third.instances())) == (first | third_series, second)
        again = run("sync", "remote", "--once", "--json").document
        assert again["cycle"]["missing"] == 0
        pair.lose(min(first))
        assert run("sync", "remote", "--once").code == 0
        assert pair.held() == first | third_series


@pytest.mark.peers("dcmqrscp", "dcmqridx", "echoscu")
def test_an_archive_that_counts_nothing_is_listed(pair: Pair, tmp_path: Path) -> None:
    files = studies.write(pair.folder, 1, 1, range(1, 5)) + studies.write(pair.folder, 1, 2, range(1, 3))
    with dcmqrscp(tmp_path / "pacs", "-x=", hosts={"GATEWAY": (HOST, pair.site.port)}, files=files) as archive:
        source = support.source(archive.port, ae_title=archive.ae_title, settle_s=0.1)
        pair.site.write(sources={"remote": source})
        configured(pair, compare_every="1s")
        first = studies.uids(1, 1, range(1, 5)) | studies.uids(1, 2, range(1, 3))
        with pair.site.serving():
            pair.holds(first)
            pair.lose(min(first))
            pair.holds(first)
            archive.load(studies.write(pair.folder, 1, 2, range(3, 5)))
            pair.holds(first, studies.uids(1, 2, range(3, 5)))


def test_no_patient_id_is_logged(pair: Pair) -> None:
    pair.site.write(log={"level": "debug"})
    configured(pair, patients=["TEST1"])
    first = pair.scan(1, 1, 3)
    with pair.site.serving() as serving:
        pair.holds(first)
        serving.wait_for_line("study_ended")
        output = serving.output
    assert "TEST1" not in output
