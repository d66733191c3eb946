"""Fragments and offset tables as senders write them, and as we do (PS3.5 §A.4)."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Sequence

import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames, parse_basic_offsets

from gateway.codec.dataset.encapsulation import EncapsulatedWriter
from gateway.codec.dataset.extent import Output
from gateway.codec.workers.pool import Pool
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, J2K_LOSSLESS, RLE_LOSSLESS
from tests.support.elements import Made
from tests.support.images import Image
from tests.support.transcoding import DataSet, bring

_IMAGE = Image(frames=3)
_OB_UNDEFINED = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.fixture(scope="module")
def frames(pool: Pool) -> list[bytes]:
    """The codestreams of the three frames of `_IMAGE`."""
    made = bring(_IMAGE.data_set(_IMAGE.native(_IMAGE.cells())), J2K_LOSSLESS, pool).read()
    return list(generate_frames(made.PixelData, number_of_frames=3))


def _around(value: bytes, image: Image = _IMAGE, extended: Sequence[Made] = ()) -> DataSet:
    before = image.data_set(b"", behind=extended).data
    begin = before.index(b"\xe0\x7f\x10\x00OW")
    return DataSet(before[:begin] + before[begin + 12 :] + _OB_UNDEFINED + value + _END, J2K_LOSSLESS)


def _items(parts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in parts)


def _fragments(frame: bytes, count: int) -> list[bytes]:
    size = len(frame) // count // 2 * 2
    return [*(frame[size * number : size * (number + 1)] for number in range(count - 1)), frame[size * (count - 1) :]]


def _even(frames: list[bytes]) -> list[bytes]:
    return [frame + bytes(len(frame) % 2) for frame in frames]


def test_fragments_are_put_together_by_every_kind_of_table(pool: Pool, frames: list[bytes]) -> None:
    expected = _IMAGE.native(_IMAGE.cells())
    split = [part for frame in _even(frames) for part in _fragments(frame, 3)]
    lengths = [len(frame) for frame in _even(frames)]
    offsets = [0, lengths[0] + 24, lengths[0] + lengths[1] + 48]
    extended, table, sizes = encapsulate_extended(frames)
    for source in (
        _around(encapsulate(frames, has_bot=True)),
        _around(encapsulate(frames, has_bot=False)),
        _around(_items([b"", *split])),
        _around(_items([struct.pack("<3L", *offsets), *split])),
        _around(extended, extended=[Made(0x7FE00001, "OV", table), Made(0x7FE00002, "OV", sizes)]),
        _around(_items([b"", *split]), extended=[Made(0x7FE00001, "OV", struct.pack("<3Q", *offsets))]),
    ):
        made = bring(source, EXPLICIT_LITTLE, pool).read()
        assert made.PixelData == expected
        assert "ExtendedOffsetTable" not in made
        assert "ExtendedOffsetTableLengths" not in made


def test_one_frame_may_have_any_number_of_fragments(pool: Pool, frames: list[bytes]) -> None:
    one = Image()
    source = _around(_items([b"", *_fragments(_even(frames)[0], 5)]), one)
    assert bring(source, EXPLICIT_LITTLE, pool).read().PixelData == _IMAGE.native(_IMAGE.cells()[:1])


@pytest.mark.parametrize(
    "kind", ["too few", "no start", "table of others", "table backwards", "none", "no table", "no end", "no item"]
)
def test_fragments_that_cannot_be_told_apart_are_refused(pool: Pool, frames: list[bytes], kind: str) -> None:
    even = _even(frames)
    value = {
        "too few": _items([b"", *even[:2]]),
        "no start": _items([b"", *even, b"\0\0"]).replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x50"),
        "table of others": _items([struct.pack("<3L", 0, 2, 4), *even, b"\0\0"]),
        "table backwards": _items([struct.pack("<3L", 0, 0, 0), *even, b"\0\0"]),
        "none": _items([b""]),
        "no table": b"",
        "no end": _items([b"", *even])[:-10],
        "no item": _items([b"", *even]) + b"\x08\0\x18\0UI\0\0",
    }[kind]
    with pytest.raises(NotTranscodable):
        bring(_around(value), EXPLICIT_LITTLE, pool)


def test_a_table_is_written_that_readers_can_use(pool: Pool, frames: list[bytes]) -> None:
    made = bring(_IMAGE.data_set(_IMAGE.native(_IMAGE.cells())), J2K_LOSSLESS, pool).read()
    offsets = parse_basic_offsets(made.PixelData)
    assert len(offsets) == 3
    assert offsets[0] == 0
    assert [made.PixelData[made.PixelData.index(b"\xfe\xff\x00\xe0", 8) + offset :][8:12] for offset in offsets] == [
        b"\xff\x4f\xff\x51"
    ] * 3


def test_where_offsets_may_not_fit_the_extended_table_is_written(frames: list[bytes]) -> None:
    with tempfile.TemporaryFile() as file:
        output = Output(file.fileno())
        writer = EncapsulatedWriter(output, 3, extended=True)
        writer.begin()
        for frame in frames:
            writer.add(frame)
        writer.end()
        length = output.finish()
        data = os.pread(file.fileno(), length, 0)
    made = pydicom.dcmread(io.BytesIO(DataSet(_IMAGE.data_set(b"").data[:-12] + data, J2K_LOSSLESS).part10()))
    tables = (made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths)
    assert parse_basic_offsets(made.PixelData) == []
    assert list(generate_frames(made.PixelData, number_of_frames=3, extended_offsets=tables)) == _even(frames)


def test_from_one_compression_to_another(pool: Pool, frames: list[bytes]) -> None:
    made = bring(bring(_around(encapsulate(frames)), RLE_LOSSLESS, pool), J2K_LOSSLESS, pool)
    assert list(generate_frames(made.read().PixelData, number_of_frames=3)) == _even(frames)


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_an_icon_that_is_compressed_itself_is_not_left_behind(pool: Pool, frames: list[bytes], target: str) -> None:
    one = Image()
    icon = encapsulate(frames[:1])
    nested = b"\x88\x00\x00\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + _OB_UNDEFINED + icon + _END
    nested += b"\xfe\xff\x0d\xe0\0\0\0\0" + _END
    source = _around(icon, one)
    at = source.data.index(_OB_UNDEFINED)
    with pytest.raises(NotTranscodable, match="Icon"):
        bring(DataSet(source.data[:at] + nested + source.data[at:], J2K_LOSSLESS), target, pool)


def test_pixel_data_whose_encoding_contradicts_its_syntax_is_refused(pool: Pool, frames: list[bytes]) -> None:
    native = _IMAGE.data_set(_IMAGE.native(_IMAGE.cells()))
    with pytest.raises(NotTranscodable, match="has a length"):
        bring(DataSet(native.data, J2K_LOSSLESS), EXPLICIT_LITTLE, pool)
    with pytest.raises(NotTranscodable, match="has no length"):
        bring(DataSet(_around(encapsulate(frames)).data, EXPLICIT_LITTLE), J2K_LOSSLESS, pool)
