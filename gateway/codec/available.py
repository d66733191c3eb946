"""What can be decoded and encoded here: seen from the packages that are installed, without importing them.

JPEG 2000 is always there (pylibjpeg-openjpeg, MIT), RLE too (pydicom; pylibjpeg-rle, MIT, makes it fast). The rest comes with the
extra ``codecs``: JPEG-LS by pyjpegls (CharLS; MIT), JPEG and JPEG Lossless by imagecodecs (libjpeg-turbo and jpegsof3; BSD), which
also encodes High-Throughput JPEG 2000 (OpenJPH; BSD).
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from gateway.codec.policy import Capabilities
from gateway.codec.syntaxes import (
    HTJ2K_LOSSLESS,
    J2K_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    Coding,
    known,
)

_DECODERS = {
    Coding.NONE: "pydicom",
    Coding.RLE: "pydicom",
    Coding.J2K: "openjpeg",
    Coding.HTJ2K: "openjpeg",
    Coding.JPEG_LS: "jpeg_ls",
    Coding.JPEG: "imagecodecs",
    Coding.JPEG_LOSSLESS: "imagecodecs",
}
_ENCODERS = {RLE_LOSSLESS: "pydicom", J2K_LOSSLESS: "openjpeg", JPEG_LS_LOSSLESS: "jpeg_ls", HTJ2K_LOSSLESS: "imagecodecs"}


@cache
def capabilities() -> Capabilities:
    """Return what the installed packages can do."""
    installed = {module for module in {*_DECODERS.values(), *_ENCODERS.values()} if find_spec(module) is not None}
    decodable = {each.uid for each in known() if _DECODERS.get(each.coding) in installed}
    return Capabilities(frozenset(decodable), frozenset(uid for uid, module in _ENCODERS.items() if module in installed))
