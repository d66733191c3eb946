"""Which programs are recorded, with what options and what data, for `tests.differential.record`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom.uid import RLELossless

from tests.support import data

Command = Sequence[str | Path]

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = f"{data.UID_ROOT}.1.1"
_TITLES = ("-aet", "STRANGER", "-aec", "GATEWAY")
_PEER = ("127.0.0.1", "PORT")


def generate(folder: Path) -> dict[str, list[Path]]:
    """Write small instances: plain ones of 2 KB, one of 20 KB, and compressed ones."""
    files = {
        "plain": data.ct_series(folder / "plain", 3, rows=24),
        "large": data.ct_series(folder / "large", 1, rows=100, seed=2),
        "j2k": data.ct_series(folder / "j2k", 2, rows=32, seed=3, j2k=True),
        "rle": [folder / "rle.dcm"],
    }
    run_length = data.ct_dataset(seed=4, number=1, rows=24)
    run_length.compress(RLELossless, generate_instance_uid=False)
    run_length.save_as(files["rle"][0], enforce_file_format=True)
    return files


def commands(files: dict[str, list[Path]]) -> Iterator[tuple[str, Command, int]]:
    """Yield the name, the command line and the maximum PDU length that the acceptor advertises, of programs that store or echo."""
    plain, large = files["plain"], files["large"]
    yield from (
        ("dcmtk-echoscu", ("echoscu", *_TITLES, *_PEER), 131072),
        ("dcmtk-echoscu-contexts", ("echoscu", *_TITLES, "-pts", "38", "-ppc", "16", "--repeat", "3", *_PEER), 131072),
        ("dcmtk-echoscu-abort", ("echoscu", *_TITLES, "--abort", *_PEER), 131072),
    )
    store = ("storescu", *_TITLES)
    yield from (
        ("dcmtk-storescu", (*store, *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-little", (*store, "-R", "-xe", *_PEER, *plain), 131072),
        ("dcmtk-storescu-big", (*store, "-R", "-xb", *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-implicit", (*store, "-R", "-xi", *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-deflated", (*store, "-R", "-xd", *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-combined", (*store, "-R", "+C", "-xe", "--repeat", "2", *_PEER, plain[1]), 131072),
        ("dcmtk-storescu-j2k", (*store, "-R", "-xv", *_PEER, *files["j2k"]), 131072),
        ("dcmtk-storescu-rle", (*store, "-R", "-xr", *_PEER, files["rle"][0]), 131072),
        ("dcmtk-storescu-identity", (*store, "-R", "-usr", "stranger", "-pwd", "none", *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-small-pdus", (*store, "-R", "-xe", *_PEER, large[0], plain[0]), 4096),
        ("dcmtk-storescu-abort", (*store, "-R", "-xe", "--abort", *_PEER, plain[0]), 131072),
        ("dcmtk-storescu-killed", (*store, "-R", "-xe", *_PEER, plain[0], large[0]), 4096),
    )
    send = ("dcmsend", *_TITLES, *_PEER)
    mixed = (*plain, *files["j2k"], files["rle"][0])
    yield from (
        ("dcmtk-dcmsend", (*send, *mixed), 131072),
        ("dcmtk-dcmsend-small-pdus", (*send, large[0], plain[0]), 4096),
        ("dcmtk-dcmsend-killed", (*send, plain[0], large[0]), 8192),
    )
    gdcm = ("gdcmscu", "--aetitle", "STRANGER", "--call", "GATEWAY")
    yield from (
        ("gdcm-echo", (*gdcm, "--echo", *_PEER), 131072),
        ("gdcm-store", (*gdcm, "--store", *_PEER, plain[0]), 131072),
        ("gdcm-store-large", (*gdcm, "--store", *_PEER, large[0]), 16384),
    )
    odil = ("/usr/bin/python3", Path(__file__).with_name("odil_scu.py"), "PORT")
    yield from (
        ("odil-echo", (*odil, "echo"), 131072),
        ("odil-store", (*odil, "store", plain[0], plain[1]), 131072),
        ("odil-store-large", (*odil, "store", large[0]), 4096),
    )
    stock = (sys.executable, "-m", "tests.differential.stock", "PORT")
    yield from (
        ("pynetdicom-echo", (*stock, "echo"), 131072),
        ("pynetdicom-store", (*stock, "store", *plain), 131072),
        ("pynetdicom-store-small-pdus", (*stock, "store", large[0]), 1024),
        ("pynetdicom-commitment", (*stock, "commitment"), 131072),
    )


def queries() -> Iterator[tuple[str, Command]]:
    """Yield the name and the command line of programs that query and retrieve."""
    study = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")
    image = ("-k", "QueryRetrieveLevel=IMAGE", "-k", f"StudyInstanceUID={STUDY}", "-k", f"SeriesInstanceUID={STUDY}.1")
    gdcm = ("gdcmscu", "--aetitle", "STRANGER", "--call", "GATEWAY", "--find", "--studyroot", "--study", "--key", f"20,d={STUDY}")
    yield from (
        ("dcmtk-findscu", ("findscu", "-S", *_TITLES, *study, "-k", "PatientName", *_PEER)),
        ("dcmtk-findscu-images", ("findscu", "-S", *_TITLES, *image, "-k", "SOPInstanceUID", *_PEER)),
        (
            "dcmtk-findscu-cancel",
            ("findscu", "-S", *_TITLES, "--cancel", "1", *image, "-k", "SOPInstanceUID", *_PEER),
        ),
        ("dcmtk-movescu", ("movescu", "-S", *_TITLES, "-aem", "ELSE", *study, *_PEER)),
        ("dcmtk-getscu", ("getscu", "-S", *_TITLES, *study, "--ignore", *_PEER)),
        ("gdcm-find", (*gdcm, *_PEER)),
        ("odil-find", ("/usr/bin/python3", Path(__file__).with_name("odil_scu.py"), "PORT", "find", STUDY)),
        ("pynetdicom-find", (sys.executable, "-m", "tests.differential.stock", "PORT", "find", STUDY)),
    )


ORTHANC: dict[str, Callable[[Any], Any]] = {
    "orthanc-echo": lambda source: source.rest.post("/modalities/gateway/echo", json={}),
    "orthanc-store": lambda source: source.rest.post(
        "/modalities/gateway/store", json={"Resources": sorted(source.instances().values()), "Synchronous": True}
    ),
    "orthanc-find": lambda source: source.rest.post(
        "/modalities/gateway/query", json={"Level": "Study", "Query": {"StudyInstanceUID": STUDY, "PatientID": ""}}
    ),
    "orthanc-commitment": lambda source: source.rest.post(
        "/modalities/gateway/storage-commitment",
        json={"DicomInstances": [{"SOPClassUID": CT, "SOPInstanceUID": uid} for uid in sorted(source.instances())]},
    ),
}
"""Operations at the modality ``gateway`` that an Orthanc is asked for over REST."""

ECHO: dict[str, Any] = {"do": "echo"}
COMMITMENT: dict[str, Any] = {"do": "commitment", "uids": [f"{STUDY}.1.{number}" for number in (1, 2, 9)]}


def _find(level: str, **keys: str) -> dict[str, Any]:
    return {"do": "find", "keys": {"QueryRetrieveLevel": level, **keys}}


def _move(destination: str, level: str, **keys: str) -> dict[str, Any]:
    return {"do": "move", "destination": destination, "keys": {"QueryRetrieveLevel": level, **keys}}


def _store(number: int) -> dict[str, Any]:
    return {"do": "store", "seed": 1, "number": number, "rows": 24}


_QUERIES = [
    ECHO,
    _find("STUDY", StudyInstanceUID="", PatientName="", StudyDate="", ModalitiesInStudy=""),
    _find("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=""),
    _find("STUDY", StudyInstanceUID="1.2.3.4"),
]
_MOVES = [
    _move("ELSE", "STUDY", StudyInstanceUID=STUDY),
    _move("ELSE", "STUDY", StudyInstanceUID="1.2.3.4"),
    _move("NOBODY", "STUDY", StudyInstanceUID=STUDY),
]

OPERATIONS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "scp-storescp": ("storescp", [ECHO, _store(1), _store(2)]),
    "scp-storescp-refuse": ("storescp --refuse", [ECHO]),
    "scp-storescp-abort-after": ("storescp --abort-after", [_store(1)]),
    "scp-storescp-abort-during": ("storescp --abort-during", [_store(1)]),
    "scp-dcmqrscp": ("dcmqrscp", [*_QUERIES, *_MOVES]),
    "scp-dcmqrscp-store": ("dcmqrscp", [_store(7), ECHO]),
    "scp-orthanc": ("orthanc", [*_QUERIES, _store(7), ECHO]),
    "scp-orthanc-move": ("orthanc", _MOVES),
    "scp-orthanc-commitment": ("orthanc", [COMMITMENT]),
}
"""Acceptors by name: the program, and the operations that a requestor asks of it."""


def words(command: Command) -> Iterator[str]:
    """Yield the words of a command line without what is this machine's own."""
    for part in command:
        path = Path(part)
        yield path.name if isinstance(part, Path) or path.is_absolute() else str(part)
