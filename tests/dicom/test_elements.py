"""Headers of elements, written and read."""

from __future__ import annotations

import pytest

from gateway.dicom.elements import element_header, is_vr, of_bytes, scan


@pytest.mark.parametrize(
    ("header", "written"),
    [
        (element_header(0x00080018, b"UI", 6), b"\x08\x00\x18\x00UI\x06\x00"),
        (element_header(0x7FE00010, b"OW", 0x10000), b"\xe0\x7f\x10\x00OW\x00\x00\x00\x00\x01\x00"),
        (element_header(0x00080018, b"UI", 6, explicit=False), b"\x08\x00\x18\x00\x06\x00\x00\x00"),
        (element_header(0xFFFEE00D, b"", 0, explicit=False), b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"),
    ],
)
def test_a_header_is_laid_out_as_its_vr_asks(header: bytes, written: bytes) -> None:
    assert header == written


@pytest.mark.parametrize("length", [64, 65, 0x5B, 0x5900])
def test_a_length_that_looks_like_half_a_vr_is_a_length(length: int) -> None:
    before = element_header(0x00080005, b"CS", 10) + b"ISO_IR 100"
    implicit = element_header(0x00080008, b"", length, explicit=False) + bytes(length)
    data = before + implicit + element_header(0x00080018, b"UI", 6) + b"1.2.3\0"
    found = scan(of_bytes(data), {0x00080018}).found
    assert found[0x00080018].value == b"1.2.3\0"


def test_two_capital_letters_are_a_vr() -> None:
    assert is_vr(b"UI")
    assert is_vr(b"ZZ")
    assert not any(map(is_vr, (b"", b"U", b"U\0", b"Ui", b"U1", b"\xc4\xd6", b"UIX")))
