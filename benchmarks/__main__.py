"""``python -m benchmarks``: the gateway beside real peers on this machine, in turn, round after round.

Prints medians and ratios; ``--output`` writes JSON, ``--write`` puts table and plot into ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import plot, report, rows_latency, rows_lock, rows_receive, rows_relay, rows_send
from benchmarks.datasets import FULL, QUICK, DataSets
from benchmarks.harness import Bench, Result, Row, chosen, run_row
from benchmarks.machine import ROOT, machine

ROWS: list[Row] = [*rows_receive.ROWS, *rows_send.ROWS, *rows_relay.ROWS, *rows_latency.ROWS, *rows_lock.ROWS]
DOCS = ROOT / "docs"

PICTURE = "![How far each goal is reached; to the right of the line at 1 is better](performance.svg)\n\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows whose names begin like this")
    parser.add_argument("--rounds", type=int, default=3, help="how often each party does each row's work (default 3)")
    parser.add_argument("--quick", action="store_true", help="small data sets: tells whether it works, not how fast")
    parser.add_argument(
        "--folder", type=Path, help="an existing folder on the disk to measure (default: the one for temporary files)"
    )
    parser.add_argument("--data", type=Path, help="keep the data sets (2.5 GB) here, and take them from here the next time")
    parser.add_argument("--output", type=Path, help="write everything measured to this file, as JSON")
    parser.add_argument("--write", action="store_true", help="write table and plot into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    return parser.parse_args()


def _measure(rows: list[Row], options: argparse.Namespace, folder: Path) -> list[Result]:
    results = []
    with ExitStack() as kept:
        data = DataSets(options.data or folder / "data", QUICK if options.quick else FULL)
        bench = Bench(folder, data, kept)
        for row in rows:
            print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
            results.append(run_row(row, bench, options.rounds))
            print(f"    took {results[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    return results


def _publish(results: list[Result], run: report.Run, options: argparse.Namespace) -> None:
    measured, table = report.document(results, run), report.markdown(results, run)
    print(table)
    if options.output:
        report.write_json(options.output, measured)
    if options.write:
        (DOCS / "performance.svg").write_text(plot.svg(results))
        report.write_json(DOCS / "performance.json", measured)
        report.write_page(DOCS / "performance.md", PICTURE + table)


def main() -> int:
    """Measure and report; 1 where a party failed, 2 where no row is meant."""
    options = _options()
    rows = chosen(ROWS, options.only)
    if not rows:
        print(f"no row begins with {' or '.join(options.only)}: --list names them", file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name:22} {row.title}: {', '.join(row.parties)}")
        return 0
    at, began = datetime.now(UTC), time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as name:
        folder = Path(name)
        found = machine(folder)
        results = _measure(rows, options, folder)
    run = report.Run(found, options.rounds, options.quick, time.monotonic() - began, at)
    _publish(results, run, options)
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
