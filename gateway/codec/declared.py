"""Proof that a data set is in its declared transfer syntax, and the one that it is in where it is in another (PS3.5 §A).

Some sources send JPEG, RLE or uncompressed pixels, or other headers, in a presentation context of another transfer syntax.
`fits` costs next to nothing for what is as it should be: headers are told by the first element, Pixel Data is found by its tag, and
its form, its length and the beginning of its first codestream are held against what is declared. `examine` walks through what
does not fit: where another transfer syntax is proved, by every length and by decoding every frame, that one is told, and the bytes
stay as they are; else it is unfit, with the reason.

Not judged is what nobody could misread by its label alone: transfer syntaxes that are not known here, damaged codestreams of the
right kind, data sets that end too early.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

from gateway.codec.dataset.deflate import inflate
from gateway.codec.dataset.encapsulation import Range
from gateway.codec.dataset.extent import Extent, Output
from gateway.codec.dataset.headers import EXPLICIT, IMPLICIT, Encoding
from gateway.codec.frames import in_order, ranges_of, taken
from gateway.codec.pixels import attributes
from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.pixels.codestreams import fitting_syntaxes
from gateway.codec.pixels.suitable import after_decoding
from gateway.codec.pixels.survey import Survey, survey
from gateway.codec.workers.order import Order
from gateway.codec.workers.pool import Pool
from gateway.core.errors import CodecError, NotTranscodable
from gateway.dicom.elements import UNDEFINED, VRS, is_vr
from gateway.dicom.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Coding, TransferSyntax, known, syntax

BEGINNING_BYTES = 16 * 1024
"""The number of bytes that `fits` wants of a data set: Pixel Data begins within them in nearly all data sets."""

PROOF_S = 8.0
"""The longest that a proof may take: the peer waits for its answer, and Orthanc no longer than ten seconds."""

Read = Callable[[int, int], bytes]
"""`read(offset, size)` returns up to `size` bytes of the data set from `offset`; fewer only at its end."""

_BIG = Encoding(explicit=True, big_endian=True)
_NATIVE = {EXPLICIT: EXPLICIT_LITTLE, IMPLICIT: IMPLICIT_LITTLE, _BIG: EXPLICIT_BIG}
_JUDGED = frozenset(each.uid for each in known() if each.coding is not Coding.OTHER)

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_ICON_IMAGE_SEQUENCE = b"\x88\x00\x00\x02"
_ROWS = b"\x28\x00\x10\x00"
_SIZES = (b"\x28\x00\x02\x00", _ROWS, b"\x28\x00\x11\x00", b"\x28\x00\x00\x01")
"""Samples per Pixel, Rows, Columns and Bits Allocated, in their order."""

_ONE_US, _TWO_BYTES = b"US\x02\x00", b"\x02\x00\x00\x00"
"""The bytes that follow their tags, in explicit and in implicit VR."""

_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_VRS = (b"OB", b"OW", b"UN")
_SEARCH_BYTES = 1024 * 1024
_SEARCH_AT_MOST_BYTES = 256 * 1024 * 1024
_LOOK_BYTES, _CODESTREAM_BYTES = 4096, 1024
"""The number of bytes that are looked at of Pixel Data, and the least of a codestream in it."""

_HEADER_BYTES = (_CODESTREAM_BYTES, 64 * 1024, 4 * 1024 * 1024)
"""The bytes of a codestream read for its header, until it is found: an ICC profile may stand before what matters."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The transfer syntax UID that a data set is in, as declared or as proved.

    `unfit` says why it is neither, in words that follow "it came" and name nothing of what is in it; empty where it is one.
    """

    transfer_syntax_uid: str
    unfit: str = ""


def judge(extent: Extent, declared: str, pool: Pool, *, beginning: bytes = b"") -> Judgement:
    """Return in which transfer syntax the data set `extent` is that is `declared` to be in one.

    `beginning` is how it begins (`BEGINNING_BYTES` of it, or all), where that is at hand.

    Raises:
        GatewayStopping: the pool was closed meanwhile.
        OSError: it cannot be read.
    """
    if fits(beginning or extent.read(0, BEGINNING_BYTES), extent.length, declared, extent.read):
        return Judgement(declared)
    return examine(extent, declared, pool)


def fits(beginning: bytes, length: int, declared: str, read: Read) -> bool:
    """Tell whether nothing speaks against the `declared` transfer syntax; where this is False, `examine` may find nothing either.

    Args:
        beginning: how the data set begins, `BEGINNING_BYTES` of it or all.
        length: how long it is, in bytes.
        declared: the transfer syntax UID.
        read: reads more of it; asked for only where `beginning` does not say enough.
    """
    if declared not in _JUDGED:
        return True
    as_declared = syntax(declared)
    if as_declared.deflated:
        return b"\0" not in beginning[:2]  # as the number of a first group has in either order, and few deflated data sets
    if as_declared.big_endian or beginning[1:2] not in (b"", b"\0") or (beginning[4:6] in VRS) is not as_declared.explicit:
        return False
    return _QuickCheck(beginning, length, as_declared, read).fits()


def _begins(beginning: bytes, encoding: Encoding) -> bool:
    """Tell whether a data set may begin like this with an element as `encoding` writes it."""
    if len(beginning) < 8:
        return True
    group, turned = struct.unpack_from(encoding.order + "H", beginning)[0], int.from_bytes(beginning[:2], "little")
    if not encoding.big_endian:
        turned = int.from_bytes(beginning[:2], "big")
    vr = beginning[4:6]
    return (group <= 0xFF or turned > 0xFF) and is_vr(vr) is encoding.explicit


@dataclass(frozen=True, slots=True)
class _QuickCheck:
    """A look at a data set, of which `beginning` is at hand, for what speaks against its transfer syntax."""

    beginning: bytes
    length: int
    declared: TransferSyntax
    read: Read

    def fits(self) -> bool:
        """Tell whether nothing does; what looks like the tag of Pixel Data may be a part of a value, and is passed over."""
        found = False
        for position, chunk in self._places():
            found = True
            if self.beginning.find(_ICON_IMAGE_SEQUENCE, 0, position) >= 0:
                return False  # it may hold pixel data of its own, in another form
            if self._fits_here(position, chunk):
                return True
        return not found

    def contradicts(self) -> bool:
        """Tell whether there is encapsulated Pixel Data, in Explicit VR, of another kind than is declared."""
        for position, chunk in self._places():
            if chunk[4:6] in _PIXEL_VRS and chunk[8:16] == b"\xff\xff\xff\xff" + _ITEM:
                first = position + 20 + int.from_bytes(chunk[16:20], "little")
                fitting = fitting_syntaxes(self.read(first + 8, _CODESTREAM_BYTES))
                if self.declared.native or (fitting and self.declared.uid not in fitting):
                    return True
        return False

    def _places(self) -> Iterator[tuple[int, bytes]]:
        """Yield where Pixel Data (7FE0,0010) may begin, with bytes from there."""
        position, chunk = 0, self.beginning
        while True:
            at = chunk.find(_PIXEL_DATA)
            while at >= 0:
                yield position + at, chunk[at : at + _LOOK_BYTES]
                at = chunk.find(_PIXEL_DATA, at + 1)
            position += max(1, len(chunk) - len(_PIXEL_DATA) + 1)
            if position + len(_PIXEL_DATA) > min(self.length, _SEARCH_AT_MOST_BYTES):
                return
            chunk = self.read(position, _SEARCH_BYTES)
            if len(chunk) < len(_PIXEL_DATA):
                return

    def _fits_here(self, position: int, chunk: bytes) -> bool:
        """Tell whether the Pixel Data that begins with `chunk` at `position` is as declared."""
        explicit = self.declared.explicit
        header = 12 if explicit else 8
        if len(chunk) < header + 8:
            chunk = self.read(position, header + 8)
            if len(chunk) < header:
                return False
        if explicit and chunk[4:6] not in _PIXEL_VRS:
            return False
        (size,) = struct.unpack_from("<L", chunk, header - 4)
        value = position + header
        if self.declared.native:
            return size != UNDEFINED and value + size <= self.length and self._native_bytes(position) in (size, size - 1)
        if size != UNDEFINED or chunk[header : header + 4] != _ITEM:
            return False
        first = value + 8 + int.from_bytes(chunk[header + 4 : header + 8], "little")
        start = first + 8 - position
        codestream = chunk[start:]
        if len(codestream) < _CODESTREAM_BYTES:
            codestream = self.read(first + 8, _CODESTREAM_BYTES)
        return not codestream or self.declared.uid in fitting_syntaxes(codestream)

    def _native_bytes(self, end: int) -> int:
        """Return how long Pixel Data is by the first of each attribute in the beginning, up to `end`; 0 where one is not there."""
        explicit, beginning, total, at = self.declared.explicit, self.beginning, 1, 0
        for tag in _SIZES:
            before, at = at, beginning.find(tag + (_ONE_US if explicit else _TWO_BYTES), at, end)
            if at < 0:
                return 0
            total *= int.from_bytes(beginning[at + 8 : at + 10], "little")
            if tag == _ROWS:
                total *= self._frames(before, at)
        return (total + 7) // 8

    def _frames(self, begin: int, end: int) -> int:
        """Return Number of Frames, which stands between Samples per Pixel and Rows; 1 where it does not, 0 where it is none."""
        explicit = self.declared.explicit
        at = self.beginning.find(b"\x28\x00\x08\x00IS" if explicit else b"\x28\x00\x08\x00", begin, end)
        if at < 0:
            return 1
        size = int.from_bytes(self.beginning[at + 6 : at + 8] if explicit else self.beginning[at + 4 : at + 6], "little")
        text = self.beginning[at + 8 : at + 8 + size].strip(b" \0")
        return int(text) if text.isdigit() else int(not text)


def examine(extent: Extent, declared: str, pool: Pool) -> Judgement:
    """Return in which transfer syntax the data set `extent` is, going through all of it.

    Raises:
        GatewayStopping: the pool was closed meanwhile.
        OSError: it cannot be read.
    """
    if declared not in _JUDGED:
        return Judgement(declared)
    walked = _walked(extent, syntax(declared))
    return _unread(extent, syntax(declared)) if walked is None else _walked_through(*walked, syntax(declared), pool)


def _unread(extent: Extent, declared: TransferSyntax) -> Judgement:
    """Judge what cannot be walked through in any encoding: it may be deflated, or end too early."""
    if _is_deflated(extent):
        return Judgement(DEFLATED)
    looks_right = declared.deflated or _begins(extent.read(0, 16), Encoding(declared.explicit, declared.big_endian))
    if not looks_right:
        return Judgement(declared.uid, f"with headers that are not those of {declared.name}")
    quick = _QuickCheck(extent.read(0, BEGINNING_BYTES), extent.length, declared, extent.read)
    return Judgement(declared.uid, f"with Pixel Data that is not in {declared.name}" if quick.contradicts() else "")


def _walked_through(encoding: Encoding, found: Survey, declared: TransferSyntax, pool: Pool) -> Judgement:
    as_headers = not declared.deflated and encoding == Encoding(declared.explicit, declared.big_endian)
    element = found.pixel_data
    if element is None:
        # Every length in it adds up to its end: that is the proof.
        return Judgement(declared.uid if as_headers else _NATIVE[encoding])
    if element.undefined:
        return _encapsulated(found, encoding, declared, pool)
    if not element.length:
        return Judgement(declared.uid if as_headers else _NATIVE[encoding])
    native = _Native(found, declared)
    if as_headers and declared.native:
        return Judgement(declared.uid, native.problem())
    if native.exact():
        return Judgement(_NATIVE[encoding])
    words = "uncompressed Pixel Data" if declared.encapsulated else f"headers that are not those of {declared.name}"
    return Judgement(declared.uid, f"with {words}, whose length is not what its rows and columns need")


def _walked(extent: Extent, declared: TransferSyntax) -> tuple[Encoding, Survey] | None:
    """Return how the headers are encoded, that of `declared` where it may be so, and what they say; None where nothing fits."""
    first = Encoding(declared.explicit, declared.big_endian)
    for encoding in dict.fromkeys((first, EXPLICIT, IMPLICIT, _BIG)):
        if encoding != first and not _begins(extent.read(0, 16), encoding):
            continue
        try:
            return encoding, survey(extent, encoding)
        except NotTranscodable:
            continue
    return None


def _is_deflated(extent: Extent) -> bool:
    """Tell whether the data set is one in Explicit VR Little Endian that was deflated, all of it."""
    with tempfile.TemporaryFile() as file:
        output = Output(file.fileno())
        try:
            inflate(extent, output, limit_bytes=_SEARCH_AT_MOST_BYTES)
            inflated = Extent(file.fileno(), 0, output.finish())
            return bool(inflated.length) and _begins(inflated.read(0, 16), EXPLICIT) and bool(survey(inflated))
        except NotTranscodable:
            return False


@dataclass(frozen=True, slots=True)
class _Native:
    """Pixel Data with a length."""

    found: Survey
    declared: TransferSyntax

    def problem(self) -> str:
        """Return why it is not what its attributes say; it may be longer, and attributes that contradict each other say nothing."""
        element = self.found.pixel_data
        assert element is not None
        try:
            description = attributes.describe(self.found.values)
        except NotTranscodable:
            return ""
        needed = description.native_bytes
        if element.length in (needed, needed + 1):
            return ""
        if _fitting(self.found.walker.window.extent, element.value, element.length):
            return f"with compressed pixels where {self.declared.name} has none"
        short = element.length < needed and description.photometric != "YBR_PARTIAL_420"
        return f"with {element.length} bytes of Pixel Data where {needed} belong" if short else ""

    def exact(self) -> bool:
        """Tell whether it is as long as its attributes say."""
        element = self.found.pixel_data
        assert element is not None
        try:
            needed = attributes.describe(self.found.values).native_bytes
        except NotTranscodable:
            return False
        return element.length == needed + needed % 2


def _encapsulated(found: Survey, encoding: Encoding, declared: TransferSyntax, pool: Pool) -> Judgement:
    """Judge Pixel Data without length by what its frames are."""
    if encoding != EXPLICIT:
        # Headers without VRs around the right codestreams: readers make something of it, and there is no label for it.
        fits = declared.encapsulated and encoding == IMPLICIT and _first_fits(found, declared)
        words = "" if fits else "with encapsulated Pixel Data, which must have Explicit VR Little Endian headers around it"
        return Judgement(declared.uid, words)
    what = "with Pixel Data in another form"
    try:
        description = attributes.describe(found.values)
        frames = ranges_of(found, description, _ANY_ENCAPSULATED)
        candidates = _common(found, frames)
        if candidates is None or (declared.encapsulated and declared.uid in candidates):
            return Judgement(declared.uid)
        if not candidates:
            return Judgement(declared.uid, f"{what} than {declared.name}, which is none that is known, or in several")
        proved = syntax(candidates[0])
        what = f"with Pixel Data in {proved.name} instead of {declared.name}"
        _decode(found, description, proved, frames, pool)
    except TimeoutError:
        return Judgement(declared.uid, f"{what}, which takes too long to be proved")
    except CodecError as error:
        fits = declared.encapsulated and _first_fits(found, declared)
        return Judgement(declared.uid, "" if fits else f"{what}, which is not proved: {error}")
    return Judgement(proved.uid)


_ANY_ENCAPSULATED = syntax("")


def _common(found: Survey, frames: Sequence[Sequence[Range]]) -> tuple[str, ...] | None:
    """Return the transfer syntaxes that all frames may be in, the exact one first; None where no frame has a byte."""
    extent, common = found.walker.window.extent, None
    for fragments in frames:
        offset, length = fragments[0] if fragments else (0, 0)
        if length:
            fitting = _fitting(extent, offset - extent.offset, length)
            common = fitting if common is None else tuple(uid for uid in common if uid in fitting)
    return common


def _fitting(extent: Extent, position: int, length: int) -> tuple[str, ...]:
    """Return the transfer syntaxes that the frame at `position` may be in."""
    for size in _HEADER_BYTES:
        fitting = fitting_syntaxes(extent.read(position, min(size, length)))
        if fitting or size >= length:
            return fitting
    return ()


def _first_fits(found: Survey, declared: TransferSyntax) -> bool:
    """Tell whether the first fragment is as `declared`, where the frames cannot be told apart."""
    element, walker = found.pixel_data, found.walker
    assert element is not None
    try:
        first = next(islice(walker.items(element, EXPLICIT, walker.end), 1, None), None)
    except NotTranscodable:
        return True
    return first is None or declared.uid in _fitting(walker.window.extent, first[0].value, first[0].length)


def _decode(
    found: Survey, description: PixelDescription, stored: TransferSyntax, frames: Sequence[Sequence[Range]], pool: Pool
) -> None:
    """Decode every frame. Raises CodecError where one cannot be, TimeoutError, GatewayStopping, OSError."""
    decoded = after_decoding(description, stored)
    order = Order(stored.uid, EXPLICIT_LITTLE, description, decoded, decoded, digest=True)
    orders = (partial(pool.submit, order, found.walker.window.extent.fd, fragments, taken) for fragments in frames)
    deadline = time.monotonic() + PROOF_S
    with closing(in_order(orders, pool)) as running:
        for _ in running:
            if time.monotonic() > deadline:
                raise TimeoutError
