"""Shipped files work as they are: config.toml, the compose file, the container's configuration, the make targets."""

import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.loading import load
from gateway.config.settings import DicomDestination, FolderDestination
from gateway.config.template import SHIPPED, render
from gateway.security import tls
from gateway.security.certificates import make, request

REPOSITORY = Path(__file__).parents[2]
ORTHANCS = ("orthanc-a", "orthanc-b", "orthanc-c")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "certs"
    make(folder, [request(name, (), (), 100) for name in ("gateway", *ORTHANCS)])
    return folder


def beside(certs: Path, file: Path) -> Path:
    return Path(shutil.copy(file, certs.parent / "config.toml"))


def test_the_shipped_configuration_is_the_one_that_init_would_write() -> None:
    assert (REPOSITORY / "config.toml").read_text() == render(SHIPPED)


def test_the_shipped_configuration_is_safe_and_takes_the_first_sender(certs: Path) -> None:
    settings = load(beside(certs, REPOSITORY / "config.toml"), {})
    assert (settings.listen.host, settings.listen.port, settings.listen.accept) == ("127.0.0.1", 11112, "any")
    assert [type(to) for to in settings.destinations.values()] == [FolderDestination]
    assert settings.routes[0].when == {}
    tls.check_contexts(settings)


def test_the_container_delivers_to_the_compose_services_over_tls(certs: Path) -> None:
    settings = load(beside(certs, REPOSITORY / "docker/gateway/config.toml"), {})
    tls.check_contexts(settings)
    assert settings.gateway.state == Path("/var/lib/gateway/state")
    assert set(settings.routes[0].to) == set(ORTHANCS) == set(settings.destinations)
    for name, to in settings.destinations.items():
        assert isinstance(to, DicomDestination)
        assert to.tls is not None
        assert (to.host, to.port, to.ae_title) == (name, 4242, SERVICES[name]["environment"]["ORTHANC_AE_TITLE"])


def test_what_compose_mounts_is_there_or_made_by_certs(certs: Path) -> None:
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            source, _, target = volume.partition(":")
            if source.startswith("./certs/"):
                assert (certs / Path(source).name).is_file(), f"{name} mounts {source}"
                assert target.endswith(":ro")
            elif source.startswith("./"):
                assert (REPOSITORY / source).is_file(), f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"]


def test_no_private_key_reaches_a_container_that_is_not_its_owner() -> None:
    for name, service in SERVICES.items():
        keys = [volume.partition(":")[0] for volume in service["volumes"] if ".key" in volume]
        assert keys == [f"./certs/{name}.key"]


def test_ports_are_published_as_documented_and_rest_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items()}
    assert published["gateway"] == ["127.0.0.1:11112:11112", "2762:2762"]
    for offset, name in enumerate(ORTHANCS):
        assert published[name] == [f"127.0.0.1:{8042 + offset}:8042", f"{4242 + offset}:4242"]


def test_no_password_is_baked_in() -> None:
    for name in ORTHANCS:
        environment: Mapping[str, str] = SERVICES[name]["environment"]
        assert environment["ORTHANC_PASSWORD"].startswith("${ORTHANC_PASSWORD:?")
        assert environment["ORTHANC_USER"].startswith("${ORTHANC_USER:?")
    example = (REPOSITORY / ".env.example").read_text().splitlines()
    assert "ORTHANC_PASSWORD=" in example


def test_the_gateway_container_is_confined_and_has_time_to_drain() -> None:
    gateway = SERVICES["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    settings_drain_s = 30
    assert int(gateway["stop_grace_period"].removesuffix("s")) > settings_drain_s
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert "\nUSER gateway\n" in dockerfile
    assert "HEALTHCHECK" in dockerfile


def test_no_key_or_secret_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository here")
    files = listed.stdout.splitlines()
    assert [name for name in files if name.startswith("certs/")] == ["certs/README.md"]
    assert not [name for name in files if name.endswith((".key", ".pem", ".p12")) or name == ".env"]


@pytest.mark.parametrize("target", ["serve", "test", "check", "docs", "certs", "compose-certs"])
def test_the_make_targets_exist(target: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    planned = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr


def test_continuous_integration_runs_make_test_and_leaves_nothing_out() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "CI=true exec make test" in script.read_text()
