"""The retrieving half of a gateway, for tests with real archives: ledger, intake, acceptor and retriever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from gateway.config.settings import Settings
from gateway.ledger import Ledger
from gateway.ledger.peers import learned
from gateway.retrieve import Event, PullRequest, Retriever
from tests.support import data
from tests.support.ports import HOST
from tests.support.reception import Reception, reception

DEADLINE_S = 110.0


@dataclass
class Ours:
    """The retriever and what it received."""

    retriever: Retriever
    reception: Reception
    ledger: Ledger

    async def pull(self, **keys: Any) -> list[Event]:
        """Run a pull to its end and return its events."""
        with trio.fail_after(DEADLINE_S):
            async with self.retriever.pull(PullRequest("archive", **keys)) as events:
                return [event async for event in events]

    def learned(self, fact: str) -> str | None:
        """Return what the archive taught."""
        with self.ledger.read() as connection:
            return learned.get(connection, "source:archive", fact, now=0.0)


@contextmanager
def ours(folder: Path, *, ae_title: str, port: int, listen: int, **source: Any) -> Iterator[Ours]:
    """A retriever of one source, "archive", which listens on `listen`; further options are of the source's table."""
    table = {"ae_title": ae_title, "host": HOST, "port": port, "settle_s": 0.5, "progress_timeout_s": 30.0, **source}
    settings = Settings.model_validate({"listen": {"port": listen}, "sources": {"archive": table}})
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
        here = reception(folder, settings, ledger)
        stack.enter_context(here.running(listen))
        order, barrier = here.admission.set_order, here.recorder.flush
        here.retriever = Retriever(settings, ledger, tls=_no_tls, set_order=order, barrier=barrier, storage=lambda: here)
        yield Ours(here.retriever, here, ledger)


def _no_tls(_table: object) -> Any:
    raise AssertionError("no source here has TLS")


def studies_of(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the Study Instance UIDs of `files`."""
    return tuple(dict.fromkeys(data.identity(path)[0] for path in files))
