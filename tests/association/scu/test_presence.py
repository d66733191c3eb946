"""Instances that a peer lists of a series, when it answers with more than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from pydicom.dataset import Dataset

from gateway.association.scu.presence import instances_of_series, is_listed


class Peer:
    """Ignores every key and answers with the instances that it has."""

    def __init__(self, *instances: tuple[str, str, str]) -> None:
        self.instances = instances

    def find(self, _identifier: Dataset) -> Iterator[Dataset]:
        for values in self.instances:
            answer = Dataset()
            for keyword, value in zip(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), values, strict=True):
                if value:
                    setattr(answer, keyword, value)
            yield answer


def test_listed_instances_of_other_studies_or_series_do_not_count() -> None:
    peer: Any = Peer(("1.2", "1.2.1", "1.2.1.1"), ("1.2", "1.2.2", "1.2.2.1"), ("1.3", "1.2.1", "1.3.1.1"), ("1.2", "1.2.1", ""))

    assert instances_of_series(peer, "1.2", "1.2.1") == {"1.2.1.1"}
    assert not is_listed(peer, "1.2", "1.2.1", "1.2.2.1")


def test_a_peer_that_does_not_repeat_the_keys_is_believed() -> None:
    peer = cast(Any, Peer(("", "", "1.2.1.1")))

    assert is_listed(peer, "1.2", "1.2.1", "1.2.1.1")
