"""``gateway compare``: what two places hold, side by side, and bringing to one what only the other has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.commands.peers import keys_of
from gateway.cli.link import reach
from gateway.cli.lists import ColumnOption, KindOption, ListOption, listed_in
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render, reports
from gateway.core.errors import UsageError, require_known
from gateway.jobs.compare.request import CompareRequest, Level, Repair

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.control.wire import Document

SHOWN = 50
"""Differences printed; --csv and --json have them all."""

SHOWN_ELEMENTS = 5

HEADER = ("difference", "study", "series", "instance", "a", "b", "elements", "note")


def compare(
    a: Annotated[str, typer.Argument(help="A source, a destination, or a folder.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    keys: Annotated[list[str] | None, typer.Argument(help="Query keys, like Modality=CT", metavar="[KEY=VALUE]...")] = None,
    level: Annotated[Level, typer.Option(help="How closely.")] = Level.INSTANCE,
    first: Annotated[str, typer.Option("--from", help="The first study date, as in 2000-01-31.")] = "",
    last: Annotated[str, typer.Option("--to", help="The last study date.")] = "",
    last_days: Annotated[int | None, typer.Option("--last", min=1, help="The last so many days, today included.")] = None,
    list_file: ListOption = None,
    column: ColumnOption = None,
    kind: KindOption = None,
    content: Annotated[bool, typer.Option("--content", help="Also what is in the instances: elements and pixels.")] = False,
    repair: Annotated[Repair | None, typer.Option(help="Bring to one side, or to both, what only the other has.")] = None,
    ignore: Annotated[str, typer.Option("--ignore-missing-in", help="A or B: what is missing there does not count.")] = "",
    when: Annotated[str | None, typer.Option(help="The [schedule] within whose hours it runs.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a line for each difference.", dir_okay=False)] = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Compare what two places hold; exit code 1 when something differs.

    A and B are names of the configuration or folders. With --repair the last comparison counts.
    """
    from gateway.cli.output.following import CompareProgress, follow
    from gateway.control.wire import CompareCommand

    if last_days is not None:
        if first or last:
            raise UsageError("--last, or --from and --to, not both")
        today = date.today()
        first, last = (today - timedelta(days=last_days - 1)).isoformat(), today.isoformat()
    listed = listed_in(list_file, column, kind)
    listed.tell()
    with reach(path, works=repair is not None) as (client, settings):
        sides = [_side(settings, side) for side in (a, b)]
        request = CompareRequest(
            sides[0],
            sides[1],
            level=level,
            first=first,
            last=last,
            query=keys_of(keys or ()),
            content=content,
            repair=repair,
            ignore=ignore.lower(),
            when=when,
            **listed.named(),
        )
        command = CompareCommand(request=request)
        summary = follow(client, "/compare", command, CompareProgress, quiet=as_json)
    if csv_file is not None:
        reports.write(csv_file, reports.as_csv(lines(summary)))
    if as_json:
        render.print_json({**summary, **listed.document()})
    else:
        _print(summary)
    if not (listed.whole and summary["same"]):
        raise typer.Exit(1)


def _side(settings: Settings, name: str) -> str:
    """Return a name of the configuration as it is, and a path as an absolute one."""
    if name in settings.sources or name in settings.destinations:
        return name
    folder = Path(name)
    if folder.is_dir():
        return str(folder.absolute())
    require_known("source, destination or folder", [name], dict.fromkeys([*settings.sources, *settings.destinations]))
    return name


def _print(summary: Document) -> None:
    found = summary["differences"]
    if found:
        rows = [_row(one) for one in found[:SHOWN]]
        render.show(
            render.Table(("difference", "study", "series", "instance", "what"), rows, apart=("study", "series", "instance"))
        )
    if len(found) > SHOWN:
        render.say(f"  … and {len(found) - SHOWN} more (--csv has them all)")
    for remark in summary["remarks"]:
        render.say(render.printable(remark))
    render.say(conclusion(summary))


def _row(one: Document) -> tuple[str, ...]:
    counts = [f"{side.upper()}: {one[side]}" for side in ("a", "b") if one[side] is not None]
    elements = ", ".join(one["elements"][:SHOWN_ELEMENTS]) + (" …" if one["elements"][SHOWN_ELEMENTS:] else "")
    what = "; ".join(filter(None, (", ".join(counts), elements, one["note"])))
    return (one["kind"], one["study"], one["series"] or "-", one["instance"] or "-", what)


def conclusion(summary: Document) -> str:
    """Return the last line: how much was compared, and whether it is the same. Pure."""
    parts = [render.plural(summary["studies"], "study", "studies")]
    parts += [f"{summary['series']} series"] if summary["series"] else []
    parts += [render.plural(summary["instances"], "instance")] if summary["instances"] else []
    parts += [f"{summary['contents']} of them element by element"] if summary["contents"] else []
    text = f"{', '.join(parts)} compared"
    if summary["repaired"]:
        kinds = [verdict["kind"] for verdict in summary["repaired"]]
        text += f"; repaired: {render.states({kind: kinds.count(kind) for kind in dict.fromkeys(kinds)})}"
    return f"{text}; {'no difference' if summary['same'] else render.plural(summary['different'], 'difference')}"


def lines(summary: Document) -> Iterator[tuple[object, ...]]:
    """Yield the header and a line a difference; pure."""
    yield HEADER
    for one in summary["differences"]:
        counts = ["" if one[side] is None else one[side] for side in ("a", "b")]
        yield (one["kind"], one["study"], one["series"], one["instance"], *counts, " ".join(one["elements"]), one["note"])
