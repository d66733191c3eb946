"""The pixels that can be encoded in a transfer syntax, and their attributes afterwards (PS3.5 §8.2). Pure."""

from __future__ import annotations

from gateway.codec.pixels.attributes import SUBSAMPLED, PixelDescription
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import JPEG_BASELINE, JPEG_EXTENDED, Coding, TransferSyntax

_MAX_EXTENT = 65535
_MAX_BITS = {Coding.J2K: 24, Coding.HTJ2K: 16, Coding.JPEG_LS: 16, Coding.RLE: 16}
_MIN_BITS = {Coding.JPEG_LS: 2}
_MAX_RGB_BITS = 23
"""The reversible component transform makes one bit more of them (ISO/IEC 15444-1 Annex G), of which 24 are all."""
_COMPONENT_TRANSFORM = {Coding.J2K, Coding.HTJ2K}


def after_decoding(pixel: PixelDescription, stored: TransferSyntax) -> str:
    """Return the Photometric Interpretation of the decoded pixels.

    JPEG 2000 decoders undo the component transform (PS3.5 §8.2.4); JPEG decoders give each pixel its chrominance (§8.2.1).
    """
    if stored.coding in _COMPONENT_TRANSFORM and pixel.photometric in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    if stored.coding is Coding.JPEG and pixel.photometric == "YBR_FULL_422":
        return "YBR_FULL"
    return pixel.photometric


def after_encoding(photometric: str, target: TransferSyntax) -> str:
    """Return the Photometric Interpretation of encoded pixels: JPEG 2000 transforms RGB, reversibly (PS3.5 §8.2.4)."""
    return "YBR_RCT" if target.coding in _COMPONENT_TRANSFORM and photometric == "RGB" else photometric


def require_encodable(pixel: PixelDescription, target: TransferSyntax) -> None:
    """Raise NotTranscodable where pixels like these, decoded, cannot be encoded as `target`."""
    problem = _problem(pixel, target.coding)
    if problem:
        raise NotTranscodable(f"{target.name} cannot hold {problem}")


def _problem(pixel: PixelDescription, coding: Coding) -> str:
    largest = max(pixel.rows, pixel.columns)
    problems = {
        "one-bit pixels": pixel.bits_allocated == 1,
        f"uncompressed {pixel.photometric}": pixel.photometric in SUBSAMPLED,
        f"{pixel.samples} samples per pixel": pixel.samples not in (1, 3),
        f"{pixel.bits_stored} bits stored": not _MIN_BITS.get(coding, 1) <= pixel.bits_stored <= _MAX_BITS[coding],
        f"RGB of {pixel.bits_stored} bits": coding is Coding.J2K
        and pixel.photometric == "RGB"
        and pixel.bits_stored > _MAX_RGB_BITS,
        f"{largest} rows or columns": largest > _MAX_EXTENT,
    }
    return next((problem for problem, there in problems.items() if there), "")


def lossy_flag(flag: str, stored: TransferSyntax) -> str:
    """Return what Lossy Image Compression (0028,2110) must say once pixels in `stored` are decoded; empty where it may stay.

    Where the transfer syntax may be lossless as well, a value that is there is believed (PS3.3 §C.7.6.1.1.5).
    """
    certain = stored.uid in (JPEG_BASELINE, JPEG_EXTENDED)
    if stored.lossless or flag == "01" or (flag == "00" and not certain):
        return ""
    return "01"
