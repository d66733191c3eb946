"""The gateway itself as a peer: a real config.toml, real subprocesses, nothing patched."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import HOST, free_port, listens
from tests.support.processes import Running, run
from tests.support.waiting import PATIENCE_S, wait_until

COMMAND = (sys.executable, "-c", "from gateway.cli import main; main()")


def toml(tables: Mapping[str, Any], path: str = "") -> str:
    """Write nested dicts as TOML: scalars first, then tables, then arrays of tables."""
    plain = {key: value for key, value in tables.items() if not _is_table(value)}
    lines = [f"{key} = {_scalar(value)}" for key, value in plain.items() if value is not None]
    for key, value in tables.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", toml(value, name)]
        elif _is_table(value):
            lines += [part for table in value for part in ("", f"[[{name}]]", toml(table, name))]
    return "\n".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _scalar(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_scalar(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, Path):
        return json.dumps(str(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(entry) for entry in value) + "]"
    return json.dumps(value)


def dicom_destination(
    port: int, *, ae_title: str = "ANY-SCP", tls: Mapping[str, Path] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a ``[destinations.NAME]`` table for a DICOM peer on this machine."""
    secure = {} if tls is None else {"tls": dict(tls)}
    return {"kind": "dicom", "ae_title": ae_title, "host": HOST, "port": port, **more, **secure}


def folder_destination(path: Path) -> dict[str, Any]:
    """Return a ``[destinations.NAME]`` table for a folder."""
    return {"kind": "folder", "path": path}


def source(port: int, *, ae_title: str = "ARCHIVE", **more: Any) -> dict[str, Any]:
    """Return a ``[sources.NAME]`` table for a peer on this machine."""
    return {"ae_title": ae_title, "host": HOST, "port": port, **more}


@dataclass
class Gateway:
    """A gateway in a folder: its configuration, its state, and the commands that use them."""

    folder: Path
    tables: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "config.toml"
        self.state = self.folder / "state"
        self.ledger = self.state / "ledger.db"
        self.write()

    def write(self, **changes: Any) -> None:
        """Write config.toml with `changes` to its top-level tables; everything is routed everywhere unless routes are given."""
        self.tables.update(changes)
        destinations = self.tables.get("destinations", {})
        tables = {
            **self.tables,
            "gateway": {"ae_title": "GATEWAY", "state": self.state, **self.tables.get("gateway", {})},
            "listen": {"host": HOST, "port": self.port, "accept": "any", **self.tables.get("listen", {})},
            "spool": {"reserve_bytes": 1 << 24, **self.tables.get("spool", {})},
            "routes": self.tables.get("routes") or ([{"name": "all", "to": list(destinations)}] if destinations else []),
        }
        self.config.write_text(toml(tables) + "\n")

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Return the command line of ``gateway NAME … --config …``."""
        return [*COMMAND, name, *map(str, arguments), "--config", str(self.config)]

    def run(self, name: str, *arguments: str | Path, deadline_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit status."""
        return run(self.command(name, *arguments), deadline_s=deadline_s, check=False, cwd=self.folder)

    def json(self, name: str, *arguments: str | Path, deadline_s: float = 120.0, exit_codes: Sequence[int] = (0,)) -> Any:
        """Run a command with ``--json`` and return what it wrote; its exit status must be one of `exit_codes`."""
        done = self.run(name, *arguments, "--json", deadline_s=deadline_s)
        assert done.returncode in exit_codes, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return json.loads(done.stdout)

    @contextmanager
    def serving(self, *, deadline_s: float = PATIENCE_S, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
        """Run ``gateway serve`` until the context ends; SIGTERM then has to end it with exit status 0 unless it was killed."""
        with Running(self.command("serve"), cwd=self.folder, stop_timeout_s=45.0, environ=environ) as process:
            wait_until(lambda: listens(self.port) or not process.alive(), f"listening on {self.port}", deadline_s=deadline_s)
            assert process.alive(), process.output
            yield process
            if process.alive():
                status = process.stop()
                assert status == 0, f"serve ended with {status}:\n{process.output[-3000:]}"


def peak_resident_mib(process: Running) -> float:
    """Return the most memory that a process had resident so far (VmHWM), in MiB."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM: the process is gone")


@dataclass(frozen=True)
class Delivery:
    """A row of the ledger: one instance on its way to one destination."""

    uid: str
    destination: str
    state: str
    attempts: int
    status: int | None
    reason: str
    uncertain: bool
    proof: str | None


def deliveries(gateway: Gateway, destination: str | None = None) -> list[Delivery]:
    """Read what the ledger says of each delivery, of one destination where one is named; the gateway may run meanwhile."""
    query = """SELECT sop_instance_uid, destination, state, attempts, status, coalesce(reason, ''), uncertain, proof
               FROM deliveries JOIN instances ON instances.id = instance_id ORDER BY deliveries.id"""
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as connection:
        rows = [Delivery(*row[:6], bool(row[6]), row[7]) for row in connection.execute(query)]
    return [row for row in rows if destination in {None, row.destination}]


def arrivals(gateway: Gateway) -> int:
    """Count what the ledger has recorded as arrived; the gateway may run meanwhile."""
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM arrivals").fetchone()[0])


def settled(
    gateway: Gateway, count: int, *states: str, destination: str | None = None, deadline_s: float = PATIENCE_S
) -> list[Delivery]:
    """Wait until there are `count` deliveries and all stand in one of `states`; return them."""

    def arrived() -> list[Delivery]:
        rows = deliveries(gateway, destination)
        return rows if len(rows) == count and all(row.state in states for row in rows) else []

    try:
        return wait_until(arrived, f"{count} deliveries {' or '.join(states)}", deadline_s=deadline_s, pause_s=0.05)
    except AssertionError as error:
        stand = Counter((row.state, row.reason) for row in deliveries(gateway, destination))
        raise AssertionError(f"{error}; they are {stand}") from None
