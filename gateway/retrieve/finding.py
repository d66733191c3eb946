"""Asking a source what it has, by C-FIND as a person words it: all that a command needs which only asks. Runs in trio."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, Literal, cast

import trio

from gateway.association.scu import query
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.association.scu.requestor import Requestor, associate
from gateway.association.upper.contexts import ProposedContext
from gateway.config.settings import Settings, SourceTable, TlsTable
from gateway.core.errors import UsageError, require_known
from gateway.core.throttle import Throttle
from gateway.retrieve.source.associations import SourceAssociations
from gateway.retrieve.source.call import converse

QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]

Connect = Callable[[tuple[ProposedContext, ...]], Requestor]
"""Opens an association on which these presentation contexts are proposed."""


def connecting(
    settings: Settings, source: str, tls: Callable[[TlsTable], ssl.SSLContext], throttle: Throttle | None = None
) -> Connect:
    """Return what opens associations with a source; `tls` makes a requestor's context, `throttle` is for what is received.

    Raises:
        UsageError: no such source, or it has no port.
    """
    require_known("source", [source], settings.sources)
    table = settings.sources[source]
    if table.port is None:
        raise UsageError(f"source {source!r} has no port: add it to [sources.{source}], so that it can be asked")
    return partial(_associate, settings, table, tls, throttle)


def _associate(
    settings: Settings,
    table: SourceTable,
    tls: Callable[[TlsTable], ssl.SSLContext],
    throttle: Throttle | None,
    contexts: tuple[ProposedContext, ...],
) -> Requestor:
    remote = remote_of(table, None if table.tls is None else tls(table.tls), receiving=throttle)
    longest = settings.listen.max_pdu_bytes
    return associate(remote, settings.gateway.ae_title, contexts, deadlines=deadlines_of(table), max_pdu_bytes=longest)


async def find(
    associations: SourceAssociations,
    queries: trio.CapacityLimiter,
    keys: Mapping[str, str],
    level: QueryLevel = "STUDY",
    *,
    limit: int | None = None,
) -> list[dict[str, str]]:
    """Return the matches of `keys` at `level` as keyword → value, in the source's order, at most `limit` of them.

    Raises:
        UsageError: a key is no DICOM keyword.
        AssociationError: the source could not be asked, or refused.

    """
    wanted = query.identifier(level, keys, query.RETURN_KEYS[level])

    def ask(requestor: Requestor) -> list[dict[str, str]]:
        with closing(cast(Any, requestor.find(wanted))) as answers:
            return [query.as_values(answer) for answer in islice(answers, limit)]

    return await converse(associations, ask, queries)
