"""Every UID has one name, which is safe wherever files are kept, and no two UIDs have the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.domain import MAX_UID_LENGTH, is_uid
from gateway.dicom.filenames import MAX_LENGTH, UNKNOWN, is_digest, name_of, uid_of

UIDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), min_size=1, max_size=MAX_UID_LENGTH).filter(is_uid)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.1", "1.2.840.1"),
        ("1" * 64, "1" * 64),
        ("1" * 65, "%31" + "1" * 64),
        ("1.2.abc", "%31.2.abc"),
        ("1.2.ABC", "%31.2.%41%42%43"),
        ("1.2 3", "%31.2%203"),
        ("..", "%2e%2e"),
        (".5", "%2e5"),
        ("../../etc/passwd", "%2e.%2f..%2fetc%2fpasswd"),
        ("unknown", "%75nknown"),
        ("con", "%63on"),
        ("%31.2.abc", "%2531.2.abc"),
        ("\xe9t\xe9", "%e9t%e9"),
        ("a" * 200, "%%" + "c2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5"[:40]),
        ("", UNKNOWN),
        ("1.2\\3", UNKNOWN),
        ("1.2.*", UNKNOWN),
        ("1\n2", UNKNOWN),
    ],
)
def test_a_uid_has_a_name(uid: str, name: str) -> None:
    assert name_of(uid) == name
    assert uid_of(name) == (None if name == UNKNOWN or is_digest(name) else uid)


@given(UIDS)
def test_a_name_is_a_name_everywhere_and_gives_its_uid_back(uid: str) -> None:
    name = name_of(uid)
    assert len(name) <= MAX_LENGTH
    assert name == name.lower()
    assert name not in (UNKNOWN, ".", "..")
    assert not set(name) & set('/\\:*?"<>| ')
    assert not name.startswith(".")
    assert is_digest(name) or uid_of(name) == uid


@given(UIDS, UIDS)
def test_two_uids_have_two_names(one: str, other: str) -> None:
    assert (name_of(one) == name_of(other)) == (one == other)


@pytest.mark.parametrize("name", ["unknown", "%31", "1%41", "a", "1.2.A", "%%zz", "", "%", "%3", "%31.2.%4"])
def test_what_is_not_made_of_a_uid_names_none(name: str) -> None:
    assert uid_of(name) is None
