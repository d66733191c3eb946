"""A data set in another transfer syntax than declared is noticed: the real one is told if it can be proved, else it is unfit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from gateway.codec import declared
from gateway.codec.dataset.extent import Extent
from gateway.codec.declared import BEGINNING_BYTES, Judgement
from gateway.codec.workers.pool import Pool
from gateway.dicom.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    syntax,
)
from tests.support.data import real_file, real_images
from tests.support.elements import Made, encode
from tests.support.images import BEFORE, BEHIND, Image
from tests.support.transcoding import DataSet, bring, of_file

IMAGE = Image(frames=2)
LABELS = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, J2K_LOSSLESS, JPEG_BASELINE, JPEG_LS_LOSSLESS, RLE_LOSSLESS]
FORMS = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED, J2K_LOSSLESS, JPEG_LS_LOSSLESS, HTJ2K_LOSSLESS, RLE_LOSSLESS]


def judged(made: DataSet, label: str, pool: Pool, *, at_a_glance: bool = True) -> Judgement:
    """Return what is found out about a data set under another label."""
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + made.data + b"behind")
        file.flush()
        extent = Extent(file.fileno(), len(b"before"), len(made.data))
        return declared.judge(extent, label, pool) if at_a_glance else declared.examine(extent, label, pool)


def seen_at_a_glance(made: DataSet, label: str) -> bool:
    def read(offset: int, size: int) -> bytes:
        return made.data[offset : offset + size]

    return declared.fits(made.data[:BEGINNING_BYTES], len(made.data), label, read)


def plain(image: Image = IMAGE) -> DataSet:
    return image.data_set(image.native(image.cells()), before=BEFORE, behind=BEHIND)


@pytest.mark.parametrize("label", LABELS, ids=lambda uid: syntax(uid).name)
@pytest.mark.parametrize("form", FORMS, ids=lambda uid: syntax(uid).name)
def test_an_instance_under_any_label_is_told_to_be_what_it_is(form: str, label: str, pool: Pool) -> None:
    made = plain() if form == EXPLICIT_LITTLE else bring(plain(), form, pool)
    assert judged(made, label, pool) == Judgement(form)
    assert seen_at_a_glance(made, label) is (form == label)


@pytest.mark.parametrize(
    ("name", "label", "is_in"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", J2K_LOSSLESS, JPEG_BASELINE),
        ("SC_rgb_jpeg_dcmtk.dcm", EXPLICIT_LITTLE, JPEG_BASELINE),
        ("JPEG-lossy.dcm", JPEG_BASELINE, JPEG_EXTENDED),
        ("JPEG-LL.dcm", JPEG_BASELINE, JPEG_LOSSLESS_SV1),
        ("JPEG-LL.dcm", EXPLICIT_LITTLE, JPEG_LOSSLESS_SV1),
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", J2K, JPEG_LOSSLESS_SV1),
        ("MR_small_jpeg_ls_lossless.dcm", JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS),
        ("US1_J2KR.dcm", HTJ2K_LOSSLESS, J2K_LOSSLESS),
        ("JPEG2000.dcm", J2K_LOSSLESS, J2K),
        ("emri_small_RLE.dcm", IMPLICIT_LITTLE, RLE_LOSSLESS),
        ("color3d_jpeg_baseline.dcm", RLE_LOSSLESS, JPEG_BASELINE),
        ("MR_small_bigendian.dcm", EXPLICIT_LITTLE, EXPLICIT_BIG),
        ("MR_small_bigendian.dcm", J2K_LOSSLESS, EXPLICIT_BIG),
        ("rtplan.dcm", EXPLICIT_LITTLE, IMPLICIT_LITTLE),
        ("test-SR.dcm", IMPLICIT_LITTLE, EXPLICIT_LITTLE),
        ("image_dfl.dcm", EXPLICIT_LITTLE, DEFLATED),
    ],
)
def test_real_files_under_wrong_labels(name: str, label: str, is_in: str, pool: Pool) -> None:
    made = of_file(real_file(name))
    assert made.syntax == is_in
    assert judged(made, label, pool) == Judgement(is_in)


def test_real_files_are_what_they_say(pool: Pool) -> None:
    for path in real_images():
        made = of_file(path)
        if made.syntax:
            assert judged(made, made.syntax, pool) == Judgement(made.syntax), path.name


def frames(*each: bytes, length: int | None = None) -> DataSet:
    """Return an instance whose Pixel Data has a frame of each, or has a length."""
    whole = plain(replace(IMAGE, frames=max(1, len(each)))).data
    place = whole.index(b"\xe0\x7f\x10\x00")
    if length is not None:
        value = b"".join(each)[:length].ljust(length, b"\0")
        return DataSet(whole[:place] + b"\xe0\x7f\x10\x00OB\0\0" + length.to_bytes(4, "little") + value, EXPLICIT_LITTLE)
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = encapsulate(list(each), has_bot=False)
    return DataSet(whole[:place] + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + data + end, EXPLICIT_LITTLE)


def codestream(form: str, pool: Pool) -> bytes:
    from pydicom.encaps import generate_frames

    single = Image(frames=1)
    made = bring(single.data_set(single.native(single.cells())), form, pool).read()
    return next(generate_frames(made.PixelData, number_of_frames=1))


UNFIT: dict[str, tuple[Callable[[Pool], DataSet], str, str]] = {
    "a damaged codestream of another kind": (
        lambda pool: frames(codestream(J2K_LOSSLESS, pool)[:-200], codestream(J2K_LOSSLESS, pool)),
        JPEG_BASELINE,
        "which is not proved",
    ),
    "an unknown codestream": (lambda _pool: frames(b"what is this" * 20, b"and that" * 20), J2K_LOSSLESS, "none that is known"),
    "frames of two kinds": (
        lambda pool: frames(codestream(J2K_LOSSLESS, pool), codestream(RLE_LOSSLESS, pool)),
        JPEG_BASELINE,
        "or in several",
    ),
    "compressed pixels in an element with a length": (
        lambda pool: frames(codestream(J2K_LOSSLESS, pool), length=1000),
        EXPLICIT_LITTLE,
        "compressed pixels where Explicit VR Little Endian has none",
    ),
    "fragments that end too early": (
        lambda pool: DataSet(frames(codestream(J2K_LOSSLESS, pool), codestream(J2K_LOSSLESS, pool)).data[:-400], EXPLICIT_LITTLE),
        EXPLICIT_LITTLE,
        "that is not in Explicit VR Little Endian",
    ),
    "other fragments that end too early": (
        lambda pool: DataSet(frames(codestream(RLE_LOSSLESS, pool), codestream(RLE_LOSSLESS, pool)).data[:-400], EXPLICIT_LITTLE),
        J2K_LOSSLESS,
        "that is not in JPEG 2000 Lossless",
    ),
    "too few pixels": (lambda _pool: frames(bytes(700), length=700), EXPLICIT_LITTLE, "700 bytes of Pixel Data where 2640 belong"),
    "too few pixels under a compressed label": (
        lambda _pool: frames(bytes(700), length=700),
        J2K_LOSSLESS,
        "uncompressed Pixel Data",
    ),
    "an image of another size": (
        lambda pool: frames(codestream(JPEG_LS_LOSSLESS, pool), codestream(JPEG_LS_LOSSLESS, pool)[:60]),
        J2K_LOSSLESS,
        "not proved",
    ),
}


@pytest.mark.parametrize(("made", "label", "words"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_proved_is_unfit(made: Callable[[Pool], DataSet], label: str, words: str, pool: Pool) -> None:
    found = judged(made(pool), label, pool)
    assert found.transfer_syntax_uid == label
    assert words in found.unfit


def test_a_damaged_codestream_of_the_right_kind_is_not_a_wrong_label(pool: Pool) -> None:
    whole = codestream(J2K_LOSSLESS, pool)
    assert judged(frames(whole[:-200], whole), J2K_LOSSLESS, pool) == Judgement(J2K_LOSSLESS)


def test_a_proof_that_takes_too_long_is_none(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "PROOF_S", -1.0)
    assert "takes too long" in judged(bring(plain(), J2K_LOSSLESS, pool), JPEG_BASELINE, pool).unfit


def test_transfer_syntaxes_that_are_not_known_are_not_judged(pool: Pool) -> None:
    for label in ("1.2.840.113619.5.2", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110"):
        assert judged(plain(), label, pool) == Judgement(label)


def test_pixel_data_within_an_icon_is_not_that_of_the_image(pool: Pool) -> None:
    icon = Image(rows=8, columns=8, allocated=8, stored=8)
    item = [each for each in icon._attributes() if each.tag & 0xFFFF] + [Made(0x7FE00010, "OW", bytes(64))]
    behind = [Made(0x00880200, "SQ", items=[item], defined=False)]
    single = Image()
    data = encode([*BEFORE, *single._attributes(), *behind, Made(0x7FE00010, "OW", single.native(single.cells()))])
    assert judged(DataSet(data, EXPLICIT_LITTLE), J2K_LOSSLESS, pool) == Judgement(EXPLICIT_LITTLE)
    assert judged(DataSet(data, EXPLICIT_LITTLE), EXPLICIT_LITTLE, pool) == Judgement(EXPLICIT_LITTLE)


def test_pixels_far_behind_are_found_without_walking_there(pool: Pool) -> None:
    private = [Made(0x00291001 + number, "OB", bytes(300_000)) for number in range(10)]
    image = Image()
    data = encode([*BEFORE, *image._attributes(), *private, Made(0x7FE00010, "OW", image.native(image.cells()))])
    assert seen_at_a_glance(DataSet(data, EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert not seen_at_a_glance(DataSet(data, EXPLICIT_LITTLE), J2K_LOSSLESS)


def test_a_value_that_looks_like_pixel_data_misleads_nobody(pool: Pool) -> None:
    lure = Made(0x00091001, "OB", b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0" + bytes(40))
    made = IMAGE.data_set(IMAGE.native(IMAGE.cells()), before=[*BEFORE[:-1], lure], behind=BEHIND)
    assert judged(made, EXPLICIT_LITTLE, pool) == Judgement(EXPLICIT_LITTLE)
    assert judged(made, J2K_LOSSLESS, pool) == Judgement(EXPLICIT_LITTLE)


@given(st.binary(max_size=300), st.sampled_from(LABELS))
@settings(max_examples=300, deadline=None)
def test_rubbish_is_judged_without_an_error(pool: Pool, data: bytes, label: str) -> None:
    found = judged(DataSet(data, label), label, pool)
    assert found.transfer_syntax_uid in LABELS


@given(place=st.integers(0, 3000), bit=st.integers(0, 7), label=st.sampled_from(LABELS))
@settings(max_examples=150, deadline=None)
def test_what_is_relabelled_can_be_decoded_under_its_new_label(pool: Pool, place: int, bit: int, label: str) -> None:
    data = bytearray(bring(plain(Image(rows=4, columns=4, frames=2)), RLE_LOSSLESS, pool).data)
    data[place % len(data)] ^= 1 << bit
    made = DataSet(bytes(data), RLE_LOSSLESS)
    found = judged(made, label, pool)
    if found.transfer_syntax_uid == RLE_LOSSLESS != label and not found.unfit:
        assert bring(made, EXPLICIT_LITTLE, pool).syntax == EXPLICIT_LITTLE


def test_files_on_disk_are_read_no_further_than_needed(tmp_path: Path) -> None:
    def never(_offset: int, _size: int) -> bytes:
        raise AssertionError("more was read")

    small = plain()
    assert declared.fits(small.data, len(small.data), EXPLICIT_LITTLE, never)
