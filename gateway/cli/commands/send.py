"""``gateway send``: files, folders and zip archives to destinations, with an account of every file that did not get there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.commands.pull import Timeout, at
from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, Detach, DryRun, JsonOption, NoWait, PriorityOption, priority_of
from gateway.cli.output import render, reports
from gateway.core.errors import UsageError

if TYPE_CHECKING:
    from gateway.control.wire import Document

SHOWN_FILES = 20
"""Files printed of each kind that did not get there; --json and --report have all of them."""

SHOWN_KINDS = 4
"""Reasons told of files that were skipped."""

HEADER = ("path", "outcome", "destination", "sop_instance_uid", "status", "reason")


def send(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or zip archives.", metavar="FOLDER...")],
    to: Annotated[
        list[str] | None, typer.Option("--to", help="A destination; may be repeated.", show_default="where the routes lead")
    ] = None,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Also read folders to which symbolic links lead.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write a CSV line for each file that did not get there.", dir_okay=False)
    ] = None,
    priority: PriorityOption = "normal",
    dry_run: DryRun = False,
    detach: Detach = False,
    no_wait: NoWait = False,
    wait_timeout: Timeout = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send files and prove that they arrived; the files stay as they are.

    Without --to the routes decide for each instance, as for what is received from a caller named "send". Given again after an
    interruption, the same command sends only what is missing.
    """
    from gateway.cli.output.following import SendProgress, follow
    from gateway.control.wire import SendCommand

    missing = [str(given) for given in paths if not given.exists()]
    if missing:
        raise UsageError(f"no such file or folder: {', '.join(missing)}")
    if detach and report is not None:
        raise UsageError("--report is written at the end: with --detach, leave it out")
    if report is not None:
        reports.write(report, "")  # a report that cannot be written is noticed before anything is sent
    command = SendCommand(
        paths=tuple(str(given.absolute()) for given in paths),
        to=tuple(to or ()),
        follow_links=follow_links,
        priority=priority_of(priority),
        dry_run=dry_run,
        detach=detach,
        wait=not no_wait,
        wait_s=wait_timeout,
    )
    with reach(path, works=not dry_run, detach=detach) as (client, _):
        summary = follow(client, "/send", command, SendProgress, quiet=as_json)
    if report is not None:
        reports.write(report, reports.as_csv((HEADER, *lines(summary)), line_end="\r\n"))
    if as_json:
        render.print_json(summary)
    elif summary["detached"]:
        render.say(f"send {summary['job_id']} goes on in the gateway (gateway jobs show {summary['job_id']}, gateway status)")
    else:
        show_sent(summary, waited=not no_wait)
    if not (summary["detached"] or (_taken(summary) if no_wait else summary["done"])):
        raise typer.Exit(1)


def _taken(summary: Document) -> bool:
    return bool(summary["instances"]) and not (summary["counts"]["failed"] or summary["unrouted"])


def lines(summary: Document) -> Iterator[tuple[str, ...]]:
    """Return a line of the report for each delivery that is not verified and each file that was not taken; pure."""
    # A file that is held says best how it is sent all the same; it is no second line beside that of its delivery.
    held = {item["path"]: item["reason"] for item in summary["files"] if item["outcome"] == "held"}
    named = {item["path"] for item in summary["undelivered"]}
    for item in summary["undelivered"]:
        status = f"{item['status']:04X}" if item["status"] is not None else ""
        reason = held.get(item["path"], item["reason"] or "")
        yield (item["path"], item["state"], item["destination"], item["sop_instance_uid"], status, reason)
    for item in summary["files"]:
        if item["path"] not in held.keys() & named:
            yield (item["path"], item["outcome"], "", "", "", item["reason"])


def show_sent(summary: Document, *, waited: bool) -> None:
    """Print what failed and why, then where the rest stands, and last what was no DICOM."""
    left = [line for line in lines(summary) if line[1] != "skipped"]
    for title, outcomes in _TITLES.items():
        # A delivery's outcome is its state.
        mine = [line for line in left if (line[1] in outcomes if outcomes else line[1] not in _FILES)]
        if mine and (waited or outcomes):
            _print_some(title, mine)
    told = (lambda of: render.states(of["states"])) if summary.get("dry_run") else at
    rows = [(name, told(of)) for name, of in summary["destinations"].items()]
    if rows:
        render.show(render.Table(("destination", "instances"), rows))
    render.say(totals(summary))
    render.say(conclusion(summary, waited=waited))
    skipped = [item["reason"] for item in summary["files"] if item["outcome"] == "skipped"]
    if skipped:
        kinds = render.states(dict(Counter(skipped).most_common(SHOWN_KINDS)))
        render.say(f"skipped {render.plural(len(skipped), 'file')}: {render.printable(kinds)} (--report FILE.csv has them all)")


_TITLES = {
    "not delivered": (),
    "could not be read": ("failed",),
    "no route takes": ("unrouted",),
    "not followed": ("link",),
}
_FILES = frozenset({"failed", "unrouted", "link", "skipped"})


def _print_some(title: str, some: Sequence[tuple[str, ...]]) -> None:
    render.say(f"{title} ({len(some)}):")
    for file, outcome, destination, _, status, reason in some[:SHOWN_FILES]:
        where = f"{outcome} at {destination}: " if destination else ""
        code = f"[{status}] " if status else ""
        render.say(f"  {render.printable(file)}: {where}{code}{render.printable(reason)}")
    if len(some) > SHOWN_FILES:
        render.say(f"  … and {len(some) - SHOWN_FILES} more (--report FILE.csv or --json has them all)")


def totals(summary: Document) -> str:
    """Return how many files became what: the numbers add up to the files. Pure."""
    counts = {_WORDS.get(kind, kind): count for kind, count in summary["counts"].items() if count}
    what = f"{render.plural(summary['found'], 'file')}: {render.states(counts)}" if summary["found"] else "no file"
    return f"{what}; {render.plural(summary['instances'], 'instance')}, {render.size(summary['size_bytes'])}"


_WORDS = {"settled": "there already"}


def conclusion(summary: Document, *, waited: bool) -> str:
    """Return whether everything got there, and what did not. Pure."""
    failed, unrouted = summary["counts"]["failed"], summary["unrouted"]
    left = [f"NOT sent: {render.plural(failed, 'DICOM file')} that could not be read"] if failed else []
    left += [f"NOT sent: {render.plural(unrouted, 'instance')} that no route takes"] if unrouted else []
    if not summary["instances"]:
        return "; ".join(left) or "no DICOM instance found"
    if summary.get("dry_run"):
        return "; ".join(["nothing was sent (--dry-run)", *left])
    if not waited:
        return "; ".join(["deliveries go on (gateway status)", *left])
    if not summary["delivered"]:
        return "; ".join(["NOT everything is delivered", *left])
    return "; ".join(["the others are delivered and verified", *left] if left else ["everything delivered and verified"])
