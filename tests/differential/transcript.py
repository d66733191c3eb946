"""Transcripts of a DICOM program and its peer on one association, as they went over the wire, PDU by PDU.

A transcript is kept as JSON: who speaks, and what, PDUs in base64. The last PDU of a side that went away in the middle of one is
cut short.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "transcripts"

REQUESTOR, ACCEPTOR = "requestor", "acceptor"


@dataclass(frozen=True)
class Turn:
    """PDUs that one side sends before it waits for the other."""

    sender: str
    pdus: tuple[bytes, ...]


@dataclass(frozen=True)
class Transcript:
    """`program` is who requested the association and with what; `operations` what a requestor of ours has to ask for."""

    name: str
    program: str
    turns: tuple[Turn, ...]
    operations: tuple[dict[str, Any], ...] = field(default=())

    def of(self, sender: str) -> list[list[bytes]]:
        """Return the PDUs of each turn of `sender`."""
        return [list(turn.pdus) for turn in self.turns if turn.sender == sender]


def split(stream: bytes) -> list[bytes]:
    """Return the PDUs of `stream` by the lengths in their headers; the last one may be cut short."""
    pdus = []
    while stream:
        size = 6 + struct.unpack_from(">I", stream, 2)[0] if len(stream) >= 6 else len(stream)
        pdus.append(stream[:size])
        stream = stream[size:]
    return pdus


def save(transcript: Transcript, folder: Path = FOLDER) -> None:
    document = {
        "program": transcript.program,
        "operations": list(transcript.operations),
        "turns": [[turn.sender, *(base64.b64encode(pdu).decode() for pdu in turn.pdus)] for turn in transcript.turns],
    }
    (folder / f"{transcript.name}.json").write_text(json.dumps(document, indent=0) + "\n")


def load(path: Path) -> Transcript:
    document = json.loads(path.read_text())
    turns = tuple(Turn(sender, tuple(base64.b64decode(pdu) for pdu in pdus)) for sender, *pdus in document["turns"])
    return Transcript(path.stem, document["program"], turns, tuple(document["operations"]))


def transcripts(*, with_operations: bool) -> Iterator[Transcript]:
    """Yield what was recorded of foreign requestors, or, `with_operations`, of foreign acceptors; in a stable order."""
    for path in sorted(FOLDER.glob("*.json")):
        transcript = load(path)
        if bool(transcript.operations) is with_operations:
            yield transcript
