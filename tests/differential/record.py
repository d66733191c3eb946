"""Records transcripts anew from the real programs: ``python -m tests.differential.record [NAME …]``.

Needs DCMTK, Orthanc, libgdcm-tools and python3-odil from Debian. Every program talks through a proxy to a permissive stock
pynetdicom, to ``dcmqrscp``, to ``storescp`` or to Orthanc; what gets through is written to ``transcripts/``. Data sets are small
and generated.
"""

from __future__ import annotations

import getpass
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.differential import programs, stock
from tests.differential.proxy import Conversation, Proxy
from tests.differential.transcript import FOLDER, Transcript, save, transcripts
from tests.support import dcmtk
from tests.support.orthanc import orthanc
from tests.support.ports import HOST
from tests.support.processes import Running, run
from tests.support.waiting import wait_until

CUT_BYTES = 9000


@dataclass
class Session:
    """Where recordings are made: a folder, generated files by kind, and what is started is ended with it."""

    folder: Path
    files: dict[str, list[Path]]
    stack: ExitStack = field(default_factory=ExitStack)
    _made: int = 0

    def new_folder(self) -> Path:
        self._made += 1
        folder = self.folder / str(self._made)
        folder.mkdir()
        return folder

    def permissive(self, max_pdu_bytes: int = 131072) -> int:
        """Start a stock pynetdicom that accepts everything; return its port."""
        return self.stack.enter_context(stock.permissive(max_pdu_bytes))

    def archive(self) -> int:
        """Start a dcmqrscp that holds the plain files and may move them to ELSE."""
        archive = dcmtk.dcmqrscp(
            self.new_folder(), hosts={"ELSE": (HOST, self.storescp())}, ae_title="GATEWAY", files=self.files["plain"]
        )
        return self.stack.enter_context(archive).port

    def orthanc(self) -> int:
        """Start an Orthanc that holds the plain files, may move them to ELSE, and knows who asks for commitment."""
        elsewhere = HOST, self.storescp()
        archive = self.stack.enter_context(
            orthanc(self.new_folder(), ae_title="GATEWAY", modalities={"ELSE": elsewhere, "STRANGER": elsewhere})
        )
        archive.upload(self.files["plain"])
        return archive.port

    def storescp(self, *options: str) -> int:
        return self.stack.enter_context(dcmtk.storescp(self.new_folder(), *options, ae_title="GATEWAY")).port


def _run(command: programs.Command, start: Callable[[], int]) -> Conversation:
    """Run `command`, in which PORT stands for the proxy's, against the port that `start` gives; return the first conversation."""
    with Proxy(start()) as proxy:
        run([str(proxy.port) if part == "PORT" else part for part in command], check=False)
    return proxy.conversations[0]


def _killed(command: programs.Command, start: Callable[[], int]) -> Conversation:
    """The same, killing the program in the middle of a data set."""
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(start(), watch=lambda conversation: conversation.heard() > CUT_BYTES))
        process = stack.enter_context(Running([str(proxy.port) if part == "PORT" else part for part in command]))
        wait_until(lambda: proxy.conversations and proxy.conversations[0].heard() > CUT_BYTES, "a message in the middle")
        process.kill()
    return proxy.conversations[0]


def _orthanc(session: Session, ask: Callable[[Any], Any]) -> Conversation:
    """Have an Orthanc, whose modality GATEWAY is the proxy, do what `ask` wants of it."""
    with Proxy(session.permissive()) as proxy:
        with orthanc(session.new_folder(), modalities={"GATEWAY": (HOST, proxy.port)}) as source:
            source.upload(session.files["plain"])
            ask(source)
        return proxy.conversations[0]


def _commitment_report(session: Session) -> Conversation:
    """Ask an Orthanc for storage commitment; its report comes on an association of its own."""
    with Proxy(session.permissive()) as proxy:
        with orthanc(session.new_folder(), modalities={"GATEWAY": (HOST, proxy.port)}) as archive:
            archive.upload(session.files["plain"])
            stock.operate(archive.port, archive.ae_title, [programs.COMMITMENT], calling="GATEWAY")
            wait_until(lambda: proxy.conversations and len(proxy.conversations[0].said) > 5, "a commitment report")
        return proxy.conversations[0]


def _requestors(session: Session) -> dict[str, tuple[str, Callable[[], Conversation]]]:
    """Return what is recorded of requestors: name to the program and how to record it."""
    found: dict[str, tuple[str, Callable[[], Conversation]]] = {}

    def add(name: str, command: programs.Command, make: Callable[[], Conversation]) -> None:
        found[name] = (" ".join(programs.words(command)), make)

    for name, command, max_pdu in programs.commands(session.files):
        maker = _killed if name.endswith("-killed") else _run
        add(name, command, partial(maker, command, partial(session.permissive, max_pdu)))
    for name, command in programs.queries():
        add(name, command, partial(_run, command, session.archive))
    for name, ask in programs.ORTHANC.items():
        add(name, ("Orthanc,", name.removeprefix("orthanc-")), partial(_orthanc, session, ask))
    add("orthanc-commitment-report", ("Orthanc,", "N-EVENT-REPORT"), partial(_commitment_report, session))
    return found


def _acceptors(session: Session) -> dict[str, tuple[str, list[dict[str, Any]], Callable[[], int]]]:
    """Return what is recorded of acceptors: name to the program, the operations asked of it, and how to start it."""
    starts: dict[str, Callable[..., int]] = {
        "orthanc": session.orthanc,
        "dcmqrscp": session.archive,
        "storescp": session.storescp,
    }
    return {
        name: (program, operations, partial(starts[program.split()[0]], *program.split()[1:]))
        for name, (program, operations) in programs.OPERATIONS.items()
    }


def _record(session: Session, wanted: list[str]) -> None:
    for name, (program, make) in _requestors(session).items():
        if not wanted or name in wanted:
            _keep(Transcript(name, program, make().turns()))
    for name, (program, operations, start) in _acceptors(session).items():
        if not wanted or name in wanted:
            with Proxy(start()) as proxy:
                stock.operate(proxy.port, "GATEWAY", operations)
            _keep(Transcript(name, program, proxy.conversations[0].turns(), tuple(operations)))


def _keep(transcript: Transcript) -> None:
    """Save `transcript`, provided that it tells nothing of this machine."""
    said = b"".join(pdu for turn in transcript.turns for pdu in turn.pdus)
    for secret in (socket.gethostname(), getpass.getuser(), tempfile.gettempdir(), str(Path.home())):
        assert len(secret) < 4 or secret.encode() not in said, (transcript.name, secret)
    save(transcript)
    print(f"{transcript.name:32} {len(transcript.turns):3} turns {len(said):7} bytes")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    stock.quieten()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), programs.generate(Path(folder) / "files"))
        with session.stack:
            _record(session, sys.argv[1:])
    kept = [*transcripts(with_operations=False), *transcripts(with_operations=True)]
    print(len(kept), "transcripts;", subprocess.check_output(["du", "-sh", FOLDER], text=True).split()[0])


if __name__ == "__main__":
    main()
