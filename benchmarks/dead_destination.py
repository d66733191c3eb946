"""Cost of a dead destination for the others: the time to deliver a load to two destinations, with and without a dead third.

Runs the gateway as a subprocess between a requestor and two acceptors written for tests (they keep nothing), alternating the two
settings so that drift of the machine hits both alike. Prints the medians and their ratio; a ratio near 1 is the aim. A third
setting has a third destination that accepts connections and never answers.

    python benchmarks/dead_destination.py [--rounds 5] [--instances 400] [--rows 256]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.gateway import Gateway, dicom_destination
from tests.support.load import Ledger, Template
from tests.support.ports import free_port
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import wait_until

SETTINGS = ("two alone", "third dead", "third silent")


def seconds(setting: str, template: Template, instances: int) -> float:
    """Return how long it takes until both living destinations have everything, from the first C-STORE-RQ on."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        good = [stack.enter_context(ScriptedScp().running()) for _ in range(2)]
        tables: dict[str, Any] = {
            f"good-{number}": dicom_destination(peer.port, verify="status") for number, peer in enumerate(good)
        }
        if setting == "third dead":
            tables["third"] = dicom_destination(free_port(), verify="status")
        if setting == "third silent":
            silent = stack.enter_context(ScriptedScp(answer=lambda *_: "hang").running())
            tables["third"] = dicom_destination(silent.port, verify="status")
        gateway = Gateway(folder, {"destinations": tables, "serve": {"drain_timeout_s": 1.0}})
        sent = Ledger(template)
        with gateway.serving():
            start = time.perf_counter()
            assert sent.load(gateway.port, associations=2, each=instances // 2)
            wait_until(
                lambda: all(len(peer.stores) >= sent.sent for peer in good), "both have everything", deadline_s=300, pause_s=0.005
            )
            return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=400)
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        template = Template(Path(folder), rows=options.rows)
        for _ in range(options.rounds):
            for setting in SETTINGS:
                times[setting].append(seconds(setting, template, options.instances))
    alone = statistics.median(times[SETTINGS[0]])
    for setting, measured in times.items():
        median = statistics.median(measured)
        spread = f"{min(measured):.2f}–{max(measured):.2f}"
        print(
            f"{setting:13} {median:6.2f} s  ({spread})  {options.instances / median:6.0f} instances/s  ratio {median / alone:.2f}"
        )


if __name__ == "__main__":
    main()
