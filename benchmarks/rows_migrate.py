"""Studies from one Orthanc to another, and an urgent one meanwhile. Over once the command has ended and the destination has all.

orthanc-tools has the source send straight to the destination and believes its answers; the gateway takes each instance in, sends it
on, asks the destination for it, and reports it. Both are timed with what it takes to start their command.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path

from benchmarks import receivers
from benchmarks.archives import orthanc_archive
from benchmarks.control import client
from benchmarks.datasets import FIRST_DAY, STUDIES_A_DAY, DataSet, DataSets, study_uid
from benchmarks.harness import INSTANCES, MS, Bench, Goal, Metrics, Row, transfer
from gateway.control.events import PULL
from gateway.control.wire import PullCommand, Summary
from gateway.core.domain import Priority
from tests.support import orthanc as orthancs
from tests.support.gateway import Gateway, dicom_destination, source
from tests.support.waiting import wait_until

ORTHANC_TOOLS = "orthanc-tools==0.23.0"

DEADLINE_S = 600.0
LOOK_S = 0.02

URGENT = 7
"""Number of urgent studies that are timed; the median counts."""


Choice = Callable[[DataSets], DataSet]
"""Returns what is migrated."""

SMALL: Choice = attrgetter("studies")
CT: Choice = attrgetter("ct_studies")


def _days(data: DataSet) -> tuple[str, str]:
    """Return the first and the last study date."""
    days = -(-len(data.parts) // STUDIES_A_DAY)
    return FIRST_DAY.isoformat(), (FIRST_DAY + timedelta(days=days - 1)).isoformat()


def _tools(bench: Bench) -> Path:
    """Return the interpreter of an environment that has orthanc-tools, made where there is none yet."""
    return bench.once("orthanc-tools", lambda: _environment(bench.folder / "orthanc-tools"))


def _environment(folder: Path) -> Path:
    interpreter = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=DEADLINE_S)
    install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ORTHANC_TOOLS]
    subprocess.run(install, check=True, timeout=DEADLINE_S)
    return interpreter


def _by_orthanc_tools(choice: Choice, workers: int, bench: Bench, folder: Path) -> Metrics:
    """Migrate with orthanc-tools' migrator, which needs an Orthanc of its own that asks the source."""
    data, interpreter = choice(bench.data), _tools(bench)
    archive = orthanc_archive(bench, data)
    first, last = (day.replace("-", "") for day in _days(data))
    with (
        receivers.orthanc(folder / "destination", port=archive.destination_port) as (receiver, _),
        orthancs.orthanc(folder / "migrator", ae_title="MIGRATOR") as migrator,
    ):
        migrator.add_modality("archive", archive.ae_title, archive.port)
        command = [interpreter, "-m", "orthanc_tools.pacs_migrator", "--url", str(migrator.rest.base_url)]
        command += ["--source_modality", "archive", "--destination_aet", "ORTHANC", "--worker_threads_count", str(workers)]
        command += ["--from_study_date", first, "--to_study_date", last, "--exit_on_error"]
        bench.settle()
        began = time.perf_counter()
        subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
        wait_until(lambda: receiver.count() >= data.count, "everything migrated", deadline_s=DEADLINE_S, pause_s=LOOK_S)
        return transfer(data, time.perf_counter() - began)


@contextmanager
def _gateway(
    bench: Bench, folder: Path, data: DataSet, *, moves: int, verify: str = "exists"
) -> Iterator[tuple[Gateway, receivers.Receiver]]:
    """Run a gateway between the archive that holds `data` and an empty Orthanc."""
    archive = orthanc_archive(bench, data)
    with ExitStack() as stack:
        receiver, _ = stack.enter_context(receivers.orthanc(folder / "destination", port=archive.destination_port))
        to = dicom_destination(receiver.target.port, ae_title=receiver.target.ae_title, verify=verify, associations=2)
        _, gateway = stack.enter_context(
            receivers.gateway(
                folder,
                port=archive.gateway_port,
                destinations={"destination": to},
                sources={"archive": source(archive.port, moves=moves)},
                earlier=bench.data.earlier,
            )
        )
        yield gateway, receiver


def _migrate(gateway: Gateway, data: DataSet, report: Path) -> None:
    first, last = _days(data)
    command = ("archive", "--from", first, "--to", last, "--destination", "destination", "--report", report)
    done = gateway.run("migrate", *command, deadline_s=DEADLINE_S)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def _by_gateway(choice: Choice, moves: int, bench: Bench, folder: Path) -> Metrics:
    """Migrate with ``gateway migrate``, to its end with a report of every study."""
    data = choice(bench.data)
    with _gateway(bench, folder, data, moves=moves) as (gateway, receiver):
        bench.settle()
        began = time.perf_counter()
        _migrate(gateway, data, folder / "report.csv")
        seconds = time.perf_counter() - began
        receiver.has(data.count)
        return transfer(data, seconds)


def _urgent(busy: bool, bench: Bench, folder: Path) -> Metrics:
    """Time studies from the command to the last answer of the destination, beside a migration of all of them or beside nothing."""
    data = bench.data.studies
    urgent = [study_uid(number) for number in range(bench.data.sizes.studies)][-URGENT:]
    with _gateway(bench, folder, data, moves=1, verify="status") as (gateway, receiver):
        bench.settle()
        migration = threading.Thread(target=_migrate, args=(gateway, data, folder / "report.csv"))
        if busy:
            migration.start()
            wait_until(lambda: receiver.count() > 0, "the migration is under way", deadline_s=DEADLINE_S, pause_s=LOOK_S)
        times = [_timed(gateway, uid) for uid in urgent]
        if busy:
            assert migration.is_alive(), "the migration ended first: it takes more studies"
            migration.join(DEADLINE_S)
        return {MS: 1000 * statistics.median(times)}


def _timed(gateway: Gateway, study_uid: str) -> float:
    """Pull a study with high priority, and return how long it took until its destination had answered for all of it."""
    command = PullCommand(source="archive", study_uids=(study_uid,), priority=Priority.HIGH)
    began = time.perf_counter()
    with client(gateway) as asked, asked.stream("/pull", command, PULL) as events:
        summary = list(events)[-1]
    assert isinstance(summary, Summary), summary
    assert summary.report["done"], summary
    return time.perf_counter() - began


def _row(name: str, title: str, choice: Choice) -> Row:
    return Row(
        name,
        title,
        {
            "gateway": partial(_by_gateway, choice, 1),
            "gateway, two moves": partial(_by_gateway, choice, 2),
            "orthanc-tools": partial(_by_orthanc_tools, choice, 1),
            "orthanc-tools, two workers": partial(_by_orthanc_tools, choice, 2),
        },
        (
            Goal(INSTANCES, 1.0, "orthanc-tools"),
            Goal(INSTANCES, 1.0, "orthanc-tools, two workers", party="gateway, two moves"),
        ),
    )


ROWS = [
    _row("migrate", "Migrate 200 studies from Orthanc to Orthanc", SMALL),
    _row("migrate-ct", "Migrate 200 CT studies from Orthanc to Orthanc", CT),
    Row(
        "migrate-urgent",
        "An urgent study during a migration",
        {"gateway": partial(_urgent, True), "idle gateway": partial(_urgent, False)},
        (Goal(MS, 5.0, "idle gateway", at_least=False),),
    ),
]
