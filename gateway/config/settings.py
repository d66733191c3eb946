"""The tables of config.toml: frozen models, one class a table. Pure; reading and reporting is `gateway.config`.

Units are in the names (``_s`` seconds, ``_bytes`` bytes). Names of sources and destinations are theirs in the file's tables.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.config.abilities import Abilities, Way
from gateway.config.value_types import (
    AETitle,
    Days,
    Duration,
    Host,
    Hours,
    MatchingKeys,
    Network,
    NodeName,
    PemFile,
    Port,
    Rate,
    Seconds,
    Share,
    Size,
    TimeOfDay,
    TimeZone,
    TransferSyntax,
    Url,
    Weekdays,
)
from gateway.core.domain import DEFAULT_NODE, Mode
from gateway.core.schedule import DAYS, Schedule, parse_days, parse_hours, parse_zone
from gateway.core.urls import sqlite_url


class Table(BaseModel):
    """A TOML table: unknown keys are errors, values never change after loading."""

    # Built with the tables that it stands in, or once it is used alone: each by itself takes a command a millisecond.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class GatewayTable(Table):
    """``[gateway]``: who we are and where we keep things."""

    ae_title: AETitle = "GATEWAY"
    state: Path = Path("state")


class NodeTable(Table):
    """``[node]``: under which name this gateway owns what it works on (`gateway.ledger.database.ownership`)."""

    name: NodeName = DEFAULT_NODE


class LedgerTable(Table):
    """``[ledger]``: the database; without `url` a SQLite file in the state folder (`gateway.config.checks` looks at the URL)."""

    url: str | None = None


LEDGER_NAME = "ledger.db"
"""The ledger in the state folder."""


class TlsTable(Table):
    """Mutual TLS as a requestor: `ca` checks the peer, `certificate` and `key` are shown to it (PS3.15 §B.12)."""

    ca: PemFile
    certificate: PemFile
    key: PemFile
    key_password: SecretStr | None = None
    # The name that must stand in the peer's certificate; the host of the peer where it is left out.
    server_name: str | None = None


class ListenTlsTable(Table):
    """``[listen.tls]``: a second listener; client certificates are required and checked against `ca`."""

    port: Annotated[int, Field(ge=0, le=65535)] = 2762
    certificate: PemFile
    key: PemFile
    key_password: SecretStr | None = None
    ca: PemFile


class ListenTable(Table):
    """``[listen]``: the Storage SCP. Port 0 takes a free one; `plain = false` listens on TLS only."""

    host: Host = "0.0.0.0"  # noqa: S104 - a PACS has to reach it; the shipped config.toml listens on loopback
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    plain: bool = True
    accept: Literal["known", "any"] = "known"
    max_associations: Annotated[int, Field(ge=1, le=4096)] = 64
    # The longest times that an association may be idle, and that a whole PDU and the handshake with A-ASSOCIATE-RQ may take.
    idle_timeout_s: Seconds = 300.0
    pdu_timeout_s: Seconds = 60.0
    handshake_timeout_s: Seconds = 15.0
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    # The transfer syntaxes accepted first of those that a source offers, best first; the lossless ones come before all others.
    prefer: tuple[TransferSyntax, ...] = ("j2k-lossless",)
    tls: ListenTlsTable | None = None


MIN_RESERVE_BYTES = 16 * 1024 * 1024
"""The room that the ledger's write-ahead log may need before a checkpoint (`ledger.database.writer.WAL_CHECKPOINT_PAGES`)."""


class SpoolTable(Table):
    """``[spool]``: A700 is answered when less than `reserve_bytes` would stay free on its file system."""

    reserve_bytes: Annotated[int, Field(ge=0)] = 1_073_741_824
    # The time that the ledger remembers instances whose deliveries are all settled.
    history_days: Annotated[int, Field(ge=1, le=3650)] = 30


class RestTable(Table):
    """An HTTP address of a peer: an Orthanc's REST API (`rest`), or a DICOMweb service (`dicomweb`)."""

    url: Url
    username: str | None = None
    password: SecretStr | None = None
    # With https: what its certificate is checked against, in place of the system's CAs.
    ca: PemFile | None = None


def _best(table: SourceTable | DicomDestination) -> Way:
    return "rest" if table.rest is not None else "dicomweb" if table.dicomweb is not None else "find"


class SourceTable(Table):
    """``[sources.NAME]``: who may send, and whom we may ask (C-FIND, C-MOVE, C-GET)."""

    ae_title: AETitle
    host: Host
    port: Port | None = None
    # Further addresses or networks (CIDR) it may call from, beside those that `host` resolves to.
    addresses: tuple[Network, ...] = ()
    # With TLS: a name that must stand in its client certificate (subject alternative name or common name).
    certificate_name: str | None = None
    moves: Annotated[int, Field(ge=1, le=64)] = 1
    # The most matches that it gives to a C-FIND; without a number a migration finds out.
    max_results: Annotated[int, Field(ge=1)] | None = None
    # The most associations that it may have with us at a time; without a number as many as `[listen]` lets it.
    associations: Annotated[int, Field(ge=1, le=4096)] | None = None
    # How fast it may send, all its associations together.
    max_rate: Rate | None = None
    # By C-MOVE, by C-GET where it cannot reach us, or whichever brings something.
    retrieve: Literal["move", "get", "auto"] = "move"
    # No instance and no response for this long ends a C-MOVE or C-GET.
    progress_timeout_s: Seconds = 120.0
    # Arrivals must have been quiet this long after the final C-MOVE response before the sets are compared.
    settle_s: Seconds = 2.0
    response_timeout_s: Seconds = 60.0
    # All responses to one C-FIND together.
    query_timeout_s: Seconds = 600.0
    # In place of `[listen] prefer`, for what this source sends.
    prefer: tuple[TransferSyntax, ...] = ()
    tls: TlsTable | None = None
    rest: RestTable | None = None
    dicomweb: RestTable | None = None
    # How it is asked what it holds; left out: `rest`, else `dicomweb`, where there is such a table, else by C-FIND.
    ask: Literal["find", "dicomweb", "rest"] | None = None

    @property
    def calling_ae_title(self) -> None:
        """The gateway's own."""

    @property
    def address(self) -> str:
        """Its place, for people."""
        return f"{self.ae_title}@{self.host}:{self.port or '-'}"

    @property
    def can(self) -> Abilities:
        """Its abilities."""
        return Abilities(
            best=_best(self),
            ask=self.ask,
            send=True,
            call=self,
            find=None if self.port is None else self,
            rest=self.rest,
            dicomweb=self.dicomweb,
            tls=self.tls,
        )


class RetryTable(Table):
    """The retries of deliveries: exponential with jitter from `first_s` to `max_s`; `attempts` before a hold."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = 8
    first_s: Seconds = 5.0
    max_s: Seconds = 900.0


class DicomDestination(Table):
    """``[destinations.NAME]`` with ``kind = "dicom"``."""

    kind: Literal["dicom"]
    ae_title: AETitle
    host: Host
    port: Port
    calling_ae_title: AETitle | None = None
    associations: Annotated[int, Field(ge=1, le=64)] = 2
    # The highest rate of sending to it, all associations together, and the schedule of its hours.
    max_rate: Rate | None = None
    when: str | None = None
    # The form of instances where it accepts several transfer syntaxes; those that it does not accept as they are, are transcoded.
    transfer_syntax: Mode = Mode.AS_IS
    # Where it does not accept them as they are: pixels that lost something when they were compressed may be decompressed.
    allow_decompressed_lossy: bool = False
    verify: Literal["status", "exists", "commitment", "digest"] = "exists"
    # A study is asked for once nothing was delivered to it at this destination for this long.
    quiet_s: Seconds = 3.0
    commitment_timeout_s: Seconds = 300.0
    response_timeout_s: Seconds = 60.0
    # All responses to one C-FIND together.
    query_timeout_s: Seconds = 600.0
    # Associations are closed after this long without work: before Orthanc's 30 s.
    idle_close_s: Seconds = 5.0
    retry: RetryTable = RetryTable()
    tls: TlsTable | None = None
    rest: RestTable | None = None
    dicomweb: RestTable | None = None
    # As for a source; `ledger` does not ask: it is taken to hold what was verified there.
    ask: Literal["find", "dicomweb", "rest", "ledger"] | None = None
    # A migration waits while its Orthanc, asked by `rest`, holds more than this on its disk.
    max_stored: Size | None = None

    @property
    def max_results(self) -> None:
        """Found out, not configured."""

    @property
    def address(self) -> str:
        """Its place, for people."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def can(self) -> Abilities:
        """Its abilities."""
        return Abilities(
            best=_best(self),
            ask=self.ask,
            verify=self.verify,
            store=self.associations,
            call=self,
            find=self,
            commit=self if self.verify == "commitment" else None,
            confirm=self if self.verify != "status" else None,
            rest=self.rest,
            dicomweb=self.dicomweb,
            tls=self.tls,
            max_stored_bytes=self.max_stored,
        )


class FolderDestination(Table):
    """``[destinations.NAME]`` with ``kind = "folder"``: Part 10 files, one folder a study and series."""

    kind: Literal["folder"]
    path: Path
    associations: Annotated[int, Field(ge=1, le=64)] = 1
    max_rate: Rate | None = None
    when: str | None = None
    transfer_syntax: Mode = Mode.AS_IS
    retry: RetryTable = RetryTable()
    # A migration waits while more than this share of its file system is used.
    max_used: Share | None = None

    @property
    def address(self) -> str:
        """Its place, for people."""
        return str(self.path)

    @property
    def can(self) -> Abilities:
        """Its abilities."""
        return Abilities(best="folder", verify="read back", store=self.associations, folder=self.path, max_used=self.max_used)


Entity = SourceTable | DicomDestination
"""An application entity: how it is called, and how it calls us; without a port it only calls."""

DestinationTable = Annotated[DicomDestination | FolderDestination, Field(discriminator="kind")]


class RouteTable(Table):
    """``[[routes]]``: every route whose `when` matches applies. A value is a string or a list of strings, with ``*`` and ``?``."""

    name: str
    when: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    # For the instances of this route, in place of what the destinations say.
    transfer_syntax: Mode | None = None


class ScheduleTable(Table):
    """``[schedule.NAME]``: hours of the week in which something may run, open whenever one of its keys says so.

    Beside these keys there may be ranges of days (``"monday-friday" = "19-6"``), which `gateway.config` checks.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    time_zone: TimeZone
    monday: Hours | None = None
    tuesday: Hours | None = None
    wednesday: Hours | None = None
    thursday: Hours | None = None
    friday: Hours | None = None
    saturday: Hours | None = None
    sunday: Hours | None = None
    # Of every day.
    night: Hours | None = None
    # The whole of Saturday and Sunday.
    weekends: bool = False

    def schedule(self) -> Schedule:
        """Return the hours, able to say when they are."""
        written = [(day, getattr(self, day)) for day in DAYS] + list((self.model_extra or {}).items())
        written += [("monday-sunday", self.night), ("saturday-sunday", "0-24" if self.weekends else None)]
        pairs = [(day, span) for days, hours in written if hours for day in parse_days(days) for span in parse_hours(hours)]
        return Schedule.weekly(parse_zone(self.time_zone), pairs)


class SyncTable(Table):
    """``[[sync]]``: what `source` has and the destinations `to` lack is fetched, again and again."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    source: str
    # Empty: where the routes may lead to from the source, and they decide.
    to: tuple[str, ...] = ()
    # The window; the last twelve hours where none of these is given.
    last: Duration | None = None
    days: tuple[Days, ...] = ()
    patients: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    query: MatchingKeys = Field(default_factory=dict)
    # The time zone of StudyDate and StudyTime; the machine's where it is left out.
    time_zone: TimeZone | None = None
    series: Literal["all", "smallest", "fewer_than"] = "all"
    fewer_than: Annotated[int, Field(ge=1)] | None = None
    modalities: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    # In place of two looks in a row that saw the series unchanged.
    stable_for: Duration | None = None
    interval_s: Seconds = 60.0
    compare_every: Duration = "6h"
    known: Literal["destination", "ledger"] = "destination"
    when: str | None = None
    priority: Literal["low", "normal", "high"] = "normal"

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.last is not None and self.days:
            raise ValueError("last or days, not both")
        if "StudyDate" in self.query and (self.last is not None or self.days):
            raise ValueError("StudyDate in query, or last or days, not both")
        if "PatientID" in self.query and self.patients:
            raise ValueError("PatientID in query or patients, not both")
        if (self.series == "fewer_than") != (self.fewer_than is not None):
            raise ValueError('fewer_than = N with series = "fewer_than", and only then')
        return self


class CompareTable(Table):
    """``[[compare]]``: two places are compared at a time of day, on some days of the week."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    a: str
    b: str
    at: TimeOfDay = "03:00"
    on: tuple[Weekdays, ...] = ("monday-sunday",)
    # The time zone of `at` and study dates; the machine's where it is left out.
    time_zone: TimeZone | None = None
    # The schedule within whose hours it runs: it waits for them, and is broken off at their end.
    when: str | None = None
    level: Literal["study", "series", "instance"] = "instance"
    # Studies of so many days, today included.
    last_days: Annotated[int, Field(ge=1, le=36_500)] = 2
    query: MatchingKeys = Field(default_factory=dict)
    content: bool = False
    repair: Literal["a-to-b", "b-to-a", "both"] | None = None
    ignore_missing_in: Literal["a", "b"] | None = None


class LogTable(Table):
    """``[log]``: ``auto`` writes text on a terminal and JSON otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class ServeTable(Table):
    """``[serve]``: how long running associations and deliveries may take to finish after SIGTERM."""

    drain_timeout_s: Seconds = 30.0


class Settings(Table):
    """A whole configuration. The consistency of its tables (a route's destinations …) is checked by `gateway.config`."""

    gateway: GatewayTable = GatewayTable()
    node: NodeTable = NodeTable()
    ledger: LedgerTable = LedgerTable()
    listen: ListenTable = ListenTable()
    spool: SpoolTable = SpoolTable()
    serve: ServeTable = ServeTable()
    log: LogTable = LogTable()
    sources: dict[str, SourceTable] = Field(default_factory=dict)
    destinations: dict[str, DestinationTable] = Field(default_factory=dict)
    routes: tuple[RouteTable, ...] = ()
    schedule: dict[str, ScheduleTable] = Field(default_factory=dict)

    sync: tuple[SyncTable, ...] = ()
    compare: tuple[CompareTable, ...] = ()

    def ledger_url(self) -> str:
        """Return the URL of the ledger."""
        return self.ledger.url or sqlite_url(self.gateway.state / LEDGER_NAME)

    def hours(self, when: str | None) -> Schedule | None:
        """Return the hours that a table's `when` names; None where it names none, which is always."""
        return None if when is None else self.schedule[when].schedule()

    def fingerprint(self) -> str:
        """Return what tells two configurations apart (16 hexadecimal digits); secrets and ``[log]`` do not count."""
        return hashlib.sha256(self.model_dump_json(exclude={"log"}).encode()).hexdigest()[:16]
