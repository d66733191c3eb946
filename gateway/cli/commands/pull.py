"""``gateway pull``: retrieve studies of a source, route and deliver them, and say of each instance what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.commands.peers import keys_of
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
from gateway.cli.output import render
from gateway.core.domain import VerdictKind

if TYPE_CHECKING:
    from gateway.control.wire import Document

SHOWN_UIDS = 20
"""Missing or undelivered UIDs printed of one study; --json has all of them."""

Timeout = Annotated[
    float | None, typer.Option("--wait-timeout", min=1, help="Seconds to wait for the deliveries at most.", show_default="no limit")
]


def pull(
    source: Annotated[str, typer.Argument(help="The name of a source in the configuration.")],
    keys: Annotated[list[str] | None, typer.Argument(help="Query keys, like StudyDate=20240101", metavar="[KEY=VALUE]...")] = None,
    study: Annotated[list[str] | None, typer.Option(help="A Study Instance UID; may be repeated.")] = None,
    accession: Annotated[list[str] | None, typer.Option(help="An accession number; may be repeated.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="A patient id; may be repeated.")] = None,
    list_file: ListOption = None,
    column: ColumnOption = None,
    kind: KindOption = None,
    skip_existing: SkipExisting = False,
    to: Annotated[list[str] | None, typer.Option("--to", help="A destination, in place of the routes; may be repeated.")] = None,
    priority: PriorityOption = "normal",
    dry_run: DryRun = False,
    detach: Detach = False,
    no_wait: NoWait = False,
    wait_timeout: Timeout = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Retrieve studies from a source, deliver them, and prove it UID by UID.

    Given again after an interruption, the same command carries on where it stopped.
    """
    from gateway.cli.output.following import PullProgress, follow
    from gateway.control.wire import PullCommand

    listed = listed_in(list_file, column, kind)
    listed.tell()
    command = PullCommand(
        source=source,
        query=keys_of(keys or ()),
        skip_existing=skip_existing,
        destinations=tuple(to or ()),
        priority=priority_of(priority),
        dry_run=dry_run,
        detach=detach,
        wait=not no_wait,
        wait_s=wait_timeout,
        **listed.named(study, accession, patient),
    )
    with reach(path, works=not dry_run, detach=detach) as (client, _):
        summary = follow(client, "/pull", command, PullProgress, quiet=as_json)
    if as_json:
        render.print_json({**summary, **listed.document()})
    elif summary["detached"]:
        render.say(f"pull {summary['job_id']} goes on in the gateway (gateway jobs show {summary['job_id']}, gateway status)")
    elif dry_run:
        _print_found(summary)
    else:
        show_pulled(summary, waited=not no_wait)
    done = not summary["not_found"] if dry_run else summary["detached"] or summary["complete" if no_wait else "done"]
    if not (listed.whole and done):
        raise typer.Exit(1)


def show_pulled(summary: Document, *, waited: bool) -> None:
    """Print what became of each study of a pull, and of all of it."""
    print_studies(summary)
    render.say(conclusion(summary, waited=waited))


def print_studies(summary: Document) -> None:
    """Print what became of each study of a summary: first what is not whole or not delivered and why, then the others."""
    if summary["error"]:
        render.say(f"gateway: {summary['error']}", err=True)
    bad = [study for study in summary["studies"] if not _is_through(study)]
    _print_table(bad, summary["studies"])
    for study in bad:
        _print_uids(f"missing of {study['study_instance_uid'] or study['asked']}", _missing(study))
    _print_uids("not delivered", [_undelivered(item) for item in summary["undelivered"]])
    if summary["unrouted"]:
        render.say(f"{render.plural(summary['unrouted'], 'instance')} matched no route and stayed here: see [[routes]]")
    _print_table([study for study in summary["studies"] if study not in bad], summary["studies"])


def _missing(study: Document) -> list[str]:
    """Return the SOP Instance UIDs that are missing of a study, with the reason where one came and is not as it should be."""
    unfit = study.get("unfit", {})
    uids = (*study["missing"], *(uid for uid in unfit if uid not in study["missing"]))
    return [f"{uid}: it came {unfit[uid]}" if uid in unfit else uid for uid in uids]


def _is_through(study: Document) -> bool:
    """Tell whether a study is whole, and verified wherever it goes."""
    states = {state for of in study["destinations"].values() for state in of["states"]}
    return study["kind"] == VerdictKind.COMPLETE and states <= {"verified"}


def _print_table(some: Sequence[Document], every: Sequence[Document]) -> None:
    if some:
        destinations = list(dict.fromkeys(name for study in every for name in study["destinations"]))
        columns = ("study", "asked for", "expected", "received", *destinations, "verdict", "note")
        rows = [_row(study, destinations) for study in some]
        render.show(render.Table(columns, rows, apart=("note", "study", "asked for", *destinations)))


def _print_found(summary: Document) -> None:
    rows = [
        (one["study_instance_uid"], one["date"], one["modalities"], "?" if one["instances"] is None else str(one["instances"]))
        for one in summary["studies"]
    ]
    _print_uids("the source does not list", summary["not_listed"])
    if rows:
        render.show(render.Table(("study", "date", "modalities", "instances"), rows, apart=("study",)))
    to = ", ".join(summary["to"]) or "nowhere: no route leads anywhere from this source"
    render.say(f"{render.plural(len(rows), 'study', 'studies')} would be retrieved, to {to} (--dry-run)")


def conclusion(summary: Document, *, waited: bool) -> str:
    """Return the last line: how many studies ended how, and whether what came is at its destinations. Pure."""
    kinds = [study["kind"] for study in summary["studies"]]
    counts = {str(kind): kinds.count(kind) for kind in VerdictKind if kind in kinds}
    text = f"{render.plural(len(kinds), 'study', 'studies')}: {render.states(counts)}" if kinds else "no study"
    if not any(study["destinations"] for study in summary["studies"]):
        return f"{text}; nothing to deliver"
    if not waited:
        return f"{text}; deliveries go on (gateway status)"
    if not summary["delivered"]:
        return f"{text}; NOT everything is delivered"
    return f"{text}; " + ("everything delivered and verified" if summary["done"] else "what came is delivered and verified")


def _row(study: Document, destinations: Sequence[str]) -> tuple[str, ...]:
    skipped = f" ({study['skipped']} there already)" if study["skipped"] else ""
    basis = "" if study["basis"] == "uids" else "judged by counts; "
    return (
        study["study_instance_uid"] or "-",
        "" if study["asked"].endswith(study["study_instance_uid"] or "-") else study["asked"],
        "?" if study["expected"] is None else str(study["expected"]),
        f"{study['received']}{skipped}",
        *(at(study["destinations"].get(name)) for name in destinations),
        study["kind"],
        basis + study["note"],
    )


def at(of: Document | None) -> str:
    """Return what stands at one destination: how many of how many are verified and by what, and what the others are."""
    if of is None:
        return "-"
    verified = of["states"].get("verified", 0)
    everything = sum(of["states"].values())
    counted = len(of["proofs"]) > 1
    proofs = ", ".join(f"{count} {proof}" if counted else proof for proof, count in of["proofs"].items())
    proofs = f" ({proofs})" if proofs else ""
    others = {state: count for state, count in of["states"].items() if state != "verified"}
    return f"{verified}/{everything} verified{proofs}" + (f", {render.states(others)}" if others else "")


def _undelivered(item: Document) -> str:
    status = f" [{item['status']:04X}]" if item["status"] else ""
    return f"{item['sop_instance_uid']} at {item['destination']}: {item['state']}{status} {item['reason'] or ''}".rstrip()


def _print_uids(title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    render.say(f"{title} ({len(lines)}):")
    for text in lines[:SHOWN_UIDS]:
        render.say(f"  {render.printable(text)}")
    if len(lines) > SHOWN_UIDS:
        render.say(f"  … and {len(lines) - SHOWN_UIDS} more (--json has them all)")
