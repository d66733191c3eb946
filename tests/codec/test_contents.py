"""Two files of one instance: what means the same is the same, and nothing that differs is passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from gateway.codec.contents import PIXELS
from gateway.core.errors import Incomparable
from tests.support import data

Change = Callable[[FileDataset], None]
Differing = Callable[[Path, Path], tuple[str, ...]]


@pytest.fixture
def pair(tmp_path: Path, differing: Differing) -> Callable[[Change], tuple[str, ...]]:
    """A function that tells what a file differs in from its changed self."""

    def compare(change: Change) -> tuple[str, ...]:
        dataset = data.ct_dataset(seed=1, number=1, rows=64)
        step = Dataset()
        step.ScheduledProcedureStepID = "S1"
        dataset.RequestAttributesSequence = Sequence([step])
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        other = pydicom.dcmread(tmp_path / "a.dcm")
        change(other)
        other.save_as(tmp_path / "b.dcm", enforce_file_format=True)
        found, back = differing(tmp_path / "a.dcm", tmp_path / "b.dcm"), differing(tmp_path / "b.dcm", tmp_path / "a.dcm")
        assert found == back
        return found

    return compare


def implicit(dataset: FileDataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def deflated(dataset: FileDataset) -> None:
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def compressed(dataset: FileDataset) -> None:
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)


def other_head(dataset: FileDataset) -> None:
    dataset.file_meta.SourceApplicationEntityTitle = "OTHER"
    dataset.add_new(0xFFFCFFFC, "OB", bytes(64))
    dataset.SliceThickness = "1.0"
    dataset[0x00080005].value = "ISO_IR 100 "


@pytest.mark.parametrize("change", [lambda _dataset: None, implicit, deflated, compressed, other_head])
def test_what_means_the_same_does_not_differ(pair: Callable[[Change], tuple[str, ...]], change: Change) -> None:
    assert pair(change) == ()


def flip(dataset: FileDataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[-7] ^= 1
    dataset.PixelData = bytes(pixels)


def flip_compressed(dataset: FileDataset) -> None:
    flip(dataset)
    compressed(dataset)


def within(dataset: FileDataset) -> None:
    dataset.RequestAttributesSequence[0].ScheduledProcedureStepID = "S2"


def one_more_item(dataset: FileDataset) -> None:
    dataset.RequestAttributesSequence.append(Dataset())


def private(dataset: FileDataset) -> None:
    dataset[0x00091010].value = "changed"


def without_pixels(dataset: FileDataset) -> None:
    del dataset.PixelData


def spelled_otherwise(dataset: FileDataset) -> None:
    dataset.PatientName = "Test^Muller^1"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (flip, (PIXELS,)),
        (flip_compressed, (PIXELS,)),
        (within, ("RequestAttributesSequence[1].ScheduledProcedureStepID",)),
        (one_more_item, ("RequestAttributesSequence[2]",)),
        (private, ("(0009,1010)",)),
        (without_pixels, (PIXELS,)),
        (spelled_otherwise, ("PatientName",)),
        (lambda dataset: setattr(dataset, "SliceThickness", "1.01"), ("SliceThickness",)),
        (lambda dataset: setattr(dataset, "ImageType", ["ORIGINAL", "PRIMARY"]), ("ImageType",)),
        (lambda dataset: delattr(dataset, "StudyDate"), ("StudyDate",)),
    ],
)
def test_what_differs_is_named(pair: Callable[[Change], tuple[str, ...]], change: Change, names: tuple[str, ...]) -> None:
    assert pair(change) == names


def test_what_cannot_be_read_is_told_without_what_is_in_it(tmp_path: Path, differing: Differing) -> None:
    (tmp_path / "a").write_bytes(b"Mueller^Hans, no DICOM")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(Incomparable, match="a file cannot be read") as caught:
        differing(tmp_path / "a", tmp_path / "b")
    assert "Mueller" not in str(caught.value)
