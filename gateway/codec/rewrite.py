"""Pixels compressed or decompressed; every byte of the data set that does not describe them is copied (PS3.5 §8.2)."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.codec.dataset.encapsulation import EncapsulatedWriter, Range
from gateway.codec.dataset.extent import COPY_BYTES, Extent, Output, write_at
from gateway.codec.dataset.headers import PIXEL_DATA
from gateway.codec.frames import in_order, ranges_of, taken
from gateway.codec.pixels import attributes
from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.pixels.suitable import after_decoding, after_encoding, lossy_flag, require_encodable
from gateway.codec.pixels.survey import Survey, group_length, survey
from gateway.codec.workers.order import Order
from gateway.codec.workers.pool import Pool
from gateway.core.errors import CodecFailed, NotTranscodable
from gateway.dicom.elements import element_header
from gateway.dicom.syntaxes import Coding, TransferSyntax

_EXTENDED_FROM_BYTES = 0xFFFFFFFE
_ABOUT_PIXEL_DATA = range(0x7FE00000, 0x7FE00004)
"""Group length, extended offset tables and total length: they describe pixel data that is replaced."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """The bytes from `begin` to `end` are replaced by `value`."""

    begin: int
    end: int
    value: bytes


def rewrite(source: Extent, stored: TransferSyntax, target: TransferSyntax, output: Output, pool: Pool) -> int:
    """Write the data set `source` to `output` with its pixels in another transfer syntax; returns the number of frames.

    Args:
        source: the data set in Explicit VR Little Endian headers.
        stored: how its pixels are encoded.
        target: how they are to be encoded; one of the two is encapsulated.
        output: where to.
        pool: what encodes and decodes.

    Raises:
        NotTranscodable: the pixels cannot be encoded so, or the data set contradicts itself.
        PixelsDiffer, CodecFailed: as `Pool.submit` says.
        OSError: a file cannot be read or written.
    """
    found = survey(source)
    if found.compressed_icon:
        raise NotTranscodable("the Icon Image Sequence (0088,0200) is compressed itself")
    if found.pixel_data is None:
        return _without_pixels(found, target, output)
    pixel = attributes.describe(found.values)
    decoded = after_decoding(pixel, stored)
    order = Order(stored.uid, target.uid, pixel, decoded, after_encoding(decoded, target))
    if target.encapsulated:
        require_encodable(order.made, target)
    else:
        _require_room(order.made)
    ranges = ranges_of(found, pixel, stored)
    write_pixels = partial(_encapsulated if target.encapsulated else _native, order, source.fd, ranges, output, pool)
    _write(found, _attributes(found, order, stored, target), output, write_pixels)
    return pixel.frames


def _without_pixels(found: Survey, target: TransferSyntax, output: Output) -> int:
    if found.has_pixels or target.encapsulated:
        raise NotTranscodable("there is no Pixel Data (7FE0,0010) to compress")
    output.copy(found.walker.window.extent, 0, found.walker.end)
    return 0


def _require_room(pixel: PixelDescription) -> None:
    if pixel.native_bytes > attributes.MAX_NATIVE_BYTES:
        raise NotTranscodable(f"{pixel.native_bytes} bytes of pixels do not fit into uncompressed Pixel Data")


def _attributes(found: Survey, order: Order, stored: TransferSyntax, target: TransferSyntax) -> list[_Edit]:
    """Return the changes of the elements that describe the pixels, in the order of the data set."""
    wanted = (
        {attributes.PHOTOMETRIC_INTERPRETATION: _padded(order.after.encode())} if order.after != order.pixel.photometric else {}
    )
    if order.pixel.samples > 1:
        planar = 0 if target.coding in (Coding.J2K, Coding.HTJ2K, Coding.JPEG_LS) else order.pixel.planar
        wanted[attributes.PLANAR_CONFIGURATION] = struct.pack("<H", planar)
    flag = lossy_flag(attributes.text(found.values.get(attributes.LOSSY_IMAGE_COMPRESSION, b"")), stored)
    if flag:
        wanted[attributes.LOSSY_IMAGE_COMPRESSION] = flag.encode()
    edits = [_edit(found, tag, value) for tag, value in sorted(wanted.items()) if found.value(tag) != value]
    grown = sum(len(edit.value) - (edit.end - edit.begin) for edit in edits)
    length = group_length(found)
    if length and grown:
        element, value = length
        edits.insert(0, _Edit(element.value, element.value + 4, struct.pack("<L", value + grown)))
    return edits


def _edit(found: Survey, tag: int, value: bytes) -> _Edit:
    vr = b"US" if tag == attributes.PLANAR_CONFIGURATION else b"CS"
    place = found.places.get(tag)
    begin, end = (place[0].start, place[1]) if place else (found.inserts[tag],) * 2
    return _Edit(begin, end, element_header(tag, vr, len(value)) + value)


def _padded(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def _write(found: Survey, edits: list[_Edit], output: Output, write_pixels: Callable[[], None]) -> None:
    """Write the data set with `edits` made and its pixel data written by `write_pixels`."""
    source = found.walker.window.extent
    element, behind = found.places[PIXEL_DATA]
    gone = [_Edit(each.start, end, b"") for tag, (each, end) in found.places.items() if tag in _ABOUT_PIXEL_DATA]
    edits = sorted([*edits, *gone], key=lambda edit: edit.begin)
    before = [edit for edit in edits if edit.begin <= element.start]
    _copy(source, 0, element.start, before, output)
    write_pixels()
    _copy(source, behind, source.length, edits[len(before) :], output)


def _copy(source: Extent, position: int, end: int, edits: Sequence[_Edit], output: Output) -> None:
    for edit in edits:
        output.copy(source, position, edit.begin)
        output.write(edit.value)
        position = edit.end
    output.copy(source, position, end)


def _encapsulated(order: Order, fd: int, ranges: Sequence[Sequence[Range]], output: Output, pool: Pool) -> None:
    extended = order.made.native_bytes > _EXTENDED_FROM_BYTES
    writer = EncapsulatedWriter(output, order.pixel.frames, extended)
    writer.begin()
    orders = (partial(pool.submit, order, fd, fragments, taken) for fragments in ranges)
    for frame in in_order(orders, pool):
        writer.add(frame)
    writer.end()


def _native(order: Order, fd: int, ranges: Sequence[Sequence[Range]], output: Output, pool: Pool) -> None:
    pixel = order.made
    length = pixel.native_bytes + pixel.native_bytes % 2
    output.write(element_header(PIXEL_DATA, b"OW" if pixel.bits_allocated > 8 else b"OB", length))
    begin = output.skip(length)
    orders = (
        partial(
            pool.submit, order, fd, fragments, partial(_placed, output.fd, begin + number * pixel.frame_bytes, pixel.frame_bytes)
        )
        for number, fragments in enumerate(ranges)
    )
    for _ in in_order(orders, pool):
        pass
    write_at(output.fd, begin + pixel.native_bytes, bytes(length - pixel.native_bytes))


def _placed(target: int, position: int, expected: int, fd: int, length: int) -> None:
    if length != expected:
        raise CodecFailed(f"a frame of {length} bytes was decoded where {expected} belong")
    for begin in range(0, length, COPY_BYTES):
        write_at(target, position + begin, os.pread(fd, min(COPY_BYTES, length - begin), begin))
