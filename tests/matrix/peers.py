"""The twelve destinations: three ways of sending to each of four peers, every one a program of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

from gateway.core.domain import Mode
from tests.support.dcmtk import StoreScp, only, storescp
from tests.support.orthanc import Orthanc, orthanc

MODES = (Mode.AS_IS, Mode.J2K_LOSSLESS, Mode.EXPLICIT_LE)

LIMITED = {
    "uncompressed": ("LittleEndianExplicit", "LittleEndianImplicit"),
    "j2k": ("JPEG2000LosslessOnly",),
    "jpeg-ls": ("JPEGLSLossless",),
}
"""Transfer syntaxes that a ``storescp`` is limited to."""

KINDS = ("orthanc", *LIMITED)


class Peer(Protocol):
    """Somebody who stores what is sent."""

    @property
    def port(self) -> int: ...

    def take(self, folder: Path) -> dict[str, Path]:
        """Move everything that came into `folder`; returns SOP Instance UID to file."""


@dataclass(frozen=True)
class Limited:
    scp: StoreScp

    @property
    def port(self) -> int:
        return self.scp.port

    def take(self, folder: Path) -> dict[str, Path]:
        folder.mkdir(parents=True)
        return {uid: path.rename(folder / path.name) for uid, path in self.scp.received().items()}


@dataclass(frozen=True)
class TakesAll:
    archive: Orthanc

    @property
    def port(self) -> int:
        return self.archive.port

    def take(self, folder: Path) -> dict[str, Path]:
        folder.mkdir(parents=True)
        found = {}
        for uid, identifier in self.archive.instances().items():
            found[uid] = folder / identifier
            found[uid].write_bytes(self.archive.file(identifier))
        self.archive.clear()
        return found


@contextmanager
def peers(folder: Path, sop_classes: Iterable[str]) -> Iterator[dict[tuple[str, Mode], Peer]]:
    """Run all of them; each storescp accepts `sop_classes`."""
    classes = sorted(sop_classes)
    with ExitStack() as stack:
        found: dict[tuple[str, Mode], Peer] = {}
        for kind, mode in product(KINDS, MODES):
            here = folder / f"{kind}-{mode}"
            if kind == "orthanc":
                found[kind, mode] = TakesAll(stack.enter_context(orthanc(here)))
            else:
                profile = only(folder / f"{kind}.cfg", classes, LIMITED[kind])
                found[kind, mode] = Limited(stack.enter_context(storescp(here, *profile)))
        yield found
