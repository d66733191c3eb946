"""Which transfer syntax an instance goes out in."""

from __future__ import annotations

import pytest

from gateway.codec.policy import Capabilities, Decision, Hold, Mode, SendAsIs, TranscodeTo, candidates, decide
from gateway.dicom.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
)

_NATIVE = {EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED}
_CAN = Capabilities(
    frozenset({*_NATIVE, J2K_LOSSLESS, J2K, RLE_LOSSLESS, HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS}),
    frozenset({J2K_LOSSLESS, RLE_LOSSLESS, JPEG_LS_LOSSLESS}),
)
_CAN_HT = Capabilities(_CAN.decodable, _CAN.encodable | {HTJ2K_LOSSLESS})
_MPEG4 = "1.2.840.10008.1.2.4.102"
_AS_IS = SendAsIs()


def _uncompressed(*more: str) -> set[str]:
    return {EXPLICIT_LITTLE, IMPLICIT_LITTLE, *more}


@pytest.mark.parametrize(
    ("stored", "accepted", "mode", "expected"),
    [
        (J2K_LOSSLESS, None, Mode.AS_IS, _AS_IS),
        (J2K_LOSSLESS, _uncompressed(J2K_LOSSLESS), Mode.AS_IS, _AS_IS),
        (J2K_LOSSLESS, _uncompressed(), Mode.AS_IS, TranscodeTo(EXPLICIT_LITTLE)),
        (J2K_LOSSLESS, {IMPLICIT_LITTLE}, Mode.AS_IS, TranscodeTo(IMPLICIT_LITTLE)),
        (EXPLICIT_LITTLE, {J2K_LOSSLESS}, Mode.AS_IS, TranscodeTo(J2K_LOSSLESS)),
        (EXPLICIT_LITTLE, {JPEG_LS_LOSSLESS}, Mode.AS_IS, TranscodeTo(JPEG_LS_LOSSLESS)),
        (EXPLICIT_BIG, _uncompressed(), Mode.AS_IS, TranscodeTo(EXPLICIT_LITTLE)),
        (DEFLATED, {IMPLICIT_LITTLE}, Mode.AS_IS, TranscodeTo(IMPLICIT_LITTLE)),
        (RLE_LOSSLESS, {J2K_LOSSLESS}, Mode.AS_IS, TranscodeTo(J2K_LOSSLESS)),
        (EXPLICIT_LITTLE, None, Mode.J2K_LOSSLESS, TranscodeTo(J2K_LOSSLESS)),
        (IMPLICIT_LITTLE, None, Mode.J2K_LOSSLESS, TranscodeTo(J2K_LOSSLESS)),
        (EXPLICIT_LITTLE, _uncompressed(), Mode.J2K_LOSSLESS, _AS_IS),
        (RLE_LOSSLESS, None, Mode.J2K_LOSSLESS, _AS_IS),
        (JPEG_BASELINE, None, Mode.J2K_LOSSLESS, _AS_IS),
        (J2K_LOSSLESS, None, Mode.EXPLICIT_LE, TranscodeTo(EXPLICIT_LITTLE)),
        (IMPLICIT_LITTLE, None, Mode.EXPLICIT_LE, TranscodeTo(EXPLICIT_LITTLE)),
        (EXPLICIT_LITTLE, None, Mode.EXPLICIT_LE, _AS_IS),
        (J2K, None, Mode.EXPLICIT_LE, _AS_IS),
        (JPEG_LOSSLESS_SV1, None, Mode.EXPLICIT_LE, _AS_IS),
        (EXPLICIT_LITTLE, None, Mode.HTJ2K_LOSSLESS, _AS_IS),
    ],
)
def test_decision(stored: str, accepted: set[str] | None, mode: Mode, expected: Decision) -> None:
    assert decide(stored, accepted, mode, _CAN) == expected


def test_htj2k_where_the_codec_can() -> None:
    assert decide(EXPLICIT_LITTLE, None, Mode.HTJ2K_LOSSLESS, _CAN_HT) == TranscodeTo(HTJ2K_LOSSLESS)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("stored", [JPEG_BASELINE, J2K, _MPEG4, "1.2.3"])
def test_lossy_and_unknown_go_as_they_are_or_are_held(stored: str, mode: Mode) -> None:
    assert candidates(stored, mode, _CAN_HT) == (stored,)
    assert isinstance(decide(stored, _uncompressed(J2K_LOSSLESS), mode, _CAN_HT), Hold)


def test_lossy_is_decompressed_where_that_is_allowed_and_only_on_refusal() -> None:
    for mode in Mode:
        assert decide(J2K, None, mode, _CAN, allow_decompressed_lossy=True) == _AS_IS
        assert decide(J2K, _uncompressed(), mode, _CAN, allow_decompressed_lossy=True) == TranscodeTo(EXPLICIT_LITTLE)


def test_a_hold_says_what_would_help() -> None:
    lossy = decide(J2K, _uncompressed(), Mode.AS_IS, _CAN)
    unknown = decide(_MPEG4, _uncompressed(), Mode.AS_IS, _CAN, allow_decompressed_lossy=True)
    nothing = decide(EXPLICIT_LITTLE, {"1.2.3"}, Mode.AS_IS, _CAN)
    assert isinstance(lossy, Hold)
    assert "allow_decompressed_lossy" in lossy.reason
    assert isinstance(unknown, Hold)
    assert "cannot be decoded" in unknown.reason
    assert isinstance(nothing, Hold)


def test_what_an_instance_does_not_fit_into_is_passed_over() -> None:
    assert decide(EXPLICIT_LITTLE, None, Mode.J2K_LOSSLESS, _CAN, unsuitable={J2K_LOSSLESS}) == _AS_IS
    assert decide(RLE_LOSSLESS, _uncompressed(), Mode.AS_IS, _CAN, unsuitable={EXPLICIT_LITTLE}) == TranscodeTo(IMPLICIT_LITTLE)


@pytest.mark.parametrize("mode", Mode)
def test_big_endian_is_never_made(mode: Mode) -> None:
    assert all(EXPLICIT_BIG not in candidates(stored, mode, _CAN_HT) for stored in _CAN.decodable - {EXPLICIT_BIG})


def test_what_an_extra_would_decode_says_so() -> None:
    without = decide(JPEG_LOSSLESS_SV1, _uncompressed(), Mode.AS_IS, _CAN)
    assert without == Hold("JPEG Lossless SV1 cannot be decoded here: a codec package is not installed (docs/install.md)")
