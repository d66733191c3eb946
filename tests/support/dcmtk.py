"""DCMTK as peers: ``storescp`` and ``dcmqrscp`` as servers, ``storescu``, ``dcmsend`` and ``echoscu`` as clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import data
from tests.support.certificates import Files
from tests.support.ports import HOST, free_port, listens
from tests.support.processes import Running, run
from tests.support.waiting import wait_until

_PDU = ("-pdu", "131072")
_ACCEPTANCE = {"+xa", "+xi", "+x=", "+xe", "+xb", "+xs", "+xv", "+xw", "+xr", "+xd", "-xf"}


@dataclass
class StoreScp:
    """A running ``storescp``; `folder` is where it keeps what it received."""

    port: int
    ae_title: str
    folder: Path
    process: Running

    def received(self) -> dict[str, Path]:
        """Return the SOP Instance UIDs received so far with their files."""
        found = {}
        for path in self.folder.iterdir():
            head = data.head(path)
            if head is not None and "SOPInstanceUID" in head:  # else it is still being written
                found[str(head.SOPInstanceUID)] = path
        return found


@contextmanager
def storescp(
    folder: Path,
    *options: str | Path,
    ae_title: str = "STORESCP",
    port: int | None = None,
    tls: Files | None = None,
    bit_preserving: bool = True,
) -> Iterator[StoreScp]:
    """Run ``storescp`` with further `options` (``--refuse``, ``--abort-during``, ``--sleep-after``, ``+xa`` …).

    `tls` has the files ``ca``, ``certificate`` and ``key``; the peer's certificate is then required.
    """
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["storescp", "-v", "-aet", ae_title, "-pdu", "131072", "-dhl", "-od", folder]
    if bit_preserving:
        command.append("+B")
    if "-xf" not in options:
        command.append("-pm")
    if not {str(option) for option in options} & _ACCEPTANCE:
        command.append("+xa")
    if tls is not None:
        command += ["+tls", tls["key"], tls["certificate"], "+cf", tls["ca"], "-rc"]
    with Running([*command, *options, str(port)]) as process:
        wait_until(lambda: listens(port) or not process.alive(), f"storescp listening on {port}")
        assert process.alive(), process.output
        yield StoreScp(port, ae_title, folder, process)


def only(path: Path, sop_classes: Sequence[str], syntaxes: Sequence[str]) -> tuple[str | Path, ...]:
    """Return the options of a ``storescp`` that accepts `sop_classes` (UIDs) in `syntaxes` (DCMTK's names) only.

    It reads them from the file `path`, which is written.
    """
    lines = ["[[TransferSyntaxes]]", "[Those]"]
    lines += [f"TransferSyntax{number} = {name}" for number, name in enumerate(syntaxes, 1)]
    lines += ["[[PresentationContexts]]", "[Those]"]
    lines += [f"PresentationContext{number} = {uid}\\Those" for number, uid in enumerate(sop_classes, 1)]
    lines += ["[[Profiles]]", "[Only]", "PresentationContexts = Those"]
    path.write_text("\n".join(lines) + "\n")
    return "-xf", path, "Only"


@dataclass
class DcmQrScp:
    """A running ``dcmqrscp`` with one storage area."""

    port: int
    ae_title: str
    folder: Path
    process: Running
    files: dict[str, Path] = field(default_factory=dict)
    """SOP Instance UID to the file, for what the archive lists (it leaves out a file whose UIDs it cannot read)."""

    def load(self, files: Iterable[Path]) -> None:
        """Register copies of `files` in the archive's index, each in the transfer syntax it has.

        ``dcmqridx`` is what DCMTK offers for this; a C-STORE would need one presentation context per class and syntax.
        """
        for source in files:
            head = data.head(source)
            assert head is not None, source
            copy = self.folder / f"{len(self.files):06d}.dcm"
            copy.write_bytes(source.read_bytes())
            self.files[str(head.SOPInstanceUID)] = copy
        paths = [str(path) for path in self.files.values()]
        for start in range(0, len(paths), 500):
            run(["dcmqridx", self.folder, *paths[start : start + 500]], deadline_s=600)
        lines = run(["dcmqridx", "-p", self.folder]).stdout.splitlines()
        listed = {line.partition("Filename: ")[2] for line in lines}
        self.files = {uid: path for uid, path in self.files.items() if str(path) in listed}


def _dcmqrscp_config(port: int, ae_title: str, folder: Path, hosts: Mapping[str, tuple[str, int]]) -> str:
    entries = "\n".join(
        f"peer{number} = ({ae}, {host}, {peer_port})" for number, (ae, (host, peer_port)) in enumerate(hosts.items())
    )
    return f"""NetworkTCPPort  = {port}
MaxPDUSize      = 131072
MaxAssociations = 32
HostTable BEGIN
{entries}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title}  {folder}  RW (500, 1024mb)  ANY
AETable END
"""


PROPOSING = {
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""The option that lets ``dcmqrscp`` send a compressed transfer syntax. It proposes one context a SOP class: that syntax beside the
uncompressed ones (which it converts between), so that an archive can send at most one compressed syntax, and what it can send of a
class depends on which syntax the acceptor picks."""


def by_option(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files by the option that a ``dcmqrscp`` needs to send them; ``-x=`` sends what is uncompressed."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        head = data.head(path)
        assert head is not None, path
        groups.setdefault(PROPOSING.get(str(head.file_meta.TransferSyntaxUID), "-x="), []).append(path)
    return groups


@contextmanager
def dcmqrscp(
    folder: Path,
    *options: str | Path,
    hosts: Mapping[str, tuple[str, int]],
    ae_title: str = "ARCHIVE",
    files: Sequence[Path] = (),
    port: int | None = None,
) -> Iterator[DcmQrScp]:
    """Run ``dcmqrscp`` holding `files`; `hosts` maps the AE titles it may C-MOVE to onto (host, port).

    Further `options` are its own (``-xv`` …; see `PROPOSING`).
    """
    port = port or free_port()
    storage = folder / "storage"
    storage.mkdir(parents=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(_dcmqrscp_config(port, ae_title, storage, hosts))
    archive = DcmQrScp(port, ae_title, storage, None)  # type: ignore[arg-type]
    archive.load(files)
    command: list[str | Path] = ["dcmqrscp", "-v", "-c", config, *options]
    with Running(command) as archive.process:
        wait_until(lambda: echo(port, called_ae=ae_title) or not archive.process.alive(), f"dcmqrscp answering C-ECHO on {port}")
        assert archive.process.alive(), archive.process.output
        yield archive


def echo(port: int, *, called_ae: str = "ANY-SCP", calling_ae: str = "ECHOSCU") -> bool:
    """Send a C-ECHO and tell whether it was answered with success."""
    limits = ["-to", "2", "-ta", "5", "-td", "5"]
    done = run(["echoscu", *limits, "-aet", calling_ae, "-aec", called_ae, HOST, str(port)], check=False, deadline_s=15)
    return done.returncode == 0


def storescu(
    port: int,
    *files: Path | str,
    called_ae: str = "GATEWAY",
    calling_ae: str = "STORESCU",
    tls: Files | None = None,
    check: bool = True,
    deadline_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Send files or folders with ``storescu``, verbose; options may stand among `files`."""
    command: list[str | Path] = [
        "storescu",
        "-v",
        "+sd",
        "+r",
        "-aet",
        calling_ae,
        "-aec",
        called_ae,
        *_PDU,
        "--max-send-pdu",
        "131072",
    ]
    if tls is not None:
        command += ["+tls", tls["key"], tls["certificate"], "+cf", tls["ca"]]
    options = [part for part in files if isinstance(part, str)]
    paths = [part for part in files if isinstance(part, Path)]
    return run([*command, *options, HOST, str(port), *paths], check=check, deadline_s=deadline_s)


def dcmsend(
    port: int,
    *files: Path | str,
    called_ae: str = "GATEWAY",
    calling_ae: str = "DCMSEND",
    check: bool = True,
    deadline_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Send files or folders of any transfer syntax with ``dcmsend``, never decompressing; options may stand among `files`."""
    command: list[str | Path] = ["dcmsend", "-v", "+sd", "+r", "-nh", "-nuc", "-dn", "-aet", calling_ae, "-aec", called_ae, *_PDU]
    options = [part for part in files if isinstance(part, str)]
    paths = [part for part in files if isinstance(part, Path)]
    return run([*command, *options, HOST, str(port), *paths], check=check, deadline_s=deadline_s)
