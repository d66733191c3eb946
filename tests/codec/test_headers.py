"""Headers rewritten between implicit and explicit VR and between byte orders; values, order and odd things stay."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.workers.pool import Pool
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from tests.support.elements import Made, encode
from tests.support.transcoding import DataSet, bring

_CODE_SEQUENCE, _PRIVATE_SEQUENCE = 0x00081140, 0x00091002
_PUBLIC = [
    (0x00080005, "CS"),
    (0x00080008, "CS"),
    (0x00080018, "UI"),
    (0x00080020, "DA"),
    (0x00100010, "PN"),
    (0x00104000, "LT"),
    (0x00200032, "DS"),
    (0x00189087, "FD"),
    (0x00280010, "US"),
    (0x00280009, "AT"),
    (0x00281101, "US"),
    (0x00720074, "FD"),
    (0x0040A043, "SQ"),
    (0x54001010, "OW"),
    (0x60003000, "OW"),
    (0x60000022, "LO"),
    (0x7FE00008, "OF"),
]
_WORD_BYTES = {"US": 2, "AT": 4, "FD": 8, "OW": 2, "OF": 4}


def _elements(depth: int = 2) -> st.SearchStrategy[list[Made]]:
    """Data sets of public elements and private creators, in the order of their tags, with sequences in them."""
    return st.lists(st.sampled_from(_PUBLIC), unique=True, max_size=6).flatmap(
        lambda chosen: st.tuples(*(_one(tag, vr, depth) for tag, vr in sorted(chosen))).map(list)
    )


def _one(tag: int, vr: str, depth: int) -> st.SearchStrategy[Made]:
    if vr == "SQ":
        items = st.lists(_elements(depth - 1), max_size=2) if depth else st.just([])
        return st.builds(lambda content, defined: Made(tag, "SQ", items=content, defined=defined), items, st.booleans())
    if vr in _WORD_BYTES:
        codes = {"US": st.integers(0, 65535), "AT": st.integers(0, 65535), "OW": st.integers(0, 65535)}
        numbers = codes.get(vr, st.floats(width=32, allow_nan=False))
        size = st.lists(numbers, max_size=4).map(lambda found: tuple(found[: len(found) // 2 * 2] if vr == "AT" else found))
        return size.map(lambda value: Made(tag, vr, value))
    return st.binary(max_size=20).map(lambda value: Made(tag, vr, value + b" " * (len(value) % 2)))


@given(_elements())
@settings(max_examples=150)
def test_headers_change_and_nothing_else(pool: Pool, made: list[Made]) -> None:
    little, implicit = encode(made), encode(made, explicit=False)
    big = encode(made, big=True)
    assert bring(DataSet(implicit, IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool).data == little
    assert bring(DataSet(big, EXPLICIT_BIG), EXPLICIT_LITTLE, pool).data == little
    assert bring(DataSet(little, EXPLICIT_LITTLE), IMPLICIT_LITTLE, pool).data == implicit
    assert bring(DataSet(big, EXPLICIT_BIG), IMPLICIT_LITTLE, pool).data == implicit
    deflated = bring(DataSet(little, EXPLICIT_LITTLE), DEFLATED, pool)
    assert len(deflated.data) % 2 == 0
    assert bring(deflated, EXPLICIT_LITTLE, pool).data == little


def test_private_and_unknown_elements_become_un_and_keep_their_bytes(pool: Pool) -> None:
    implicit = encode(
        [
            Made(0x00090010, "LO", b"MAKER "),
            Made(0x00091001, "UN", b"\x01\x02\x03\x04"),
            Made(0x00183FFE, "UN", b"what nobody lists "),
        ],
        explicit=False,
    )
    made = bring(DataSet(implicit, IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool)
    assert made.data == encode(
        [
            Made(0x00090010, "LO", b"MAKER "),
            Made(0x00091001, "UN", b"\x01\x02\x03\x04"),
            Made(0x00183FFE, "UN", b"what nobody lists "),
        ]
    )
    assert bring(made, IMPLICIT_LITTLE, pool).data == implicit


def test_a_private_sequence_without_length_becomes_un_with_implicit_items(pool: Pool) -> None:
    within = [[Made(0x00080100, "SH", b"CODE")]]
    implicit = encode([Made(_PRIVATE_SEQUENCE, "SQ", items=within, defined=False)], explicit=False)
    made = bring(DataSet(implicit, IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool)
    assert made.data == struct.pack("<HH2sHL", 0x0009, 0x1002, b"UN", 0, 0xFFFFFFFF) + implicit[8:]
    assert bring(made, IMPLICIT_LITTLE, pool).data == implicit


@pytest.mark.parametrize(("signed", "vr"), [(0, "US"), (1, "SS")])
def test_us_or_ss_follows_pixel_representation_also_within_sequences(pool: Pool, signed: int, vr: str) -> None:
    made = [
        Made(0x00280103, "US", (signed,)),
        Made(0x00280106, vr, b"\x10\x00"),
        Made(0x00283010, "SQ", items=[[Made(0x00283002, vr, b"\x01\x00\x02\x00\x03\x00"), Made(0x00283006, "OW", b"\1\0")]]),
    ]
    assert bring(DataSet(encode(made, explicit=False), IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool).data == encode(made)


PIXEL_VALUE, PADDING_VALUE, MAPPED, LARGEST = 0x00189810, 0x00280120, 0x00221452, 0x00280107
MINUS = b"\xf9\xff"


def rep(number: int) -> Made:
    """Return Pixel Representation."""
    return Made(0x00280103, "US", (number,))


def bits(number: int) -> Made:
    """Return Waveform Bits Allocated."""
    return Made(0x54001004, "US", (number,))


def level(tag: int, *items: list[Made], defined: bool = True) -> Made:
    """Return a sequence."""
    return Made(tag, "SQ", items=items, defined=defined)


US_OR_SS: dict[str, list[Made]] = {
    "before it": [Made(PIXEL_VALUE, "SS", MINUS), Made(MAPPED, "SS", MINUS), rep(1), Made(PADDING_VALUE, "SS", MINUS)],
    "before it, unsigned": [Made(PIXEL_VALUE, "US", MINUS), rep(0), Made(PADDING_VALUE, "US", MINUS)],
    "in an item before it": [level(0x00186011, [Made(PIXEL_VALUE, "SS", MINUS)], [Made(PIXEL_VALUE, "SS", MINUS)]), rep(1)],
    "in an item of an item before it": [
        level(0x00186011, [level(0x00409096, [Made(MAPPED, "SS", MINUS)], defined=False)], defined=False),
        rep(1),
    ],
    "in an item behind it": [rep(1), level(0x00409096, [Made(0x00409216, "SS", MINUS), Made(0x00409211, "SS", b"\7\0")])],
    "an item that has its own": [
        Made(PIXEL_VALUE, "SS", MINUS),
        level(0x00081140, [Made(PIXEL_VALUE, "US", MINUS), rep(0), Made(LARGEST, "US", MINUS)]),
        rep(1),
        level(0x00880200, [rep(0), Made(LARGEST, "US", MINUS)], [Made(LARGEST, "SS", MINUS)]),
        level(0x52009229, [Made(LARGEST, "SS", MINUS)]),
    ],
    "an item whose own is empty": [rep(1), level(0x00880200, [Made(0x00280103, "US", b""), Made(LARGEST, "SS", MINUS)])],
    "out of order": [
        Made(0x00283002, "SS", b"\4\0\0\xfc\x10\0"),
        Made(LARGEST, "SS", MINUS),
        rep(1),
        Made(0x00080018, "UI", b"1.2\0"),
    ],
    "nowhere": [Made(PIXEL_VALUE, "US", MINUS), level(0x00186011, [Made(PIXEL_VALUE, "US", MINUS)])],
    "too long for either": [Made(PIXEL_VALUE, "UN", MINUS * 40_000), rep(1)],
    "LUT Data is OW": [
        rep(1),
        level(0x00283010, [Made(0x00283002, "SS", b"\1\0\0\xfc\x10\0"), Made(0x00283006, "OW", b"\1\0")]),
    ],
    "a palette": [rep(1), Made(0x00281101, "SS", b"\4\0\0\xfc\x10\0"), Made(0x00281201, "OW", bytes(8))],
    "a histogram": [rep(1), level(0x00603000, [Made(0x00603004, "SS", MINUS), Made(0x00603006, "SS", MINUS)])],
    "a waveform of 8 bits": [
        level(
            0x54000100,
            [
                level(0x003A0200, [Made(0x54000110, "OB", b"\x80\0"), Made(0x54000112, "OB", b"\x7f\0")]),
                bits(8),
                Made(0x5400100A, "OB", b"\x80\0"),
                Made(0x54001010, "OB", b"\1\2"),
            ],
        )
    ],
    "waveforms of 16 and of 8 bits": [
        level(
            0x54000100,
            [level(0x003A0200, [Made(0x54000110, "OW", MINUS)]), bits(16), Made(0x54001010, "OW", MINUS)],
            [level(0x003A0200, [Made(0x54000110, "OB", MINUS)], defined=False), bits(8), Made(0x54001010, "OB", MINUS)],
        )
    ],
    "a waveform of unknown bits": [level(0x54000100, [Made(0x54001010, "OW", MINUS)])],
    "overlays, curves and pixels": [
        bits(8),
        Made(0x50003000, "OW", MINUS),
        Made(0x60003000, "OW", MINUS),
        Made(0x7FE00010, "OW", MINUS),
    ],
    "many of them": [
        *(level(0x00186011, [Made(PIXEL_VALUE, "SS", MINUS)]) for _ in range(1)),
        *([Made(PIXEL_VALUE, "SS", MINUS)] * 200_000),
        rep(1),
    ],
}


@pytest.mark.parametrize("made", US_OR_SS.values(), ids=US_OR_SS)
def test_a_vr_is_decided_by_an_element_that_stands_later_or_around(pool: Pool, made: list[Made]) -> None:
    implicit = encode(made, explicit=False)
    explicit = bring(DataSet(implicit, IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool)
    assert explicit.data == encode(made)
    assert bring(explicit, IMPLICIT_LITTLE, pool).data == implicit


Level = tuple[int | None, int, list["Level"], int]
"""A level's Pixel Representation, the index of the element after it, the levels within, and whether their length is defined."""

LEVELS: st.SearchStrategy[Level] = st.recursive(
    st.tuples(st.sampled_from([None, 0, 1]), st.integers(0, 3), st.just([]), st.integers(0, 1)),
    lambda within: st.tuples(st.sampled_from([None, 0, 1]), st.integers(0, 3), st.lists(within, max_size=3), st.integers(0, 1)),
    max_leaves=8,
)


def written(one: Level, around: int) -> list[Made]:
    """Return the elements of a level, each with the VR that the nearest Pixel Representation decides on."""
    own, place, within, defined = one
    signed = around if own is None else own
    vr = "SS" if signed else "US"
    items = [written(each, signed) for each in within]
    made = [Made(PIXEL_VALUE, vr, MINUS), Made(0x00186011, "SQ", items=items, defined=bool(defined)), Made(LARGEST, vr, MINUS)]
    return made if own is None else [*made[:place], rep(own), *made[place:]]


@given(LEVELS)
@settings(max_examples=200, deadline=None)
def test_the_nearest_pixel_representation_decides_wherever_it_stands(pool: Pool, one: Level) -> None:
    made = written(one, 0)
    assert bring(DataSet(encode(made, explicit=False), IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool).data == encode(made)


def test_a_text_too_long_for_its_vr_becomes_un(pool: Pool) -> None:
    implicit = encode([Made(0x00104000, "LT", b"x" * 70_000)], explicit=False)
    made = bring(DataSet(implicit, IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool)
    assert made.data == encode([Made(0x00104000, "UN", b"x" * 70_000)])
    assert bring(made, IMPLICIT_LITTLE, pool).data == implicit


def test_a_vr_of_tomorrow_is_kept(pool: Pool) -> None:
    elements = [Made(0x00080018, "UI", b"1.2\0"), Made(0x00187777, "ZZ", b"\1\2\3\4"), Made(0x00200010, "SH", b"1 ")]
    made = bring(DataSet(encode(elements, big=True), EXPLICIT_BIG), EXPLICIT_LITTLE, pool)
    assert made.data == encode(elements)


def test_group_lengths_follow_their_groups_and_wrong_ones_stay_as_wrong(pool: Pool) -> None:
    name = Made(0x00100010, "PN", b"A^B ")
    long = Made(0x00104000, "LT", b"text")
    text = Made(0x7FE11012, "UN", b"unknown ")
    right = [Made(0x00100000, "UL", (len(encode([name, long], explicit=False)),)), name, long]
    wrong = [Made(0x7FE10000, "UL", (len(encode([text], explicit=False)) + 100,)), text]
    made = bring(DataSet(encode(right + wrong, explicit=False), IMPLICIT_LITTLE), EXPLICIT_LITTLE, pool)
    assert made.data == encode(
        [
            Made(0x00100000, "UL", (len(encode([name, long])),)),
            name,
            long,
            Made(0x7FE10000, "UL", (len(encode([text])) + 100,)),
            text,
        ]
    )


def test_un_in_big_endian_is_not_touched(pool: Pool) -> None:
    made = bring(DataSet(encode([Made(0x00091001, "UN", b"\1\2\3\4")], big=True), EXPLICIT_BIG), EXPLICIT_LITTLE, pool)
    assert made.data == encode([Made(0x00091001, "UN", b"\1\2\3\4")])


_MANY_LEVELS = [Made(0x00080018, "UI", b"1.2\0")]
for _ in range(80):
    _MANY_LEVELS = [Made(_CODE_SEQUENCE, "SQ", items=[_MANY_LEVELS], defined=False)]


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (encode([Made(0x00080018, "UI", b"1.2\0")])[:-1], EXPLICIT_BIG),
        (encode([Made(0x00080018, "UI", b"1.2\0")], explicit=False)[:-1], IMPLICIT_LITTLE),
        (encode([Made(0x00080018, "UI", b"1.2\0")], big=True) + b"\0\0\0", EXPLICIT_BIG),
        (encode(_MANY_LEVELS, explicit=False), IMPLICIT_LITTLE),
        (encode([Made(_CODE_SEQUENCE, "SQ", items=[[]], defined=False)], explicit=False)[:-8], IMPLICIT_LITTLE),
        (encode([Made(_CODE_SEQUENCE, "SQ", items=[[]], defined=False)], explicit=False)[:-16], IMPLICIT_LITTLE),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff" * 50, IMPLICIT_LITTLE),
        (b"\x08\x00\x18\x00\xff\xff\xff\x7f1.2\0", IMPLICIT_LITTLE),
        (b"\xe0\x7f\x10\x00\xff\xff\xff\xff" + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), IMPLICIT_LITTLE),
        (b"not deflated at all", DEFLATED),
        (b"", DEFLATED),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(pool: Pool, data: bytes, syntax: str) -> None:
    with pytest.raises(NotTranscodable):
        bring(DataSet(data, syntax), EXPLICIT_LITTLE, pool)


@given(st.binary(max_size=200), st.sampled_from([IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]))
@settings(max_examples=300)
def test_rubbish_is_refused_or_survives(pool: Pool, data: bytes, syntax: str) -> None:
    try:
        bring(DataSet(data, syntax), EXPLICIT_LITTLE, pool)
    except NotTranscodable:
        return


def test_a_deflated_bomb_is_bounded(pool: Pool) -> None:
    bomb = bring(DataSet(encode([Made(0x7FE00010, "OW", bytes(50_000_000))]), EXPLICIT_LITTLE), DEFLATED, pool)
    assert len(bomb.data) < 60_000
    with pytest.raises(NotTranscodable, match="more than 10000000 bytes"):
        bring(bomb, EXPLICIT_LITTLE, pool, max_inflated_bytes=10_000_000)
