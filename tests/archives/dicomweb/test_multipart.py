"""The first part of a multipart message, however it comes in pieces."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.archives.dicomweb.multipart import boundary_of, first_part

HEAD = b"preamble\r\n--boundary\r\nContent-Type: application/dicom\r\n\r\n"


def pieces(message: bytes, sizes: list[int]) -> list[bytes]:
    cut = []
    for size in sizes:
        cut.append(message[:size])
        message = message[size:]
    return [*cut, message]


@given(
    st.lists(st.sampled_from([b"\r\n", b"-", b"--bound", b"ary", b"\r\n--boundar", b"x" * 9]), max_size=20).map(b"".join),
    st.lists(st.integers(0, 40), max_size=40),
)
def test_a_part_is_the_same_in_whatever_pieces_it_comes(body: bytes, sizes: list[int]) -> None:
    file = io.BytesIO()
    message = HEAD + body + b"\r\n--boundary--\r\n"
    first_part("multipart/related; boundary=boundary", pieces(message, sizes), file)
    assert file.getvalue() == body.partition(b"\r\n--boundary")[0]


@given(st.binary(max_size=200), st.lists(st.integers(0, 40), max_size=10))
def test_what_is_no_message_is_told(message: bytes, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="no part in it"):
        first_part("multipart/related; boundary=boundary", pieces(message, sizes), io.BytesIO())


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [('multipart/related; type="application/dicom"; boundary="a b"', "a b"), ("multipart/related;boundary=abc", "abc")],
)
def test_a_boundary_may_be_quoted(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("content_type", ["", "application/dicom; boundary=a", "multipart/related"])
def test_without_a_boundary_it_is_no_multipart_message(content_type: str) -> None:
    with pytest.raises(ValueError, match="boundary"):
        boundary_of(content_type)
