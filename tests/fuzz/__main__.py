"""Fuzzes what strangers' bytes reach: ``python -m tests.fuzz --seconds 60 [TARGET …]``.

Each target runs under atheris in a process of its own, for an equal share of the time, one after the other. An input that makes
one fail is written to a folder, from where ``python -m tests.fuzz.harness TARGET FILE`` runs it again. Exit status 1 says that
one failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import MAX_INPUT_BYTES, SLOW_S

TARGETS = ("acceptor", "requestor", "getting", "head", "part10", "answers")
RESIDENT_MB = 2048


def run(target: str, seconds: float, crashes: Path, corpus: Path | None, seed: int) -> bool:
    """Fuzz `target` for `seconds`; tell whether nothing was wrong. With a `seed` other than 0 it does the same each time."""
    with tempfile.TemporaryDirectory() as own:
        folder = corpus / target if corpus else Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(f"tests.fuzz.{target}")
        for number, beginning in enumerate(module.seeds()):
            (folder / f"seed-{number:04d}").write_bytes(beginning)
        limits = [f"-max_total_time={max(round(seconds), 1)}", f"-timeout={SLOW_S * 2:.0f}", f"-rss_limit_mb={RESIDENT_MB}"]
        more = [f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={crashes}/{target}-", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.fuzz.harness", target, *limits, *more, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=_environment(seed))
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    print(
        f"{target}: {runs.group(1) if runs else 'no'} inputs, {'nothing wrong' if done.returncode == 0 else 'FAILED'}", flush=True
    )
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", file=sys.stderr, flush=True)
    return done.returncode == 0


def _environment(seed: int) -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": str(seed)} if seed else dict(os.environ)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[], metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--crashes", type=Path, help="folder for inputs that make a target fail")
    parser.add_argument("--corpus", type=Path, help="folder in which what was found is kept from run to run")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried; 0 is another one each time")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    crashes = arguments.crashes or Path(tempfile.mkdtemp(prefix="fuzz-"))
    crashes.mkdir(parents=True, exist_ok=True)
    good = [run(target, arguments.seconds / len(targets), crashes, arguments.corpus, arguments.seed) for target in targets]
    if not all(good):
        print(f"inputs that fail are in {crashes}", file=sys.stderr)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
