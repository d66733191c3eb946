"""Files brought into another transfer syntax, and read back by somebody else."""

from __future__ import annotations

import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.pixels
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _read_file_meta_info, read_preamble

from gateway.codec.dataset.extent import Extent
from gateway.codec.transcode import Transcoded, transcode
from gateway.codec.workers.pool import Pool


@dataclass(frozen=True)
class DataSet:
    """The bytes of a data set and how they are encoded."""

    data: bytes
    syntax: str

    def part10(self) -> bytes:
        """Return a file of it: preamble and the least File Meta Information that readers need."""
        meta = pydicom.dataset.FileMetaDataset()
        meta.FileMetaInformationGroupLength = 0  # is counted when it is written
        meta.TransferSyntaxUID = self.syntax
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
        buffer = DicomBytesIO()
        pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=False)
        return bytes(128) + b"DICM" + buffer.getvalue() + self.data

    def read(self) -> pydicom.FileDataset:
        """Return it as pydicom reads it, without being judged."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(io.BytesIO(self.part10()))

    def pixels(self) -> np.ndarray:
        """Return its cells as pydicom finds them, with (rows, columns, samples) last."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.pixels.pixel_array(self.read(), raw=True)

    def write(self, folder: Path) -> Path:
        """Write it as a file."""
        path = folder / "made.dcm"
        path.write_bytes(self.part10())
        return path


def of_file(path: Path) -> DataSet:
    """Return the data set of a Part 10 file."""
    with path.open("rb") as file:
        read_preamble(file, force=False)
        meta = _read_file_meta_info(file)
        return DataSet(file.read(), str(meta.get("TransferSyntaxUID", "")))


def of_pydicom(dataset: pydicom.Dataset, syntax: str) -> DataSet:
    """Return what pydicom writes for `dataset`, uncompressed."""
    uid = pydicom.uid.UID(syntax)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = uid.is_implicit_VR, uid.is_little_endian
    pydicom.filewriter.write_dataset(buffer, dataset)
    return DataSet(buffer.getvalue(), syntax)


def bring(source: DataSet, target: str, pool: Pool, **options: object) -> DataSet:
    """Transcode `source`, asking that what is returned and what is in the file agree."""
    with tempfile.TemporaryFile() as before, tempfile.TemporaryFile() as after:
        before.write(b"what stands before" + source.data + b"what stands behind")
        before.flush()
        after.write(bytes(len(source.data) + 4096))  # longer than what comes: it is cut off
        after.flush()
        extent = Extent(before.fileno(), len(b"what stands before"), len(source.data))
        made = transcode(extent, source.syntax, target, after.fileno(), pool, **options)  # type: ignore[arg-type]
        after.seek(0)
        data = after.read()
    assert made == Transcoded(target, len(data), made.frames)
    return DataSet(data, target)
