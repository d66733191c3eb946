"""The fuzz targets hold for what real programs say and for some damage to it; under atheris they run on for a minute."""

from __future__ import annotations

import importlib
import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gateway.association.message import Receiver
from tests.fuzz import acceptor, harness, log
from tests.fuzz.__main__ import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""pydicom warns of damaged data sets."""

MUTATIONS = 5
SECONDS = 60

SEED = 1
"""Fixed, so that a failure comes from a change of the code. Running `tests.fuzz` for hours finds the unforeseen."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    log.configure()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**before)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations_pass_every_fuzz_target(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    for position, seed in enumerate(target.seeds()):
        target.one_input(seed)
        for number in range(MUTATIONS):
            target.one_input(harness.mutate(target, seed, random.Random(f"{position} {number}")))


def test_a_byte_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Receiver._note

    def lose_one(self: Receiver, begin: int) -> None:
        note(self, min(begin + 1, self._start))

    monkeypatch.setattr(Receiver, "_note", lose_one)
    with pytest.raises(AssertionError):
        for seed in acceptor.seeds():
            acceptor.one_input(seed)


def test_what_the_gateway_catches_and_should_not_have_met_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Receiver, wait_s: float) -> None:
        raise RuntimeError

    monkeypatch.setattr(Receiver, "receive_message", fail)
    with pytest.raises(log.Impossible):
        acceptor.one_input(next(acceptor.seeds()))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_atheris_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--seed", str(SEED), "--crashes", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
