"""Real Orthancs: configured by a dict or by the JSON files that docker-compose.yml mounts, with a small REST client."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.certificates import Files
from tests.support.ports import HOST, free_port, listens
from tests.support.processes import Running
from tests.support.waiting import wait_until

PROGRAM = Path("/usr/sbin/Orthanc")
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

_DEFAULTS: dict[str, Any] = {
    "RemoteAccessAllowed": False,
    "AuthenticationEnabled": False,
    "DicomServerEnabled": True,
    "DicomCheckCalledAet": False,
    "DicomAlwaysAllowEcho": True,
    "DicomAlwaysAllowStore": True,
    "DicomAlwaysAllowFind": True,
    "DicomAlwaysAllowMove": True,
    "UnknownSopClassAccepted": True,
    "SyncStorageArea": False,
    "StorageCompression": False,
    "ConcurrentJobs": 2,
    "HttpThreadsCount": 4,
    "DicomThreadsCount": 4,
    "Plugins": [],
    "HttpsVerifyPeers": False,
    "ExecuteLuaEnabled": False,
}


@dataclass
class Orthanc:
    """A running Orthanc: DICOM on `port`, REST through `rest`."""

    ae_title: str
    port: int
    folder: Path
    rest: httpx.Client
    process: Running
    config: dict[str, Any]

    def upload(self, files: Iterable[Path]) -> list[str]:
        """Store files through REST, byte for byte; returns the SOP Instance UIDs that it took."""
        for path in files:
            answer = self.rest.post("/instances", content=path.read_bytes())
            assert answer.status_code in {200, 400}, f"{path.name}: {answer.status_code} {answer.text}"
        return sorted(self.instances())

    def instances(self) -> dict[str, str]:
        """Return SOP Instance UID to Orthanc's own identifier for everything it holds."""
        listed = self.rest.get("/instances", params={"expand": ""}).raise_for_status().json()
        return {entry["MainDicomTags"]["SOPInstanceUID"]: entry["ID"] for entry in listed}

    def studies(self) -> list[str]:
        """Return the Study Instance UIDs it holds."""
        listed = self.rest.get("/studies", params={"expand": ""}).raise_for_status().json()
        return sorted(entry["MainDicomTags"]["StudyInstanceUID"] for entry in listed)

    def count(self) -> int:
        """Return how many instances it holds."""
        return int(self.rest.get("/statistics").raise_for_status().json()["CountInstances"])

    def file(self, identifier: str) -> bytes:
        """Return the Part 10 file of an instance by Orthanc's own identifier."""
        return self.rest.get(f"/instances/{identifier}/file").raise_for_status().content

    def clear(self) -> None:
        """Delete everything it holds."""
        for identifier in self.rest.get("/patients").raise_for_status().json():
            self.rest.delete(f"/patients/{identifier}").raise_for_status()

    def add_modality(self, name: str, ae_title: str, port: int, host: str = HOST, **more: Any) -> None:
        """Make a DICOM peer known while it runs."""
        self.rest.put(f"/modalities/{name}", json={"AET": ae_title, "Host": host, "Port": port, **more}).raise_for_status()


_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def shipped_configuration(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read an Orthanc configuration as Orthanc does: C++ comments, and ``${NAME}`` from `environ`, which must have it."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match.group(1).partition(":-")
        if name not in environ and not default:
            raise KeyError(f"{path.name} wants the environment variable {name}")
        return environ.get(name, default)

    text = _STRING_OR_COMMENT.sub(lambda match: match.group(1) or "", path.read_text())
    settings: dict[str, Any] = json.loads(re.sub(r"\$\{([^}]+)\}", value, text))
    return settings


@contextmanager
def orthanc(
    folder: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Mapping[str, tuple[str, int]] | None = None,
    tls: Files | None = None,
    base: Mapping[str, Any] | None = None,
    credentials: tuple[str, str] | None = None,
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[Orthanc]:
    """Run an Orthanc in `folder` (kept between runs). `modalities` maps AE titles to (host, port).

    `base` is a configuration to start from, for instance `shipped_configuration`; ports, folders, plugins and certificates are
    replaced by this test's. `tls` has the files ``ca``, ``certificate`` and ``key``: DICOM is then TLS with mutual authentication.
    `environ` adds to its environment; `settings` are Orthanc's own (``SynchronousCMove=False``, ``OverwriteInstances=False`` …).
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = {**(base if base is not None else _DEFAULTS), **_own(folder, ae_title, port, modalities), **_tls(tls), **settings}
    path = folder / "orthanc.json"
    path.write_text(json.dumps(config, indent=1))
    surroundings = {"LC_ALL": "C.UTF-8", **os.environ, **(environ or {})}
    # Instances that it answered are in its files: killing it loses nothing, and an orderly end takes seconds.
    process = Running([PROGRAM, path], environ=surroundings, stop_signal=signal.SIGKILL)
    # Orthanc closes a connection that was idle for a second, be it while the next request is on its way.
    once = httpx.Limits(max_keepalive_connections=0)
    address = f"http://{HOST}:{config['HttpPort']}"
    rest = httpx.Client(base_url=address, auth=credentials, timeout=60.0, trust_env=False, limits=once)
    with process, rest:
        process.wait_for_line("Orthanc has started", deadline_s=30)
        wait_until(lambda: listens(port), f"Orthanc listening on {port}")
        yield Orthanc(config["DicomAet"], port, folder, rest, process, config)


def _own(folder: Path, ae_title: str, port: int, modalities: Mapping[str, tuple[str, int]] | None) -> dict[str, Any]:
    known = {name.lower(): {"AET": name, "Host": host, "Port": peer} for name, (host, peer) in (modalities or {}).items()}
    return {
        "Name": ae_title,
        "DicomAet": ae_title,
        "DicomPort": port,
        "HttpPort": free_port(),
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "TemporaryDirectory": str(folder),
        "Plugins": [],
        "DicomModalities": known,
    }


def _tls(tls: Files | None) -> dict[str, Any]:
    if tls is None:
        return {}
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(tls["certificate"]),
        "DicomTlsPrivateKey": str(tls["key"]),
        "DicomTlsTrustedCertificates": str(tls["ca"]),
        "DicomTlsRemoteCertificateRequired": True,
    }
