"""``gateway send``: files, folders and zip archives to destinations, with an account of every file that did not get there."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli import render
from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, PriorityOption, priority_of
from gateway.cli.progress import meter
from gateway.cli.pull import NoWait, SendProgress, Timeout, at, follow
from gateway.errors import UsageError
from gateway.files import unusable
from gateway.web.wire import SendCommand

Document = Mapping[str, Any]

SHOWN_FILES = 20
"""Files printed that were not taken or not delivered; --json and --report have all of them."""

HEADER = ("path", "outcome", "destination", "sop_instance_uid", "status", "reason")


def send(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or zip archives.", metavar="FOLDER...")],
    to: Annotated[list[str], typer.Option("--to", help="The name of a destination in the configuration; may be repeated.")],
    report: Annotated[
        Path | None, typer.Option(help="Write a CSV line for each file that did not get there.", dir_okay=False)
    ] = None,
    priority: PriorityOption = "normal",
    no_wait: NoWait = False,
    wait_timeout: Timeout = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send files to destinations and prove that they arrived; the files stay as they are.

    Given again after an interruption, the same command sends only what is missing.
    """
    missing = [str(given) for given in paths if not given.exists()]
    if missing:
        raise UsageError(f"no such file or folder: {', '.join(missing)}")
    if report is not None:
        _write(report, ())  # a report that cannot be written is noticed before anything is sent
    given = tuple(str(folder.absolute()) for folder in paths)
    command = SendCommand(paths=given, to=tuple(to), priority=priority_of(priority), wait=not no_wait, wait_s=wait_timeout)
    with reach(path, works=True) as (client, _), meter(as_json) as shown, client.stream("/send", command) as events:
        summary = follow(events, SendProgress(shown))
    if report is not None:
        _write(report, lines(summary))
    if as_json:
        render.print_json(summary)
    else:
        _print(summary, waited=not no_wait)
    if not (_taken(summary) if no_wait else summary["done"]):
        raise typer.Exit(1)


def _taken(summary: Document) -> bool:
    return bool(summary["instances"]) and not summary["counts"]["failed"]


def lines(summary: Document) -> Iterator[tuple[str, ...]]:
    """Return a line of the report for each file that was not taken and each delivery that is not verified; pure."""
    for item in summary["files"]:
        yield (item["path"], item["outcome"], "", "", "", item["reason"])
    for item in summary["undelivered"]:
        status = f"{item['status']:04X}" if item["status"] is not None else ""
        yield (item["path"], item["state"], item["destination"], item["sop_instance_uid"], status, item["reason"] or "")


def _write(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(rows)
    except OSError as error:
        raise UsageError(str(unusable(error, "cannot write the report", path))) from error


def _print(summary: Document, *, waited: bool) -> None:
    counts = summary["counts"]
    typer.echo(f"{render.plural(summary['instances'], 'instance')}, {render.size(summary['size_bytes'])}: {render.states(counts)}")
    rows = [(name, at(of)) for name, of in summary["destinations"].items()]
    if rows:
        render.show(render.Table(("destination", "instances"), rows))
    failed = list(lines(summary))
    for file, outcome, destination, *_, reason in failed[:SHOWN_FILES]:
        where = f" at {destination}" if destination else ""
        typer.echo(f"  {render.printable(file)}: {outcome}{where}: {render.printable(reason)}")
    if len(failed) > SHOWN_FILES:
        typer.echo(f"  … and {len(failed) - SHOWN_FILES} more (--report FILE.csv or --json has them all)")
    typer.echo(conclusion(summary, waited=waited))


def conclusion(summary: Document, *, waited: bool) -> str:
    """Return the last line: whether everything got there, and what did not. Pure."""
    if not summary["instances"]:
        return "no DICOM instance found"
    failed = summary["counts"]["failed"]
    left = [f"NOT sent: {render.plural(failed, 'DICOM file')} that could not be read"] if failed else []
    if not waited:
        return "; ".join(["deliveries go on (gateway status)", *left])
    if not summary["delivered"]:
        return "; ".join(["NOT everything is delivered", *left])
    return "; ".join(["the others are delivered and verified", *left] if left else ["everything delivered and verified"])
