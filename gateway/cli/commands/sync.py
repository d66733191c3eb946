"""``gateway sync``: fetch what a source has and the destinations lack, again and again, or once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.commands.peers import keys_of
from gateway.cli.commands.pull import print_studies
from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, DryRun, JsonOption
from gateway.cli.output import render
from gateway.core.domain import VerdictKind
from gateway.core.errors import UsageError

if TYPE_CHECKING:
    from gateway.config.settings import Settings, SyncTable
    from gateway.control.wire import Document, Message


def sync(
    name: Annotated[str, typer.Argument(metavar="SOURCE", help="A source, or a sync of the configuration.")],
    keys: Annotated[
        list[str] | None, typer.Argument(help="Query keys, like ModalitiesInStudy=CT", metavar="[KEY=VALUE]...")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="A destination; may be repeated.", show_default="where the routes lead")
    ] = None,
    last: Annotated[str | None, typer.Option(help="Studies of the last 90m, 12h or 2d.", show_default="12h")] = None,
    day: Annotated[list[str] | None, typer.Option(help="today, yesterday, 2024-01-31, or A..B; may be repeated.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="A patient id; may be repeated.")] = None,
    series: Annotated[
        Literal["all", "smallest", "fewer_than"] | None, typer.Option(help="The series to take.", show_default="all")
    ] = None,
    fewer_than: Annotated[int | None, typer.Option("--fewer-than", min=1, help="Only series with fewer instances.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only series of this modality; may be repeated.")] = None,
    description: Annotated[list[str] | None, typer.Option(help="Only series described like '*T1*'; may be repeated.")] = None,
    stable_for: Annotated[
        str | None, typer.Option("--stable-for", help="Take a series unchanged for 5m.", show_default="in two looks")
    ] = None,
    interval: Annotated[float | None, typer.Option(min=1, help="Seconds from one look to the next.", show_default="60")] = None,
    known: Annotated[
        Literal["destination", "ledger"] | None,
        typer.Option(help="The record of what a destination holds: its own, or the ledger's.", show_default="destination"),
    ] = None,
    when: Annotated[str | None, typer.Option(help="The schedule outside whose hours nothing moves.")] = None,
    priority: Annotated[
        Literal["low", "normal", "high"] | None,
        typer.Option(help="The order where not everything can go at once.", show_default="normal"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One cycle, and wait for the deliveries.")] = False,
    dry_run: DryRun = False,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Keep destinations supplied with what a source has and they lack, until Ctrl+C."""
    from gateway.cli.output.following import PullProgress, follow
    from gateway.control.events import SYNC
    from gateway.control.wire import SyncCommand

    given = {
        "to": to,
        "last": last,
        "days": day,
        "patients": patient,
        "query": keys_of(keys or ()),
        "series": series or ("fewer_than" if fewer_than else None),
        "fewer_than": fewer_than,
        "modalities": modality,
        "description": description,
        "stable_for": stable_for,
        "interval_s": interval,
        "known": known,
        "when": when,
        "priority": priority,
    }
    if once and stable_for:
        raise UsageError("--once takes what is there: it has no --stable-for")
    with reach(path, works=not dry_run) as (client, settings):
        command = SyncCommand(table=table_of(settings, name, given), once=once, dry_run=dry_run)
        if dry_run or once:
            summary = follow(client, "/sync", command, PullProgress, quiet=as_json)
            _conclude(summary, as_json=as_json, dry_run=dry_run)
            return
        with client.stream("/sync", command, SYNC) as events:
            _tell(events, as_json=as_json)


def table_of(settings: Settings, name: str, given: Mapping[str, Any]) -> SyncTable:
    """Return the table of the sync called `name`, or a new one for the source of that name, with the options that are given.

    An option replaces what the table says; one of the window replaces its window.

    Raises:
        UsageError: an option cannot be meant.

    """
    from pydantic import ValidationError

    from gateway.config.settings import SyncTable

    options = {key: value for key, value in given.items() if value}
    configured = next((table.model_dump() for table in settings.sync if table.name == name), {"name": name, "source": name})
    if options.keys() & _WINDOW:
        configured = {key: value for key, value in configured.items() if key not in _WINDOW}
    if options.get("series", "fewer_than") != "fewer_than":
        configured.pop("fewer_than", None)
    try:
        return SyncTable.model_validate({**configured, **options})
    except ValidationError as error:
        raise UsageError("; ".join(_words(details) for details in error.errors(include_url=False))) from error


_WINDOW = frozenset({"last", "days", "patients", "query"})
_OPTIONS = {"days": "--day", "patients": "--patient", "modalities": "--modality", "interval_s": "--interval"}


def _words(details: Mapping[str, Any]) -> str:
    key = str(details["loc"][0]) if details["loc"] else ""
    expected = details["ctx"]["error"] if details["type"] == "value_error" else details["msg"]
    return f"{_OPTIONS.get(key, '--' + key.replace('_', '-'))}: expected {expected}" if key else str(expected)


def _tell(events: Iterable[Message], *, as_json: bool) -> None:
    from gateway.control.wire import encode
    from gateway.jobs.sync.cycle import Cycle
    from gateway.retrieve.events import StudyEnded

    for event in events:
        match event:
            case Cycle():
                if as_json:
                    render.print_json(encode(event))
                else:
                    render.say(line(encode(event)))
            case StudyEnded(verdict=verdict) if verdict.kind is not VerdictKind.COMPLETE and not as_json:
                render.say(f"  {verdict.study_instance_uid}: {verdict.kind}: {verdict.note}")


def line(cycle: Document) -> str:
    """Return a cycle in one line; pure."""
    parts = [f"{cycle['found']} found", f"{cycle['missing']} missing"]
    parts += [f"{cycle[key]} {word}" for key, word in _WORDS.items() if cycle[key]]
    text = f"{datetime.fromtimestamp(cycle['at']).astimezone():%H:%M:%S}  {', '.join(parts)}"
    if cycle["moved"] or cycle["unfinished"] or cycle["instances"]:
        text += f"; {moved(cycle)}"
    return "; ".join([text, *(render.printable(note) for note in (cycle["error"], *cycle["remarks"]) if note)])


_WORDS = {"started": "started", "paused": "tried again later", "underway": "under way", "growing": "growing"}


def moved(cycle: Document) -> str:
    """Return what a cycle moved, in words; pure."""
    parts = [
        f"moved {render.plural(cycle['moved'], 'study', 'studies')}",
        f"{cycle['series']} series",
        render.plural(cycle["instances"], "instance"),
        render.size(cycle["bytes"]),
        f"{cycle['instances_a_minute']:.0f}/min",
    ]
    unfinished = f"; {render.plural(cycle['unfinished'], 'study', 'studies')} NOT whole" if cycle["unfinished"] else ""
    return ", ".join(parts) + unfinished


def _conclude(summary: Document, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        render.print_json(summary)
    elif dry_run:
        _print_missing(summary)
    else:
        print_studies(summary)
        render.say(line(summary["cycle"]))
    if summary["error"] or not (dry_run or summary["done"]):
        raise typer.Exit(1)


def _print_missing(summary: Document) -> None:
    rows = [
        (one["study_instance_uid"], ", ".join(one["destinations"]) or "by the routes", str(one["series"]), str(one["instances"]))
        for one in summary["studies"]
    ]
    if rows:
        render.show(render.Table(("study", "to", "series", "instances"), rows, apart=("study", "to")))
    render.say(f"{render.plural(summary['found'], 'study', 'studies')} found; {len(rows)} would be moved")
    if summary["error"]:
        render.say(f"gateway: {summary['error']}", err=True)
