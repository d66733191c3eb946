"""``gateway jobs``: migrations, and what else goes on without its command, and what a person may do with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gateway.cli.commands.migrate import ReportOption, check_report, conclude
from gateway.cli.commands.pull import show_pulled
from gateway.cli.commands.send import show_sent
from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render
from gateway.cli.output.progress import words
from gateway.core.errors import UsageError

if TYPE_CHECKING:
    from gateway.control.wire import Document

jobs = typer.Typer(
    help="Migrations and detached commands: how far, pause, resume, reports.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

JobId = Annotated[int, typer.Argument(help="The number of the job (gateway jobs list).", metavar="ID")]


@jobs.command("list")
def list_(path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List migrations and detached commands, the newest first."""
    with reach(path) as (client, _):
        found = client.get("/jobs")
    if as_json:
        render.print_json(found)
        return
    rows = [
        (str(job["job_id"]), job["state"], _what(job), _how_far(job), render.moment(job["changed_at"])) for job in found["jobs"]
    ]
    if rows:
        render.show(render.Table(("id", "state", "what", "how far", "changed"), rows, apart=("what", "how far")))
    else:
        render.say("no job")
    for job in found["jobs"]:
        if job.get("note"):
            render.say(f"{job['kind']} {job['job_id']}: {job['note']}")


@jobs.command()
def show(job_id: JobId, path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show how far a migration or a detached pull or send is."""
    from gateway.control.wire import JobQuery

    with reach(path) as (client, _):
        _print(client.post("/jobs/show", JobQuery(id=job_id)), as_json)


@jobs.command()
def report(job_id: JobId, report: ReportOption = None, path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Report what became of each study or file of a job.

    The exit code is 1 where not all of it is done.
    """
    from gateway.control.wire import JobQuery

    check_report(report)
    with reach(path) as (client, _):
        query = JobQuery(id=job_id)
        summary = {**client.post("/jobs/show", query), **client.post("/jobs/report", query)}
    if summary["kind"] == "migrate":
        conclude(summary, report, as_json=as_json)
        return
    if report is not None:
        raise UsageError("--report is for migrations; --json has all of this job")
    if as_json:
        render.print_json(summary)
    elif summary["kind"] == "send":
        show_sent(summary, waited=True)
    else:
        show_pulled(summary, waited=True)
    if not summary["done"]:
        raise typer.Exit(1)


@jobs.command()
def pause(job_id: JobId, path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Stop a job between instances; it goes on when it is resumed."""
    _act(path, job_id, "pause", as_json)


@jobs.command()
def resume(
    job: Annotated[str, typer.Argument(help='The number of a job, or "sync NAME" or "compare NAME" as status shows it.')],
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Carry a job on in the running gateway.

    That is also how to try again what did not come whole (retry), and to begin what the gateway does not begin again by itself.
    """
    from gateway.control.wire import StartAction

    if job.isdecimal():
        _act(path, int(job), "resume", as_json)
        return
    with reach(path) as (client, _):
        begun = client.post("/jobs/begin", StartAction(name=job))
    if as_json:
        render.print_json(begun)
    else:
        render.say(f"{job}: begun")


@jobs.command()
def retry(job_id: JobId, path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Try again what did not come whole or was not listed.

    It runs in the running gateway.
    """
    _act(path, job_id, "resume", as_json)


def _act(path: Path, job_id: int, action: Literal["pause", "resume"], as_json: bool) -> None:
    from gateway.control.wire import JobAction

    with reach(path) as (client, _):
        _print(client.post("/jobs/act", JobAction(id=job_id, action=action)), as_json)


def _print(job: Document, as_json: bool) -> None:
    if as_json:
        render.print_json(job)
        return
    if job["kind"] != "migrate":
        render.say(f"{job['kind']} {job['job_id']}: {job['state']}: {_what(job)}")
        render.say(f"what became of it, once it has ended: gateway jobs report {job['job_id']}")
        return
    render.say(f"migration {job['job_id']}: {job['state']}: {_what(job)}")
    render.say(words(job))
    if job.get("note"):
        render.say(job["note"])
    for what, why in job.get("problems", {}).items():
        render.say(f"  {what}: {why}")


def _how_far(job: Document) -> str:
    return words(job) if job["kind"] == "migrate" else "-"


def _what(job: Document) -> str:
    asked = job["request"]
    if job["kind"] != "migrate":
        return _what_was_left(job["kind"], asked)
    entries = asked["study_uids"] + asked["accession_numbers"] + asked["patient_ids"]
    what = f"{asked['first']} to {asked['last']}" if asked["first"] else f"a list of {entries}"
    to = ", ".join(asked["destinations"]) or "where the routes lead"
    return f"{asked['source']}, {what}, to {to}"


def _what_was_left(kind: str, asked: Document) -> str:
    to = ", ".join(asked["destinations"]) or "where the routes lead"
    if kind == "send":
        return f"{render.plural(asked['paths'], 'file or folder', 'files or folders')}, to {to}"
    entries = asked["study_uids"] + asked["accession_numbers"] + asked["patient_ids"]
    return f"{asked['source']}, {f'a list of {entries}' if entries else 'a query'}, to {to}"
