"""``gateway queue``: deliveries that are not done yet, and what a person may do about them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render
from gateway.core.domain import Action, DeliveryState, is_uid
from gateway.core.errors import UsageError
from gateway.dicom.syntaxes import syntax

if TYPE_CHECKING:
    from gateway.control.client import Client
    from gateway.control.wire import QueueFilter

queue = typer.Typer(
    help="See and steer deliveries that are not done yet.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Ids = Annotated[list[int] | None, typer.Argument(help="Numbers of deliveries, from `gateway queue list`.", metavar="[ID]...")]
Destination = Annotated[
    list[str] | None, typer.Option("--destination", "-d", help="Only deliveries to this destination; may be repeated.")
]
State = Annotated[list[DeliveryState] | None, typer.Option("--state", "-s", help="Only deliveries in this state; may be repeated.")]
Study = Annotated[list[str] | None, typer.Option("--study", help="Only deliveries of this Study Instance UID; may be repeated.")]
All = Annotated[bool, typer.Option("--all", help="All deliveries are meant.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _where(
    ids: Sequence[int] | None,
    destination: Sequence[str] | None,
    state: Sequence[DeliveryState] | None,
    study: Sequence[str] | None,
    everything: bool = False,
) -> QueueFilter:
    from gateway.control.wire import QueueFilter

    wrong = [uid for uid in study or () if not is_uid(uid)]
    if wrong:
        raise UsageError(f"not a Study Instance UID: {wrong[0]!r}")
    return QueueFilter(
        ids=tuple(ids or ()),
        destinations=tuple(destination or ()),
        states=tuple(state or ()),
        studies=tuple(study or ()),
        everything=everything,
    )


@queue.command("list")
def list_(
    ids: Ids = None,
    destination: Destination = None,
    state: State = None,
    study: Study = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most deliveries to show.")] = 50,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List deliveries that are not done yet, the oldest first.

    Or those that the options name.
    """
    from gateway.control.wire import QueueList

    command = QueueList(where=_where(ids, destination, state, study), limit=limit)
    with reach(path) as (client, _):
        document = client.post("/queue/list", command)
    if as_json:
        render.print_json(document)
        return
    if not document["entries"]:
        render.say("nothing in the queue")
        return
    columns = ("id", "destination", "state", "tries", "next try", "instance", "study", "why")
    rows = [_row(entry) for entry in document["entries"]]
    render.show(render.Table(columns, rows, apart=("why", "study", "instance")))
    if document["total"] > len(document["entries"]):
        render.say(f"{document['total'] - len(document['entries'])} more (--limit)")


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    waiting = entry["state"] in {DeliveryState.PENDING, DeliveryState.DEFERRED}
    return (
        str(entry["id"]),
        entry["destination"],
        entry["state"],
        str(entry["attempts"]),
        render.moment(entry["due_at"]) if waiting else "-",
        entry["sop_instance_uid"],
        entry["study_instance_uid"],
        _why(entry),
    )


def _why(entry: Mapping[str, Any]) -> str:
    status = f"[{entry['status']:04X}] " if entry["status"] else ""
    return status + (entry["reason"] or "")


@queue.command("show")
def show(
    ids: Annotated[list[int], typer.Argument(help="Numbers of deliveries, from `gateway queue list`.", metavar="ID...")],
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show everything the gateway knows of some deliveries."""
    from gateway.control.wire import QueueFilter, QueueList

    with reach(path) as (client, _):
        document = client.post("/queue/list", QueueList(where=QueueFilter(ids=tuple(ids)), limit=10_000))
    if as_json:
        render.print_json(document)
    else:
        for entry in document["entries"]:
            render.show(render.Table(("", ""), _details(entry), title=f"Delivery {entry['id']}"))
    missing = set(ids) - {entry["id"] for entry in document["entries"]}
    if missing:
        raise UsageError(f"no delivery {', '.join(str(number) for number in sorted(missing))}")


_TIMES = frozenset({"due_at", "changed_at", "received_at"})
_TRANSFER_SYNTAXES = frozenset({"transfer_syntax_uid", "sent_as"})


def _details(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    def text(key: str, value: Any) -> str:
        if key in _TIMES:
            return render.moment(value)
        if key == "status" and value is not None:
            return f"{value:04X}"
        if key in _TRANSFER_SYNTAXES and value is not None:
            return f"{syntax(value).name} ({value})"
        return "-" if value is None else str(value)

    return [(key.replace("_", " "), text(key, value)) for key, value in entry.items()]


def _act(action: Action, where: QueueFilter, path: Path, as_json: bool, *, ask: bool = False) -> None:
    from gateway.control.wire import QueueAction

    if where.selection().is_everything and not where.everything:
        raise UsageError(
            f"name deliveries by number, --destination, --state or --study, or say --all: gateway queue {action} --help"
        )
    with reach(path) as (client, _):
        if ask:
            _confirm(client, where)
        document = client.post("/queue/act", QueueAction(action=action, where=where))
    if as_json:
        render.print_json(document)
    else:
        render.say(f"{render.plural(document['changed'], 'delivery', 'deliveries')} {_DONE[action]}")
        left = document.get("unchanged", [])
        for one in left:
            named = f" ({', '.join(map(str, one['ids']))})" if where.ids else ""
            render.say(f"  not changed: {one['count']}{named}: {one['why']}")
        if not (document["changed"] or left):
            render.say("  no delivery that is not done yet meets these conditions")
    if not document["changed"] or (where.ids and document["changed"] < len(set(where.ids))):
        raise typer.Exit(1)


_DONE = {
    Action.RETRY: "will be tried again now",
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.DROP: "dropped",
}


def _confirm(client: Client, where: QueueFilter) -> None:
    from gateway.control.wire import QueueList

    if not sys.stdin.isatty():
        raise UsageError("dropping gives up deliveries for good; say --yes where nobody can be asked")
    total = client.post("/queue/list", QueueList(where=where, limit=1))["total"]
    typer.confirm(
        f"Give up {render.plural(total, 'delivery', 'deliveries')}? Their destinations will not get them.", abort=True, err=True
    )


def _steering(action: Action, text: str) -> None:
    """Add the command that does `action` to the deliveries that its options name; `text` is its help."""

    @queue.command(action.value, help=text)
    def steer(
        ids: Ids = None,
        destination: Destination = None,
        state: State = None,
        study: Study = None,
        everything: All = False,
        path: ConfigOption = DEFAULT_CONFIG,
        as_json: JsonOption = False,
    ) -> None:
        _act(action, _where(ids, destination, state, study, everything), path, as_json)


_steering(
    Action.RETRY,
    "Try held and deferred deliveries again now.\n\nAll attempts begin anew. Dropped ones are tried when they are named.",
)
_steering(Action.HOLD, "Stop trying deliveries until they are retried or released.")
_steering(Action.RELEASE, "Let held deliveries go on where they stood.\n\nThe attempts so far count; retry begins anew.")


@queue.command("export")
def export(
    to: Annotated[Path, typer.Option("--to", help="The folder for the files; made where it is not there.", file_okay=False)],
    ids: Ids = None,
    destination: Destination = None,
    state: State = None,
    study: Study = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write instances that the gateway keeps to a folder.

    As DICOM files: all of them, or what the options name.

    Nothing is overwritten, and nothing changes for their deliveries.
    """
    from gateway.cli.output.following import ExportProgress, follow
    from gateway.control.wire import QueueExport

    command = QueueExport(where=_where(ids, destination, state, study), to=str(to.absolute()))
    with reach(path) as (client, _):
        summary = follow(client, "/queue/export", command, ExportProgress, quiet=as_json)
    if as_json:
        render.print_json(summary)
    else:
        for one in summary["failed"][:SHOWN_FAILURES]:
            render.say(f"  NOT exported: {render.printable(one['sop_instance_uid'] or '?')}: {render.printable(one['reason'])}")
        counts = render.states({name: count for name, count in summary["counts"].items() if count})
        render.say(f"{render.plural(summary['instances'], 'instance')}, {render.size(summary['size_bytes'])}: {counts}")
    if not summary["done"]:
        raise typer.Exit(1)


SHOWN_FAILURES = 20


@queue.command("drop")
def drop(
    ids: Ids = None,
    destination: Destination = None,
    state: State = None,
    study: Study = None,
    everything: All = False,
    yes: Yes = False,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Give deliveries up: their destinations will not get them. Asks first, on a terminal."""
    _act(Action.DROP, _where(ids, destination, state, study, everything), path, as_json, ask=not yes)
