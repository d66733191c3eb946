"""``gateway status``: how the gateway and everything around it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render

if TYPE_CHECKING:
    from gateway.control.wire import Document


def status(
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 where something needs a person, and say what; for monitoring.")
    ] = False,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show sources, destinations, queues, verdicts, spool and certificates."""
    with reach(path) as (client, _):
        document = client.get("/status")
    wanting = list(wants_a_person(document))
    if as_json:
        render.print_json({**document, "needs_a_person": wanting})
    else:
        _print(document)
        if wanting and exit_code:
            render.say("\nNeeds a person:")
            for text in wanting:
                render.say(f"  {render.printable(text)}")
    if wanting and exit_code:
        raise typer.Exit(1)


def wants_a_person(document: Document) -> Iterator[str]:
    """Yield what does not mend itself, or not before somebody looks; pure.

    Not among it: what waits, is tried again or was told to whoever asked for it (verdicts, interrupted commands).
    """
    if document["gateway"]["role"] != "gateway":
        yield "no gateway runs (gateway serve)"
    if not document["spool"]["has_room"]:
        yield "the spool is full: instances are refused until there is room"
    for key, what in (("missing", "lost their bytes"), ("unrouted", "are kept without a route")):
        if document["instances"][key]:
            yield f"{render.plural(document['instances'][key], 'instance')} that {what}"
    for item in document["held"]:
        yield f"{item['destination']}: {render.plural(item['count'], 'instance')} held: {item['reason']}"
    for item in document["destinations"]:
        if item["circuit"] is not None and item["circuit"]["state"] != "closed":
            yield f"{item['name']} is down: {item['circuit']['reason']}"
    yield from _looks_that_want_one(document)
    for item in document["certificates"]:
        if item.get("warning"):
            yield f"certificate {item['path']}: {item['warning']}"


def _looks_that_want_one(document: Document) -> Iterator[str]:
    for item in document.get("syncs", ()):
        if item["cycle"] is not None and item["cycle"]["error"]:
            yield f"sync {item['name']}: {item['cycle']['error']}"
    for item in document.get("comparisons", ()):
        if item["error"] or item["different"]:
            yield f"comparison {item['name']}: {item['error'] or render.plural(item['different'], 'difference')}"


def _print(document: Document) -> None:
    render.say(_head(document))
    for table in _tables(document):
        render.say()
        render.show(table)


def _tables(document: Document) -> Iterator[render.Table]:
    if document["sources"]:
        yield _sources(document)
    if document["destinations"]:
        yield _destinations(document)
    if document["held"]:
        rows = [(item["destination"], str(item["count"]), item["reason"]) for item in document["held"]]
        yield render.Table(("destination", "instances", "why"), rows, "Held (gateway queue list --state held)", ("why",))
    if document.get("syncs"):
        yield _syncs(document)
    if document.get("comparisons"):
        yield _comparisons(document)
    if document["verdicts"]:
        yield _verdicts(document)
    if document["conflicts"]:
        rows = [
            (render.moment(item["newer_at"]), item["sop_instance_uid"], item["study_instance_uid"])
            for item in document["conflicts"]
        ]
        title = "Conflicts (same SOP Instance UID, other content; the newer is delivered)"
        yield render.Table(("at", "instance", "study"), rows, title, ("study", "instance"))
    if document["certificates"]:
        yield _certificates(document)


def _head(document: Document) -> str:
    gateway, spool, instances = document["gateway"], document["spool"], document["instances"]
    running = gateway["role"] == "gateway"
    listening = ", ".join(gateway["listening"]) or "nowhere"
    lines = [
        f"gateway {gateway['version']}, AE title {gateway['ae_title']}, state {gateway['state']}",
        f"running for {render.duration(gateway['uptime_s'])} as process {gateway['process_id']}, listening on {listening}, "
        f"{render.plural(gateway['associations'], 'association')}" + (", draining" if gateway["draining"] else "")
        if running
        else "not running (this is what its state folder says; start it with: gateway serve)",
        f"spool: {render.plural(spool['instances'], 'instance')}, {render.size(spool['stored_bytes'])}; "
        f"{render.size(spool['free_bytes'])} free on its file system, {render.size(spool['reserve_bytes'])} of it reserved"
        + ("" if spool["has_room"] else " - FULL: instances are refused with A700 until there is room"),
    ]
    lines += [
        f"{render.plural(count, 'instance')} {what}"
        for count, what in (
            (instances["unrouted"], "kept without a route: add a route and restart"),
            (instances["missing"], "MISSING: the ledger knows them, their bytes are gone"),
            (instances["conflicts"], "superseded by another content under the same SOP Instance UID"),
        )
        if count
    ]
    if document["stopped_jobs"]:
        lines.append(f"{render.plural(document['stopped_jobs'], 'command')} interrupted: give it again to carry on")
    lines += [
        f"{one['name']} is NOT begun again: it ended the gateway at its last {one['count']} starts ({one['resume']} begins it)"
        for one in document.get("not_begun", ())
    ]
    return "\n".join(lines)


def _sources(document: Document) -> render.Table:
    rows = [(item["name"], item["ae_title"], item["address"], _yes(item["tls"]), _asked_by(item)) for item in document["sources"]]
    return render.Table(("name", "AE title", "address", "TLS", "is asked by"), rows, "Sources", ("address",))


def _asked_by(source: Document) -> str:
    operation = {"move": "C-MOVE", "get": "C-GET", "auto": "C-MOVE or C-GET"}[source["retrieve"]]
    return operation if source["can_be_asked"] else "nothing (sends only)"


def _destinations(document: Document) -> render.Table:
    running = document["gateway"]["role"] == "gateway"
    rows = [
        (
            item["name"],
            item["address"],
            _yes(item["tls"]),
            item["verify"] or "-",
            _way(item, running=running),
            render.states(item["queue"]["states"]),
            render.duration(item["queue"]["oldest_s"]),
            render.states(item["settled"]) + _there_before(item["was_there"]),
        )
        for item in document["destinations"]
    ]
    columns = ("name", "address", "TLS", "proof", "circuit", "queue", "oldest", "settled")
    return render.Table(columns, rows, "Destinations", ("circuit", "address", "settled", "queue"))


def _there_before(count: int) -> str:
    return f"; {render.plural(count, 'instance')} {'was' if count == 1 else 'were'} there before" if count else ""


def _way(destination: Document, *, running: bool) -> str:
    """Say why nothing moves, or that nothing is in the way."""
    if destination["hours"] is not None and not destination["hours"]["open"]:
        return hours(destination["hours"])
    return _circuit(destination["circuit"]) if running else "-"


def hours(document: Document) -> str:
    """Say whether something may run by its schedule, and until when that is so."""
    words = "open" if document["open"] else "outside its hours"
    until = f" until {render.moment(document['changes_at'])}" if document["changes_at"] is not None else ""
    return f"{words}{until} ({document['schedule']})"


def _circuit(circuit: Document | None) -> str:
    if circuit is None:
        return "-"
    if circuit["state"] == "closed":
        return "closed (fine)"
    again = f", next try in {render.duration(circuit['retry_in_s'])}" if circuit["retry_in_s"] is not None else ""
    return f"{circuit['state']} after {render.plural(circuit['failures'], 'failure')}{again}: {circuit['reason']}"


def _syncs(document: Document) -> render.Table:
    columns = ("name", "source", "to", "last look", "found", "missing", "under way", "growing", "moved", "note")
    rows = [
        (item["name"], item["source"], ", ".join(item["to"]), *_cycle(item["cycle"]), _sync_note(item))
        for item in document["syncs"]
    ]
    return render.Table(columns, rows, "Syncs", ("note", "to"))


def _comparisons(document: Document) -> render.Table:
    rows = [
        (
            item["name"],
            render.moment(item["at"]),
            "-" if item["different"] is None else str(item["different"]),
            render.moment(item["due_at"]),
            item["error"],
        )
        for item in document["comparisons"]
    ]
    return render.Table(("name", "last", "differences", "next", "note"), rows, "Comparisons", ("note",))


def _cycle(cycle: Document | None) -> tuple[str, ...]:
    if cycle is None:
        return ("-",) * 6
    counts = (str(cycle[key]) for key in ("found", "missing", "underway", "growing"))
    moved = f"{render.plural(cycle['moved'], 'study', 'studies')}, {render.plural(cycle['instances'], 'instance')}"
    return (render.moment(cycle["at"]), *counts, moved)


def _sync_note(item: Document) -> str:
    if not item["open"]:
        return f"outside its hours until {render.moment(item['changes_at'])}"
    if item["cycle"] is None:
        return "looking for the first time"
    return "; ".join(note for note in (item["cycle"]["error"], *item["cycle"]["remarks"]) if note)


def _verdicts(document: Document) -> render.Table:
    rows = [
        (
            render.moment(item["ended_at"] or item["started_at"]),
            item["source"],
            item["study_instance_uid"] or "-",
            item["verdict"] or "running or interrupted",
            "-" if item["expected"] is None else str(item["expected"]),
            item["note"] or "",
        )
        for item in document["verdicts"]
    ]
    return render.Table(("at", "source", "study", "verdict", "expected", "note"), rows, "Last verdicts", ("note", "study"))


def _certificates(document: Document) -> render.Table:
    rows = [
        (
            item["path"],
            item["key"],
            f"{item['expires'][:10]} ({item['days']} days)" if "expires" in item else "-",
            item.get("warning") or "",
        )
        for item in document["certificates"]
    ]
    return render.Table(("file", "for", "expires", "warning"), rows, "Certificates", ("warning", "for", "file"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
