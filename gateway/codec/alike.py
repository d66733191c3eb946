"""Two encodings of one instance held against each other: elements by name, and pixels (PS3.5 §7, §8). Blocking; no value gets out.

Not compared: group lengths, Data Set Trailing Padding (FFFC,FFFC), offset tables, the form of sequences' lengths, padding of
values, how numbers are written in decimal and integer strings, and with which VR an element is written (`dataset.meaning`).
Pixels are the same where their bytes are, else they are decoded by the pool and compared frame by frame. Where pixels are
compressed, Photometric Interpretation and Planar Configuration say how (PS3.5 §8.2): they may differ as long as what is decoded
does not.

Where it cannot be told, that is said: nothing is taken for the same that was not seen to be. Memory is bounded, whatever the
data sets hold: by `MAX_ELEMENTS` headers a level and a few frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from pydicom.datadict import keyword_for_tag

from gateway.codec.available import capabilities
from gateway.codec.dataset.convert import MAX_DEPTH
from gateway.codec.dataset.encapsulation import Range
from gateway.codec.dataset.extent import COPY_BYTES, Extent, Window
from gateway.codec.dataset.headers import (
    DOUBLE_FLOAT_PIXEL_DATA,
    EXPLICIT,
    FLOAT_PIXEL_DATA,
    IMPLICIT,
    PIXEL_DATA,
    Element,
    Encoding,
    Walker,
    inner_encoding,
    tag_name,
)
from gateway.codec.dataset.meaning import TEXT, meaning, padded
from gateway.codec.dataset.vrs import listed
from gateway.codec.frames import in_order, ranges_of, taken
from gateway.codec.pixels import attributes
from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.pixels.suitable import after_decoding
from gateway.codec.pixels.survey import survey
from gateway.codec.transcode import run, unpacking
from gateway.codec.workers.order import Order
from gateway.codec.workers.pool import Pool
from gateway.core.errors import CodecFailed, Incomparable, NotTranscodable
from gateway.dicom.elements import ITEM_END
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, TransferSyntax, syntax

PIXELS = "pixels"
"""The name of a difference in pixel data, of whatever kind."""

MAX_ELEMENTS = 200_000
"""Elements of one level, and of all levels above it, that are compared; no real instance comes near it."""

_MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Longer text is compared by its bytes."""

_TRAILING_PADDING = 0xFFFCFFFC
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
_PIXEL_DATA = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA})
_PLANAR, _PHOTOMETRIC = "PlanarConfiguration", "PhotometricInterpretation"
_ABOUT_PIXELS = frozenset({PIXELS, _PLANAR, _PHOTOMETRIC})


@dataclass(frozen=True, slots=True)
class Encoded:
    """A data set, without File Meta Information, and the transfer syntax UID in which it is encoded."""

    extent: Extent
    transfer_syntax_uid: str


def same(a: Encoded, b: Encoded, pool: Pool, *, folder: Path | None = None) -> bool:
    """Tell whether two data sets hold the same elements and pixels, whatever their transfer syntaxes; False where nobody can tell.

    Their files stay open meanwhile. `folder` is for steps in between (the system's temporary folder by default).

    Raises:
        GatewayStopping: the pool was closed meanwhile.
        OSError: a file cannot be read, or a step in between not be written.
    """
    try:
        with _compared(a, b, pool, folder) as comparison:
            return comparison is None or next(comparison.differences(), None) is None
    except Incomparable:
        return False


def differing(a: Encoded, b: Encoded, pool: Pool, *, folder: Path | None = None) -> tuple[str, ...]:
    """Return what two data sets differ in: keywords or tags of elements, as ``Sequence[2].Keyword`` within sequences, and `PIXELS`.

    Their files stay open meanwhile. `folder` is for steps in between (the system's temporary folder by default).

    Raises:
        Incomparable: one is not what its transfer syntax says, or its pixels cannot be decoded where that is needed.
        GatewayStopping: the pool was closed meanwhile.
        OSError: a file cannot be read, or a step in between not be written.
    """
    with _compared(a, b, pool, folder) as comparison:
        return () if comparison is None else tuple(comparison.differences())


@contextmanager
def _compared(a: Encoded, b: Encoded, pool: Pool, folder: Path | None) -> Iterator[_Comparison | None]:
    """Open a comparison; None where both are the same bytes."""
    alike = a.transfer_syntax_uid == b.transfer_syntax_uid and a.extent.length == b.extent.length
    if alike and _same_bytes(a.extent, 0, b.extent, 0, a.extent.length):
        yield None
        return
    try:
        with _plain(a, folder) as left, _plain(b, folder) as right:
            yield _Comparison(left, right, pool)
    except (NotTranscodable, CodecFailed) as error:
        raise Incomparable(f"the two cannot be compared: {error}") from error
    except EOFError:
        raise Incomparable("the two cannot be compared: a file ends before its data set does") from None


@contextmanager
def _plain(one: Encoded, folder: Path | None) -> Iterator[_Side]:
    """Open the data set in Little Endian and not deflated, in a file of its own where it was otherwise."""
    encoded, extent = syntax(one.transfer_syntax_uid), one.extent
    with ExitStack() as stack:
        for step in unpacking(encoded):
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            extent, _ = run(step, extent, file.fileno())
        yield _Side(Walker(Window(extent)), EXPLICIT if encoded.explicit else IMPLICIT, encoded)


@dataclass(frozen=True, slots=True)
class _Side:
    walker: Walker
    encoding: Encoding
    syntax: TransferSyntax

    @property
    def extent(self) -> Extent:
        return self.walker.window.extent


@dataclass(frozen=True, slots=True)
class _Part:
    """An element of one side: how it is encoded, and where it ends."""

    side: _Side
    encoding: Encoding
    element: Element
    behind: int

    @property
    def known_vr(self) -> bytes:
        """The VR that is written, empty where there is none or only UN."""
        return b"" if self.element.vr == b"UN" else self.element.vr

    @property
    def is_sequence(self) -> bool:
        element = self.element
        if self.known_vr or element.tag == PIXEL_DATA:
            return element.vr == b"SQ"
        return element.undefined or listed(element.tag) == "SQ"

    def items(self) -> Iterator[_Level]:
        """Yield the items of a sequence. Raises NotTranscodable where it is none."""
        encoding, walker = inner_encoding(self.element, self.encoding), self.side.walker
        for item, behind in walker.items(self.element, encoding, self.behind):
            yield _Level(self.side, encoding, item.value, behind)

    def chunks(self, vr: bytes) -> Iterator[bytes]:
        """Yield the value, or all fragments of what is encapsulated but the offset table, in pieces."""
        element = self.element
        if not element.undefined:
            yield from _pieces(self.side.extent, element.value, self.behind)
            if element.length % 2:
                yield padded(vr, b"\0")[1:]
            return
        items = self.side.walker.items(element, self.encoding, self.behind)
        next(items, None)
        for item, _ in items:
            yield from _pieces(self.side.extent, item.value, item.value + item.length)

    def value(self) -> bytes:
        return self.side.extent.read(self.element.value, self.element.length)


@dataclass(frozen=True, slots=True)
class _Level:
    """The elements from `begin` to `end` of one side, or to the item's delimiter before it."""

    side: _Side
    encoding: Encoding
    begin: int
    end: int

    def parts(self, room: int) -> list[_Part]:
        """Return the elements that count, by tag. Raises NotTranscodable, also where there are more than `room`."""
        found: list[_Part] = []
        position, walker = self.begin, self.side.walker
        while position < self.end:
            element = walker.header(position, self.encoding, self.end)
            if element.tag == ITEM_END:
                break
            position = walker.behind(element, self.encoding, self.end)
            if _counts(element.tag):
                found.append(_Part(self.side, self.encoding, element, position))
            if len(found) > room:
                raise NotTranscodable(f"there are more than {MAX_ELEMENTS} elements")
        return sorted(found, key=lambda part: part.element.tag)


def _counts(tag: int) -> bool:
    return bool(tag & 0xFFFF) and tag != _TRAILING_PADDING and tag not in _OFFSET_TABLES


@dataclass(frozen=True, slots=True)
class _Comparison:
    a: _Side
    b: _Side
    pool: Pool

    def differences(self) -> Iterator[str]:
        """Yield what differs, pixels last. Raises NotTranscodable, CodecFailed, EOFError, GatewayStopping, OSError."""
        a, b = (_Level(side, side.encoding, 0, side.extent.length) for side in (self.a, self.b))
        about_pixels: list[str] = []
        for name in self._level(a, b, "", MAX_ELEMENTS, 0):
            if name in _ABOUT_PIXELS:
                about_pixels.append(name)
            else:
                yield name
        yield from self._pixels(about_pixels) if PIXELS in about_pixels else about_pixels

    def _level(self, a: _Level, b: _Level, within: str, room: int, depth: int) -> Iterator[str]:
        if depth > MAX_DEPTH:
            raise NotTranscodable(f"sequences stand in each other more than {MAX_DEPTH} deep")
        left, right = a.parts(room), b.parts(room)
        room -= max(len(left), len(right))
        for tag, one, other in _paired(left, right):
            name = within + (keyword_for_tag(tag) or tag_name(tag))
            if not within and tag in _PIXEL_DATA:
                name = PIXELS
            if len(one) != len(other):
                yield name
                continue
            for part, counterpart in zip(one, other, strict=True):
                yield from self._element(part, counterpart, name, room, depth)

    def _element(self, a: _Part, b: _Part, name: str, room: int, depth: int) -> Iterator[str]:
        if _same_written(a, b):
            return
        if a.is_sequence or b.is_sequence:
            yield from self._sequences(a, b, name, room, depth)
        elif not _same_value(a, b):
            yield name

    def _sequences(self, a: _Part, b: _Part, name: str, room: int, depth: int) -> Iterator[str]:
        if any(part.known_vr not in (b"", b"SQ") for part in (a, b)):
            yield name
            return
        guessed = not (a.is_sequence and b.is_sequence)
        found: list[str] = []
        try:
            for number, (left, right) in enumerate(zip_longest(a.items(), b.items()), 1):
                if left is None or right is None:
                    found.append(f"{name}[{number}]")
                else:
                    found += self._level(left, right, f"{name}[{number}].", room, depth + 1)
        except NotTranscodable:
            if not guessed:
                raise
            found = [name]  # one that is not known to be a sequence is none
        yield from found

    def _pixels(self, written: list[str]) -> Iterator[str]:
        """Yield what of `written`, which differs as it is written, differs in what it means."""
        compressed = self.a.syntax.encapsulated or self.b.syntax.encapsulated
        sides = (_Pixels.of(self.a), _Pixels.of(self.b)) if compressed or _PLANAR in written else (None, None)
        left, right = sides
        if left is None or right is None:
            yield from written
            return
        if left.decoded != right.decoded:
            yield _PHOTOMETRIC
        if not self._decoded_alike(left, right):
            yield PIXELS

    def _decoded_alike(self, a: _Pixels, b: _Pixels) -> bool:
        # In lockstep: the first frame that differs ends it, and no more than a few frames are in the works.
        with closing(in_order(a.orders(self.pool), self.pool)) as left, closing(in_order(b.orders(self.pool), self.pool)) as right:
            return all(one is not None and one == other for one, other in zip_longest(left, right))


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The Pixel Data (7FE0,0010) of one side, to be decoded; `decoded` is its Photometric Interpretation then."""

    side: _Side
    description: PixelDescription
    decoded: str
    ranges: Sequence[Sequence[Range]]

    @classmethod
    def of(cls, side: _Side) -> _Pixels | None:
        """Return that of `side`, None where it has none. Raises NotTranscodable, OSError."""
        found = survey(side.extent, side.encoding)
        if found.pixel_data is None:
            return None
        if side.syntax.uid not in capabilities().decodable:
            raise NotTranscodable(f"{side.syntax.name} cannot be decoded here")
        description = attributes.describe(found.values)
        return cls(side, description, after_decoding(description, side.syntax), ranges_of(found, description, side.syntax))

    def orders(self, pool: Pool) -> Iterator[Callable[[], Future[bytes]]]:
        """Yield what has each frame decoded, to a digest of what it shows."""
        order = Order(self.side.syntax.uid, EXPLICIT_LITTLE, self.description, self.decoded, self.decoded, digest=True)
        return (partial(pool.submit, order, self.side.extent.fd, fragments, taken) for fragments in self.ranges)


def _paired(left: list[_Part], right: list[_Part]) -> Iterator[tuple[int, list[_Part], list[_Part]]]:
    """Yield each tag with what either side has of it."""
    by_tag: dict[int, tuple[list[_Part], list[_Part]]] = {}
    for number, parts in enumerate((left, right)):
        for part in parts:
            by_tag.setdefault(part.element.tag, ([], []))[number].append(part)
    for tag in sorted(by_tag):
        yield tag, *by_tag[tag]


def _same_written(a: _Part, b: _Part) -> bool:
    """Tell whether two values are the same bytes and are read in the same way."""
    length = a.behind - a.element.value
    if length != b.behind - b.element.value or a.element.undefined != b.element.undefined:
        return False
    sequences = a.is_sequence or b.is_sequence
    if sequences and inner_encoding(a.element, a.encoding) != inner_encoding(b.element, b.encoding):
        return length == 0
    return _same_bytes(a.side.extent, a.element.value, b.side.extent, b.element.value, length)


def _same_value(a: _Part, b: _Part) -> bool:
    """Tell whether two values that are no sequences mean the same; one whose VR is not known by the other's."""
    tag, known = a.element.tag, {part.known_vr for part in (a, b)} - {b""}
    if tag in _PIXEL_DATA:
        known = {b"OB"}  # words or bytes, they are in the same order
    if len(known) > 1:
        return known <= TEXT and _short(a, b) and a.value().rstrip(b" \0") == b.value().rstrip(b" \0")
    vr = known.pop() if known else listed(tag).split(" or ")[0].encode()
    if vr in TEXT and _short(a, b):
        return meaning(vr, a.value()) == meaning(vr, b.value())
    return _same_stream(a.chunks(vr), b.chunks(vr))


def _short(a: _Part, b: _Part) -> bool:
    return not any(part.element.undefined or part.element.length > _MAX_TEXT_BYTES for part in (a, b))


def _pieces(extent: Extent, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from `begin` to `end` in pieces. Raises EOFError, OSError."""
    while begin < end:
        data = extent.read(begin, min(COPY_BYTES, end - begin))
        if not data:
            raise EOFError
        yield data
        begin += len(data)


def _same_bytes(a: Extent, a_begin: int, b: Extent, b_begin: int, length: int) -> bool:
    return _same_stream(_pieces(a, a_begin, a_begin + length), _pieces(b, b_begin, b_begin + length))


def _same_stream(a: Iterator[bytes], b: Iterator[bytes]) -> bool:
    """Tell whether the pieces of `a` and of `b`, put together, are the same bytes."""
    left = right = b""
    while True:
        left, right = left or next(a, b""), right or next(b, b"")
        size = min(len(left), len(right))
        if size == 0:
            # A piece is never empty: one that is so has ended.
            return not left and not right
        if left[:size] != right[:size]:
            return False
        left, right = left[size:], right[size:]
