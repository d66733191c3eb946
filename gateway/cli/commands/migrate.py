"""``gateway migrate``: move every study of a range of dates, or of a list, and report what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.link import reach
from gateway.cli.lists import ColumnOption, KindOption, ListOption, listed_in
from gateway.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    Detach,
    DryRun,
    JsonOption,
    NoWait,
    PriorityOption,
    SkipExisting,
    priority_of,
)
from gateway.cli.output import render, reports
from gateway.core.errors import UsageError
from gateway.jobs.migrate.request import MigrationRequest

if TYPE_CHECKING:
    from gateway.control.wire import Document

SHOWN_PORTIONS = 31
"""Days or entries of a dry run printed; --json has them all."""

SHOWN = 20
"""Studies that are not done, printed at the end; the report has them all."""

ReportOption = Annotated[
    Path | None, typer.Option(help="Write what became of every study, as .csv or .json.", dir_okay=False, show_default=False)
]


def migrate(
    source: Annotated[str, typer.Argument(help="The name of a source in the configuration.")],
    first: Annotated[str, typer.Option("--from", help="The first study date, as in 2000-01-31.")] = "",
    last: Annotated[str, typer.Option("--to", help="The last study date.")] = "",
    list_file: ListOption = None,
    column: ColumnOption = None,
    kind: KindOption = None,
    destination: Annotated[
        list[str] | None, typer.Option(help="A destination for everything, in place of the routes; may be repeated.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The last day, or the end of the list, first.")] = False,
    moves: Annotated[
        int | None, typer.Option(min=1, help="Studies that move at a time, at most; no more than the source's.")
    ] = None,
    skip_existing: SkipExisting = False,
    max_used: Annotated[str | None, typer.Option(help="Wait while more of the spool's file system is used, as in 90%.")] = None,
    delete_from_source: Annotated[
        bool,
        typer.Option("--delete-from-source", help="Delete each study from the source, an Orthanc, once it is proved elsewhere."),
    ] = False,
    when: Annotated[str | None, typer.Option(help="The [schedule] within whose hours studies are moved.")] = None,
    priority: PriorityOption = "low",
    report: ReportOption = None,
    dry_run: DryRun = False,
    detach: Detach = False,
    no_wait: NoWait = False,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Move all studies of a range of dates, or of a list, and prove each.

    Given again after an interruption, the same command carries on where it stopped.
    """
    from gateway.cli.output.following import MigrationProgress, follow
    from gateway.control.wire import MigrateCommand

    if detach and report is not None:
        raise UsageError("--report is written at the end: with --detach, use gateway jobs report")
    check_report(report)
    listed = listed_in(list_file, column, kind)
    listed.tell()
    request = MigrationRequest(
        source,
        first=first,
        last=last,
        **listed.named(),
        destinations=tuple(destination or ()),
        reverse=reverse,
        moves=moves,
        skip_existing=skip_existing,
        max_used=_share(max_used),
        delete_from_source=delete_from_source,
        when=when,
        priority=priority_of(priority),
    )
    command = MigrateCommand(request=request, dry_run=dry_run, detach=detach, wait=not no_wait)
    with reach(path, works=not dry_run) as (client, _):
        summary = follow(client, "/migrate", command, MigrationProgress, quiet=as_json)
    summary = {**summary, **listed.document()}
    if dry_run:
        _conclude_dry(summary, as_json)
    elif summary["detached"]:
        _conclude_detached(summary, as_json)
    else:
        conclude(summary, report, as_json=as_json)
    if not listed.whole:
        raise typer.Exit(1)


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--max-used: found {text[:20]!r}; expected a share such as 90%")
    return value


def _conclude_detached(summary: Document, as_json: bool) -> None:
    if as_json:
        render.print_json(summary)
    else:
        render.say(f"migration {summary['job_id']} goes on in the gateway (gateway jobs show {summary['job_id']})")


def _conclude_dry(summary: Document, as_json: bool) -> None:
    """Print what a migration would move; exit with 1 where some of it could not be listed."""
    if as_json:
        render.print_json(summary)
    else:
        for label, why in summary["problems"].items():
            render.say(f"{label}: not listed: {why}")
        for label, doubt in summary["doubts"].items():
            render.say(f"{label}: {doubt}")
        rows = [(one["label"], str(one["studies"]), str(one["instances"])) for one in summary["portions"] if one["studies"]]
        if rows:
            render.show(render.Table(("portion", "studies", "instances"), rows[:SHOWN_PORTIONS]))
        if len(rows) > SHOWN_PORTIONS:
            render.say(f"  … and {len(rows) - SHOWN_PORTIONS} more (--json has them all)")
        unsaid = ", as far as the source counts them" if summary["uncounted"] else ""
        render.say(
            f"{render.plural(summary['studies'], 'study', 'studies')}, {render.plural(summary['instances'], 'instance')}{unsaid}, "
            f"would be moved to {', '.join(summary['to'])} (--dry-run)"
        )
    if summary["problems"]:
        raise typer.Exit(1)


def conclude(summary: Document, report: Path | None, *, as_json: bool) -> None:
    """Write and print what a migration came to; exit with 1 where not all of it was done."""
    if report is not None:
        write_report(report, summary)
    if as_json:
        render.print_json(summary)
    else:
        _print(summary)
    if not summary["done"]:
        raise typer.Exit(1)


def _print(summary: Document) -> None:
    left = [study for study in summary["studies"] if not study["done"]]
    if left:
        rows = [
            (one["study_instance_uid"], one["label"], _whole(one), one["verdict"] or "open", one["note"]) for one in left[:SHOWN]
        ]
        render.show(render.Table(("study", "day", "received", "verdict", "note"), rows, apart=("study", "note")))
    if len(left) > SHOWN:
        render.say(f"  … and {len(left) - SHOWN} more (--report has them all)")
    for label, doubt in summary["doubts"].items():
        render.say(f"{label}: {doubt}")
    for label in summary["unlisted"][:SHOWN]:
        render.say(f"{label}: not listed{_why(summary, label)}")
    render.say(conclusion(summary))


def _why(summary: Document, label: str) -> str:
    why = summary.get("problems", {}).get(label)
    return f": {why}" if why else ""


def _whole(study: Document) -> str:
    return f"{study['received'] + study['skipped']}/{'?' if study['expected'] is None else study['expected']}"


def conclusion(summary: Document) -> str:
    """Return the last line: how many studies ended how, and whether all of it is at its destinations. Pure."""
    studies = summary["studies"]
    counts: dict[str, int] = {}
    for one in studies:
        kind = one["verdict"] or "open"
        counts[kind] = counts.get(kind, 0) + 1
    instances, size = sum(one["received"] for one in studies), sum(one["bytes"] for one in studies)
    text = f"{render.plural(len(studies), 'study', 'studies')}: {render.states(counts) or 'nothing found'}"
    text += f"; {render.plural(instances, 'instance')}, {render.size(size)}"
    deleted = sum(one["deleted_at"] is not None for one in studies)
    if deleted:
        text += f"; {deleted} deleted from the source"
    return f"{text}; {'everything delivered and verified' if summary['done'] else 'NOT everything is done'}"


def check_report(path: Path | None) -> None:
    """Notice a report that cannot be written before anything is moved.

    Raises:
        UsageError: it is neither .csv nor .json, or its file cannot be written.
    """
    if path is None:
        return
    if path.suffix not in {".csv", ".json"}:
        raise UsageError(f"--report {path}: expected a name that ends with .csv or .json")
    reports.write(path, "")


def write_report(path: Path, summary: Document) -> None:
    """Write what became of every study. Raises UsageError."""
    if path.suffix == ".json":
        what = {key: summary[key] for key in ("job_id", "state", "studies", "doubts", "unlisted", "done")}
        reports.write(path, json.dumps(what, indent=1) + "\n")
        return
    reports.write(path, reports.as_csv(lines(summary["studies"])))


def lines(studies: Sequence[Document]) -> Iterator[tuple[object, ...]]:
    """Yield the header and a line a study; pure."""
    names = list(dict.fromkeys(name for study in studies for name in study["destinations"]))
    each = [f"{name} {what}" for name in names for what in ("delivered", "verified", "proof")]
    yield (
        "day",
        "study",
        "listed",
        "expected",
        "received",
        "skipped",
        "verdict",
        *each,
        "done",
        "seconds",
        "bytes",
        "deleted",
        "note",
    )
    for one in studies:
        counts = [value for name in names for value in _at(one["destinations"].get(name))]
        yield (
            one["label"],
            one["study_instance_uid"],
            one["listed"],
            one["expected"],
            one["received"],
            one["skipped"],
            one["verdict"] or "open",
            *counts,
            "yes" if one["done"] else "no",
            one["seconds"],
            one["bytes"],
            ""
            if one["deleted_at"] is None
            else datetime.fromtimestamp(one["deleted_at"]).astimezone().isoformat(timespec="seconds"),
            "; ".join(filter(None, (one["note"], one["kept"]))),
        )


def _at(of: Document | None) -> Iterable[object]:
    if of is None:
        return (0, 0, "")
    verified = of["states"].get("verified", 0)
    return (verified + of["states"].get("delivered", 0), verified, ", ".join(of["proofs"]))
