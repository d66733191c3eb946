"""The outcome of a file at a destination: delivered with equal pixels and elements, or held for a reason that is named here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pydicom

from gateway.dicom.syntaxes import syntax
from tests.matrix.running import Cell
from tests.support import comparing, judging
from tests.support.transcoding import DataSet, of_file

NOT_CHANGED_WITHOUT_LOSS = {"(0028,2110)"}
SET_BY_TRANSCODING = judging.SET_BY_TRANSCODING - NOT_CHANGED_WITHOUT_LOSS

_SAME_COLOUR = {"YBR_RCT": "RGB", "YBR_ICT": "RGB"}
"""JPEG 2000 decoders undo these component transforms (PS3.5 §8.2.4)."""


@dataclass(frozen=True)
class Facts:
    """Properties of a file whose delivery may be held."""

    name: str
    stored: str
    has_pixels: bool
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    photometric: str
    samples: int


@cache
def facts(path: Path) -> Facts:
    """Read them."""
    found = comparing.read(path)

    def number(keyword: str) -> int:
        value = found.get(keyword)
        return value if isinstance(value, int) else 0

    return Facts(
        path.name,
        str(found.file_meta.TransferSyntaxUID),
        "PixelData" in found,
        number("Rows"),
        number("Columns"),
        number("BitsAllocated"),
        number("BitsStored"),
        str(found.get("PhotometricInterpretation", "")),
        number("SamplesPerPixel"),
    )


@dataclass(frozen=True)
class Reason:
    """Why deliveries may be held: `pattern` is what the ledger says, `at` are the peers, and `applies` tells of which files."""

    words: str
    pattern: str
    at: frozenset[str]
    applies: Callable[[Facts], bool]

    def explains(self, cell: Cell) -> bool:
        return cell.peer in self.at and self.applies(facts(cell.path)) and re.fullmatch(self.pattern, cell.reason) is not None


def _named(*names: str) -> Callable[[Facts], bool]:
    return lambda file: file.name in names


TRUNCATED = ("MR_truncated.dcm", "rtplan_truncated.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm")

LIMITED = frozenset({"uncompressed", "j2k", "jpeg-ls"})
COMPRESSED = frozenset({"j2k", "jpeg-ls"})
J2K = frozenset({"j2k"})
JPEG_LS = frozenset({"jpeg-ls"})
ORTHANC = frozenset({"orthanc"})

_NOTHING_ELSE = "; there is no transfer syntax that it accepts and that this instance can be brought into"

REASONS = (
    Reason(
        "its pixels may have lost something when they were compressed, and the destination does not accept them as they are: "
        "they are decompressed only with `allow_decompressed_lossy`",
        r"destination accepts no .+ in transfer syntax .+: "
        r"pixels that may be lossy are not decompressed without allow_decompressed_lossy",
        LIMITED,
        lambda file: not syntax(file.stored).lossless,
    ),
    Reason(
        "it has no pixels that could be compressed, and the destination accepts nothing uncompressed",
        r"there is no Pixel Data \(7FE0,0010\) to compress" + _NOTHING_ELSE,
        COMPRESSED,
        lambda file: not file.has_pixels,
    ),
    Reason(
        "32 bits stored are more than these compressions hold",
        "JPEG( 2000|-LS) Lossless cannot hold 32 bits stored" + _NOTHING_ELSE,
        COMPRESSED,
        lambda file: file.bits_stored == 32,
    ),
    Reason(
        "pixels of one bit are not compressed",
        "JPEG( 2000|-LS) Lossless cannot hold one-bit pixels" + _NOTHING_ELSE,
        COMPRESSED,
        lambda file: file.bits_allocated == 1,
    ),
    Reason(
        "uncompressed YBR_FULL_422 is not compressed",
        "JPEG( 2000|-LS) Lossless cannot hold uncompressed YBR_FULL_422" + _NOTHING_ELSE,
        COMPRESSED,
        lambda file: file.photometric == "YBR_FULL_422" and syntax(file.stored).native,
    ),
    Reason(
        "Big Endian words of 16 bits with pixels of 32, which readers understand in two ways",
        "pixels of 32 bits in Big Endian words of 16, which readers understand in two ways" + _NOTHING_ELSE,
        LIMITED,
        _named("rtdose_expb.dcm", "rtdose_expb_1frame.dcm"),
    ),
    Reason(
        "the codestream and Pixel Representation (0028,0103) disagree about signs",
        r"the codestream and Pixel Representation \(0028,0103\) disagree about signs" + _NOTHING_ELSE,
        frozenset({"uncompressed", "jpeg-ls"}),
        _named("J2K_pixelrep_mismatch.dcm"),
    ),
    Reason(
        "Number of Frames (0028,0008) is no number",
        r"\(0028,0008\) Number of Frames is no number of frames" + _NOTHING_ELSE,
        COMPRESSED,
        _named("badVR.dcm"),
    ),
    Reason(
        "there is something in the bits above those stored, an overlay maybe",
        "the bits above the 12 that are stored hold something, an overlay maybe" + _NOTHING_ELSE,
        COMPRESSED,
        _named("mlut_18.dcm"),
    ),
    Reason(
        "Pixel Data has more bytes than its rows and columns need",
        "Pixel Data has 8320 bytes where 8192 belong" + _NOTHING_ELSE,
        COMPRESSED,
        _named("MR_small_padded.dcm"),
    ),
    Reason(
        "Orthanc refuses by C-STORE what has its UIDs in VR UN",
        "C000 cannot understand, twice",
        ORTHANC,
        _named("rtdose_rle.dcm", "rtdose_rle_1frame.dcm", "explicit_VR-UN.dcm"),
    ),
    Reason(
        "the data set ends before its elements do",
        r"(the data set ends within an element|\([0-9A-F]{4},[0-9A-F]{4}\) is longer than what it stands in)" + _NOTHING_ELSE,
        LIMITED,
        _named(*TRUNCATED),
    ),
    Reason(
        "Orthanc answers nothing where it cannot read the data set: it ends before its elements do, or has implicit VRs where its "
        "transfer syntax says explicit ones",
        "no answer: .+; given up after 2 attempts",
        ORTHANC,
        _named("SC_rgb_jpeg.dcm", *TRUNCATED),
    ),
)
"""All of them; the first that explains a cell counts, and their order is that of the page."""


def reason_of(cell: Cell) -> int | None:
    """Return which of the `REASONS` explains that `cell` is held."""
    return next((number for number, reason in enumerate(REASONS) if reason.explains(cell)), None)


class Judge:
    """Tells what is wrong with a cell; the same bytes made of the same file are judged once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._judged: dict[tuple[Path, str, str, bytes], str] = {}

    def problem(self, cell: Cell) -> str:
        """Return what is wrong; empty where all is well."""
        if cell.state == "held" and cell.received is None:
            return "" if reason_of(cell) is not None else f"held for a reason that is not named: {cell.reason}"
        if cell.state != "verified" or cell.received is None:
            return f"{cell.state}, and {'not ' if cell.received is None else ''}there: {cell.reason}"
        source, received = of_file(cell.path), of_file(cell.received)
        if received in (source, _padded(source)):
            return ""
        key = (cell.path, cell.peer, received.syntax, hashlib.sha256(received.data).digest())
        if received.syntax != source.syntax:
            key = (cell.path, "", *key[2:])
        if key not in self._judged:
            self._judged[key] = self._different(cell, source, received)
        return self._judged[key]

    def _different(self, cell: Cell, source: DataSet, received: DataSet) -> str:
        assert cell.received is not None
        if received.syntax == source.syntax:
            return (
                ", ".join(comparing.differences(cell.path, cell.received))
                if cell.peer == "orthanc"
                else "not byte for byte as it was"
            )
        if not syntax(source.syntax).lossless:
            return "pixels that may be lossy were opened"
        return (
            judging.elements_differ(source.part10(), received.part10(), SET_BY_TRANSCODING)
            or judging.pixels_differ(cell.path, source, received, self._folder)
            or _colour_differs(source.read(), received.read())
        )


def _padded(source: DataSet) -> DataSet:
    """Return what goes out of a data set of odd length (PS3.5 §7.1.1 knows none): with a null byte behind it."""
    return replace(source, data=source.data + bytes(len(source.data) % 2))


def _colour_differs(before: pydicom.FileDataset, after: pydicom.FileDataset) -> str:
    one, other = (_SAME_COLOUR.get(name, name) for name in (str(each.get("PhotometricInterpretation")) for each in (before, after)))
    return "" if one == other else f"the pixels were {one} and are said to be {other}"
