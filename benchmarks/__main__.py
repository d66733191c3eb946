"""``python -m benchmarks``: the gateway beside real peers on this machine, in turn, round after round.

Prints medians and ratios; ``--output`` writes JSON, ``--write`` puts table and plot into ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import plot, report, rows_latency, rows_receive, rows_relay, rows_send
from benchmarks.datasets import FULL, QUICK, DataSets
from benchmarks.harness import Bench, Result, Row, chosen, run_row

ROWS: list[Row] = [*rows_receive.ROWS, *rows_send.ROWS, *rows_relay.ROWS, *rows_latency.ROWS]
DOCS = Path(__file__).parents[1] / "docs"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows whose names begin like this")
    parser.add_argument("--rounds", type=int, default=5, help="how often each party does each row's work (default 5)")
    parser.add_argument("--quick", action="store_true", help="small data sets: tells whether it works, not how fast")
    parser.add_argument(
        "--folder", type=Path, help="an existing folder on the disk to measure (default: the one for temporary files)"
    )
    parser.add_argument("--output", type=Path, help="write everything measured to this file, as JSON")
    parser.add_argument("--write", action="store_true", help="write table and plot into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    return parser.parse_args()


def _measure(options: argparse.Namespace, folder: Path) -> list[Result]:
    results = []
    with ExitStack() as kept:
        bench = Bench(folder, DataSets(folder / "data", QUICK if options.quick else FULL), kept)
        for row in chosen(ROWS, options.only):
            print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
            results.append(run_row(row, bench, options.rounds))
    return results


def _publish(results: list[Result], options: argparse.Namespace) -> None:
    measured = report.document(results, rounds=options.rounds, quick=options.quick)
    table = report.markdown(results, rounds=options.rounds, quick=options.quick)
    print(table)
    if options.output:
        report.write_json(options.output, measured)
    if options.write:
        (DOCS / "performance.svg").write_text(plot.svg(results))
        report.write_json(DOCS / "performance.json", measured)
        picture = "![Ratios between the gateway and its peers; the black ticks are the goals](performance.svg)\n\n"
        report.write_page(DOCS / "performance.md", picture + table)


def main() -> int:
    """Measure and report; 1 where a party failed."""
    options = _options()
    if options.list:
        for row in ROWS:
            print(f"{row.name:24} {row.title}: {', '.join(row.parties)}")
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as folder:
        results = _measure(options, Path(folder))
    _publish(results, options)
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
