"""Every real file × three modes × four real peers: delivered with equal pixels and elements, or held for a reason that is named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.matrix import page
from tests.matrix.judge import REASONS, Judge, reason_of
from tests.matrix.peers import KINDS, MODES, peers
from tests.matrix.running import run
from tests.support import data

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(600)]

WRITE = "GATEWAY_WRITE_DOCS"


@dataclass
class Found:
    """The outcome of all files: symbols of the page by file, peer and mode; problems; the number of deliveries held by reason."""

    symbols: dict[Path, dict[tuple[str, str], str]] = field(default_factory=lambda: defaultdict(dict))
    problems: list[str] = field(default_factory=list)
    reasons: Counter[int | None] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("matrix")
    files = data.sendable()
    result, judge = Found(), Judge(folder)
    with peers(folder / "peers", {data.identity(path)[3] for path in files}) as everybody:
        for cells in run(files, everybody, folder / "runs"):
            for cell in cells:
                result.symbols[cell.path][cell.peer, cell.mode] = page.symbol(cell)
                if problem := judge.problem(cell):
                    result.problems.append(f"{cell.path.name} to {cell.peer} with {cell.mode}: {problem}")
                if cell.state == "held":
                    result.reasons[reason_of(cell)] += 1
    return result


def test_every_file_is_delivered_with_equal_content_or_held_with_a_reason(found: Found) -> None:
    assert found.problems == []


def test_every_file_met_every_destination(found: Found) -> None:
    assert found.symbols.keys() == set(data.sendable())
    assert {len(cells) for cells in found.symbols.values()} == {len(KINDS) * len(MODES)}
    assert len(data.sendable()) > 200


def test_every_reason_that_is_named_held_something(found: Found) -> None:
    assert [reason.words for number, reason in enumerate(REASONS) if not found.reasons[number]] == []


def test_the_page_says_what_is_so(found: Found) -> None:
    text = page.matrix(found.symbols, data.not_sendable())
    if os.environ.get(WRITE) and not found.problems:
        page.write(text)
    assert text == page.committed(), f"docs/{page.PAGE.name} is of another day; {WRITE}=1 pytest tests/matrix writes it anew"
