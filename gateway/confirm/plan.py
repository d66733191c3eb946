"""The time to ask for a study, and the meaning of an answer or a refusal. Pure: the time is an argument, in UTC seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gateway.association.dimse.statuses import StatusKind, find_kind
from gateway.core.backoff import doubling_s
from gateway.ledger.deliveries.proofs import Unverified, WaitingStudy

LONGEST_QUIET = 30
"""A study that never goes quiet is asked for after this many times the quiet time …"""

LONGEST_WAIT_S = 60.0
"""… but not before this many seconds."""

RETRY_FIRST_S = 2.0
RETRY_MAX_S = 300.0

OTHER_CONTENT = "the destination holds other content under this SOP Instance UID than was delivered"

SHOWN_DIFFERENCES = 8

NOT_FETCHED = "it could not be fetched from where instances are fetched"

NOT_THERE = "answered success but does not have it"


@dataclass(frozen=True, slots=True)
class Diff:
    """The instances that a destination lists, and those that it does not list, of those that were sent to it."""

    present: tuple[Unverified, ...]
    missing: tuple[Unverified, ...]


def quiet_at(study: WaitingStudy, quiet_s: float) -> float:
    """Return when the study has been quiet long enough, if nothing more is delivered."""
    return study.last_at + quiet_s


def patience_ends_at(study: WaitingStudy, quiet_s: float) -> float:
    """Return when the study is asked for even though more of it keeps coming."""
    return study.first_at + max(LONGEST_WAIT_S, LONGEST_QUIET * quiet_s)


def is_due(study: WaitingStudy, *, quiet_s: float, busy: bool, now: float) -> bool:
    """Tell whether it is time to ask for the study; `busy` says that more of it is on its way right now.

    `quiet_s` is how long to wait for more of it: 0 where it was retrieved and all of it came.

    A delivery after `now` says that the clock was set back: then the study is asked for without waiting for that time.
    """
    return study.last_at > now or now >= patience_ends_at(study, quiet_s) or (not busy and now >= quiet_at(study, quiet_s))


def next_look_at(study: WaitingStudy, *, quiet_s: float, busy: bool) -> float:
    """Return when to look at a study again that was not due; what is on its way says so by itself when it has come."""
    patience = patience_ends_at(study, quiet_s)
    return patience if busy else min(patience, quiet_at(study, quiet_s))


def compare(items: Iterable[Unverified], listed: Collection[str]) -> Diff:
    """Return which of `items` are among the `listed` SOP Instance UIDs."""
    wanted = tuple(items)
    present = tuple(item for item in wanted if item.sop_instance_uid in listed)
    missing = tuple(item for item in wanted if item.sop_instance_uid not in listed)
    return Diff(present, missing)


def differences(names: Sequence[str]) -> str:
    """Say what contents differ in, by names of elements."""
    more = len(names) - SHOWN_DIFFERENCES
    return ", ".join(names[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def by_series(items: Iterable[Unverified]) -> list[tuple[str, str]]:
    """Return the (study, series) pairs to ask for, each once."""
    return list(dict.fromkeys((item.study_instance_uid, item.series_instance_uid) for item in items))


def askable(items: Sequence[Unverified]) -> tuple[list[Unverified], list[Unverified]]:
    """Return the items that C-FIND can ask for, and those without the unique keys that it takes."""
    can = [item for item in items if item.study_instance_uid and item.series_instance_uid]
    return can, [item for item in items if not (item.study_instance_uid and item.series_instance_uid)]


def refuses_find(status: int) -> bool:
    """Tell whether a final C-FIND status means that the peer does not answer such questions, rather than not now."""
    return find_kind(status) is StatusKind.FAILURE


def retry_in_s(failures: int) -> float:
    """Return how long to wait before a destination is asked again after `failures` failures in a row."""
    return doubling_s(RETRY_FIRST_S, RETRY_MAX_S, failures)


def failure_words(reason: int) -> str:
    """Return the words for a commitment's Failure Reason (0008,1197), PS3.3 §C.14.1.1."""
    return f"not committed: {reason:04X} {_FAILURE_REASONS.get(reason, 'unknown reason')}"


_FAILURE_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0213: "resource limitation",
    0x0122: "referenced SOP class not supported",
    0x0119: "class / instance conflict",
    0x0131: "duplicate transaction UID",
}
