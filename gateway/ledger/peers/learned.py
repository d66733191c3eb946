"""The facts that peers taught us about a source or a destination: they outlive a run, some of them only for a time.

A subject is ``source:NAME`` or ``destination:NAME``; a fact is a word, its value a short text without patient data.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from gateway.ledger.database.schema import learned

ACCEPTANCE_ORDER = "acceptance_order"
"""About a source: the order of transfer syntaxes to accept, ``j2k-first``, ``uncompressed-first`` or ``as-proposed``."""

CLASS_ORDERS = "class_orders"
"""About a source: such orders of single SOP classes, as a JSON object by SOP Class UID."""

ASYNCHRONOUS = "asynchronous"
"""About a source: ``yes`` when it answers C-MOVE before its sub-operations are done."""

ANONYMOUS = "anonymous"
"""About a source: ``yes`` when what it sends does not say for which C-MOVE it comes."""

ENCODINGS = "encodings"
"""About a source: ``yes`` when it tells the transfer syntaxes of the instances that it lists, ``no`` when it does not."""

RETRIEVE = "retrieve"
"""About a source: the operation that brings its instances, ``move`` or ``get``, where that has to be found out."""

MAX_RESULTS = "max_results"
"""About a source or a destination: how many matches it gives to a query, as `gateway.archives.lister.evidence` writes it."""

REFUSED_CONTEXTS = "refused_contexts"
"""About a destination: the presentation contexts that it refused, as `gateway.delivery.adapters.acceptance` writes them."""


def source_subject(name: str) -> str:
    """Return the subject of facts about source `name`."""
    return f"source:{name}"


def destination_subject(name: str) -> str:
    """Return the subject of facts about destination `name`."""
    return f"destination:{name}"


def get(connection: Connection, subject: str, fact: str, *, now: float) -> str | None:
    """Return what is known, or None where nothing is or it has expired by `now` (UTC seconds since the epoch)."""
    statement = select(learned.c.value).where(learned.c.subject == subject, learned.c.fact == fact, _valid(now))
    value = connection.execute(statement).scalar_one_or_none()
    return None if value is None else str(value)


def all_of(connection: Connection, fact: str, *, now: float) -> dict[str, str]:
    """Return each subject of which `fact` is known at `now`, with its value."""
    rows = connection.execute(select(learned.c.subject, learned.c.value).where(learned.c.fact == fact, _valid(now)))
    return {str(subject): str(value) for subject, value in rows}


def put(connection: Connection, subject: str, fact: str, value: str, *, now: float, expires_at: float | None = None) -> None:
    """Remember a fact in place of what was known before; `expires_at` in UTC seconds since the epoch."""
    values = {"value": value, "learned_at": now, "expires_at": expires_at}
    where = (learned.c.subject == subject, learned.c.fact == fact)
    if connection.execute(update(learned).where(*where).values(**values)).rowcount == 0:
        connection.execute(insert(learned).values(subject=subject, fact=fact, **values))


def forget(connection: Connection, subject: str, fact: str) -> None:
    """Forget a fact, known or not."""
    connection.execute(delete(learned).where(learned.c.subject == subject, learned.c.fact == fact))


def _valid(now: float) -> ColumnElement[bool]:
    return or_(learned.c.expires_at.is_(None), learned.c.expires_at > now)
