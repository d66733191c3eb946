"""Associations that are kept open for the next question."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.pool import AssociationPool
from gateway.core.errors import AssociationAborted, AssociationEnded


class Association:
    """Remembers how it ended."""

    end = ""

    def abort(self) -> None:
        self.end = "aborted"

    def release(self) -> None:
        self.end = "released"


class Peer:
    """Gives associations, all of which it remembers."""

    def __init__(self) -> None:
        self.opened: list[Association] = []

    def __call__(self) -> Any:
        self.opened.append(Association())
        return self.opened[-1]


def test_an_association_serves_one_question_after_another() -> None:
    peer = Peer()
    pool = AssociationPool(peer)
    assert [pool.ask(lambda association: association) for _ in range(3)] == peer.opened * 3
    assert not pool.empty


def test_one_that_ended_meanwhile_costs_a_second_try() -> None:
    peer = Peer()
    pool = AssociationPool(peer)
    pool.ask(lambda _association: None)

    def work(association: Any) -> str:
        if association is peer.opened[0]:
            raise AssociationEnded("its peer closed it")
        return "answered"

    assert pool.ask(work) == "answered"
    assert [association.end for association in peer.opened] == ["aborted", ""]


def test_a_new_one_that_breaks_is_not_tried_again() -> None:
    peer = Peer()
    pool = AssociationPool(peer)

    def work(_association: Any) -> None:
        raise AssociationEnded("at once")

    with pytest.raises(AssociationEnded):
        pool.ask(work)
    assert [association.end for association in peer.opened] == ["aborted"]
    assert pool.empty


@pytest.mark.parametrize(("again_after", "tries"), [(AssociationEnded, 1), (AssociationAborted, 2)])
def test_a_broken_question_is_asked_again_only_where_that_is_said(again_after: type[AssociationAborted], tries: int) -> None:
    peer = Peer()
    pool = AssociationPool(peer)
    pool.ask(lambda _association: None)
    asked: list[Any] = []

    def work(association: Any) -> None:
        asked.append(association)
        raise AssociationAborted("in the middle")

    with pytest.raises(AssociationAborted):
        pool.ask(work, again_after=again_after)
    assert len(asked) == tries


def test_what_may_not_be_kept_is_released() -> None:
    peer = Peer()
    AssociationPool(peer, keeps=False).ask(lambda _association: None)
    AssociationPool(peer).ask(lambda _association: None, keep=lambda: False)
    assert [association.end for association in peer.opened] == ["released", "released"]


def test_only_those_that_are_idle_for_long_enough_are_given_away() -> None:
    peer = Peer()
    pool = AssociationPool(peer)
    pool.ask(lambda _association: None)
    assert pool.taken_out(idle_s=3600.0) == []
    assert pool.taken_out() == peer.opened
    assert pool.empty


def test_a_kill_switch_ends_a_kept_association_as_a_new_one() -> None:
    peer, switch, killed = Peer(), KillSwitch(), list[Any]()
    pool = AssociationPool(peer)
    pool.ask(lambda association: association)

    def asked(association: Any) -> None:
        association.kill = lambda: killed.append(association)
        switch.kill()

    with switch.on_this_thread():
        pool.ask(asked)
    assert killed == peer.opened
    assert len(peer.opened) == 1
