"""The document that `gateway status` shows: who we are, peers, queues, verdicts, spool and certificates.

Each part is a pure function of what was read. Ages and durations are seconds, sizes bytes, times UTC seconds since the epoch.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio

from gateway import __version__
from gateway.app.engine import Engine
from gateway.config.settings import DestinationTable, Settings
from gateway.control.wire import Document, encode
from gateway.core.domain import DeliveryState, Role
from gateway.core.errors import ConfigurationError
from gateway.core.metrics import REGISTRY
from gateway.ledger import Ledger
from gateway.ledger.deliveries import overview
from gateway.ledger.jobs import starts
from gateway.ledger.jobs.starts import Unended

if TYPE_CHECKING:
    from gateway.jobs.sync.service import Syncs
    from gateway.security.tls import Certificate


@dataclass(frozen=True)
class Counts:
    """The ledger's numbers, read in one snapshot."""

    depths: Sequence[overview.QueueDepth]
    settled: Mapping[str, Mapping[str, int]]
    held: Sequence[tuple[str, str, int]]
    verdicts: Sequence[overview.LastVerdict]
    conflicts: Sequence[overview.Conflict]
    holdings: overview.Holdings
    stopped_jobs: int
    unended: Mapping[str, Unended] = field(default_factory=dict)
    were_there: Mapping[str, int] = field(default_factory=dict)


def read_counts(ledger: Ledger) -> Counts:
    """Read what the overview needs, from one snapshot of the ledger."""
    with ledger.read() as connection:
        return Counts(
            depths=overview.queue_depths(connection),
            settled=overview.settled_counts(connection),
            held=overview.held_reasons(connection),
            verdicts=overview.last_verdicts(connection),
            conflicts=overview.conflicts(connection),
            holdings=overview.holdings(connection),
            stopped_jobs=overview.stopped_jobs(connection),
            were_there=overview.were_there(connection),
            unended=starts.noted(connection),
        )


async def status(engine: Engine) -> Document:
    """Return the document of `gateway status`."""
    counts = await trio.to_thread.run_sync(read_counts, engine.ledger)
    usage = await trio.to_thread.run_sync(engine.spool.usage)
    now = time.time()
    running = engine.role is Role.GATEWAY
    circuits = {name: asdict(circuit) for name, circuit in engine.dispatcher.circuits().items()} if running else {}
    return {
        "gateway": _gateway(engine, now),
        "sources": sources(engine.settings),
        "destinations": destinations(engine.settings, counts, circuits, now),
        "held": [{"destination": name, "reason": reason, "count": number} for name, reason, number in counts.held],
        "verdicts": [asdict(verdict) for verdict in counts.verdicts],
        "syncs": syncs(engine.syncs) if running else [],
        "comparisons": [
            {
                "name": name,
                "due_at": last.due.timestamp(),
                "at": None if last.at is None else last.at.timestamp(),
                "different": last.different,
                "error": last.error,
            }
            for name, last in (engine.daily.last.items() if running else ())
        ],
        "conflicts": [asdict(conflict) for conflict in counts.conflicts],
        "instances": asdict(counts.holdings),
        "stopped_jobs": counts.stopped_jobs,
        "not_begun": not_begun(engine, counts.unended),
        "spool": asdict(usage) | {"has_room": usage.has_room},
        "certificates": await trio.to_thread.run_sync(certificates, engine.settings, now),
        "metrics": REGISTRY.document() if running else {},
    }


def not_begun(engine: Engine, unended: Mapping[str, Unended]) -> list[Document]:
    """Return what ended the gateway in the middle, so often that it is left to a person, and how to resume it."""
    whole = engine.role is Role.GATEWAY
    running = {starts.of_migration(job) for job in engine.migrations.running} if whole else set()
    return [
        {"name": name, "count": known.count, "resume": f"gateway jobs resume {resumed_by(name)}"}
        for name, known in unended.items()
        if known.parked and name not in running and (not whole or name.startswith("migration ") or name in engine.starts.parked)
    ]


def resumed_by(name: str) -> str:
    """Return what `gateway jobs resume` is given: the number of a migration, the quoted name of anything else; pure."""
    return name.removeprefix("migration ") if name.startswith("migration ") else shlex.quote(name)


def syncs(running: Syncs) -> list[Document]:
    """Return the syncs that run by configuration, each with its last cycle and, outside its hours, when they begin."""
    return [
        {
            "name": name,
            "source": sync.plan.source,
            "to": list(sync.plan.to),
            "interval_s": sync.plan.interval_s,
            "open": sync.hours.is_open(),
            "changes_at": None if (change := sync.hours.next_change()) is None else change.timestamp(),
            "cycle": None if sync.last is None else encode(sync.last),
        }
        for name, sync in running.running.items()
    ]


def _gateway(engine: Engine, now: float) -> Document:
    settings = engine.settings
    return {
        "version": __version__,
        "role": engine.role,
        "process_id": os.getpid(),
        "ae_title": settings.gateway.ae_title,
        "state": str(settings.gateway.state.absolute()),
        "uptime_s": round(now - engine.started_at, 1),
        "listening": listening(engine),
        "associations": engine.acceptor.association_count if engine.role is Role.GATEWAY else 0,
        "running_jobs": len(engine.jobs),
        "draining": engine.jobs.stopping,
    }


def listening(engine: Engine) -> list[str]:
    """Return where the gateway accepts associations, as ``host:port``."""
    if engine.role is Role.DESK:
        return []
    return [f"{host}:{port}" for host, port in engine.acceptor.endpoints]


def sources(settings: Settings) -> list[Document]:
    """Return the configured sources."""
    return [
        {
            "name": name,
            "ae_title": source.ae_title,
            "address": f"{source.host}:{source.port}" if source.port else source.host,
            "can_be_asked": source.can.find is not None,
            "tls": source.tls is not None,
            "moves": source.moves,
            "retrieve": source.retrieve,
        }
        for name, source in settings.sources.items()
    ]


def destinations(settings: Settings, counts: Counts, circuits: Mapping[str, Mapping[str, Any]], now: float) -> list[Document]:
    """Return the configured destinations, and those that the ledger still has deliveries for, with hours, circuit and queue."""
    configured = settings.destinations
    owed = dict.fromkeys(depth.destination for depth in counts.depths)
    return [
        _address(configured.get(name))
        | {
            "name": name,
            "hours": hours(settings, configured[name].when, now) if name in configured else None,
            "circuit": circuits.get(name),
            "queue": _queue(name, counts, now),
            "settled": dict(counts.settled.get(name, {})),
            "was_there": counts.were_there.get(name, 0),
        }
        for name in dict.fromkeys((*configured, *owed))
    ]


def _address(table: DestinationTable | None) -> Document:
    if table is None:
        return {"kind": "gone", "address": "no longer configured", "tls": False, "verify": None}
    can = table.can
    return {"kind": table.kind, "address": table.address, "tls": can.tls is not None, "verify": can.verify}


def hours(settings: Settings, when: str | None, now: float) -> Document | None:
    """Return whether the schedule that a table's `when` names is open, and when that changes; None where it names none."""
    schedule = settings.hours(when)
    if schedule is None:
        return None
    at = datetime.fromtimestamp(now, UTC)
    change = schedule.next_change(at)
    return {"schedule": when, "open": schedule.is_open(at), "changes_at": change.timestamp() if change else None}


def _queue(name: str, counts: Counts, now: float) -> Document:
    mine = [depth for depth in counts.depths if depth.destination == name]
    waiting = [depth.oldest_at for depth in mine if depth.state is not DeliveryState.HELD]
    return {
        "states": {str(depth.state): depth.count for depth in mine},
        "size_bytes": sum(depth.size_bytes for depth in mine),
        "oldest_s": round(now - min(waiting), 1) if waiting else None,
    }


def certificates(settings: Settings, now: float) -> list[Document]:
    """Return the configured certificates, soonest to expire first, and whether each wants attention (30 days ahead)."""
    from gateway.security.tls import configured_certificates

    try:
        found = configured_certificates(settings)
    except ConfigurationError as error:
        return [{"path": problem.where, "key": problem.key, "warning": problem.found} for problem in error.problems]
    return [_certificate(certificate, datetime.fromtimestamp(now, UTC)) for certificate in found]


def _certificate(certificate: Certificate, now: datetime) -> Document:
    remaining = certificate.remaining(now)
    return {
        "path": str(certificate.path),
        "key": certificate.key,
        "names": list(certificate.names),
        "expires": certificate.expires.isoformat(),
        "days": remaining.days,
        "warning": expiry_warning(certificate, now),
    }


def expiry_warning(certificate: Certificate, now: datetime) -> str | None:
    """Say that a certificate has expired or will soon (30 days ahead), or nothing."""
    if not certificate.needs_attention(now):
        return None
    days = certificate.remaining(now).days
    return f"expires in {days} days" if days >= 0 else f"expired on {certificate.expires:%Y-%m-%d}"
