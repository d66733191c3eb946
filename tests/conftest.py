"""Fixtures that every room's tests share. The objects that they return are in `tests.support`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from gateway.security import certificates
from tests.support import data, orthanc, stock
from tests.support.certificates import MakeCertificate, TestCA
from tests.support.data import MakeSeries
from tests.support.ports import free_port as _free_port

PROGRAMS = ("Orthanc", "dcmqrscp", "dcmqridx", "storescp", "storescu", "dcmsend", "echoscu", "strace")


def _missing(wanted: tuple[str, ...]) -> list[str]:
    path = os.pathsep.join((os.environ.get("PATH", ""), str(orthanc.PROGRAM.parent)))
    return [name for name in wanted if not (_PLUGINS[name].exists() if name in _PLUGINS else shutil.which(name, path=path))]


_PLUGINS = {"orthanc-dicomweb": orthanc.DICOMWEB_PLUGIN}


WHOLE_GATEWAYS = {"app", "e2e"}
"""Folders whose every test runs whole gateways, and is marked slow for that."""


hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
"""The duration of an example says something about the machine, and nothing about the gateway."""


def pytest_configure() -> None:
    """Gateways that tests start heed SIGINT, also where a shell ran the tests in the background and so had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in WHOLE_GATEWAYS:
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``peers`` (all programs) or ``peers("storescp", …)`` needs them: skipped without, a failure in CI."""
    for marker in item.iter_markers("peers"):
        missing = _missing(marker.args or PROGRAMS)
        if not missing:
            continue
        reason = f"needs {', '.join(missing)}: not installed (Debian's packages dcmtk, orthanc and strace have them)"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def stock_connections_end_with_the_test() -> Iterator[None]:
    """Connections that stock pynetdicom leaves open are blamed on no other test."""
    yield
    stock.close_connections()


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> TestCA:
    """A certificate authority that can also make bad certificates: `ca.issue("name", days=-1)` gives ca, certificate and key."""
    return TestCA(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> MakeCertificate:
    """`certificate("name")`: the files ca, certificate and key as ``gateway certs`` makes them, valid for this machine."""
    folder = tmp_path_factory.mktemp("certs")

    def files(name: str) -> dict[str, Path]:
        if not (folder / f"{name}.crt").exists():
            certificates.make(folder, [certificates.request(name, ["localhost"], ["127.0.0.1"], 30)])
        return {"ca": folder / "ca.crt", "certificate": folder / f"{name}.crt", "key": folder / f"{name}.key"}

    return files


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns another free port on 127.0.0.1 each time."""
    return _free_port


@pytest.fixture(scope="session")
def real_files() -> tuple[Path, ...]:
    """One real file for each storable SOP Instance UID of pydicom's test files and pydicom-data."""
    return data.real_files()


@pytest.fixture(scope="session")
def ct_series(tmp_path_factory: pytest.TempPathFactory) -> MakeSeries:
    """`ct_series(count, rows=64)`: files of a generated CT series with pixel data, made once per set of arguments."""
    root = tmp_path_factory.mktemp("ct")
    made: dict[tuple[object, ...], list[Path]] = {}

    def series(count: int, *, rows: int = 64, seed: int = 1, j2k: bool = False) -> list[Path]:
        key = (count, rows, seed, j2k)
        if key not in made:
            made[key] = data.ct_series(root / f"{count}-{rows}-{seed}-{int(j2k)}", count, rows=rows, seed=seed, j2k=j2k)
        return made[key]

    return series
