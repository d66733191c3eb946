"""The limits that an archive showed, kept in the ledger for a week: its administrator may change them."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.archives.lister.evidence import Knowledge
from gateway.ledger.peers import learned

EVIDENCE_S = 7 * 86_400.0
"""The time for which the evidence about an archive is believed, in seconds."""


def recall(connection: Connection, subject: str, *, now: float, max_results: int | None = None) -> Knowledge:
    """Return what is known of `subject` at `now` (UTC seconds); `max_results` is what the configuration says."""
    return Knowledge.from_text(learned.get(connection, subject, learned.MAX_RESULTS, now=now), max_results=max_results)


def remember(connection: Connection, *, subject: str, text: str, now: float) -> None:
    """Keep what `Knowledge.text` wrote about `subject`."""
    learned.put(connection, subject, learned.MAX_RESULTS, text, now=now, expires_at=now + EVIDENCE_S)
