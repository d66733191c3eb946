"""Checks of the tables of a configuration against each other. Pure.

The checks read raw TOML, so that they report together with what is wrong inside a table; whatever has the wrong type is
left to validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.codec.available import capabilities
from gateway.config.environment import suggestion
from gateway.config.problems import Finding, shown, step_along
from gateway.config.routing_keys import OPERATION_KEYS, unknown_keywords
from gateway.config.schema import KeyPath, Raw, values
from gateway.config.settings import MIN_RESERVE_BYTES, GatewayTable, ListenTable, ListenTlsTable, ScheduleTable, SourceTable
from gateway.core.domain import Mode
from gateway.core.schedule import DAYS_EXPECTED, HOURS_EXPECTED, parse_days, parse_hours
from gateway.core.urls import sqlite_file
from gateway.dicom.syntaxes import HTJ2K_LOSSLESS

_HERE = ("127.0.0.1", "localhost", "::1")


def check(raw: Raw) -> Iterator[Finding]:
    """Yield what is certainly wrong between the tables of `raw`."""
    yield from _routes(raw)
    yield from _listeners(raw)
    yield from _reserve(raw)
    yield from _ledger(raw)
    yield from _sources(raw)
    yield from _destinations(raw)
    yield from _schedules(raw)
    yield from _hours_named(raw)
    yield from _askable(raw)
    yield from _syncs(raw)
    yield from _compares(raw)


def _table(raw: object, *path: str | int) -> dict[str, Any]:
    found = step_along(raw, path)
    return found if isinstance(found, dict) else {}


def _routes(raw: Raw) -> Iterator[Finding]:
    routes, destinations = raw.get("routes"), _table(raw, "destinations")
    for index, route in enumerate(routes if isinstance(routes, list) else []):
        for keyword in unknown_keywords(_table(route, "when")):
            yield Finding(("routes", index, "when", keyword), "nothing that instances are routed by", _meant(keyword))
        yield from _encodable(_table(route), ("routes", index))
        yield from _unknown(("routes", index, "to"), "destination", step_along(route, ["to"]), destinations)


def _meant(keyword: str) -> str:
    from pydicom.datadict import keyword_dict

    known = [*sorted(OPERATION_KEYS), *sorted(word for word in keyword_dict if not unknown_keywords({word: ""}))]
    return suggestion(keyword, known, f"a DICOM keyword such as Modality, or one of {', '.join(sorted(OPERATION_KEYS))}")


def _own_ports(raw: Raw) -> dict[int, KeyPath]:
    """Return the ports that the gateway listens on, with the keys that say so."""
    listen = _table(raw, "listen")
    ports: dict[int, KeyPath] = {}
    if listen.get("plain", True) is True:
        ports[_number(listen.get("port", ListenTable.model_fields["port"].default))] = ("listen", "port")
    if "tls" in listen:
        tls_port = _number(_table(listen, "tls").get("port", ListenTlsTable.model_fields["port"].default))
        ports.setdefault(tls_port, ("listen", "tls", "port"))
    ports.pop(0, None)
    return ports


def _number(value: object) -> int:
    """Return a port as the file or the environment writes it; 0 where it is none, which validation reports."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


def _encodable(table: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    if table.get("transfer_syntax") == Mode.HTJ2K_LOSSLESS and HTJ2K_LOSSLESS not in capabilities().encodable:
        expected = "another one, or the package imagecodecs, which encodes it, installed"
        yield Finding((*path, "transfer_syntax"), f'"{Mode.HTJ2K_LOSSLESS}", which cannot be encoded here', expected)


def _listeners(raw: Raw) -> Iterator[Finding]:
    listen = _table(raw, "listen")
    if "tls" in listen and listen.get("plain", True) is True:
        port = _number(_table(listen, "tls").get("port", ListenTlsTable.model_fields["port"].default))
        if port and _own_ports(raw).get(port) == ("listen", "port"):
            yield Finding(("listen", "tls", "port"), f"{port}, the port of [listen]", "a port of its own, such as 2762")


def _reserve(raw: Raw) -> Iterator[Finding]:
    """The disk is emptied by recording what was delivered: a reserve that does not hold that record would never be left again."""
    reserve = _table(raw, "spool").get("reserve_bytes", MIN_RESERVE_BYTES)
    if reserve == 0 or 0 < _number(reserve) < MIN_RESERVE_BYTES:
        expected = (
            f"{MIN_RESERVE_BYTES} (16 MiB) or more: with less, a full disk leaves the ledger no room to record what may be released"
        )
        yield Finding(("spool", "reserve_bytes"), f"{reserve}", expected)


def _ledger(raw: Raw) -> Iterator[Finding]:
    """The URL itself is not shown: it may hold a password."""
    url = _table(raw, "ledger").get("url")
    if isinstance(url, str):
        try:
            sqlite_file(url)
        except ValueError as error:
            scheme, colon, _ = url.partition(":")
            yield Finding(("ledger", "url"), f"a URL of {scheme[:20]!r}" if colon else "no URL", str(error))


def _sources(raw: Raw) -> Iterator[Finding]:
    seen: dict[tuple[object, ...], str] = {}
    for name, source in _table(raw, "sources").items():
        identity = tuple(_table(source).get(key) for key in ("ae_title", "host", "port", "certificate_name"))
        if None not in identity[:2]:
            other = seen.setdefault(identity, name)
            if other != name:
                yield Finding(("sources", name), f'the AE title, host and port of source "{other}"', "one source for one peer")
        yield from _room_for_moves(_table(source), ("sources", name))


def _room_for_moves(source: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    """Each C-MOVE's instances come on an association of their own."""
    associations, moves = (_number(source.get(key)) for key in ("associations", "moves"))
    moves = moves or SourceTable.model_fields["moves"].default
    if 0 < associations < moves:
        yield Finding((*path, "associations"), f"{associations}", f"as many as `moves` or more: {moves}")


def _destinations(raw: Raw) -> Iterator[Finding]:
    ports = _own_ports(raw)
    own_host = _table(raw, "listen").get("host")
    own_title = _table(raw, "gateway").get("ae_title", GatewayTable.model_fields["ae_title"].default)
    for name, destination in _table(raw, "destinations").items():
        table = _table(destination)
        here = table.get("host") in _HERE or (own_host is not None and table.get("host") == own_host)
        if here and table.get("ae_title") == own_title and _number(table.get("port")) in ports:
            yield Finding(("destinations", name, "port"), "the gateway itself", "another peer: instances would go round for ever")
        yield from _encodable(table, ("destinations", name))


def _schedules(raw: Raw) -> Iterator[Finding]:
    for name, schedule in _table(raw, "schedule").items():
        table, path = _table(schedule), ("schedule", name)
        for key in table.keys() - ScheduleTable.model_fields.keys():
            yield from _ranges_of_days(key, table[key], (*path, key))
        if isinstance(schedule, dict) and not table.keys() - {"time_zone", "weekends"} and table.get("weekends", False) is False:
            yield Finding(path, "no hours", f'a day with {HOURS_EXPECTED}, "monday-friday" with such hours, `night`, or `weekends`')


def _ranges_of_days(key: str, hours: object, path: KeyPath) -> Iterator[Finding]:
    try:
        parse_days(key)
    except ValueError:
        otherwise = f"{DAYS_EXPECTED}, or one of {', '.join(ScheduleTable.model_fields)}"
        yield Finding(path, "unknown key", suggestion(key, ScheduleTable.model_fields, otherwise))
        return
    try:
        parse_hours(hours if isinstance(hours, str) else "")
    except ValueError as error:
        yield Finding(path, shown(hours), str(error))


def _hours_named(raw: Raw) -> Iterator[Finding]:
    """Find each `when` that names no schedule, in whatever table it stands; that of a route is a table itself."""
    schedules = _table(raw, "schedule")
    for place in values(raw):
        if place.path[-1] == "when":
            yield from _unknown(place.path, "schedule", [place.value], schedules, "a [schedule.NAME]")


def _askable(raw: Raw) -> Iterator[Finding]:
    """Yield who is to be asked over an address that is not given."""
    for kind in ("sources", "destinations"):
        for name, peer in _table(raw, kind).items():
            ask = _table(peer).get("ask")
            if ask in {"rest", "dicomweb"} and ask not in _table(peer):
                yield Finding((kind, name, "ask"), f'"{ask}", and no {ask} to ask', f'{ask} = {{ url = "https://..." }} beside it')


def _syncs(raw: Raw) -> Iterator[Finding]:
    syncs, sources, destinations = raw.get("sync"), _table(raw, "sources"), _table(raw, "destinations")
    names: set[object] = set()
    for index, table in enumerate(_table(sync) for sync in (syncs if isinstance(syncs, list) else [])):
        name, source, to = table.get("name"), table.get("source"), table.get("to")
        if isinstance(name, str) and name in names:
            yield Finding(("sync", index, "name"), f'the name of another sync, "{name}"', "a name of its own")
        names.add(name)
        yield from _unknown(("sync", index, "source"), "source", [source], sources)
        if isinstance(source, str) and source in sources and _table(sources, source).get("port") is None:
            yield Finding(("sync", index, "source"), f'"{source}", which has no port', f"a port in [sources.{source}]: it is asked")
        yield from _unknown(("sync", index, "to"), "destination", to, destinations)
        if not to and not raw.get("routes"):
            yield Finding(("sync", index, "to"), "none, and there is no route", "a destination, or a route that leads to one")
        yield from _query(table, ("sync", index))


def _compares(raw: Raw) -> Iterator[Finding]:
    compares, places = raw.get("compare"), {**_table(raw, "sources"), **_table(raw, "destinations")}
    names: set[object] = set()
    for index, table in enumerate(_table(one) for one in (compares if isinstance(compares, list) else [])):
        name = table.get("name")
        if isinstance(name, str) and name in names:
            yield Finding(("compare", index, "name"), f'the name of another comparison, "{name}"', "a name of its own")
        names.add(name)
        for side in ("a", "b"):
            place = table.get(side)
            if not str(place).startswith("/"):
                what = "a source, a destination or the path of a folder"
                yield from _unknown(("compare", index, side), "place", [place], places, what)
        yield from _query(table, ("compare", index))


def _query(table: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    for keyword in _table(table, "query"):
        from pydicom.datadict import keyword_dict

        if keyword not in keyword_dict:
            expected = suggestion(keyword, sorted(keyword_dict), "one such as Modality")
            yield Finding((*path, "query", keyword), "no DICOM keyword", expected)


def _unknown(path: KeyPath, kind: str, names: object, known: dict[str, Any], what: str = "") -> Iterator[Finding]:
    """Find each of the list `names` that `known` has not; what is no list, or no name, is the schema's affair."""
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name not in known:
            expected = suggestion(name, known) if known else f"{what or f'a {kind}'}, and there is none"
            yield Finding(path, f'unknown {kind} "{name}"', expected)
