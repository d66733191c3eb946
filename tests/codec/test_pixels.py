"""Pixels of every description survive compression and decompression, and so does everything around them."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.workers.pool import Pool
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, HTJ2K_LOSSLESS, J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS
from tests.support import judging
from tests.support.elements import Made
from tests.support.images import BEFORE, BEHIND, Image
from tests.support.transcoding import DataSet, bring

_TARGETS = [J2K_LOSSLESS, HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS]


_EXTENTS = st.one_of(st.integers(1, 40), st.integers(32, 70))


@st.composite
def _images(draw: st.DrawFn) -> Image:
    samples = draw(st.sampled_from([1, 1, 3]))
    allocated = draw(st.sampled_from([8, 16, 16, 32]))
    photometric = draw(st.sampled_from(["RGB", "YBR_FULL"] if samples == 3 else ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"]))
    return Image(
        rows=draw(_EXTENTS),
        columns=draw(_EXTENTS),
        samples=samples,
        allocated=allocated,
        stored=draw(st.integers(17, 23 if photometric == "RGB" else 24) if allocated == 32 else st.integers(1, allocated)),
        signed=samples == 1 and draw(st.booleans()),
        frames=draw(st.sampled_from([None, 1, 2, 5])),
        planar=draw(st.sampled_from([0, 1])) if samples == 3 else None,
        photometric=photometric,
    )


@given(image=_images(), seed=st.integers(0, 1000))
@settings(max_examples=120)
def test_there_and_back_gives_the_same_bytes(pool: Pool, image: Image, seed: int) -> None:
    cells = image.cells(seed)
    source = image.data_set(image.native(cells), before=BEFORE, behind=BEHIND)
    made = bring(source, J2K_LOSSLESS, pool)
    assert np.array_equal(made.pixels().reshape(cells.shape).astype(cells.dtype), cells)
    back = bring(made, EXPLICIT_LITTLE, pool)
    interleaved = replace(image, planar=0 if image.samples == 3 else None)
    expected = interleaved.data_set(interleaved.native(cells), before=BEFORE, behind=BEHIND).data
    assert back.data == _vr_of_pixel_data(expected, image)


@pytest.mark.parametrize("target", _TARGETS)
@given(image=_images(), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_each_codec_keeps_the_pixels_or_says_why_not(pool: Pool, target: str, image: Image, seed: int) -> None:
    cells = image.cells(seed)
    source = image.data_set(image.native(cells), before=BEFORE, behind=BEHIND)
    try:
        made = bring(source, target, pool)
    except NotTranscodable as error:
        assert image.allocated == 32 or image.stored == 1, error
        return
    back = bring(made, EXPLICIT_LITTLE, pool).read()
    flat = np.frombuffer(back.PixelData, cells.dtype)[: cells.size]
    planar = image.samples == 3 and back.PlanarConfiguration == 1
    shape = (cells.shape[0], image.samples, image.rows, image.columns) if planar else cells.shape
    found = flat.reshape(shape)
    assert np.array_equal(found.transpose(0, 2, 3, 1) if planar else found, cells)


def _vr_of_pixel_data(data: bytes, image: Image) -> bytes:
    return data if image.allocated > 8 else data.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00OB")


def test_attributes_say_what_the_codestream_is(pool: Pool) -> None:
    image = Image(samples=3, allocated=8, stored=8, planar=1, photometric="RGB")
    made = bring(image.data_set(image.native(image.cells())), J2K_LOSSLESS, pool).read()
    assert (made.PhotometricInterpretation, made.PlanarConfiguration, made.BitsStored) == ("YBR_RCT", 0, 8)
    assert "LossyImageCompression" not in made


def test_the_group_length_of_the_attributes_follows(pool: Pool) -> None:
    image = Image(samples=3, allocated=8, stored=8, planar=0, photometric="RGB")
    made = bring(image.data_set(image.native(image.cells())), J2K_LOSSLESS, pool).data
    begin = made.index(b"\x28\x00\x00\x00UL")
    (length,) = struct.unpack_from("<L", made, begin + 8)
    assert begin + 12 + length == made.index(b"\xe0\x7f\x10\x00OB")


def test_planar_configuration_is_added_where_it_was_missing(pool: Pool) -> None:
    image = Image(samples=3, allocated=8, stored=8, planar=None, photometric="RGB")
    made = bring(image.data_set(image.native(image.cells()), behind=BEHIND), J2K_LOSSLESS, pool)
    assert made.read().PlanarConfiguration == 0
    assert list(made.read().keys()) == sorted(made.read().keys())


@pytest.mark.parametrize("signed", [False, True])
def test_zeroes_above_the_stored_bits_say_nothing(pool: Pool, signed: bool) -> None:
    image = Image(signed=signed)
    cells = image.cells() & 0x0FFF
    made = bring(image.data_set(image.native(cells)), J2K_LOSSLESS, pool)
    assert np.array_equal(made.pixels().astype("<u2") & 0x0FFF, cells[0, :, :, 0])


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_above_the_stored_bits_is_never_lost(pool: Pool, signed: bool) -> None:
    image = Image(signed=signed)
    cells = image.cells() & 0x0FFF
    cells[0, 3, 5, 0] |= 0x1000
    with pytest.raises(NotTranscodable, match="overlay"):
        bring(image.data_set(image.native(cells)), J2K_LOSSLESS, pool)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(stored=12, high_bit=15), "high bit 15"),
        (Image(allocated=32, stored=32), "32 bits stored"),
        (Image(samples=3, allocated=8, stored=8, planar=0, photometric="YBR_FULL_422"), "YBR_FULL_422"),
        (Image(samples=4, allocated=8, stored=8, planar=0, photometric="CMYK"), "4 samples"),
        (Image(samples=2, allocated=8, stored=8, planar=0), "2 samples"),
        (Image(stored=0, high_bit=15), "0 bits stored"),
        (Image(rows=0), "no rows"),
        (Image(frames=999_999_999), "bytes where"),
    ],
)
def test_what_cannot_be_compressed_is_named(pool: Pool, image: Image, reason: str) -> None:
    small = Image(rows=image.rows, columns=image.columns, allocated=image.allocated)
    with pytest.raises(NotTranscodable, match=reason):
        bring(image.data_set(bytes(small.rows * small.columns * small.allocated // 8)), J2K_LOSSLESS, pool)


_SMALL = [(1, 1), (1, 600), (600, 1), (2, 2), (3, 3), (4, 5), (7, 64), (8, 8), (15, 16), (31, 31), (33, 17)]


@pytest.mark.parametrize("target", _TARGETS)
@pytest.mark.parametrize(("rows", "columns"), _SMALL)
def test_small_images_are_compressed_too(pool: Pool, tmp_path: Path, rows: int, columns: int, target: str) -> None:
    for image in (
        Image(rows, columns),
        Image(rows, columns, signed=True, frames=2),
        Image(rows, columns, allocated=8, stored=8),
        Image(rows, columns, samples=3, allocated=8, stored=8, planar=1, photometric="RGB"),
        Image(rows, columns, samples=3, allocated=8, stored=8, planar=0, photometric="YBR_FULL"),
    ):
        cells = image.cells()
        made = bring(image.data_set(image.native(cells)), target, pool)
        found = bring(made, EXPLICIT_LITTLE, pool).pixels()
        assert np.array_equal(found.reshape(cells.shape).astype(cells.dtype), cells), image
        if target == J2K_LOSSLESS:
            judged = judging.by_gdcm(made.write(tmp_path))
            assert judged is not None and np.array_equal(judged.cells.reshape(cells.shape).astype(cells.dtype), cells), image


def test_one_bit_pixels_change_headers_only(pool: Pool) -> None:
    image = Image(rows=33, columns=33, allocated=1, stored=1, frames=3)
    source = image.data_set(bytes(range(256)) + bytes(153))
    with pytest.raises(NotTranscodable, match="one-bit"):
        bring(source, J2K_LOSSLESS, pool)
    assert bring(bring(source, "1.2.840.10008.1.2", pool), EXPLICIT_LITTLE, pool) == source


def test_pixel_data_longer_or_shorter_than_its_frames_is_not_compressed(pool: Pool) -> None:
    image = Image()
    native = image.native(image.cells())
    for wrong in (native[:-2], native + bytes(2)):
        with pytest.raises(NotTranscodable, match="bytes where"):
            bring(image.data_set(wrong), J2K_LOSSLESS, pool)


def test_a_vr_of_tomorrow_and_deep_oddities_are_copied(pool: Pool) -> None:
    image = Image()
    odd = [
        Made(0x00091003, "ZZ", b"what will come"),
        Made(0x00091004, "SQ", items=[[Made(0x7FE00010, "OW", b"icon")]], defined=False),
        Made(0x00091005, "SQ", items=[[Made(0x00280004, "CS", b"RGB ")], []]),
    ]
    source = image.data_set(image.native(image.cells()), before=odd, behind=[*BEHIND[:1], Made(0x7FE11002, "ZZ", b"odd")])
    assert bring(bring(source, J2K_LOSSLESS, pool), EXPLICIT_LITTLE, pool) == source


def test_no_pixels_no_compression(pool: Pool) -> None:
    source = DataSet(b"\x08\x00\x18\x00UI\x04\x001.2\0", EXPLICIT_LITTLE)
    with pytest.raises(NotTranscodable, match="no Pixel Data"):
        bring(source, J2K_LOSSLESS, pool)
