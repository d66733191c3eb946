"""The same acceptors, played to the gateway's requestor and to stock pynetdicom's: the same statuses, identifiers and counts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.differential import requesting
from tests.differential.differences import DELIBERATE, of_acceptor
from tests.differential.mutations import HARMFUL, NEUTRAL, Turns
from tests.differential.responding import acceptor
from tests.differential.results import PATIENT_S
from tests.differential.stock_process import StockPynetdicom
from tests.differential.transcript import ACCEPTOR, REQUESTOR, Transcript, Turn, transcripts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""pydicom warns of identifiers that a mutation damaged."""

RECORDED = list(transcripts(with_operations=True))
BY_NAME = pytest.mark.parametrize("transcript", RECORDED, ids=lambda transcript: transcript.name)

KINDS = ("bits flipped", "header bits flipped", "overwritten", "cut", "PDU dropped", "PDU doubled", "PDUs swapped", "PDU inserted")
KINDS += ("PDU length", "control header", "context ID", "PDV length", "empty fragment", "command element")
AT_ONCE = 24
MANY = 14
HASTY_S = 2.0
TRIES = 3

Case = tuple[Transcript, str, Sequence[Turn]]


def with_acceptors(transcript: Transcript, turns: Turns) -> list[Turn]:
    """Return the transcript with `turns` instead of the acceptor's own, in order, as far as they go."""
    left = iter(turns)
    replaced = []
    for turn in transcript.turns:
        if turn.sender == REQUESTOR:
            replaced.append(turn)
        elif (instead := next(left, None)) is not None:
            replaced.append(Turn(ACCEPTOR, tuple(instead)))
    return replaced


def both(
    stock: StockPynetdicom, case: Case, *, timeout_s: float = PATIENT_S, tries: int = TRIES
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the outcomes of our requestor and of stock pynetdicom's, each waiting `timeout_s` for an answer.

    On a busy machine stock pynetdicom loses a response now and then, or takes a rejection for an abort: it has some `tries`.
    """
    transcript, _, turns = case
    with acceptor(turns) as port:
        ours = requesting.operate(port, transcript.operations, timeout_s=timeout_s)
    for _ in range(tries):
        with acceptor(turns) as port:
            theirs = stock.operate(port, transcript.operations, timeout_s=timeout_s)
        if theirs == ours:
            break
    return ours, theirs


@BY_NAME
def test_what_real_programs_answer_is_understood_alike(stock: StockPynetdicom, transcript: Transcript) -> None:
    ours, theirs = both(stock, (transcript, transcript.name, transcript.turns))
    assert ours == theirs
    assert ours["end"] == ("rejected" if "refuse" in transcript.name else "failed" if "abort" in transcript.name else "released")


@pytest.mark.parametrize("name", NEUTRAL)
@BY_NAME
def test_what_the_sender_may_choose_makes_no_difference(stock: StockPynetdicom, transcript: Transcript, name: str) -> None:
    changed = NEUTRAL[name](transcript.of(ACCEPTOR), random.Random(f"{transcript.name} {name}"))
    ours, theirs = both(stock, (transcript, name, with_acceptors(transcript, changed)))
    with acceptor(transcript.turns) as port:
        assert requesting.operate(port, transcript.operations, timeout_s=PATIENT_S) == ours == theirs


def mutations(count: int) -> Iterator[Case]:
    for first, transcript in enumerate(RECORDED):
        for number in range(count):
            kind = KINDS[(first * 3 + number) % len(KINDS)]
            name = f"{transcript.name}, {kind}, {number}"
            changed = HARMFUL[kind](transcript.of(ACCEPTOR), random.Random(name))
            yield transcript, name, with_acceptors(transcript, changed)


def unexcused(stock: StockPynetdicom, case: Case, *, timeout_s: float, tries: int) -> str:
    """Return what is different without an excuse."""
    transcript, name, turns = case
    ours, theirs = both(stock, case, timeout_s=timeout_s, tries=tries)
    kinds = of_acceptor(transcript.of(ACCEPTOR), [turn.pdus for turn in turns if turn.sender == ACCEPTOR])
    least = min(len(ours["results"]), len(theirs["results"]))
    # Neither path may understand another result. But stock pynetdicom takes late answers to the operation before for answers to
    # this one, where they come too late to be dropped between the two: the last ones, or pending ones before the right ones.
    same = all(
        one == other or (kinds and number and (is_end_of(ours["results"][number - 1], other) or ends_as(other, one)))
        for number, (one, other) in enumerate(zip(ours["results"][:least], theirs["results"][:least], strict=True))
    )
    same = same and (ours == theirs or bool(kinds & set(DELIBERATE)))
    return "" if same else f"{name}: {ours} here, {theirs} there ({', '.join(kinds) or 'a regular stream'})"


def is_end_of(result: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether `other` is the outcome of an operation that was given the last answers of the one with `result`."""
    if "responses" not in result:
        return bool(result == other)
    responses = other.get("responses", ())
    return bool(responses) and result["responses"][-len(responses) :] == responses


def ends_as(other: dict[str, Any], result: dict[str, Any]) -> bool:
    """Tell whether `other` has all answers of `result`, behind pending ones of an operation before."""
    ours, theirs = result.get("responses", ()), other.get("responses", ())
    stale = theirs[: len(theirs) - len(ours)]
    return bool(ours) and theirs[-len(ours) :] == ours and all(one["status"] == 0xFF00 for one in stale)


def test_only_a_stale_answer_excuses_another_result() -> None:
    first, last = {"status": 0xFF00, "counts": [1]}, {"status": 0, "counts": [2]}

    assert is_end_of({"responses": [first, last]}, {"responses": [last]})
    assert not is_end_of({"responses": [first, last]}, {"responses": [first]})
    assert not is_end_of({"responses": [first, last]}, {"responses": []})
    assert is_end_of({"status": 0}, {"status": 0})
    assert not is_end_of({"status": 0}, {"status": 1})
    assert ends_as({"responses": [first, last]}, {"responses": [last]})
    assert not ends_as({"responses": [last, last]}, {"responses": [last]})
    assert not ends_as({"responses": [last]}, {"responses": [first, last]})
    assert not ends_as({"responses": [last]}, {"responses": []})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hundreds_of_wrong_answers_are_understood_alike_or_refused(stock: StockPynetdicom) -> None:
    cases = list(mutations(MANY))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda case: unexcused(stock, case, timeout_s=HASTY_S, tries=1), cases))
    # On a busy machine an answer may be late: what is different is asked for again with patience.
    again = [case for case, difference in zip(cases, found, strict=True) if difference]
    assert [difference for case in again if (difference := unexcused(stock, case, timeout_s=PATIENT_S, tries=TRIES))] == []
