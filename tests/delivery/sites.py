"""The same things to do with a folder and with a Storage SCP, for the suite that both adapters pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom

from gateway.config.settings import DicomDestination, FolderDestination
from gateway.delivery.adapters.dicom import CStore
from gateway.delivery.adapters.folder import Folder
from gateway.delivery.destination import Destination
from gateway.spool import Spool
from tests.support.archive import Archive
from tests.support.ports import HOST, free_port


@dataclass
class Site:
    """A destination with a way to look into it, to take it away and to bring it back."""

    destination: Destination
    contents: Callable[[], dict[str, bytes]]
    """SOP Instance UID to the data set's bytes."""

    close: Callable[[], None]
    reopen: Callable[[], None]


@contextmanager
def folder_site(tmp_path: Path, spool: Spool) -> Iterator[Site]:
    """A folder; closed, a file stands in its place (root may write anywhere, so permissions would prove nothing)."""
    root = tmp_path / "archive"
    aside = tmp_path / "archive.away"

    def contents() -> dict[str, bytes]:
        return {path.stem: _data_set(path) for path in root.rglob("*.dcm")} if root.is_dir() else {}

    def close() -> None:
        if root.exists():
            root.rename(aside)
        root.write_bytes(b"")

    def reopen() -> None:
        root.unlink()
        if aside.exists():
            aside.rename(root)

    yield Site(Folder("folder", FolderDestination(kind="folder", path=root), spool), contents, close, reopen)


def _data_set(path: Path) -> bytes:
    meta = pydicom.filereader.read_file_meta_info(path)
    return path.read_bytes()[144 + int(meta.FileMetaInformationGroupLength) :]


def dicom_settings(port: int, **values: object) -> DicomDestination:
    """Settings of a destination on this machine."""
    return DicomDestination.model_validate({"kind": "dicom", "ae_title": "ARCHIVE", "host": HOST, "port": port} | values)


@contextmanager
def dicom_site(_tmp_path: Path, spool: Spool) -> Iterator[Site]:
    """An archive of stock pynetdicom."""
    archive, port = Archive(), free_port()
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())

        def reopen() -> None:
            server.enter_context(archive.running(port=port))

        reopen()
        destination = CStore("pacs", dicom_settings(port), "GATEWAY", spool)
        yield Site(destination, lambda: dict(archive.held), server.close, reopen)
