"""The tables. Times are UTC seconds since the epoch; sizes are bytes; no column holds patient data but `jobs.criteria`.

A change of the schema is a new migration in `gateway.ledger.database.migrations`, never an edit of what an older gateway wrote.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

from gateway.core.domain import DeliveryState

metadata = MetaData()

_Key = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))


def _ownership() -> tuple[Column[Any], Column[Any], Column[Any]]:
    """Return the columns that say who works on a row, or did last (gateway.ledger.database.ownership)."""
    return (
        Column("node", String(32), nullable=True),
        Column("epoch", Integer, nullable=False, server_default=text("0")),
        Column("lease_until", Double, nullable=True),
    )


# The gateways that work on this ledger, by their ``[node] name``, each with the number of its starts.
nodes = Table(
    "nodes",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    # The place of the data set's bytes (gateway.core.domain.Content).
    # Compared byte by byte, so that recovery can walk the ledger folder by folder.
    Column("location", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False, unique=True),
    Column("content_offset", BigInteger, nullable=False),
    Column("content_length", BigInteger, nullable=False),
    Column("digest", String(32), nullable=False),
    # kept: the bytes are there and owed; released: every delivery settled, the bytes may be gone; missing: they are gone but owed.
    Column("bytes_state", String(8), nullable=False, server_default="kept"),
    # Another content under the same SOP Instance UID came later; where both are owed is said by `deliveries.superseded`.
    Column("superseded_by", _Key, ForeignKey("instances.id"), nullable=True),
    Column("source", String(64), nullable=True),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("association", String(32), nullable=False),
    Column("received_at", Double, nullable=False),
    # False until a route or a `send` gave it at least one delivery.
    Column("routed", Boolean, nullable=False),
    # The oldest known instance of the same elements and pixels under this UID, where this one differs from it in encoding only.
    Column("same_as", _Key, nullable=True),
    # Why its bytes cannot be what they were declared to be when they came; NULL where nothing speaks against them. No patient data.
    Column("unfit", Text, nullable=True),
    # The node that has its bytes, in its spool or on its disk; NULL is from before nodes had names.
    Column("node", String(32), nullable=True),
    CheckConstraint("bytes_state IN ('kept', 'released', 'missing')", name="bytes_state"),
)
Index("instances_by_uid", instances.c.sop_instance_uid)
Index("instances_by_study", instances.c.study_instance_uid)


def _index_where(name: str, *columns: Column[Any], where: str, sqlite: str | None = None) -> None:
    """Index the rows that meet a condition, in the words in which each database finds it again in queries."""
    Index(name, *columns, sqlite_where=text(sqlite or where), info={_WHERE: where})


_WHERE = "where"


@event.listens_for(metadata, "before_create")
def _conditions_on_postgresql(_: MetaData, connection: Connection, **__: Any) -> None:
    """Give the indexes their conditions in PostgreSQL's words, where it is PostgreSQL: that imports its dialect."""
    if connection.dialect.name == "postgresql":
        for index in (index for table in metadata.tables.values() for index in table.indexes if _WHERE in index.info):
            index.dialect_kwargs["postgresql_where"] = text(index.info[_WHERE])


_index_where("instances_kept", instances.c.id, where="bytes_state = 'kept'")
_index_where("instances_missing", instances.c.id, where="bytes_state = 'missing'")
_index_where("instances_released", instances.c.received_at, where="bytes_state = 'released'")
_index_where("instances_not_routed", instances.c.id, where="NOT routed", sqlite="routed = 0")
# Also for the foreign key: without it, deleting one instance reads all of them.
_index_where("instances_superseded", instances.c.superseded_by, where="superseded_by IS NOT NULL")

arrivals = Table(
    "arrivals",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("instance_id", _Key, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    # The retrieval this C-STORE was counted to; NULL is unsolicited.
    Column("retrieval_id", _Key, ForeignKey("retrievals.id", ondelete="SET NULL"), nullable=True),
    # new | duplicate (same content as before) | conflict (other content under the same UID)
    Column("outcome", String(9), nullable=False),
    Column("move_originator_ae", String(16), nullable=True),
    Column("move_originator_message_id", Integer, nullable=True),
    Column("at", Double, nullable=False),
)
# A partial index: an instance that nobody asked for costs it nothing.
_index_where("arrivals_by_retrieval", arrivals.c.retrieval_id, arrivals.c.sop_instance_uid, where="retrieval_id IS NOT NULL")
Index("arrivals_by_instance", arrivals.c.instance_id)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("instance_id", _Key, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(9), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # When a pending or deferred delivery may be claimed.
    Column("due_at", Double, nullable=False),
    # The last status in the protocol of the destination's kind, a C-STORE's for one; null where there was none.
    Column("status", Integer, nullable=True),
    # Why it is deferred or held, or the warning it was delivered with; no patient data.
    Column("reason", Text, nullable=True),
    # An attempt ended without an answer: the destination may already hold it.
    Column("uncertain", Boolean, nullable=False, server_default=text("FALSE")),
    # The number of times that the destination answered success and then did not have it.
    Column("lost", Integer, nullable=False, server_default="0"),
    # SQLite neither looks at the length nor could change it.
    Column("proof", String(32).with_variant(String(10), "sqlite"), nullable=True),
    Column("changed_at", Double, nullable=False),
    # The transfer syntaxes that its route asks for (gateway.core.domain.Mode); NULL is what the destination asks for.
    Column("mode", String(16), nullable=True),
    # The transfer syntax UID that was chosen for it, and that it was delivered in; NULL is the instance's own.
    Column("sent_as", String(64), nullable=True),
    # It waits, deferred, until it is brought into that transfer syntax.
    Column("awaits_transcoding", Boolean, nullable=False, server_default=text("FALSE")),
    # gateway.core.domain.Priority: what is claimed first of what is due
    Column("priority", Integer, nullable=False, server_default=text("1")),
    # Other content under the same SOP Instance UID was ordered for this destination after it.
    Column("superseded", Boolean, nullable=False, server_default=text("FALSE")),
    # Whether the destination listed it before it was sent for the first time; NULL is not known.
    Column("was_there", Boolean, nullable=True),
    *_ownership(),
    UniqueConstraint("instance_id", "destination", name="one_delivery_a_destination"),
    CheckConstraint("state IN (" + ", ".join(f"'{state}'" for state in DeliveryState) + ")", name="state"),
)
_index_where(
    "deliveries_due",
    deliveries.c.destination,
    deliveries.c.priority,
    deliveries.c.due_at,
    deliveries.c.id,
    where="state IN ('pending', 'deferred')",
)
Index("deliveries_by_state", deliveries.c.destination, deliveries.c.state)
_index_where(
    "deliveries_to_transcode",
    deliveries.c.destination,
    deliveries.c.id,
    where="awaits_transcoding",
    sqlite="awaits_transcoding = 1",
)
_index_where(
    "deliveries_transcoded",
    deliveries.c.destination,
    deliveries.c.id,
    where="sent_as IS NOT NULL AND state IN ('pending', 'deferred', 'sending')",
)
_index_where("deliveries_of_before", deliveries.c.destination, where="proof = 'exists (was there before)'")
_index_where("deliveries_held", deliveries.c.destination, deliveries.c.reason, where="state = 'held'")

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    # pull | send | sync | migrate | compare
    Column("kind", String(8), nullable=False),
    # The key that identifies the same command given again, so that it carries on where it stopped.
    Column("fingerprint", String(64), nullable=False),
    Column("criteria", Text, nullable=False),
    Column("state", String(9), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    # The destinations of everything that comes for it, as a JSON list of names; NULL is where the routes lead.
    Column("destinations", Text, nullable=True),
    # gateway.core.domain.Priority
    Column("priority", Integer, nullable=False, server_default=text("1")),
    # It goes on without anyone listening, and is carried on by itself when the gateway starts again.
    Column("detached", Boolean, nullable=False, server_default=text("FALSE")),
    *_ownership(),
    CheckConstraint("state IN ('running', 'stopped', 'done')", name="state"),
)
Index("jobs_by_fingerprint", jobs.c.fingerprint, jobs.c.id)

# The runs that the gateway begins by itself, counted before they begin (gateway.ledger.jobs.starts).
starts = Table(
    "starts",
    metadata,
    # migration ID | sync NAME | compare NAME
    Column("name", String(96), primary_key=True),
    # Starts in a row that came to no end.
    Column("unended", Integer, nullable=False),
    # Why it failed the last time that it came to an end; no patient data.
    Column("error", Text, nullable=True),
    Column("at", Double, nullable=False),
    *_ownership(),
)

# The portions that a migration has listed: a day, or an entry of its list.
planned_portions = Table(
    "planned_portions",
    metadata,
    Column("job_id", _Key, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("label", String(16), primary_key=True),
    Column("found", Integer, nullable=False),
    # Why there may be more than what was found; NULL where there is not.
    Column("doubt", Text, nullable=True),
    Column("listed_at", Double, nullable=False),
)

# The studies found in it, each in the portion in which it was found first; what became of them is in `retrievals`.
planned_studies = Table(
    "planned_studies",
    metadata,
    Column("job_id", _Key, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("study_instance_uid", String(64), primary_key=True),
    Column("label", String(16), nullable=False),
    # In the order in which they are to be moved.
    Column("position", Integer, nullable=False),
    Column("instance_count", Integer, nullable=True),
    # When it was deleted from its source, proved to be at every destination.
    Column("deleted_at", Double, nullable=True),
    # Its line of the report (gateway.jobs.migrate.report) once all of it was done.
    Column("outcome", Text, nullable=True),
)

retrievals = Table(
    "retrievals",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("job_id", _Key, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("source", String(64), nullable=False),
    # Empty while the study is not known yet (an accession number or patient id that found nothing).
    Column("study_instance_uid", String(64), nullable=False),
    # uids | counts
    Column("basis", String(6), nullable=False, server_default="uids"),
    Column("expected_count", Integer, nullable=True),
    # NULL while it runs.
    Column("verdict", String(10), nullable=True),
    Column("note", Text, nullable=True),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=True),
    CheckConstraint("verdict IN ('complete', 'incomplete', 'empty', 'failed')", name="verdict"),
)
# By study too: a job may have very many, and each is looked up among them.
Index("retrievals_by_job", retrievals.c.job_id, retrievals.c.study_instance_uid, retrievals.c.id)
Index("retrievals_by_study", retrievals.c.study_instance_uid)

expected_instances = Table(
    "expected_instances",
    metadata,
    Column("retrieval_id", _Key, ForeignKey("retrievals.id", ondelete="CASCADE"), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("series_instance_uid", String(64), nullable=False),
    # The destinations already held it (--skip-existing): not moved, counted as present.
    Column("skipped", Boolean, nullable=False, server_default=text("FALSE")),
)

commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("requested_at", Double, nullable=False),
    # When to stop waiting for the N-EVENT-REPORT.
    Column("deadline_at", Double, nullable=False),
    Column("answered_at", Double, nullable=True),
)
commitment_items = Table(
    "commitment_items",
    metadata,
    Column("transaction_uid", String(64), ForeignKey("commitments.transaction_uid", ondelete="CASCADE"), primary_key=True),
    Column("delivery_id", _Key, ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
)
_index_where("commitments_awaited", commitments.c.destination, commitments.c.deadline_at, where="answered_at IS NULL")
# For the foreign key, as above.
Index("commitment_items_by_delivery", commitment_items.c.delivery_id)

learned = Table(
    "learned",
    metadata,
    # The peer that it is about: source:NAME or destination:NAME.
    Column("subject", String(96), primary_key=True),
    Column("fact", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("learned_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
)
