"""Consequences of each DIMSE status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.association.dimse.statuses import StatusKind, find_kind, is_pending, store_status
from gateway.core.domain import StatusClass

STORE = {
    StatusClass.DONE: [0x0000],
    StatusClass.WARNING: [0xB000, 0xB006, 0xB007],
    StatusClass.DUPLICATE: [0x0111],
    StatusClass.RETRY: [0xA700, 0xA701, 0xA7FF],
    StatusClass.RETRY_ONCE: [0x0110, 0xC000, 0xC211, 0xCFFF, 0xA900, 0xA9FF],
    StatusClass.REFUSE: [0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212],
}
"""The table of the field notes, row by row."""


@pytest.mark.parametrize(("status", "expected"), [(status, key) for key, row in STORE.items() for status in row])
def test_a_store_status_leads_to_what_its_row_says(status: int, expected: StatusClass) -> None:
    assert store_status(status).status_class is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0x0001, StatusClass.WARNING), (0xB123, StatusClass.WARNING), (0x0213, StatusClass.RETRY)]
    + [(status, StatusClass.RETRY_ONCE) for status in (0x0105, 0xA600, 0xA800, 0xD000, 0xFE00, 0xFF00)],
)
def test_a_status_in_no_row_is_judged_by_its_class(status: int, expected: StatusClass) -> None:
    assert store_status(status).status_class is expected


@given(st.integers(0x0001, 0xFFFF))
def test_every_status_means_something_and_only_0000_is_success(status: int) -> None:
    assert store_status(status).status_class is not StatusClass.DONE
    assert find_kind(status) is not StatusKind.SUCCESS
    assert store_status(status).meaning


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, StatusKind.SUCCESS),
        (0xFF00, StatusKind.PENDING),
        (0xFF01, StatusKind.PENDING),
        (0xFE00, StatusKind.CANCELLED),
        (0xA700, StatusKind.OUT_OF_RESOURCES),
        (0xA701, StatusKind.OUT_OF_RESOURCES),
        (0xA702, StatusKind.OUT_OF_RESOURCES),
        (0xA801, StatusKind.FAILURE),
        (0xA900, StatusKind.FAILURE),
        (0xB000, StatusKind.WARNING),
        (0xC000, StatusKind.FAILURE),
        (0xC512, StatusKind.FAILURE),
        (0x0122, StatusKind.FAILURE),
        (0x0124, StatusKind.FAILURE),
        (0x9999, StatusKind.FAILURE),
    ],
)
def test_a_find_status_says_how_the_query_stands(status: int, kind: StatusKind) -> None:
    assert find_kind(status) is kind


def test_only_ff00_and_ff01_are_pending() -> None:
    assert [status for status in range(0x10000) if is_pending(status)] == [0xFF00, 0xFF01]
