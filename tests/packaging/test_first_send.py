"""A newcomer's second step: `gateway send FOLDER` with the shipped config.toml, beside `make serve` and without it."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from gateway.security.certificates import make, request
from tests.support.gateway import COMMAND
from tests.support.ports import HOST
from tests.support.processes import Running

REPOSITORY = Path(__file__).parents[2]
NAMES = ("CT_small.dcm", "MR_small.dcm")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "config.toml", tmp_path)
    make(tmp_path / "certs", [request("gateway", (), (), 30)])
    (tmp_path / "folder").mkdir()
    for name in NAMES:
        shutil.copy(str(get_testdata_file(name)), tmp_path / "folder")
    return tmp_path


def send(clone: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "send", "./folder"],
        cwd=clone,
        env=os.environ | {"GATEWAY__SPOOL__RESERVE_BYTES": "16777216"} | environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def archived(clone: Path) -> set[str]:
    return {str(pydicom.dcmread(file).SOPInstanceUID) for file in (clone / "archive").rglob("*.dcm")}


def test_a_folder_is_sent_without_a_gateway_while_its_ports_are_taken(clone: Path) -> None:
    with socket.create_server((HOST, 0)) as plain, socket.create_server((HOST, 0)) as tls:
        taken = {"GATEWAY__LISTEN__PORT": plain.getsockname()[1], "GATEWAY__LISTEN__TLS__PORT": tls.getsockname()[1]}
        done = send(clone, **{key: str(port) for key, port in taken.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything delivered and verified" in done.stdout
    assert archived(clone) == {str(pydicom.dcmread(str(get_testdata_file(name))).SOPInstanceUID) for name in NAMES}


def test_a_folder_is_sent_by_the_gateway_that_serves(clone: Path) -> None:
    ports = {"GATEWAY__LISTEN__PORT": "0", "GATEWAY__LISTEN__TLS__PORT": "0", "GATEWAY__SPOOL__RESERVE_BYTES": "16777216"}
    with Running([*COMMAND, "serve"], cwd=clone, environ=ports, stop_timeout_s=45) as process:
        process.wait_for_line("gateway_started")
        done = send(clone, **ports)
        assert process.stop() == 0, process.output
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(archived(clone)) == len(NAMES)
