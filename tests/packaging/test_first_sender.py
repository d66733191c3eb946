"""A newcomer's first step: serve with the shipped config.toml and its certificates, then storescu, plain and over TLS."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from gateway.security.certificates import make, request
from tests.support.gateway import COMMAND
from tests.support.ports import free_port, listens
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers("storescu")

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Served:
    folder: Path
    plain: int
    tls: int

    def send(self, name: str, port: int, *options: str) -> str:
        """Send one of pydicom's files with storescu, which calls ANY-SCP; returns its SOP Instance UID."""
        file = str(get_testdata_file(name))
        command = ["storescu", *options, "localhost", str(port), file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return str(pydicom.dcmread(file).SOPInstanceUID)

    def archived(self) -> set[str]:
        return {str(pydicom.dcmread(file).SOPInstanceUID) for file in (self.folder / "archive").rglob("*.dcm")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clone")
    shutil.copy(REPOSITORY / "config.toml", folder)
    make(folder / "certs", [request("gateway", (), (), 30)])
    it = Served(folder, free_port(), free_port())
    ports = {
        "GATEWAY__LISTEN__PORT": str(it.plain),
        "GATEWAY__LISTEN__TLS__PORT": str(it.tls),
        "GATEWAY__SPOOL__RESERVE_BYTES": "16777216",
    }
    with Running([*COMMAND, "serve"], cwd=folder, environ=ports, stop_timeout_s=45) as process:
        wait_until(lambda: (listens(it.plain) and listens(it.tls)) or not process.alive(), "both listeners")
        assert process.alive(), process.output
        yield it
        assert process.stop() == 0, process.output


def test_the_first_instance_lands_in_the_folder_and_a_second_one_over_tls(served: Served) -> None:
    plain = served.send("CT_small.dcm", served.plain)
    wait_until(lambda: plain in served.archived(), "the instance in archive/")
    certs = served.folder / "certs"
    tls = served.send("MR_small.dcm", served.tls, "+tls", f"{certs}/gateway.key", f"{certs}/gateway.crt", "+cf", f"{certs}/ca.crt")
    wait_until(lambda: served.archived() == {plain, tls}, "both instances in archive/")


def test_what_it_keeps_is_for_its_owner_only(served: Served) -> None:
    state = served.folder / "state"
    assert state.stat().st_mode & 0o077 == 0
    assert [file for file in state.rglob("*") if file.stat().st_mode & 0o077] == []
