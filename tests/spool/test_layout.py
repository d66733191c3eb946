import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool import layout


@given(
    st.binary(min_size=1, max_size=60).filter(lambda name: b"\x00" not in name), st.integers(0, 2**62), st.integers(-(2**62), 2**62)
)
def test_any_file_name_survives_as_a_location_of_printable_text(name: bytes, size: int, modified_ns: int) -> None:
    path = Path("/data") / os.fsdecode(name)
    location = layout.file_location(path, size=size, modified_ns=modified_ns)
    assert location.isascii()
    assert location.isprintable()
    assert layout.in_place(location) == layout.InPlace(path, size, modified_ns)


@pytest.mark.parametrize(
    "location", ["", "spool:", "spool:../../etc/passwd", "spool:" + "g" * 32, "file:/x", "file:1:2:/x", "SPOOL:" + "a" * 32]
)
def test_nothing_but_our_own_tokens_is_a_spooled_location(location: str) -> None:
    assert layout.token_of(location) is None


def test_a_token_is_its_own_location() -> None:
    token = layout.new_token()
    assert layout.token_of(layout.location_of(token)) == token
    assert layout.relative_path(token) == f"instances/{token[:2]}/{token}.dcm"


@pytest.mark.parametrize("name", ["x.dcm", "a" * 32, "a" * 32 + ".part", "a" * 33 + ".dcm", ".nfs123"])
def test_foreign_file_names_are_no_tokens(name: str) -> None:
    assert layout.token_of_file(name) is None
