"""The composition root: what a gateway is made of.

The stages meet here and nowhere else: each is given the others' hints as plain callables.

`gateway.app.lifecycle` says when it is made, `gateway.app.stages` in which order its parts start.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from gateway.app import planners
from gateway.app.conflicts import Conflicts
from gateway.app.detached import REPORTS_NAME, Detached
from gateway.app.engine import Engine, Jobs
from gateway.app.listener import Listener
from gateway.app.skip_existing import SkipExisting
from gateway.app.stored import Stored
from gateway.app.wake_ups import WakeUps
from gateway.archives.orthanc.encodings import Encodings
from gateway.association.dimse.services import StorageService
from gateway.association.scp.acceptor import Acceptor, Limits, ListenerSpec
from gateway.association.scp.admission import KnownSources
from gateway.association.scp.service_classes import usual
from gateway.codec.available import capabilities
from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.confirm import Confirmer
from gateway.core.domain import Role
from gateway.core.throttle import Throttle
from gateway.delivery import Dispatcher
from gateway.delivery.adapters.acceptance import Acceptance
from gateway.delivery.build import destinations, forms
from gateway.delivery.journal import Journal
from gateway.delivery.transcoding.copies import Copies
from gateway.delivery.transcoding.transcoder import Transcoder
from gateway.intake import Judging, Recorder, Releaser, StorageIntake
from gateway.jobs.starts import Starts
from gateway.ledger import Ledger
from gateway.ledger.peers import learned
from gateway.retrieve import Retriever
from gateway.retrieve.recovery import class_orders
from gateway.route import compile_routes, route
from gateway.security.tls import acceptor_context, requestor_context
from gateway.spool import Spool

COPIES_NAME = "transcoded"
COMPARE_NAME = "comparing"
PROVING_NAME = "proving"


def assembled(settings: Settings, role: Role, spool: Spool, ledger: Ledger, pool: Pool, *, detached: Detached) -> Engine:
    """Make every part and give each the others' hints; nothing runs yet. On the trio thread."""
    wake_ups, jobs, starts = WakeUps(), Jobs(), Starts(ledger)
    recorder = Recorder(spool, ledger, recorded=wake_ups.recorded)
    # Each shared by whatever its source sends, on associations of ours and of its own.
    throttles = {name: throttle for name, table in settings.sources.items() if (throttle := Throttle.of(table.max_rate))}
    admission = KnownSources(settings, **_learned_orders(ledger), throttles=throttles, turned_away=wake_ups.turned_away)

    async def listening_for_callers() -> None:
        await listener.open()

    retriever = Retriever(
        settings,
        ledger,
        tls=requestor_context,
        encodings=Encodings(settings.sources, settings.gateway.ae_title),
        set_order=admission.set_order,
        barrier=recorder.flush,
        storage=lambda: intake,
        has_room=spool.has_room,
        existing=SkipExisting(settings, ledger),
        throttles=throttles,
        listening=listening_for_callers,
    )
    copies = Copies(settings.gateway.state / COPIES_NAME, spool)
    wanted = forms(settings, copies, capabilities(), acceptance=partial(_acceptance, ledger))
    transcoder = Transcoder(ledger, spool, copies, pool, wanted, changed=wake_ups.transcoded, has_room=spool.has_room)
    journal = Journal()
    dispatcher = Dispatcher(
        ledger,
        destinations(settings, copies, wanted, ledger),
        changed=wake_ups.deliveries_changed,
        to_transcode=transcoder.nudge,
        sent=journal.note,
    )
    stored = Stored(settings, spool, pool, settings.gateway.state / PROVING_NAME)
    confirmer = Confirmer(ledger, settings, changed=wake_ups.proofs_changed, store=stored)
    rules, judging = compile_routes(settings.routes), Judging(pool)
    taking = partial(StorageIntake, spool, recorder, route=partial(route, rules), keywords=rules.keywords)
    intake = taking(correlate=retriever.correlate, judging=judging)
    conflicts = Conflicts(ledger, spool, pool, settings.gateway.state / PROVING_NAME, settled=wake_ups.settled.give)
    wake_ups.connect(retriever, dispatcher, confirmer, transcoder, conflicts.found)
    scratch = settings.gateway.state / COMPARE_NAME
    comparisons = planners.comparisons(
        settings, ledger, spool, retriever, scratch, pool=pool, nudge=dispatcher.nudge, listens=role is Role.GATEWAY
    )
    acceptor = _acceptor(settings, admission, retriever.capturing(intake), confirmer)
    listener = Listener(acceptor, settings.listen)
    return Engine(
        settings=settings,
        role=role,
        spool=spool,
        ledger=ledger,
        recorder=recorder,
        intake=intake,
        acceptor=acceptor,
        listener=listener,
        retriever=retriever,
        dispatcher=dispatcher,
        journal=journal,
        transcoder=transcoder,
        confirmer=confirmer,
        conflicts=conflicts,
        releaser=Releaser(spool, ledger, history_s=settings.spool.history_days * 86_400.0),
        syncs=planners.syncs(settings, ledger, retriever, barrier=recorder.flush, starts=starts),
        migrations=planners.migrations(
            settings, ledger, retriever, barrier=recorder.flush, has_room=spool.has_room, whole=jobs.running
        ),
        comparisons=comparisons,
        detached=detached,
        daily=planners.daily(
            settings, ledger, comparisons, settings.gateway.state / REPORTS_NAME, barrier=recorder.flush, starts=starts
        ),
        starts=starts,
        judging=judging,
        settled=wake_ups.settled,
        jobs=jobs,
    )


def _acceptance(ledger: Ledger, destination: str) -> Acceptance:
    """Return what earlier associations with `destination` taught, to be remembered in `ledger`."""
    subject, fact = learned.destination_subject(destination), learned.REFUSED_CONTEXTS

    def remember(known: str) -> None:
        # A ledger that cannot take it now costs an association after the next start.
        ledger.submit(partial(learned.put, subject=subject, fact=fact, value=known, now=time.time()))

    with ledger.read() as connection:
        return Acceptance(learned.get(connection, subject, fact, now=time.time()), changed=remember)


def _learned_orders(ledger: Ledger) -> dict[str, Any]:
    """Return the acceptance orders that earlier retrievals taught of each source, as `KnownSources` takes them."""
    with ledger.read() as connection:
        orders = learned.all_of(connection, learned.ACCEPTANCE_ORDER, now=time.time())
        by_class = learned.all_of(connection, learned.CLASS_ORDERS, now=time.time())
    prefix = learned.source_subject("")
    return {
        "orders": {subject.removeprefix(prefix): order for subject, order in orders.items()},
        "by_class": {subject.removeprefix(prefix): class_orders(text) for subject, text in by_class.items()},
    }


def _acceptor(settings: Settings, admission: KnownSources, storage: StorageService, confirmer: Confirmer) -> Acceptor:
    listen = settings.listen
    listeners = [ListenerSpec(listen.host, listen.port)] if listen.plain else []
    if listen.tls is not None:
        listeners.append(ListenerSpec(listen.host, listen.tls.port, acceptor_context(listen.tls)))
    limits = Limits(
        max_associations=listen.max_associations,
        idle_timeout_s=listen.idle_timeout_s,
        pdu_timeout_s=listen.pdu_timeout_s,
        handshake_timeout_s=listen.handshake_timeout_s,
        max_pdu_bytes=listen.max_pdu_bytes,
    )
    return Acceptor(listeners, admission=admission, services=usual(storage, confirmer), limits=limits)
