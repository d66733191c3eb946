"""The studies of a source as a migration lists them, a day or a set of keys at a time. Runs in trio."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.archives.lister import Listing, count_of
from gateway.core.domain import is_uid
from gateway.jobs.migrate.context import Listed
from gateway.retrieve import Retriever

NO_UID = "the source lists a study under something that is no UID: it cannot be asked for"

_COUNT = "NumberOfStudyRelatedInstances"


async def list_studies(retriever: Retriever, source: str, keys: Mapping[str, str]) -> Listed:
    """Return the studies that match `keys` at `source`, and why there may be more (see `gateway.archives`).

    Raises:
        UsageError: no such source, or it has no port.
        AssociationError: the source could not be asked, or refuses the query.
        LedgerError: the ledger cannot be used.

    """
    return _listed(await retriever.list_studies(source, keys, (_COUNT,)))


def _listed(listing: Listing) -> Listed:
    studies = tuple((uid, count_of(match, _COUNT)) for uid, match in listing.found.items() if is_uid(uid))
    doubts = (listing.doubt, NO_UID if len(studies) < len(listing.found) else "")
    return Listed(studies, "; ".join(filter(None, doubts)))
