"""The chores of a gateway: releasing bytes, forgetting history, telling of studies, watching room and certificates. On trio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import trio

from gateway.config.settings import Settings
from gateway.core import metrics
from gateway.core.domain import WORKING, DeliveryState
from gateway.core.errors import ConfigurationError, LedgerDamaged, LedgerUnavailable, SpoolError
from gateway.core.log import get_logger
from gateway.core.repeats import Repeats
from gateway.core.tasks.wake_ups import WakeUp
from gateway.delivery.journal import Journal, Key, Sent
from gateway.intake import Releaser
from gateway.ledger import Ledger
from gateway.ledger.deliveries import overview
from gateway.security.tls import expiring
from gateway.spool import Spool

log = get_logger()

WINDOW_GAP_S = 0.2
"""Between two looks for bytes to release or history to forget: a long backlog costs little, and the ledger's writer is free."""

RELEASE_AT_LEAST_S = 60.0
"""A hint that was lost costs no more than this."""

FORGET_EVERY_S = 3600.0
CERTIFICATES_EVERY_S = 86_400.0
ROOM_EVERY_S = 5.0
STUDIES_EVERY_S = 1.0
LEDGER_EVERY_S = 2.0


async def release_bytes(releaser: Releaser, hint: WakeUp, released: Callable[[], None] = lambda: None) -> None:
    """Walk through the kept instances and release settled ones, whenever `hint` says that some may have settled; then tidy up.

    `released` is called when some were.
    """
    postponing = _Postponing()
    while True:
        with postponing() as done:
            if await trio.to_thread.run_sync(releaser.run_once):
                released()
        if not done.is_set():
            await trio.sleep(ROOM_EVERY_S)
        elif releaser.walked:
            with postponing():
                await trio.to_thread.run_sync(releaser.move_out_once)
            await hint.wait(RELEASE_AT_LEAST_S)
        await trio.sleep(WINDOW_GAP_S)


async def forget_history(releaser: Releaser) -> None:
    """Forget what was settled longer ago than the configuration's ``history_days``."""
    postponing = _Postponing()
    while True:
        more = False
        with postponing():
            more = await trio.to_thread.run_sync(releaser.forget_once)
        await trio.sleep(WINDOW_GAP_S if more else FORGET_EVERY_S)


class _Postponing:
    """Lets a chore that fails for the ledger or the spool be done in its next round; the log has a line a minute of it."""

    def __init__(self) -> None:
        self._lines = Repeats()

    @contextmanager
    def __call__(self) -> Iterator[trio.Event]:
        """Log that something could not be tidied now: nothing is lost by doing it later. The event says that it was done."""
        done = trio.Event()
        try:
            yield done
            done.set()
        except (LedgerUnavailable, SpoolError) as error:
            metrics.POSTPONED.add()
            if times := self._lines.due("postponed"):
                log.warning("housekeeping_postponed", error=str(error), times=times)


async def warn_of_certificates(settings: Settings) -> None:
    """Log, at start and every day, the configured certificates that have expired or will within 30 days."""
    while True:
        try:
            for certificate in await trio.to_thread.run_sync(expiring, settings):
                days = certificate.remaining(datetime.now(UTC)).days
                log.warning("certificate_expires", path=str(certificate.path), key=certificate.key, days=days)
        except ConfigurationError as error:
            log.warning("certificate_unreadable", error=str(error))
        await trio.sleep(CERTIFICATES_EVERY_S)


async def tell_of_studies(journal: Journal, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
    """Log a line for each study that is through at a destination: what was sent, what is proved, how long it took, how fast."""

    postponing = _Postponing()
    while True:
        await trio.sleep(STUDIES_EVERY_S)
        for key, sent in journal.take(clock()).items():
            with postponing():
                states = await trio.to_thread.run_sync(
                    ledger.ask, partial(overview.study_at, destination=key[0], study_instance_uid=key[1])
                )
                if states.keys() & WORKING:
                    journal.put_back(key, sent, clock())
                else:
                    _log_study(key, sent, states)


def _log_study(key: Key, sent: Sent, states: Mapping[str, int]) -> None:
    verified, held = states.get(DeliveryState.VERIFIED, 0), states.get(DeliveryState.HELD, 0)
    seconds = max(sent.seconds, 0.001)
    say = log.warning if held else log.info
    say(
        "study_delivered",
        destination=key[0],
        study=key[1],
        delivered=sent.instances,
        verified=verified,
        held=held,
        seconds=round(seconds, 2),
        mb_s=round(sent.size_bytes / seconds / 1e6, 1),
    )


async def watch_ledger(ledger: Ledger) -> None:
    """Look at the ledger's file now and then, and log once when it is damaged; intake sees it by itself then."""
    while True:
        try:
            await trio.to_thread.run_sync(ledger.look)
        except LedgerDamaged as error:
            log.error("ledger_damaged", error=str(error))
            return
        await trio.sleep(LEDGER_EVERY_S)


async def watch_room(spool: Spool, ledger: Ledger, hint: WakeUp, rest: Callable[[], int] = lambda: 0) -> None:
    """Log when the spool runs out of room and when it has room again, and have the ledger take back its own.

    Looks whenever `hint` says that something was released, and every few seconds. Intake and retrieve see room by themselves.
    `rest` tells how many instances were refused that no line of the log has told of.
    """
    had_room = True
    postponing = _Postponing()
    while True:
        with postponing():
            await trio.to_thread.run_sync(ledger.ballast.take)
            has_room = await trio.to_thread.run_sync(spool.has_room)
            if has_room and not had_room:
                log.warning("spool_has_room_again", refused=rest())
            elif had_room and not has_room:
                log.warning("spool_full")
            had_room = has_room
            metrics.HAS_ROOM.set(int(has_room))
        await hint.wait(ROOM_EVERY_S)
