"""The same requestors, played to the gateway and to stock pynetdicom: the same messages, the same bytes, or both refuse."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.differential import reference
from tests.differential.differences import DELIBERATE, disagreements, irregularities
from tests.differential.feeding import ANSWER_S
from tests.differential.mutations import HARMFUL, NEUTRAL, Turns
from tests.differential.results import Result, of_ours, of_stock
from tests.differential.stock import digest
from tests.differential.stock_process import StockPynetdicom
from tests.differential.transcript import REQUESTOR, Transcript, transcripts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""pydicom warns of a commitment report that a mutation damaged."""

RECORDED = list(transcripts(with_operations=False))
BY_NAME = pytest.mark.parametrize("transcript", RECORDED, ids=lambda transcript: transcript.name)

AT_ONCE = 16
TRIES = 3
FEW, MANY = 3, 60
"""Mutations of each transcript in the fast run and in the long one."""

Case = tuple[str, Turns]


def as_sent(turns: Turns, result: Result) -> bool:
    """Tell whether the messages in `result` are those that the stream holds, up to where the association was given up."""
    whole = b"".join(pdu for turn in turns for pdu in turn)
    accepted = {number for number, (answer, _) in (result.contexts or {}).items() if answer == 0}
    messages = reference.read(whole[6 + int.from_bytes(whole[2:6], "big") :]).messages
    sent = [(one.context_id, digest(one.data)) for one in messages if one.context_id in accepted]
    taken = [(context_id, data) for context_id, _, data in result.messages]
    return taken == (sent if result.end == "released" else sent[: len(taken)])


def test_transcripts_of_every_program_are_here() -> None:
    programs = {transcript.name.split("-")[0] for transcript in RECORDED}
    assert programs == {"dcmtk", "orthanc", "gdcm", "odil", "pynetdicom"}


@BY_NAME
def test_what_real_programs_send_is_taken_alike(stock: StockPynetdicom, transcript: Transcript) -> None:
    turns = transcript.of(REQUESTOR)
    ours = of_ours(turns)
    assert ours == of_stock(stock, turns)
    assert as_sent(turns, ours)
    assert len(ours.instances) == sum(command["CommandField"] == 1 for _, command, _ in ours.messages)


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_the_sender_may_choose_makes_no_difference(stock: StockPynetdicom, name: str) -> None:
    """Where fragments, PDUs and TCP segments end."""

    def turns_of(transcript: Transcript) -> tuple[Turns, random.Random]:
        chance = random.Random(f"{transcript.name} {name}")
        return NEUTRAL[name](transcript.of(REQUESTOR), chance), chance

    def compared(transcript: Transcript) -> tuple[bool, bool]:
        turns, chance = turns_of(transcript)
        ours = of_ours(turns, chunks=chance)
        return ours == of_ours(transcript.of(REQUESTOR)), ours == of_stock(stock, turns, chunks=chance)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip([transcript.name for transcript in RECORDED], pool.map(compared, RECORDED), strict=True))
    assert [name for name, (alike, _) in answers.items() if not alike] == []
    # On a busy machine stock pynetdicom gives up what it reads in small portions: it is asked again with nothing beside it.
    late = [transcript for transcript in RECORDED if not answers[transcript.name][1]]
    assert [transcript.name for transcript in late if not any(compared(transcript)[1] for _ in range(TRIES))] == []


def mutations(count: int) -> Iterator[Case]:
    """Yield `count` mutations of each transcript, every kind in turn, under names that say how to make them again."""
    kinds = list(HARMFUL)
    for first, transcript in enumerate(RECORDED):
        for number in range(count):
            kind = kinds[(first * FEW + number) % len(kinds)]
            name = f"{transcript.name}, {kind}, {number}"
            yield name, HARMFUL[kind](transcript.of(REQUESTOR), random.Random(name))


def play(stock: StockPynetdicom, cases: Iterable[Case]) -> tuple[list[str], set[str]]:
    """Play `cases` to both; return what is different without an excuse, and the kinds of excuses that were needed."""

    def one(case: Case) -> tuple[list[str], set[str]]:
        name, turns = case
        ours, theirs = of_ours(turns), of_stock(stock, turns, answer_s=ANSWER_S)
        for _ in range(TRIES):
            if not disagreements(turns, ours, theirs):
                break
            # On a busy machine an answer of stock pynetdicom comes late, or not.
            theirs = of_stock(stock, turns)
        found = [f"{name}: {each}" for each in disagreements(turns, ours, theirs)]
        if ours.contexts is not None and not as_sent(turns, ours):
            found.append(f"{name}: other messages than the stream holds")
        return found, irregularities(turns, ours) if ours != theirs else set()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, cases))
    return [each for found, _ in results for each in found], {kind for _, kinds in results for kind in kinds}


def test_what_is_wrong_is_taken_alike_or_refused(stock: StockPynetdicom) -> None:
    found, _ = play(stock, mutations(FEW))
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_of_wrong_streams_are_taken_alike_or_refused(stock: StockPynetdicom) -> None:
    found, needed = play(stock, mutations(MANY))
    assert found == []
    lasting = {kind for kind, difference in DELIBERATE.items() if not difference.timing and "results" not in difference.respects}
    assert lasting - needed == set(), "differences that are there no more"
