"""Paths that cannot be used: what, where and what to do, for every command that reads or writes one; never "internal error"."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import data
from tests.support.gateway import Gateway, folder_destination

DEADLINE_S = 120
SETPRIV = shutil.which("setpriv")
AS_ROOT = os.geteuid() == 0

pytestmark = pytest.mark.skipif(AS_ROOT and SETPRIV is None, reason="root may do everything, and there is no setpriv")

UNPRIVILEGED = [SETPRIV or "", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if AS_ROOT else []
"""Root without the right to pass by permissions."""


def run(gateway: Gateway, name: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = gateway.command(name, *arguments)
    if name in {"certs", "init"}:
        command = command[: command.index("--config")]
    if name == "init":
        command = [*command[:-1], "--config", command[-1]]
    command = [*UNPRIVILEGED, *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=cwd or gateway.folder)


def said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode in (1, 2), done
    assert "internal error" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr + done.stdout, done


@dataclass
class Place:
    """A gateway, files to send, a folder that may not be used, and a file where a folder should be."""

    gateway: Gateway
    files: Path
    closed: Path
    file: Path

    def state(self, path: Path) -> None:
        self.gateway.write(gateway={"state": path})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"copy": folder_destination(tmp_path / "copy")}})
    data.ct_copies(tmp_path / "files", 1, rows=4)
    closed, file = tmp_path / "closed", tmp_path / "file"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0)
    file.write_text("")
    return Place(gateway, tmp_path / "files", closed, file)


Try = Callable[[Place], tuple[subprocess.CompletedProcess[str], str]]


def with_state(path: Callable[[Place], Path], command: str, *arguments: str) -> Try:
    def attempt(place: Place) -> tuple[subprocess.CompletedProcess[str], str]:
        place.state(path(place))
        return run(place.gateway, command, *arguments), str(path(place))

    return attempt


DENIED = "Permission denied (give the user"
BELOW = ("folder", "Not a directory", "File exists")

CASES: dict[str, tuple[Try, tuple[str, ...]]] = {
    "serve, state closed": (with_state(lambda place: place.closed / "state", "serve"), ("cannot use the state folder", DENIED)),
    "serve, state is a file": (with_state(lambda place: place.file, "serve"), ("cannot use the state folder", "File exists")),
    "serve, state below a file": (with_state(lambda place: place.file / "state", "serve"), ("cannot use the state folder",)),
    "status, state closed": (with_state(lambda place: place.closed / "state", "status"), (DENIED,)),
    "status, state below a file": (with_state(lambda place: place.file / "state", "status"), ("state folder",)),
    "queue, state closed": (with_state(lambda place: place.closed / "state", "queue", "list"), (DENIED,)),
    "jobs, state is a file": (with_state(lambda place: place.file, "jobs", "list"), ("File exists",)),
    "check, state closed": (with_state(lambda place: place.closed / "state", "config", "--check"), ("gateway.state",)),
    "check, state below a file": (with_state(lambda place: place.file / "state", "config", "--check"), ("a path below a file",)),
    "check, state is a file": (with_state(lambda place: place.file, "config", "--check"), ("found a file", "a folder")),
    "certs, folder closed": (
        lambda place: (run(place.gateway, "certs", "--folder", place.closed / "certs"), str(place.closed)),
        (DENIED,),
    ),
    "certs, folder below a file": (
        lambda place: (run(place.gateway, "certs", "--folder", place.file / "certs"), str(place.file)),
        ("cannot write certificates", "Not a directory"),
    ),
    "init, folder closed": (
        lambda place: (run(place.gateway, "init", place.closed / "below" / "c.toml"), str(place.closed)),
        (DENIED,),
    ),
    "init, folder is not there": (
        lambda place: (run(place.gateway, "init", place.files / "none" / "c.toml"), "none"),
        ("cannot write the configuration", "No such file"),
    ),
    "send, folder closed": (
        lambda place: (run(place.gateway, "send", place.closed / "below", "--to", "copy"), str(place.closed)),
        (DENIED,),
    ),
    "pull, list closed": (
        lambda place: (run(place.gateway, "pull", "pacs", "--list", place.closed / "list.csv"), str(place.closed)),
        (DENIED,),
    ),
    "export, folder below a file": (
        lambda place: (run(place.gateway, "queue", "export", "--to", place.file / "out"), str(place.file)),
        ("cannot export",),
    ),
    "export, folder closed": (
        lambda place: (run(place.gateway, "queue", "export", "--to", place.closed / "out"), str(place.closed)),
        (DENIED,),
    ),
    "send, report on a full disk": (
        lambda place: (run(place.gateway, "send", place.files, "--to", "copy", "--report", "/dev/full"), "/dev/full"),
        ("cannot write the report", "No space left", "make room"),
    ),
    "send, report below a file": (
        lambda place: (run(place.gateway, "send", place.files, "--to", "copy", "--report", place.file / "r.csv"), "r.csv"),
        ("Not a directory",),
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_a_path_that_cannot_be_used_is_named_with_what_to_do(place: Place, name: str) -> None:
    attempt, words = CASES[name]
    try:
        done, where = attempt(place)
    finally:
        place.closed.chmod(0o700)
    said(done, where, *words)


def check(gateway: Gateway) -> tuple[int, list[str]]:
    done = run(gateway, "config", "--check", "--json")
    assert done.returncode in (0, 2), done
    return done.returncode, json.loads(done.stdout)["warnings"] if done.returncode == 0 else [done.stderr]


def with_password(tmp_path: Path, **how: str) -> Gateway:
    rest = {"url": "http://127.0.0.1:1", "username": "u", **how}
    source = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "rest": rest}
    return Gateway(tmp_path / "gateway", {"sources": {"pacs": source}})


@pytest.mark.parametrize(
    ("mode", "who"), [(0o644, "everybody"), (0o640, "its group"), (0o604, "everybody"), (0o600, ""), (0o400, "")]
)
def test_a_password_in_a_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, who: str) -> None:
    gateway = with_password(tmp_path, password="secret")
    gateway.config.chmod(mode)
    code, warnings = check(gateway)
    assert code == 0 and len(warnings) == bool(who)
    assert all(who in one and "sources.pacs.rest.password" in one and f"chmod 600 {gateway.config}" in one for one in warnings)
    assert "secret'" not in "".join(warnings)


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o660, True), (0o600, False)])
def test_a_password_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret")
    secret.chmod(mode)
    gateway = with_password(tmp_path, password_file=str(secret))
    gateway.config.chmod(0o644)
    code, warnings = check(gateway)
    assert code == 0 and [str(secret) in one for one in warnings] == [True] * warned


def test_a_configuration_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway")
    gateway.config.chmod(0o644)
    assert check(gateway) == (0, [])


def test_a_destination_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"copy": folder_destination(closed / "copy")}})
    code, (found,) = check(gateway)
    assert code == 2 and "destinations.copy.path" in found and "mode 0500" in found


def test_what_an_earlier_gateway_of_another_user_left_is_found(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway")
    gateway.state.mkdir(mode=0o700)
    (gateway.state / "ledger.db").touch(mode=0o000)
    code, (found,) = check(gateway)
    assert code == 2 and str(gateway.state / "ledger.db") in found


def test_a_state_folder_that_others_may_use_is_warned_of(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway")
    gateway.state.mkdir()
    gateway.state.chmod(0o755)
    code, warnings = check(gateway)
    assert code == 0 and [f"chmod 700 {gateway.state}" in one for one in warnings] == [True]
