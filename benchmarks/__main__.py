"""``python -m benchmarks``: the gateway beside real peers on this machine, in turn, round after round.

Prints medians and ratios; ``--output`` writes JSON, ``--write`` puts table and plot into ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    memory,
    plot,
    report,
    rows_codec,
    rows_latency,
    rows_lock,
    rows_long,
    rows_migrate,
    rows_receive,
    rows_relay,
    rows_send,
    rows_starting,
)
from benchmarks.datasets import FULL, QUICK, DataSets
from benchmarks.harness import Bench, Result, Row, chosen, run_row
from benchmarks.machine import ROOT, machine

ROWS: list[Row] = [
    *rows_receive.ROWS,
    *rows_long.ROWS,
    *rows_send.ROWS,
    *rows_relay.ROWS,
    *rows_migrate.ROWS,
    *rows_latency.ROWS,
    *rows_starting.ROWS,
    *rows_codec.ROWS,
    *rows_lock.ROWS,
]
DOCS = ROOT / "docs"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows whose names begin like this")
    parser.add_argument("--rounds", type=int, default=3, help="how often each party does each row's work (default 3)")
    parser.add_argument("--quick", action="store_true", help="small data sets: tells whether it works, not how fast")
    parser.add_argument(
        "--folder", type=Path, help="an existing folder on the disk to measure (default: the one for temporary files)"
    )
    parser.add_argument("--data", type=Path, help="keep the data sets (4 GB) here, and take them from here the next time")
    parser.add_argument("--output", type=Path, help="write everything measured to this file, as JSON, row by row")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write table and plot into docs/performance.md; rows that were not measured stay as they are",
    )
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    return parser.parse_args()


def _measured(rows: list[Row], options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    """Yield one row's result after the other."""
    with ExitStack() as kept:
        if not options.quick:
            kept.enter_context(memory.present())
        data = DataSets(options.data or folder / "data", QUICK if options.quick else FULL)
        bench = Bench(folder, data, kept)
        for row in rows:
            print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
            result = run_row(row, bench, options.rounds)
            print(f"    took {result.seconds:.0f} s", file=sys.stderr, flush=True)
            yield result


def _run(rows: list[Row], options: argparse.Namespace) -> tuple[list[Result], report.Run]:
    """Measure; what is measured so far is in the output file after each row, whatever becomes of the rest."""
    at, began, results = datetime.now(UTC), time.monotonic(), []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as name:
        run = report.Run(machine(Path(name)), options.rounds, options.quick, 0.0, at)
        with closing(_measured(rows, options, Path(name))) as measured:
            for result in measured:
                results.append(result)
                run = replace(run, seconds=time.monotonic() - began)
                if options.output:
                    report.write_json(options.output, report.document(results, run))
    return results, run


def _publish(results: list[Result], run: report.Run, *, write: bool) -> None:
    print(report.markdown(results, run))
    if write:
        measured = {result.row.name: result for result in results}
        known = report.earlier(DOCS / "performance.json", ROWS) | measured
        results = [known[row.name] for row in ROWS if row.name in known]
        table = report.markdown(results, run)
        (DOCS / "performance.svg").write_text(plot.svg(results))
        report.write_json(DOCS / "performance.json", report.document(results, run))
        report.write_page(DOCS / "performance.md", table)


def main() -> int:
    """Measure and report; 1 where a party failed, 2 where no row is meant, 130 where it was ended early."""
    options = _options()
    rows = chosen(ROWS, options.only)
    if not rows:
        print(f"no row begins with {' or '.join(options.only)}: --list names them", file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name:22} {row.title}: {', '.join(row.parties)}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ending the run early, also in the background, ends its peers.
        signal.signal(number, signal.default_int_handler)
    try:
        results, run = _run(rows, options)
    except KeyboardInterrupt:
        return 130
    _publish(results, run, write=options.write)
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
