"""Listing the studies of a source, a day or a set of keys at a time, and learning how many matches it gives. Runs in trio.

The queries of one listing go over one association; a source that is busy or out of reach is waited for, and the listing carries on
with the query that was not answered. What a source teaches is in the ledger, for a week.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import structlog
import trio
from sqlalchemy import Connection

from gateway.domain import is_uid
from gateway.ledger import Ledger, learned
from gateway.migrate.evidence import Answer, Evidence, Study
from gateway.migrate.means import Listed
from gateway.migrate.split import Found, Splitter
from gateway.retrieve import Reply, Retriever
from gateway.settings import SourceTable

log = structlog.get_logger()

EVIDENCE_S = 7 * 86_400.0
"""How long what a source taught is believed, in seconds: its administrator may change it."""

NO_UID = "the source lists a study under something that is no UID: it cannot be asked for"


async def list_studies(
    retriever: Retriever, ledger: Ledger, tables: Mapping[str, SourceTable], source: str, keys: Mapping[str, str]
) -> Listed:
    """Return the studies that match `keys` at `source`, one of `tables`, and why there may be more (see `gateway.migrate.split`).

    A day (``StudyDate``) is asked for in parts where the answer may have been cut; of other keys it is only said.

    Raises:
        UsageError: no such source, or it has no port.
        AssociationError: the source could not be asked, or refuses the query.
        LedgerError: the ledger cannot be used.

    """
    evidence = await trio.to_thread.run_sync(_known, ledger, source, tables.get(source))
    before = evidence.text()
    inquiry = Inquiry(keys, evidence)
    await retriever.ask(source, inquiry)
    if evidence.text() != before:
        await trio.to_thread.run_sync(ledger.write, partial(_remember, source=source, evidence=evidence, now=time.time()))
    found = inquiry.splitter.found
    log.debug("studies_listed", source=source, studies=len(found.studies), queries=found.queries, doubt=found.doubt)
    return _listed(found)


class Inquiry:
    """A `Splitter` as a source is asked by it; see `gateway.retrieve.questions.Questions`."""

    def __init__(self, keys: Mapping[str, str], evidence: Evidence) -> None:
        self.splitter = Splitter(keys, evidence, splits="StudyDate" in keys)
        self._day = keys.get("StudyDate", "")

    @property
    def query(self) -> Mapping[str, str] | None:
        """The matching keys of the next query."""
        return self.splitter.query

    @property
    def begun(self) -> bool:
        """Tell whether the first query was replied to."""
        return self.splitter.queries > 0

    def take(self, reply: Reply) -> None:
        """Hear the reply; a study of another day, which a source adds that does not look at the key, is passed over."""
        of_day = [match for match in reply.matches if not self._day.isdigit() or _date(match) in {"", self._day}]
        self.splitter.feed(Answer([_study(match) for match in of_day], reply.count, reply.cut, reply.refused))


def _date(match: Mapping[str, str]) -> str:
    return match.get("StudyDate", "").replace(".", "").replace("-", "")


def _study(match: Mapping[str, str]) -> Study:
    """Return a match as a study, with an empty UID where it is listed under something that is none."""
    uid, count = match.get("StudyInstanceUID", ""), match.get("NumberOfStudyRelatedInstances", "")
    return Study(
        uid if is_uid(uid) else "",
        int(count) if count.isdecimal() and len(count) < 12 else None,
        time=match.get("StudyTime", ""),
        patient_id=match.get("PatientID", ""),
        patient_name=match.get("PatientName", ""),
    )


def _listed(found: Found) -> Listed:
    studies = tuple((study.study_instance_uid, study.instance_count) for study in found.studies if study.study_instance_uid)
    doubts = (found.doubt, NO_UID if len(studies) < len(found.studies) else "")
    return Listed(studies, "; ".join(filter(None, doubts)))


def _known(ledger: Ledger, source: str, table: SourceTable | None) -> Evidence:
    with ledger.read() as connection:
        known = learned.get(connection, learned.source_subject(source), learned.MAX_RESULTS, now=time.time())
    return Evidence.from_text(known, max_results=table.max_results if table else None)


def _remember(connection: Connection, source: str, evidence: Evidence, now: float) -> None:
    subject = learned.source_subject(source)
    learned.put(connection, subject, learned.MAX_RESULTS, evidence.text(), now=now, expires_at=now + EVIDENCE_S)
