"""Transfer syntaxes: what each one is (PS3.5 Annex A and §10). Pure.

A transfer syntax that is not listed here is taken for encapsulated and lossy: nothing is ever done to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
J2K = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"


SHORT_NAMES = {
    "j2k-lossless": J2K_LOSSLESS,
    "htj2k-lossless": HTJ2K_LOSSLESS,
    "jpeg-ls-lossless": JPEG_LS_LOSSLESS,
    "jpeg-lossless": JPEG_LOSSLESS_SV1,
    "rle-lossless": RLE_LOSSLESS,
    "explicit-le": EXPLICIT_LITTLE,
    "implicit-le": IMPLICIT_LITTLE,
    "deflated": DEFLATED,
    "explicit-be": EXPLICIT_BIG,
}
"""The names that a configuration may give in place of a UID."""


class Coding(StrEnum):
    """The compression of pixels."""

    NONE = "none"
    RLE = "RLE"
    JPEG = "JPEG"
    JPEG_LOSSLESS = "JPEG Lossless"
    JPEG_LS = "JPEG-LS"
    J2K = "JPEG 2000"
    HTJ2K = "High-Throughput JPEG 2000"
    OTHER = "other"
    """Video, JPIP, several components at once, retired processes: passed through, never opened."""


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """One transfer syntax.

    `lossless`: whatever is encoded so has lost nothing by it. Where both may occur (JPEG 2000, PS3.5 §A.4.4), it is False.
    """

    uid: str
    name: str
    coding: Coding = Coding.NONE
    lossless: bool = True
    explicit: bool = True
    big_endian: bool = False
    deflated: bool = False
    encapsulated: bool = False

    @property
    def native(self) -> bool:
        """True where the pixels stand uncompressed in an element with a length."""
        return not self.encapsulated


def _encapsulated(uid: str, name: str, coding: Coding, *, lossless: bool) -> TransferSyntax:
    return TransferSyntax(uid, name, coding, lossless=lossless, encapsulated=True)


_RETIRED_JPEG = range(52, 67)
_RETIRED_JPEG_LOSSLESS = {58, 65, 66}
_VIDEO = (
    *(f"{number}{fragmentable}" for number in range(100, 107) for fragmentable in ("", ".1")),
    "107",
    "108",
)
_JPIP = (("94", False), ("95", True), ("204", False), ("205", True))

_KNOWN = {
    syntax.uid: syntax
    for syntax in (
        TransferSyntax(IMPLICIT_LITTLE, "Implicit VR Little Endian", explicit=False),
        TransferSyntax(EXPLICIT_LITTLE, "Explicit VR Little Endian"),
        TransferSyntax(DEFLATED, "Deflated Explicit VR Little Endian", deflated=True),
        TransferSyntax(EXPLICIT_BIG, "Explicit VR Big Endian", big_endian=True),
        _encapsulated(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian", Coding.NONE, lossless=True),
        _encapsulated(JPEG_BASELINE, "JPEG Baseline", Coding.JPEG, lossless=False),
        _encapsulated(JPEG_EXTENDED, "JPEG Extended", Coding.JPEG, lossless=False),
        *(
            _encapsulated(
                f"1.2.840.10008.1.2.4.{number}",
                f"JPEG (retired, .{number})",
                Coding.OTHER,
                lossless=number in _RETIRED_JPEG_LOSSLESS,
            )
            for number in _RETIRED_JPEG
            if number != 57
        ),
        _encapsulated(JPEG_LOSSLESS, "JPEG Lossless", Coding.JPEG_LOSSLESS, lossless=True),
        _encapsulated(JPEG_LOSSLESS_SV1, "JPEG Lossless SV1", Coding.JPEG_LOSSLESS, lossless=True),
        _encapsulated(JPEG_LS_LOSSLESS, "JPEG-LS Lossless", Coding.JPEG_LS, lossless=True),
        _encapsulated(JPEG_LS_NEAR, "JPEG-LS Near-Lossless", Coding.JPEG_LS, lossless=False),
        _encapsulated(J2K_LOSSLESS, "JPEG 2000 Lossless", Coding.J2K, lossless=True),
        _encapsulated(J2K, "JPEG 2000", Coding.J2K, lossless=False),
        _encapsulated("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Lossless", Coding.OTHER, lossless=True),
        _encapsulated("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2", Coding.OTHER, lossless=False),
        _encapsulated("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", Coding.OTHER, lossless=True),
        _encapsulated("1.2.840.10008.1.2.4.111", "JPEG XL Recompression", Coding.OTHER, lossless=False),
        _encapsulated("1.2.840.10008.1.2.4.112", "JPEG XL", Coding.OTHER, lossless=False),
        _encapsulated(HTJ2K_LOSSLESS, "High-Throughput JPEG 2000 Lossless", Coding.HTJ2K, lossless=True),
        _encapsulated(HTJ2K_LOSSLESS_RPCL, "High-Throughput JPEG 2000 Lossless RPCL", Coding.HTJ2K, lossless=True),
        _encapsulated(HTJ2K, "High-Throughput JPEG 2000", Coding.HTJ2K, lossless=False),
        _encapsulated(RLE_LOSSLESS, "RLE Lossless", Coding.RLE, lossless=True),
        _encapsulated("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", Coding.OTHER, lossless=True),
        *(_encapsulated(f"1.2.840.10008.1.2.4.{end}", f"video (.{end})", Coding.OTHER, lossless=False) for end in _VIDEO),
        *(
            TransferSyntax(f"1.2.840.10008.1.2.4.{end}", f"JPIP (.{end})", Coding.OTHER, lossless=False, deflated=deflated)
            for end, deflated in _JPIP
        ),
    )
}


def syntax(uid: str) -> TransferSyntax:
    """Return the transfer syntax `uid`; one that is not known is encapsulated, lossy and cannot be decoded."""
    return _KNOWN.get(uid) or _encapsulated(uid, uid, Coding.OTHER, lossless=False)


def uid_of(name: str) -> str:
    """Return the UID that a configuration means by `name`: one of `SHORT_NAMES`, or a UID itself."""
    return SHORT_NAMES.get(name, name)


def known() -> tuple[TransferSyntax, ...]:
    """Return every transfer syntax of the table, in its order."""
    return tuple(_KNOWN.values())
