"""The data sets that are sent: generated, the same on every machine, laid out so that senders can share them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, cached_property, partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import UID, JPEG2000Lossless

from tests.support import data

PARTS = 16
"""Folders of a data set; so many senders at once can each have files of their own."""

FIRST = 10001
"""Instance numbers have five digits, so that every UID of a data set has the same length."""

FRAME_ROWS, SMALL_ROWS = 512, 100
"""Rows and columns of a CT slice, and of an instance of 20 KB."""

MODELS = 32
"""JPEG 2000 is slow to encode: so many different slices, then the same again under other UIDs."""

FORMAT = 1
"""Counts up whenever what is generated changes, so that kept data sets of an older form are not taken."""

FIRST_DAY, STUDIES_A_DAY = date(2024, 1, 1), 10
MODEL_DAY = b"20240229"
"""The study date of what `tests.support.data` makes."""

ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2.1")


@dataclass(frozen=True)
class DataSet:
    """Part 10 files in the folders of `parts`."""

    name: str
    folder: Path
    study_uid: str
    piece: tuple[int, int] = (0, 1)
    """Which of how many pieces it is."""

    def split(self, pieces: int) -> list[DataSet]:
        """Return so many data sets that have each file once between them."""
        return [replace(self, piece=(number, pieces)) for number in range(pieces)]

    @cached_property
    def parts(self) -> list[Path]:
        """The folders that hold the files."""
        number, pieces = self.piece
        return sorted(path for path in self.folder.iterdir() if path.is_dir())[number::pieces]

    @cached_property
    def files(self) -> list[Path]:
        """All files, in an order that is the same every time."""
        return sorted(path for part in self.parts for path in part.iterdir())

    @property
    def count(self) -> int:
        """Number of instances."""
        return len(self.files)

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)

    def shares(self, senders: int) -> list[list[Path]]:
        """Return the folders that each of `senders` sends."""
        return [self.parts[number::senders] for number in range(senders)]


@dataclass(frozen=True)
class Sizes:
    """Number of instances of each kind."""

    ct: int = 1000
    small: int = 5000
    slow: int = 200
    stalled: int = 100
    frames: int = 1907
    slices: int = 120
    large: int = 12
    volume: int = 2048
    idle_s: float = 10.0
    echoes: int = 1000
    singles: int = 60
    studies: int = 200
    ct_studies: int = 200
    of_study: int = 20
    history: int = 10_000_000
    waiting: int = 1_000_000


Encode = Callable[[int, int, int], bytes]
"""Return the file of an instance, by seed, instance number and rows."""

FULL = Sizes()
QUICK = Sizes(
    ct=96,
    small=320,
    slow=48,
    stalled=32,
    frames=160,
    slices=24,
    large=4,
    volume=64,
    idle_s=3.0,
    echoes=200,
    singles=20,
    studies=40,
    ct_studies=10,
    history=100_000,
    waiting=10_000,
)


class DataSets:
    """Makes each data set in `folder` when it is first asked for, or takes the whole one that is there from an earlier run."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.sizes = sizes
        self._folder = folder
        self._made: dict[str, DataSet] = {}

    @property
    def ct(self) -> DataSet:
        """CT slices of 525 KB."""
        return self._series("ct", seed=21, count=self.sizes.ct, rows=FRAME_ROWS)

    @property
    def small(self) -> DataSet:
        """Instances of about 20 KB."""
        return self._series("small", seed=22, count=self.sizes.small, rows=SMALL_ROWS)

    @property
    def ct_beside(self) -> DataSet:
        """As many other CT slices."""
        return self._series("ct-beside", seed=31, count=self.sizes.ct, rows=FRAME_ROWS)

    @property
    def small_beside(self) -> DataSet:
        """As many other small instances."""
        return self._series("small-beside", seed=32, count=self.sizes.small, rows=SMALL_ROWS)

    @property
    def j2k(self) -> DataSet:
        """The CT slices in JPEG 2000 Lossless."""
        return self._series("j2k", seed=23, count=self.sizes.ct, rows=FRAME_ROWS, encode=_compressed)

    @property
    def slow(self) -> DataSet:
        """A few of the CT slices, for relays that take long."""
        return self._series("slow", seed=25, count=self.sizes.slow, rows=FRAME_ROWS)

    @property
    def stalled(self) -> DataSet:
        """A few of the CT slices, for peers that stall 40 ms an instance."""
        return self._series("stalled", seed=24, count=self.sizes.stalled, rows=FRAME_ROWS)

    @property
    def earlier(self) -> DataSet:
        """Instances that a gateway took and released before: as many CT slices as are measured."""
        return self._series("earlier", seed=28, count=self.sizes.ct, rows=FRAME_ROWS)

    @property
    def studies(self) -> DataSet:
        """Studies of a few instances of 20 KB each, ten on each day from `FIRST_DAY` on."""
        return self._studies("studies", self.sizes.studies, SMALL_ROWS)

    @property
    def ct_studies(self) -> DataSet:
        """Studies of a few CT slices of 525 KB each, ten on each day from `FIRST_DAY` on."""
        return self._studies("ct-studies", self.sizes.ct_studies, FRAME_ROWS)

    @property
    def warm(self) -> DataSet:
        """A handful, sent before each measurement so that nothing is done for the first time in it."""
        return self._series("warm", seed=26, count=PARTS, rows=FRAME_ROWS)

    @property
    def multiframe(self) -> DataSet:
        """One instance of 1 GB."""
        frames = self.sizes.frames
        return self._once("multiframe", 27, frames, lambda folder: _multiframe(folder, frames, _frames(frames)))

    @property
    def slices(self) -> DataSet:
        """A few CT slices of 525 KB that compress as CT does."""
        return self._series("slices", seed=29, count=self.sizes.slices, rows=FRAME_ROWS, encode=_compressible)

    @property
    def large(self) -> DataSet:
        """A few instances of 8.4 MB, 2048×2048, that compress as CT and DX do."""
        return self._series("large", seed=30, count=self.sizes.large, rows=2048, encode=_compressible)

    @property
    def volume(self) -> DataSet:
        """One instance of 1 GiB that compresses as CT does."""
        frames = self.sizes.volume
        return self._once("volume", 31, frames, lambda folder: _multiframe(folder, frames, _compressible_frames(frames)))

    def _series(self, name: str, *, seed: int, count: int, rows: int, encode: Encode | None = None) -> DataSet:
        return self._once(name, seed, count, lambda folder: _write(folder, seed, count, rows, encode or _plain))

    def _studies(self, name: str, studies: int, rows: int) -> DataSet:
        write = partial(_write_studies, studies=studies, instances=self.sizes.of_study, rows=rows)
        return self._once(name, 1000, studies * self.sizes.of_study, write)

    def _once(self, name: str, seed: int, count: int, make: Callable[[Path], None]) -> DataSet:
        if name not in self._made:
            folder = self._folder / f"{name}-{count}-{FORMAT}"
            if not folder.is_dir():
                _make_whole(folder, make)
            self._made[name] = DataSet(name, folder, f"{data.UID_ROOT}.{seed}.1")
        return self._made[name]


def _make_whole(folder: Path, make: Callable[[Path], None]) -> None:
    """Make `folder` in one step: what an interrupted run left is never taken for a data set."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        make(partial)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write(folder: Path, seed: int, count: int, rows: int, encode: Encode) -> None:
    for number in range(PARTS):
        (folder / f"{number:02d}").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        part = folder / f"{index % PARTS:02d}" / f"{FIRST + index}.dcm"
        part.write_bytes(encode(seed, FIRST + index, rows))


def study_uid(number: int) -> str:
    """Return the Study Instance UID of the nth study (from 0) of `DataSets.studies`."""
    return f"{data.UID_ROOT}.{1000 + number}.1"


def _write_studies(folder: Path, *, studies: int, instances: int, rows: int) -> None:
    """Write each study into a folder of its own; the model's date and the digits of its instance number are replaced."""
    for study in range(studies):
        part = folder / f"{study:04d}"
        part.mkdir(parents=True)
        day = (FIRST_DAY + timedelta(days=study // STUDIES_A_DAY)).strftime("%Y%m%d").encode()
        for index in range(instances):
            encoded = _plain(1000 + study, FIRST + index, rows)
            (part / f"{FIRST + index}.dcm").write_bytes(encoded.replace(MODEL_DAY, day))


def _plain(seed: int, number: int, rows: int) -> bytes:
    """Return a slice with pixels of its own, made from one encoded head: a thousand times pydicom takes long."""
    model = _model(seed, rows)
    pixels = np.random.default_rng((seed, number)).integers(0, 1060, rows * rows, dtype="<u2").tobytes()
    return model.replace(b".10000", f".{number}".encode())[: -len(pixels)] + pixels


@cache
def _model(seed: int, rows: int) -> bytes:
    return _encoded(data.ct_dataset(seed=seed, number=10000, rows=rows))


@cache
def _compressed_model(seed: int, number: int, rows: int) -> bytes:
    dataset = data.ct_dataset(seed=seed, number=number, rows=rows)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return _encoded(dataset)


def _compressed(seed: int, number: int, rows: int) -> bytes:
    model = FIRST + (number - FIRST) % MODELS
    old, new = (f"{data.UID_ROOT}.{seed}.1.1.{value}".encode() for value in (model, number))
    return _compressed_model(seed, model, rows).replace(old, new)


def _compressible(seed: int, number: int, rows: int) -> bytes:
    """Return a slice whose pixels are no mere noise: codecs make two fifths of it."""
    return _encoded(data.ct_dataset(seed=seed, number=number, rows=rows))


def _encoded(dataset: FileDataset) -> bytes:
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _multiframe(folder: Path, count: int, frames: Iterable[bytes]) -> None:
    part = folder / "00"
    part.mkdir(parents=True, exist_ok=True)
    dataset = data.ct_dataset(seed=27, number=FIRST, rows=FRAME_ROWS)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    dataset.NumberOfFrames = count
    frame_bytes = len(dataset.PixelData)
    head = _encoded(dataset)[: -frame_bytes - 4] + (frame_bytes * count).to_bytes(4, "little")
    with (part / "multiframe.dcm").open("wb") as file:
        file.write(head)
        file.writelines(frames)


def _frames(count: int) -> Iterator[bytes]:
    random = np.random.default_rng(27)
    for _ in range(count):
        yield random.integers(0, 4096, FRAME_ROWS * FRAME_ROWS, dtype="<u2").tobytes()


def _compressible_frames(count: int) -> Iterator[bytes]:
    models = [data.ct_dataset(seed=31, number=FIRST + number, rows=FRAME_ROWS).PixelData for number in range(MODELS)]
    return islice(cycle(models), count)
