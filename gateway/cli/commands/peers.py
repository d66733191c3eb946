"""``gateway echo`` and ``gateway find``: asking peers whether they are there and what they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from gateway.cli.link import reach
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render
from gateway.core.dates import matching_value
from gateway.core.errors import UsageError

Level = Literal["study", "series", "image"]

_LEVELS: dict[Level, Literal["STUDY", "SERIES", "IMAGE"]] = {"study": "STUDY", "series": "SERIES", "image": "IMAGE"}


def echo(
    names: Annotated[list[str] | None, typer.Argument(help="Sources and destinations.", metavar="[NAME]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All sources and destinations.")] = False,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Ask sources and destinations with C-ECHO whether they are there, and how long the answer takes."""
    from gateway.control.wire import EchoCommand

    if bool(names) is everything:
        raise UsageError("name a source or destination, or say --all")
    with reach(path) as (client, _):
        results = client.post("/echo", EchoCommand(names=tuple(names or ())))["results"]
    if as_json:
        render.print_json(results)
    else:
        columns = ("name", "kind", "address", "TLS", "answer", "connect ms", "round trip ms", "why")
        render.show(render.Table(columns, [_result(result) for result in results], apart=("why", "address")))
        tell_advice(results)
    if any(result["ok"] is False for result in results):
        raise typer.Exit(1)


def _result(result: Mapping[str, Any]) -> tuple[str, ...]:
    answer = {True: "ok", False: "FAILED", None: "-"}[result["ok"]]
    times = tuple(f"{result[key]:.1f}" if key in result else "-" for key in ("associate_ms", "echo_ms"))
    return (result["name"], result["kind"], result["address"], "yes" if result["tls"] else "no", answer, *times, result["detail"])


def accept_folder(
    destination: Annotated[str, typer.Argument(help="The name of a destination of kind folder.")],
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take what lies at a folder destination's path for its folder, although another one was there before, and deliver into it.

    Where nothing lies there, the folder is made at the next delivery.
    """
    from gateway.control.wire import FolderCommand

    with reach(path) as (client, _):
        document = client.post("/folder/accept", FolderCommand(destination=destination))
    if as_json:
        render.print_json(document)
    else:
        render.say(f"{document['path']} is the folder of {document['destination']} from now on")


def tell_advice(results: Sequence[Mapping[str, Any]]) -> None:
    """Print what the settings of peers of known kinds should be, as C-ECHO found them."""
    for result in results:
        if result.get("advice"):
            table = f"[{result['kind']}s.{result['name']}]"
            render.say(f"{table} {result['address']} calls itself {render.printable(result['implementation'])} (docs/peers.md):")
            for one in result["advice"]:
                render.say(f"  - {one}")


def keys_of(pairs: Sequence[str], *, bare: bool = False) -> dict[str, str]:
    """Return ``KEYWORD=VALUE`` arguments as a mapping; `bare` takes a ``KEYWORD`` alone too, as one without a value.

    Dates and times may be written as people write them. Raises UsageError without repeating a value: it may name a patient.
    """
    keys: dict[str, str] = {}
    for position, pair in enumerate(pairs, 1):
        keyword, equals, value = pair.partition("=")
        if not (equals or bare) or not (keyword.isascii() and keyword.isalnum()):
            raise UsageError(f"key {position}: expected KEYWORD=VALUE, like StudyDate=20240101-20240131")
        try:
            keys[keyword] = matching_value(keyword, value)
        except ValueError as error:
            raise UsageError(f"key {position}, {keyword}: expected {error}") from error
    return keys


_SHOWN: dict[Level, dict[str, str]] = {
    "study": {
        "StudyDate": "StudyDate",
        "ModalitiesInStudy": "Modalities",
        "AccessionNumber": "AccessionNumber",
        "PatientID": "PatientID",
        "PatientName": "PatientName",
        "StudyDescription": "StudyDescription",
        "NumberOfStudyRelatedInstances": "Instances",
        "StudyInstanceUID": "StudyInstanceUID",
    },
    "series": {
        "Modality": "Modality",
        "SeriesNumber": "SeriesNumber",
        "SeriesDescription": "SeriesDescription",
        "NumberOfSeriesRelatedInstances": "Instances",
        "SeriesInstanceUID": "SeriesInstanceUID",
        "StudyInstanceUID": "StudyInstanceUID",
    },
    "image": {
        "InstanceNumber": "InstanceNumber",
        "SOPInstanceUID": "SOPInstanceUID",
        "SeriesInstanceUID": "SeriesInstanceUID",
        "StudyInstanceUID": "StudyInstanceUID",
    },
}
"""The attributes of a match that a person is shown, and their headings; those that were asked for by name come on top."""

_APART = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDescription", "SeriesDescription", "PatientName")


def matches_table(level: Level, keys: Mapping[str, str], matches: Sequence[Mapping[str, str]]) -> render.Table:
    """Return matches as a person wants them; pure. Columns that are empty, or repeat a UID that was asked for, are left out."""
    headings = {**_SHOWN[level], **{keyword: keyword for keyword in keys if keyword not in _SHOWN[level]}}
    given = {keyword: {match.get(keyword, "") for match in matches} for keyword in headings}
    repeated = {keyword for keyword, value in keys.items() if keyword.endswith("UID") and given[keyword] == {value}}
    columns = [keyword for keyword, values in given.items() if values != {""} and keyword not in repeated]
    rows = [[match.get(keyword, "") for keyword in columns] for match in matches]
    return render.Table([headings[keyword] for keyword in columns], rows, apart=_APART)


def find(
    source: Annotated[str, typer.Argument(help="The name of a source in the configuration.")],
    keys: Annotated[
        list[str] | None, typer.Argument(help="Matching keys, like StudyDate=20240101-", metavar="[KEY=VALUE]...")
    ] = None,
    level: Annotated[Level, typer.Option(help="The level of the matches.")] = "study",
    limit: Annotated[int | None, typer.Option(min=1, help="The most matches to show.")] = None,
    path: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Ask a source with C-FIND what it has. Keys without a value are asked for and not matched."""
    from gateway.control.wire import FindCommand

    wanted = keys_of(keys or (), bare=True)
    command = FindCommand(source=source, level=_LEVELS[level], keys=wanted, limit=limit)
    with reach(path) as (client, _):
        document = client.post("/find", command)
    matches = document["matches"]
    if as_json:
        render.print_json(document)
        return
    if matches:
        render.show(matches_table(level, wanted, matches))
    render.say(render.plural(len(matches), "match", "matches"))
