"""The codecs: one frame's cells from a codestream and back. Imported by the worker process alone.

Cells are what stands in uncompressed Pixel Data: unsigned integers of Bits Allocated, in an array of (rows, columns, samples).
A codec gets a codestream whose header was held against the data set first, so that no dimensions surprise it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from gateway.codec.pixels import codestreams
from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.pixels.codestreams import Header
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import HTJ2K_LOSSLESS, J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS, Coding, syntax

Cells = np.ndarray[Any, np.dtype[Any]]
_LOSSLESS_PROCESS = 0xC3

_RESOLUTIONS = 6
"""The number of resolutions that pylibjpeg-openjpeg asks OpenJPEG for, each half the one before: rows and columns must be ≥ 2⁵."""

_ROOM_BYTES = 256
"""pyjpegls gives CharLS twice the room of the pixels, which are then more than the headers of a codestream."""


def dtype(bits: int) -> np.dtype[Any]:
    """Return the unsigned Little Endian type that `bits` fit into."""
    return np.dtype("u1" if bits <= 8 else "<u2" if bits <= 16 else "<u4" if bits <= 32 else "<u8")


def decode(data: bytes, pixel: PixelDescription, transfer_syntax_uid: str) -> Cells:
    """Return the cells of one frame.

    Raises:
        NotTranscodable: the codestream is not what the data set says.
        Exception: whatever the codec raises for a codestream that it cannot read.
    """
    return _DECODERS[syntax(transfer_syntax_uid).coding](data, pixel)


def encode(values: Cells, pixel: PixelDescription, transfer_syntax_uid: str) -> bytes:
    """Return the codestream of one frame of `values`: cells whose unused bits are sign-extended, or zero where unsigned."""
    return _ENCODERS[transfer_syntax_uid](values, pixel)


def native(data: bytes, pixel: PixelDescription) -> Cells:
    """Return the cells of an uncompressed frame, laid out by its Planar Configuration."""
    if len(data) != pixel.frame_bytes:
        raise NotTranscodable(f"a frame of {len(data)} bytes where {pixel.frame_bytes} belong")
    cells = np.frombuffer(data, dtype(pixel.bits_allocated))
    return _interleaved(cells, pixel, planar=pixel.planar == 1)


def layout(cells: Cells, pixel: PixelDescription) -> bytes:
    """Return the bytes of an uncompressed frame, laid out by its Planar Configuration."""
    return (cells.transpose(2, 0, 1) if pixel.planar == 1 else cells).tobytes()


def _interleaved(flat: Cells, pixel: PixelDescription, *, planar: bool) -> Cells:
    if planar:
        return flat.reshape(pixel.samples, pixel.rows, pixel.columns).transpose(1, 2, 0)
    return flat.reshape(pixel.rows, pixel.columns, pixel.samples)


def _compare(header: Header, pixel: PixelDescription) -> None:
    """Hold what a codestream says against what the data set says."""
    found, wanted = (header.rows, header.columns, header.components), (pixel.rows, pixel.columns, pixel.samples)
    if found != wanted:
        raise NotTranscodable(f"a codestream of {found} rows, columns and components in an image of {wanted}")
    if header.precision > pixel.bits_allocated:
        raise NotTranscodable(f"a codestream of {header.precision} bits in an image of {pixel.bits_allocated} bits allocated")


def _cells(pattern: Cells, precision: int, pixel: PixelDescription) -> Cells:
    """Return as cells what a codec gave that knows no signs: patterns of `precision` bits."""
    cells = pattern.reshape(pixel.rows, pixel.columns, pixel.samples).astype(dtype(pixel.bits_allocated))
    if not pixel.signed or precision == pixel.bits_allocated:
        return cells
    if precision < pixel.bits_stored:
        raise NotTranscodable(f"signed pixels of {pixel.bits_stored} bits in a codestream of {precision}")
    return sign_extended(cells, precision)


def sign_extended(cells: Cells, bits: int) -> Cells:
    """Return `cells` with the sign, which is the bit below `bits`, in all bits above it."""
    sign = cells.dtype.type(1 << (bits - 1))
    mask = cells.dtype.type((1 << bits) - 1)
    extended: Cells = ((cells & mask) ^ sign) - sign
    return extended


def _decode_j2k(data: bytes, pixel: PixelDescription) -> Cells:
    from openjpeg.utils import decode_pixel_data

    header, codestream = codestreams.jpeg2000(data)
    _compare(header, pixel)
    if header.signed != pixel.signed:
        raise NotTranscodable("the codestream and Pixel Representation (0028,0103) disagree about signs")
    if pixel.photometric in ("YBR_RCT", "YBR_ICT") and not header.transformed:
        raise NotTranscodable(f"Photometric Interpretation is {pixel.photometric}, which the codestream is not")
    decoded = decode_pixel_data(codestream, version=2)
    # The decoder gives the container that the codestream's own precision needs, with its sign.
    kind = dtype(header.precision)
    values = np.frombuffer(decoded, kind.str.replace("u", "i") if header.signed else kind)
    return values.astype(dtype(pixel.bits_allocated), copy=False).reshape(pixel.rows, pixel.columns, pixel.samples)


def _decode_jpeg_ls(data: bytes, pixel: PixelDescription) -> Cells:
    import jpeg_ls

    header, _ = codestreams.jpeg(data)
    _compare(header, pixel)
    buffer, found = jpeg_ls.decode_pixel_data(data)
    flat = np.frombuffer(buffer, dtype(header.precision))
    planar = pixel.samples > 1 and found["interleave_mode"] == 0
    return _cells(_interleaved(flat, pixel, planar=planar), header.precision, pixel)


def _decode_jpeg(data: bytes, pixel: PixelDescription) -> Cells:
    import imagecodecs

    header, process = codestreams.jpeg(data)
    _compare(header, pixel)
    # Naming one colour space twice keeps the components as they are.
    colour = "RGB" if pixel.samples == 3 else None
    decoded = imagecodecs.jpeg8_decode(data, colorspace=colour, outcolorspace=colour)
    # A damaged lossless codestream is decoded without a word: two decoders do not agree on what they made up.
    if process == _LOSSLESS_PROCESS and not np.array_equal(decoded, imagecodecs.jpegsof3_decode(data)):
        raise NotTranscodable("the JPEG Lossless codestream is damaged")
    return _cells(np.asarray(decoded), header.precision, pixel)


def _decode_rle(data: bytes, pixel: PixelDescription) -> Cells:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer, found = get_decoder(RLE_LOSSLESS).as_buffer(
            encapsulate([data], has_bot=False),
            raw=True,
            number_of_frames=1,
            pixel_keyword="PixelData",
            decoding_plugin=_rle_plugin(),
            **_rle_options(pixel),
        )
    flat = np.frombuffer(buffer, dtype(pixel.bits_allocated))
    return _interleaved(flat, pixel, planar=found.get("planar_configuration", 0) == 1)


def _decode_uncompressed(data: bytes, pixel: PixelDescription) -> Cells:
    return native(data[: pixel.frame_bytes], pixel)


def _encode_j2k(values: Cells, pixel: PixelDescription) -> bytes:
    smallest = min(pixel.rows, pixel.columns)
    if smallest < 1 << (_RESOLUTIONS - 1):
        return _encode_small_j2k(values, pixel, smallest.bit_length())
    from openjpeg.utils import encode_buffer

    colour = pixel.photometric == "RGB"
    return encode_buffer(
        values.astype(dtype(pixel.bits_stored), copy=False).tobytes(),
        pixel.columns,
        pixel.rows,
        pixel.samples,
        pixel.bits_stored,
        pixel.signed,
        photometric_interpretation=int(colour),
        use_mct=colour,
    )


def _encode_small_j2k(values: Cells, pixel: PixelDescription, resolutions: int) -> bytes:
    import imagecodecs

    colour = pixel.photometric == "RGB"
    encoded = imagecodecs.jpeg2k_encode(
        _image(values.astype(dtype(pixel.bits_stored)), pixel),
        level=0,
        codecformat="J2K",
        reversible=True,
        bitspersample=pixel.bits_stored,
        resolutions=resolutions,
        mct=colour,
        colorspace="RGB" if colour else "UNSPECIFIED",
    )
    return bytes(encoded)


def _image(values: Cells, pixel: PixelDescription) -> Cells:
    """Return `values` as imagecodecs takes them: with their signs, and without an axis for one sample."""
    image = values.view(values.dtype.str.replace("u", "i") if pixel.signed else values.dtype.str)
    return np.ascontiguousarray(image if pixel.samples > 1 else image[:, :, 0])


def _encode_htj2k(values: Cells, pixel: PixelDescription) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(_image(values, pixel), reversible=True, rgb=pixel.photometric == "RGB"))


def _encode_jpeg_ls(values: Cells, pixel: PixelDescription) -> bytes:
    kind = dtype(pixel.bits_stored)
    if pixel.rows * pixel.columns * pixel.samples * kind.itemsize < _ROOM_BYTES:
        import imagecodecs

        # Its codestreams have the precision of whole bytes: signs fill them.
        image = values.astype(kind)
        return bytes(imagecodecs.jpegls_encode(image if pixel.samples > 1 else np.ascontiguousarray(image[:, :, 0])))
    import jpeg_ls

    pattern = values & values.dtype.type((1 << pixel.bits_stored) - 1)
    return bytes(
        jpeg_ls.encode_pixel_data(
            pattern.astype(kind).tobytes(),
            rows=pixel.rows,
            columns=pixel.columns,
            samples_per_pixel=pixel.samples,
            bits_stored=pixel.bits_stored,
            planar_configuration=0,
        )
    )


def _encode_rle(values: Cells, pixel: PixelDescription) -> bytes:
    from pydicom.pixels.encoders.base import get_encoder

    options = {**_rle_options(pixel), "planar_configuration": 0}
    return bytes(get_encoder(RLE_LOSSLESS).encode(values.tobytes(), number_of_frames=1, encoding_plugin=_rle_plugin(), **options))


@cache
def _rle_plugin() -> str:
    return "pylibjpeg" if find_spec("rle") and find_spec("pylibjpeg") else "pydicom"


def _rle_options(pixel: PixelDescription) -> dict[str, Any]:
    # RLE Lossless knows whole bytes only, whatever they mean: told of fewer bits, pydicom would take them for fewer bytes.
    return {
        "rows": pixel.rows,
        "columns": pixel.columns,
        "samples_per_pixel": pixel.samples,
        "photometric_interpretation": "RGB" if pixel.samples == 3 else "MONOCHROME2",
        "planar_configuration": pixel.planar,
        "bits_allocated": pixel.bits_allocated,
        "bits_stored": pixel.bits_allocated,
        "pixel_representation": 0,
    }


_DECODERS: dict[Coding, Callable[[bytes, PixelDescription], Cells]] = {
    Coding.NONE: _decode_uncompressed,
    Coding.RLE: _decode_rle,
    Coding.J2K: _decode_j2k,
    Coding.HTJ2K: _decode_j2k,
    Coding.JPEG_LS: _decode_jpeg_ls,
    Coding.JPEG: _decode_jpeg,
    Coding.JPEG_LOSSLESS: _decode_jpeg,
}
_ENCODERS: dict[str, Callable[[Cells, PixelDescription], bytes]] = {
    J2K_LOSSLESS: _encode_j2k,
    HTJ2K_LOSSLESS: _encode_htj2k,
    JPEG_LS_LOSSLESS: _encode_jpeg_ls,
    RLE_LOSSLESS: _encode_rle,
}
