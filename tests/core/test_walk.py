"""Walking folders with links: nothing outside of what was given is read unasked, and no loop is walked twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.walk import NOT_FOLLOWED, READ_BEFORE, walk

FILE = "file"

Build = Callable[[Path, Path], None]


def out_to_parent(given: Path, _: Path) -> None:
    (given / "up").symlink_to("..")


def out_to_another_folder(given: Path, beside: Path) -> None:
    (given / "beside").symlink_to(beside)


def out_by_an_absolute_path(given: Path, beside: Path) -> None:
    (given / "absolute").symlink_to(beside.absolute())


def back_to_itself(given: Path, _: Path) -> None:
    (given / "self").symlink_to(".")


def back_to_the_root_from_below(given: Path, _: Path) -> None:
    (given / "below" / "root").symlink_to("..")


def to_a_folder_within(given: Path, _: Path) -> None:
    (given / "within").symlink_to("below")


def two_that_lead_to_each_other(given: Path, _: Path) -> None:
    (given / "one").mkdir()
    (given / "two").mkdir()
    (given / "one" / "other").symlink_to("../two")
    (given / "two" / "other").symlink_to("../one")


def a_chain_of_links(given: Path, beside: Path) -> None:
    (given / "first").symlink_to("second")
    (given / "second").symlink_to(beside)


def one_that_was_given_a_hidden_name(given: Path, beside: Path) -> None:
    (given / ".hidden").symlink_to(beside)


def one_with_a_name_of_any_bytes(given: Path, beside: Path) -> None:
    (given / os.fsdecode(b"\xff")).symlink_to(beside)


def many_that_lead_to_the_same(given: Path, beside: Path) -> None:
    for number in range(5):
        (given / f"link{number}").symlink_to(beside)


LINKS: list[Build] = [
    out_to_parent,
    out_to_another_folder,
    out_by_an_absolute_path,
    back_to_itself,
    back_to_the_root_from_below,
    to_a_folder_within,
    two_that_lead_to_each_other,
    a_chain_of_links,
    one_that_was_given_a_hidden_name,
    one_with_a_name_of_any_bytes,
    many_that_lead_to_the_same,
]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_text(FILE)
    (folder / "below" / "b").write_text(FILE)
    return folder


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "outside").write_text(FILE)
    return folder


def links_below(folder: Path) -> set[str]:
    return {str(Path(parent, name)) for parent, names, _ in os.walk(folder) for name in names if Path(parent, name).is_symlink()}


@pytest.mark.parametrize("build", LINKS, ids=lambda build: build.__name__)
def test_a_link_to_a_folder_is_not_followed_and_named(given: Path, beside: Path, build: Build) -> None:
    build(given, beside)
    found = list(walk([given], follow_links=False))
    assert {one.path.name for one in found if not one.reason} == {"a", "b"}
    assert {os.fspath(one.path) for one in found if one.link} == links_below(given)
    assert {one.reason for one in found if one.link} == {NOT_FOLLOWED}


@pytest.mark.parametrize("build", LINKS, ids=lambda build: build.__name__)
def test_where_links_are_followed_every_file_is_read_once(given: Path, beside: Path, build: Build) -> None:
    build(given, beside)
    found = list(walk([given], follow_links=True))
    files = [os.path.realpath(one.path) for one in found if not one.reason]
    assert len(files) == len(set(files))
    assert {os.fspath(given / "a"), os.fspath(given / "below" / "b")} <= set(files)
    assert {one.reason for one in found if one.reason} <= {READ_BEFORE}


def test_a_link_that_was_given_is_followed(given: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(given)
    assert [one.path.name for one in walk([tmp_path / "link"], follow_links=False)] == ["a", "b"]


def test_a_link_to_a_file_is_the_file_and_one_to_nothing_is_refused(given: Path, beside: Path) -> None:
    (given / "c").symlink_to(beside / "outside")
    (given / "d").symlink_to(beside / "gone")
    found = {one.path.name: (one.reason, one.refused) for one in walk([given], follow_links=False)}
    assert found["c"] == ("", False)
    assert found["d"][1]
