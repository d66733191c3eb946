"""The ties of every fuzz target to atheris: seeds, a mutator that knows PDUs, and a watch over growing memory.

A target is a module with `seeds()` and `one_input(data)`, which raises where something is wrong, and maybe `mutate(data, chance)`.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import os
import random
import struct
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType

from tests.differential.mutations import HARMFUL, NEUTRAL
from tests.differential.transcript import split
from tests.fuzz import log

MAX_INPUT_BYTES = 65536
SLOW_S = 5.0
"""Longer than any input may take; most take a millisecond."""

WARM_UP, EVERY = 2000, 5000
"""Inputs before what grows is first measured, and between two measurements."""

OBJECTS, RESIDENT_BYTES = 20_000, 300 * 1024 * 1024
"""Growth that is allowed since the first measurement: caches fill, and libFuzzer keeps its corpus in memory."""


class Growth(AssertionError):
    """Something grows from input to input."""


class Watch:
    """Counts what may leak: Python objects, threads, descriptors, memory."""

    def __init__(self) -> None:
        self._runs = 0
        self._first: dict[str, int] = {}

    def look(self) -> None:
        """Count one input; measure now and then. Raises Growth."""
        self._runs += 1
        if self._runs == WARM_UP:
            self._first = measure()
        elif self._runs % EVERY == 0 and self._first:
            self._compare(measure())

    def _compare(self, now: dict[str, int]) -> None:
        allowed = {"objects": OBJECTS, "threads": 0, "descriptors": 0, "resident bytes": RESIDENT_BYTES}
        grown = {name: (self._first[name], now[name]) for name, more in allowed.items() if now[name] > self._first[name] + more}
        if grown:
            raise Growth(f"after {self._runs} inputs: {grown}")


def measure() -> dict[str, int]:
    """Return how much there is of what may leak, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "resident bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def timed(target: ModuleType, data: bytes) -> None:
    """Run `target` on `data`; it must end soon."""
    begin = time.process_time()
    target.one_input(data)
    taken = time.process_time() - begin
    assert taken < SLOW_S, f"{taken:.1f} s for {len(data)} bytes"


def mutate(target: ModuleType, data: bytes, chance: random.Random) -> bytes:
    """Return another input: what the target makes of it, or a mutation of its PDUs."""
    own = getattr(target, "mutate", None)
    if own is not None:
        return bytes(own(data, chance))
    prefix = data[: getattr(target, "PREFIX_BYTES", 0)]
    pdus = split(data[len(prefix) :])
    if not pdus:
        return data
    kinds = {**HARMFUL, **NEUTRAL}
    turns = [[pdu] for pdu in pdus]
    try:
        for _ in range(chance.choice((1, 1, 2, 4))):
            turns = kinds[chance.choice(list(kinds))](turns, chance)
    except (IndexError, ValueError, struct.error):
        # An earlier mutation may have left nothing that this one can change.
        return data
    return prefix + b"".join(pdu for turn in turns for pdu in turn)


def quieten() -> None:
    """Let no library write: the log is watched, warnings and pydicom say what is wrong with inputs that are wrong on purpose."""
    log.configure()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def main() -> None:
    """Run the target named first under atheris; the rest are libFuzzer's arguments, a corpus folder last."""
    import atheris

    name, *arguments = sys.argv[1:]
    rooms = ("association", "dicom", "intake", "core.domain", "archives.http", "archives.dicomweb", "archives.orthanc")
    with atheris.instrument_imports(include=[f"gateway.{room}" for room in rooms]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    quieten()
    watch = Watch()

    prefix = next((each.partition("=")[2] for each in arguments if each.startswith("-artifact_prefix=")), f"{name}-")

    def one_input(data: bytes) -> None:
        try:
            timed(target, data)
        except BaseException:
            # atheris does not always get to it.
            Path(f"{prefix}failed-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise
        watch.look()

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(target, data, chance)[:max_size]

    atheris.Setup([name, *arguments], one_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
