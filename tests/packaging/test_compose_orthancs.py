"""The Orthanc configuration that docker-compose.yml mounts, unchanged, in real Orthancs: mutual TLS, REST with a user."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.security.certificates import make, request
from tests.support.orthanc import PROGRAM
from tests.support.ports import HOST, free_port
from tests.support.processes import Running

pytestmark = pytest.mark.peers("Orthanc", "echoscu")

REPOSITORY = Path(__file__).parents[2]
SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
ORTHANCS = [name for name in SERVICES if name.startswith("orthanc")]
USER, PASSWORD = "operator", "correct horse"


@dataclass
class Service:
    name: str
    ae_title: str
    dicom_port: int
    url: str


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make(folder, [request(name, (), (), 100) for name in ("gateway", *ORTHANCS)])
    return folder


def mounted_configuration(name: str) -> Path:
    (source,) = [volume.split(":")[0] for volume in SERVICES[name]["volumes"] if "/etc/orthanc/" in volume]
    return REPOSITORY / source


@pytest.fixture(scope="module")
def services(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """All Orthancs of the compose file with its environment; only ports, folders and the files' places are this machine's."""
    with ExitStack() as stack:
        started = []
        for name in ORTHANCS:
            service = Service(name, SERVICES[name]["environment"]["ORTHANC_AE_TITLE"], free_port(), f"http://{HOST}:{free_port()}")
            environ = {
                **SERVICES[name]["environment"],
                "ORTHANC_USER": USER,
                "ORTHANC_PASSWORD": PASSWORD,
                "ORTHANC_STORAGE": str(tmp_path_factory.mktemp(name)),
                "ORTHANC_DICOM_PORT": str(service.dicom_port),
                "ORTHANC_HTTP_PORT": service.url.rpartition(":")[2],
                "ORTHANC_CA": str(certs / "ca.crt"),
                "ORTHANC_CERTIFICATE": str(certs / f"{name}.crt"),
                "ORTHANC_KEY": str(certs / f"{name}.key"),
            }
            running = stack.enter_context(Running([PROGRAM, mounted_configuration(name)], environ=environ))
            running.wait_for_line("Orthanc has started", deadline_s=30)
            started.append(service)
        yield started


def echo(service: Service, *options: str, calling: str = "GATEWAY") -> bool:
    command = ["echoscu", *options, "-aet", calling, "-aec", service.ae_title, "localhost", str(service.dicom_port)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def tls_options(certs: Path, name: str) -> tuple[str, ...]:
    return ("+tls", str(certs / f"{name}.key"), str(certs / f"{name}.crt"), "+cf", str(certs / "ca.crt"))


def test_the_gateways_certificate_opens_every_orthanc(services: list[Service], certs: Path) -> None:
    assert [service.name for service in services if echo(service, *tls_options(certs, "gateway"))] == ORTHANCS


def test_without_tls_or_without_a_certificate_nothing_opens(services: list[Service], certs: Path) -> None:
    assert not any(echo(service) for service in services)
    assert not any(echo(service, "+tla", "+cf", str(certs / "ca.crt")) for service in services)


def test_only_the_gateways_ae_title_is_known(services: list[Service], certs: Path) -> None:
    assert not any(echo(service, *tls_options(certs, "gateway"), calling="STRANGER") for service in services)


def test_rest_asks_for_the_user_that_the_environment_sets(services: list[Service]) -> None:
    for service in services:
        with httpx.Client(base_url=service.url, trust_env=False) as rest:
            assert rest.get("/system").status_code == 401
            assert rest.get("/system", auth=(USER, "wrong")).status_code == 401
            system = rest.get("/system", auth=(USER, PASSWORD)).raise_for_status().json()
            assert (system["Name"], system["DicomAet"]) == (service.name, service.ae_title)
            gateway = rest.get("/modalities/gateway/configuration", auth=(USER, PASSWORD)).raise_for_status().json()
            assert (gateway["AET"], gateway["UseDicomTls"], gateway["AllowFind"]) == ("GATEWAY", True, True)
