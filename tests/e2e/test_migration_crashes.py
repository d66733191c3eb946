"""A migration through ten SIGKILLs of the gateway, the source and the destination: the right set arrives, and nothing moves twice.

The moments are random, by a seed that a failure prints (`GATEWAY_SEED` repeats it). `GATEWAY_FULL=1` migrates 500 studies of 40
instances instead of a few. To put those into dcmqrscp's index takes half an hour: it reads all of it for each instance.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support import data, dcmtk
from tests.support.gateway import Gateway, dicom_destination, source
from tests.support.orthanc import Orthanc, orthanc
from tests.support.ports import HOST, free_port, listens
from tests.support.processes import Running
from tests.support.waiting import wait_until

FULL = bool(os.environ.get("GATEWAY_FULL"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if FULL else 1800)]

STUDIES, INSTANCES = (500, 40) if FULL else (60, 10)
KILLS = 10
DEADLINE_S = 900.0
LOOKS_BETWEEN_STATES = 250

Start = Callable[[ExitStack], Running]


@dataclass
class Victim:
    """A program that is killed and started again."""

    name: str
    start: Start
    running: Running | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    output: list[str] = field(default_factory=list)

    def up(self) -> None:
        self.running = self.start(self.stack)

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.output += self.running.lines
        self.stack.close()
        self.up()

    def close(self) -> None:
        self.stack.close()
        if self.running is not None:
            self.output += self.running.lines


def write_studies(folder: Path) -> list[Path]:
    """Small instances, the studies spread over five days."""
    paths = []
    for study in range(STUDIES):
        files = data.ct_copies(folder / f"{study:03d}", INSTANCES, rows=16, seed=5000 + study)
        for path in files:
            path.write_bytes(path.read_bytes().replace(b"20240229", f"2024022{study % 5 + 1}".encode()))
        paths += files
    return paths


def orthanc_source(folder: Path, port: int, gateway_port: int) -> Start:
    def start(stack: ExitStack) -> Running:
        made = stack.enter_context(
            orthanc(folder / "source", ae_title="ARCHIVE", port=port, modalities={"GATEWAY": (HOST, gateway_port)})
        )
        return made.process

    return start


@contextmanager
def an_orthanc(folder: Path, files: list[Path], gateway_port: int) -> Iterator[tuple[int, Start]]:
    port = free_port()
    start = orthanc_source(folder, port, gateway_port)
    with orthanc(folder / "source", ae_title="ARCHIVE", port=port) as made:
        made.upload(files)
    yield port, start


@contextmanager
def a_dcmqrscp(folder: Path, files: list[Path], gateway_port: int) -> Iterator[tuple[int, Start]]:
    hosts = {"GATEWAY": (HOST, gateway_port)}
    with dcmtk.dcmqrscp(folder / "source", ae_title="ARCHIVE", hosts=hosts, files=files) as made:
        port, command = made.port, made.process.command

    def start(stack: ExitStack) -> Running:
        process = stack.enter_context(Running(command))
        wait_until(lambda: dcmtk.echo(port, called_ae="ARCHIVE"), "dcmqrscp answers")
        return process

    yield port, start


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(an_orthanc, marks=pytest.mark.peers("Orthanc")),
        pytest.param(a_dcmqrscp, marks=pytest.mark.peers("dcmqrscp", "Orthanc")),
    ],
)
def test_a_migration_survives_whoever_is_killed(tmp_path: Path, archive: Callable[..., object]) -> None:
    seed = int(os.environ.get("GATEWAY_SEED") or secrets.randbits(32))
    print(f"GATEWAY_SEED={seed}")
    chance = random.Random(seed)
    files = write_studies(tmp_path / "files")
    wanted = {data.identity(path)[2] for path in files}
    destination_port, gateway_port = free_port(), free_port()
    holding: list[Orthanc] = []

    def start_destination(stack: ExitStack) -> Running:
        made = stack.enter_context(orthanc(tmp_path / "destination", port=destination_port))
        holding[:] = [made]
        return made.process

    with ExitStack() as stack:
        port, start_source = stack.enter_context(archive(tmp_path, files, gateway_port))  # type: ignore[arg-type]
        retry = {"first_s": 0.2, "max_s": 1.0, "attempts": 50}
        to = dicom_destination(destination_port, ae_title="ORTHANC", quiet_s=0.5, retry=retry)
        gateway = Gateway(
            tmp_path / "gateway", {"sources": {"archive": source(port, moves=2)}, "destinations": {"orthanc": to}}, gateway_port
        )

        def start_gateway(stack: ExitStack) -> Running:
            process = stack.enter_context(Running(gateway.command("serve"), cwd=gateway.folder, stop_timeout_s=60))
            wait_until(lambda: listens(gateway_port) or not process.alive(), "the gateway listens", deadline_s=60)
            assert process.alive(), process.output[-3000:]
            return process

        victims = [
            Victim("source", start_source),
            Victim("destination", start_destination),
            Victim("gateway", start_gateway),
        ]
        for victim in victims:
            stack.callback(victim.close)
            victim.up()
        range_of_days = ("--from", "2024-02-20", "--to", "2024-02-28")
        begun = gateway.json("migrate", "archive", *range_of_days, "--destination", "orthanc", "--detach")

        def state() -> str:
            """Return the migration's state; where it ended the gateway twice before one study was whole, a person says go on."""
            found = str(gateway.json("jobs", "show", str(begun["job_id"]))["state"])
            if found == "not begun again":
                gateway.run("jobs", "resume", str(begun["job_id"]))
            return found

        looks = itertools.count(1)

        def came(target: int) -> bool:
            if next(looks) % LOOKS_BETWEEN_STATES == 0:
                state()
            return holding[0].count() >= target

        for target in sorted(chance.sample(range(1, len(wanted) * 9 // 10), KILLS)):
            wait_until(partial(came, target), f"{target} instances", deadline_s=DEADLINE_S, pause_s=0.02)
            victim = chance.choice(victims)
            print(f"{victim.name} killed at {target} of {len(wanted)}")
            victim.kill()

        wait_until(lambda: state() == "done", "the migration is done", deadline_s=DEADLINE_S, pause_s=0.5)
        wait_until(lambda: holding[0].count() >= len(wanted), "everything is there", deadline_s=DEADLINE_S, pause_s=0.5)
        report = tmp_path / "report.csv"
        wait_until(
            lambda: gateway.run("jobs", "report", str(begun["job_id"]), "--report", report).returncode == 0,
            "everything is verified",
            deadline_s=DEADLINE_S,
            pause_s=0.5,
        )
        assert set(holding[0].instances()) == wanted
        again = gateway.json("migrate", "archive", *range_of_days, "--destination", "orthanc")

    agrees(report, wanted)
    moved_once(victims[2].output)
    assert again["done"]


def agrees(report: Path, wanted: set[str]) -> None:
    """The report has every study, whole and verified."""
    rows = list(csv.DictReader(report.read_text().splitlines()))
    assert len(rows) == STUDIES
    assert {row["verdict"] for row in rows} == {"complete"}
    assert {row["done"] for row in rows} == {"yes"}
    assert {(row["expected"], row["received"], row["orthanc verified"]) for row in rows} == {(str(INSTANCES),) * 3}


def moved_once(output: list[str]) -> None:
    """No C-MOVE asks for a study after its verdict, whoever was killed since."""
    complete: set[str] = set()
    moves = 0
    for event in map(json.loads, (line for line in output if line.startswith("{"))):
        if event["event"] == "study_ended" and event["verdict"] == "complete":
            complete.add(event["study"])
        if event["event"] == "move_ended":
            moves += 1
            assert event["study"] not in complete, f"{event['study']} was moved again"
    assert len(complete) == STUDIES
    print(f"{moves} C-MOVEs for {STUDIES} studies")
