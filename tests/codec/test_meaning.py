"""Meanings of values: equal ones that look different are the same, and different ones that look equal are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from gateway.codec.contents import PIXELS
from gateway.codec.dataset.headers import LONG_VRS, SHORT_VRS
from gateway.codec.dataset.meaning import meaning
from gateway.core.errors import Incomparable
from tests.support import data

Change = Callable[[FileDataset], None]
Differing = Callable[[Path, Path], tuple[str, ...]]


def setting(**values: object) -> Change:
    def change(dataset: FileDataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def adding(tag: int, vr: str, value: object) -> Change:
    return lambda dataset: dataset.add_new(tag, vr, value) and None


@pytest.mark.parametrize(
    ("vr", "one", "other", "same"),
    [
        (b"LO", b"007", b"7", False),
        (b"SH", b"1E3", b"1000", False),
        (b"UI", b"1.20", b"1.2", False),
        (b"TM", b"120000", b"120000.0", False),
        (b"DS", b"1", b"1.000", True),
        (b"DS", b"1E3 ", b"1000", True),
        (b"DS", b"NaN", b"NaN ", True),
        (b"DS", b"1_0", b"10", False),
        (b"DS", b"0.12345678901234567890123456789012", b"0.12345678901234567890123456789013", False),
        (b"DS", b"1\\2.0 ", b"1.0\\2", True),
        (b"IS", b"+1", b"1", True),
        (b"CS", b"A\\\\B", b"A\\B", False),
        (b"CS", b"A\\B\\", b"A\\B", False),
        (b"CS", b"A \\B", b"A\\B ", True),
        (b"LO", b" A", b"A", True),
        (b"LO", b"\x83\x5c B", b"\x83\x5cB", False),
        (b"LT", b" A", b"A", False),
        (b"LT", b"A \0", b"A", True),
        (b"UC", b" A\\B ", b" A\\B", True),
        (b"UC", b" A", b"A", False),
        (b"PN", b"", b" ", True),
        (b"OB", b"ab", b"ab  ", False),
        (b"OB", b"abc", b"abc\0", True),
        (b"OW", b"ab", b"ab\0\0", False),
        (b"US", b"\0\0", b"\x20\0", False),
        (b"FD", bytes(8), bytes(7) + b"\x80", False),
    ],
)
def test_values_mean_the_same_or_not(vr: bytes, one: bytes, other: bytes, same: bool) -> None:
    assert (meaning(vr, one) == meaning(vr, other)) is same


@given(st.sampled_from(sorted(LONG_VRS | SHORT_VRS)), st.binary(max_size=40))
def test_whatever_bytes_a_value_has_it_means_itself(vr: bytes, value: bytes) -> None:
    assert meaning(vr, value) == meaning(vr, value)
    assert hash(meaning(vr, value)) == hash(meaning(vr, value))


@pytest.fixture
def compared(tmp_path: Path, differing: Differing) -> Callable[[Change, Change], tuple[str, ...]]:
    """Tells in what a file of a prepared instance differs from the same, changed."""

    def compare(prepare: Change, change: Change) -> tuple[str, ...]:
        dataset = data.ct_dataset(seed=1, number=1, rows=64)
        prepare(dataset)
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        other = pydicom.dcmread(tmp_path / "a")
        change(other)
        other.save_as(tmp_path / "b", enforce_file_format=True)
        found = differing(tmp_path / "a", tmp_path / "b")
        assert found == differing(tmp_path / "b", tmp_path / "a")
        return found

    return compare


def implicitly(change: Change) -> Change:
    """The change, and all of it in Implicit VR: the values are encoded anew."""

    def both(dataset: FileDataset) -> None:
        change(dataset)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    return both


SMALLEST, PRIVATE = 0x00280106, 0x00091011


@pytest.mark.parametrize("encoded", [lambda change: change, implicitly], ids=["as it was", "implicit"])
@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (setting(PatientID="007"), setting(PatientID="7"), ("PatientID",)),
        (setting(FrameOfReferenceUID="1.20"), setting(FrameOfReferenceUID="1.2"), ("FrameOfReferenceUID",)),
        (setting(ImageType=["A", "", "B"]), setting(ImageType=["A", "B"]), ("ImageType",)),
        (setting(PatientComments=" a"), setting(PatientComments="a"), ("PatientComments",)),
        (adding(SMALLEST, "US", 0), adding(SMALLEST, "US", 32), ("SmallestImagePixelValue",)),
        (adding(SMALLEST, "US", 5), adding(SMALLEST, "US", 0x2005), ("SmallestImagePixelValue",)),
        (adding(SMALLEST, "US", 5), adding(SMALLEST, "US", 5), ()),
        (adding(PRIVATE, "OB", b"ab"), adding(PRIVATE, "OB", b"ab  "), ("(0009,1011)",)),
        (adding(PRIVATE, "US", 5), adding(PRIVATE, "UN", b"\5\0"), ()),
        (adding(PRIVATE, "US", 5), adding(PRIVATE, "UN", b"\6\0"), ("(0009,1011)",)),
        (adding(PRIVATE, "LO", "a"), adding(PRIVATE, "UN", b"a\0"), ()),
        (adding(PRIVATE, "UT", "x" * 3_000_000), adding(PRIVATE, "UT", "x" * 2_999_999 + "y"), ("(0009,1011)",)),
    ],
)
def test_differences_in_files_are_named(
    compared: Callable[[Change, Change], tuple[str, ...]],
    before: Change,
    after: Change,
    names: tuple[str, ...],
    encoded: Callable[[Change], Change],
) -> None:
    assert compared(before, encoded(after)) == names


def test_big_endian_is_the_same_as_little_endian(tmp_path: Path, differing: Differing) -> None:
    dataset = data.ct_dataset(seed=1, number=1, rows=64)
    dataset.add_new(0x00281201, "OW", b"\1\2\3\4")
    dataset.add_new(SMALLEST, "US", 258)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.add_new(0x00281201, "OW", b"\2\1\4\3")
    pydicom.dcmwrite(tmp_path / "b", dataset, enforce_file_format=True)
    assert differing(tmp_path / "a", tmp_path / "b") == ()
    dataset.add_new(SMALLEST, "US", 513)
    pydicom.dcmwrite(tmp_path / "b", dataset, enforce_file_format=True)
    assert differing(tmp_path / "a", tmp_path / "b") == ("SmallestImagePixelValue",)


def test_pixels_that_were_cut_off_differ_even_where_they_were_zero(tmp_path: Path, differing: Differing) -> None:
    dataset = data.ct_dataset(seed=1, number=1, rows=64)
    dataset.PixelData = bytes(2 * 64 * 64)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    dataset.PixelData = bytes(64 * 64)
    dataset.save_as(tmp_path / "b", enforce_file_format=True)
    assert differing(tmp_path / "a", tmp_path / "b") == (PIXELS,)


def test_signed_pixels_of_twelve_bits_survive_compression(compared: Callable[[Change, Change], tuple[str, ...]]) -> None:
    cells = (np.arange(4096) % 4096 - 2048).astype("<i2")
    signed = setting(BitsStored=12, HighBit=11, PixelRepresentation=1, PixelData=cells.tobytes())
    assert compared(signed, lambda one: one.compress(JPEG2000Lossless, generate_instance_uid=False)) == ()


def test_a_file_that_lacks_its_transfer_syntax_cannot_be_compared(tmp_path: Path, differing: Differing) -> None:
    dataset = data.ct_dataset(seed=1, number=1, rows=4)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    del dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(tmp_path / "b", dataset, implicit_vr=False, little_endian=True)
    with pytest.raises(Incomparable, match="cannot be"):
        differing(tmp_path / "a", tmp_path / "b")
