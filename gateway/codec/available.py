"""The codecs that are available here: seen from the packages that are installed, without importing them.

All of them are dependencies: JPEG 2000 is done by pylibjpeg-openjpeg (MIT), RLE by pydicom, which pylibjpeg-rle (MIT) makes fast,
JPEG-LS by pyjpegls (CharLS; MIT), JPEG and JPEG Lossless by imagecodecs (libjpeg-turbo and jpegsof3; BSD), which also encodes
High-Throughput JPEG 2000 (OpenJPH; BSD) and what is too small for the others. Where one was left out, the rest does without.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from gateway.codec.policy import Capabilities
from gateway.dicom.syntaxes import HTJ2K_LOSSLESS, J2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS, Coding, known

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


PACKAGES = ("imagecodecs", "pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")
"""Names of the distributions that encode and decode."""


def codec_versions() -> dict[str, str]:
    """Return, by name, the version of each codec package, empty where it is not installed. Imports none of them."""
    versions = dict.fromkeys(PACKAGES, "")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@cache
def capabilities() -> Capabilities:
    """Return what the installed packages can do."""
    installed = {module for module in {*_DECODERS.values(), *_ENCODERS.values()} if find_spec(module) is not None}
    decodable = {each.uid for each in known() if _DECODERS.get(each.coding) in installed}
    return Capabilities(frozenset(decodable), frozenset(uid for uid, module in _ENCODERS.items() if module in installed))
