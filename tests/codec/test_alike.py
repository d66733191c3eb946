"""Two encodings of one instance: the same where only the encoding differs, and never where anything else does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.codec import alike
from gateway.codec.alike import PIXELS, Encoded
from gateway.codec.dataset.extent import Extent
from gateway.codec.workers.pool import Pool
from gateway.core.errors import Incomparable
from gateway.dicom.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    J2K_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
)
from tests.support import comparing
from tests.support.elements import Made, encode
from tests.support.images import BEFORE, BEHIND, Image
from tests.support.transcoding import DataSet, bring

IMAGES = {
    "unsigned": Image(),
    "signed": Image(signed=True),
    "frames": Image(rows=32, frames=3, allocated=8, stored=8),
    "RGB": Image(samples=3, allocated=8, stored=8, planar=0, photometric="RGB"),
    "RGB by planes": Image(samples=3, allocated=8, stored=8, planar=1, photometric="RGB"),
}


def made(image: Image, seed: int = 0) -> DataSet:
    """Return an instance of `image` among other elements."""
    return image.data_set(image.native(image.cells(seed)), before=BEFORE, behind=BEHIND)


def differing(a: DataSet, b: DataSet, pool: Pool) -> tuple[str, ...]:
    """Return what two data sets differ in, asking that it is the same either way round, and that `same` agrees."""
    with ExitStack() as stack:
        left, right = (_encoded(one, stack) for one in (a, b))
        found = alike.differing(left, right, pool)
        assert found == alike.differing(right, left, pool)
        assert alike.same(left, right, pool) is (found == ()) is alike.same(right, left, pool)
    return found


def _encoded(one: DataSet, stack: ExitStack) -> Encoded:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
    stack.callback(file.close)
    file.write(b"before" + one.data + b"behind")
    file.flush()
    return Encoded(Extent(file.fileno(), len(b"before"), len(one.data)), one.syntax)


@pytest.mark.parametrize("target", [IMPLICIT_LITTLE, DEFLATED, J2K_LOSSLESS, JPEG_LS_LOSSLESS, HTJ2K_LOSSLESS, RLE_LOSSLESS])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_another_transfer_syntax_is_no_difference(image: Image, target: str, pool: Pool) -> None:
    plain = made(image)
    assert differing(plain, bring(plain, target, pool), pool) == ()


@pytest.mark.parametrize("target", [EXPLICIT_LITTLE, J2K_LOSSLESS, RLE_LOSSLESS])
@pytest.mark.parametrize("other", [IMPLICIT_LITTLE, JPEG_LS_LOSSLESS])
def test_one_pixel_of_the_last_frame_is_a_difference(target: str, other: str, pool: Pool) -> None:
    image = IMAGES["frames"]
    cells = image.cells()
    before = image.data_set(image.native(cells), before=BEFORE, behind=BEHIND)
    cells[-1, -1, -1, -1] ^= 1
    after = image.data_set(image.native(cells), before=BEFORE, behind=BEHIND)
    one = before if target == EXPLICIT_LITTLE else bring(before, target, pool)
    assert differing(one, bring(after, other, pool), pool) == (PIXELS,)


def test_planes_or_pixels_is_no_difference_where_the_samples_are_the_same(pool: Pool) -> None:
    by_pixel, by_plane = IMAGES["RGB"], IMAGES["RGB by planes"]
    cells = by_pixel.cells()
    one, other = (each.data_set(each.native(cells)) for each in (by_pixel, by_plane))
    assert differing(one, other, pool) == ()
    lying = by_plane.data_set(by_pixel.native(cells))
    assert differing(one, lying, pool) == ("PlanarConfiguration",)
    assert differing(one, by_pixel.data_set(by_plane.native(cells)), pool) == (PIXELS,)


def test_another_description_of_the_same_pixels_is_a_difference(pool: Pool) -> None:
    image = Image()
    cells = image.native(image.cells())
    inverted = replace(image, photometric="MONOCHROME1").data_set(cells)
    assert differing(image.data_set(cells), inverted, pool) == ("PhotometricInterpretation",)
    compressed = bring(inverted, J2K_LOSSLESS, pool)
    assert differing(image.data_set(cells), compressed, pool) == ("PhotometricInterpretation",)
    implicit = bring(inverted, IMPLICIT_LITTLE, pool)
    assert differing(image.data_set(cells), implicit, pool) == ("PhotometricInterpretation",)


def test_bits_that_say_nothing_are_no_difference_but_overlays_are(pool: Pool) -> None:
    image = Image(signed=True)
    cells = image.cells()
    extended, cleared = image.data_set(image.native(cells)), image.data_set(image.native(cells & 0x0FFF))
    assert differing(bring(extended, J2K_LOSSLESS, pool), cleared, pool) == ()
    unsigned = Image()
    cells = unsigned.cells()
    compressed = bring(unsigned.data_set(unsigned.native(cells)), J2K_LOSSLESS, pool)
    cells[0, 0, 0, 0] |= 0x8000
    assert differing(compressed, unsigned.data_set(unsigned.native(cells)), pool) == (PIXELS,)


CODE = Made(0x00080100, "SH", b"A1")
PAIRS: dict[str, tuple[list[Made], list[Made], tuple[str, ...]]] = {
    "lengths of a sequence": (
        [Made(0x00081140, "SQ", items=[[CODE]], defined=True)],
        [Made(0x00081140, "SQ", items=[[CODE]], defined=False)],
        (),
    ),
    "in an item": (
        [Made(0x00081140, "SQ", items=[[CODE]])],
        [Made(0x00081140, "SQ", items=[[Made(0x00080100, "SH", b"A2")]])],
        ("ReferencedImageSequence[1].CodeValue",),
    ),
    "an item more": (
        [Made(0x00081140, "SQ", items=[[CODE]])],
        [Made(0x00081140, "SQ", items=[[CODE], []])],
        ("ReferencedImageSequence[2]",),
    ),
    "a sequence in UN": (
        [Made(0x00091002, "SQ", items=[[CODE]])],
        [Made(0x00091002, "UN", encode([Made(0x00091002, "SQ", items=[[CODE]])], explicit=False)[8:])],
        (),
    ),
    "padding": ([Made(0x00100010, "PN", b"A^B ")], [Made(0x00100010, "PN", b"A^B  \0")], ()),
    "a VR": ([Made(0x00091001, "US", (5,))], [Made(0x00091001, "UN", b"\5\0")], ()),
    "an element more": ([CODE], [CODE, Made(0x00091001, "US", (5,))], ("(0009,1001)",)),
    "the order": ([CODE, Made(0x00080050, "SH", b"9 ")], [Made(0x00080050, "SH", b"9 "), CODE], ()),
    "an element twice": ([CODE], [CODE, CODE], ("CodeValue",)),
    "which comes first of two": (
        [CODE, Made(0x00080100, "SH", b"A2")],
        [Made(0x00080100, "SH", b"A2"), CODE],
        ("CodeValue", "CodeValue"),
    ),
    "group lengths and trailing padding": (
        [CODE],
        [Made(0x00080000, "UL", (10,)), CODE, Made(0xFFFCFFFC, "OB", bytes(10))],
        (),
    ),
    "a sequence or a value": ([Made(0x00091002, "SQ", items=[])], [Made(0x00091002, "LO", b"")], ()),
    "no sequence": (
        [Made(0x00091002, "SQ", items=[[CODE]])],
        [Made(0x00091002, "UN", b"no items")],
        ("(0009,1002)",),
    ),
    "floats": ([Made(0x7FE00008, "OF", (1.0,))], [Made(0x7FE00008, "OF", (2.0,))], (PIXELS,)),
}


@pytest.mark.parametrize(("one", "other", "names"), PAIRS.values(), ids=PAIRS)
def test_elements_that_differ_are_named(one: list[Made], other: list[Made], names: tuple[str, ...], pool: Pool) -> None:
    sets = [DataSet(encode(elements), EXPLICIT_LITTLE) for elements in (one, other)]
    assert differing(sets[0], sets[1], pool) == names


@given(place=st.integers(0, 2000), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_never_the_same(place: int, bit: int, pool: Pool) -> None:
    image = Image(rows=4, columns=4, stored=16)
    plain = made(image)
    flipped = bytearray(plain.data)
    flipped[place % len(flipped)] ^= 1 << bit
    other = DataSet(bytes(flipped), EXPLICIT_LITTLE)
    with ExitStack() as stack:
        same = alike.same(_encoded(bring(plain, IMPLICIT_LITTLE, pool), stack), _encoded(other, stack), pool)
    found = []
    with suppress(Exception):  # VRs are not compared: another reader may make nothing of one that was flipped
        found = comparing.differences(plain.part10(), other.part10())
    # Padding may be flipped: the other reader sees no difference either then.
    assert not same or not found


BROKEN: dict[str, Callable[[bytes], DataSet]] = {
    "cut": lambda whole: DataSet(whole[:-30], EXPLICIT_LITTLE),
    "implicit as explicit": lambda whole: DataSet(whole, IMPLICIT_LITTLE),
    "not deflated": lambda whole: DataSet(whole, DEFLATED),
    "not Big Endian": lambda whole: DataSet(whole, EXPLICIT_BIG),
    "not compressed": lambda whole: DataSet(whole, J2K_LOSSLESS),
    "unknown": lambda whole: DataSet(whole[:-40] + b"12" + whole[-38:], "1.2.3.4"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_told_is_not_the_same(broken: Callable[[bytes], DataSet], pool: Pool) -> None:
    image = Image()
    plain = image.data_set(image.native(image.cells()))
    other = image.data_set(image.native(image.cells(1)))
    with ExitStack() as stack:
        one, two = _encoded(plain, stack), _encoded(broken(other.data), stack)
        assert not alike.same(one, two, pool)
        try:
            assert alike.differing(one, two, pool)
        except Incomparable as error:
            assert "cannot be compared" in str(error)


def test_more_elements_than_anybody_has_are_not_compared(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "MAX_ELEMENTS", 50)
    many = [Made(0x00091000 + number, "US", (number,)) for number in range(60)]
    one, other = DataSet(encode(many), EXPLICIT_LITTLE), DataSet(encode(many[:-1]), EXPLICIT_LITTLE)
    with ExitStack() as stack, pytest.raises(Incomparable, match="more than 50 elements"):
        alike.differing(_encoded(one, stack), _encoded(other, stack), pool)
