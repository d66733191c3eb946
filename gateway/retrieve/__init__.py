"""Retrieving studies from a source, and proving UID by UID that they came: plan, move, tally, repair, verdict.

A retrieval ends as complete, incomplete (with the missing UIDs), empty or failed: never by a status, a count or a timer
alone, for with real sources each of these lies. The plan lists by C-FIND what the source has; C-MOVE asks for it to be
sent to our own AE, or C-GET on the association on which it is asked; intake counts each arrival to its retrieval through
`Retriever.correlate`; once arrivals went quiet the sets are compared and what is missing is asked for again in other ways.

`retriever` runs jobs (`job`) of studies (`study`), each with one `state`; all work with the `context`. `listing` asks what there
is, `source` holds associations, move slots and acceptance orders, `operations` ask for instances by C-MOVE or C-GET, of a study or
a single one that goes to whoever asked, `arrivals` count what comes, `verdict` compares, `recovery` decides what to try next.
`request`, `events` (with the request of a pull), `study_lists`, `recovery` and `verdict` are pure.
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.retrieve.events import (
        Event,
        JobEnded,
        JobStarted,
        Progress,
        PullRequest,
        Repairing,
        StudyEnded,
        StudyPlanned,
        Verdict,
        Waiting,
    )
    from gateway.retrieve.job import Session
    from gateway.retrieve.request import KEYWORDS, JobSpec, Wanted, check_named, named_keys
    from gateway.retrieve.retriever import Retriever
    from gateway.retrieve.study_lists import ListKind, StudyList, decode_list, parse_list
else:
    __getattr__ = lazily(
        __name__,
        {
            "retriever": ("Retriever",),
            "events": (
                "Event",
                "JobEnded",
                "JobStarted",
                "Progress",
                "PullRequest",
                "Repairing",
                "StudyEnded",
                "StudyPlanned",
                "Verdict",
                "Waiting",
            ),
            "study_lists": (
                "ListKind",
                "StudyList",
                "decode_list",
                "parse_list",
            ),
            "job": ("Session",),
            "request": (
                "KEYWORDS",
                "JobSpec",
                "Wanted",
                "check_named",
                "named_keys",
            ),
        },
    )

__all__ = [
    "KEYWORDS",
    "Event",
    "JobEnded",
    "JobSpec",
    "JobStarted",
    "ListKind",
    "Progress",
    "PullRequest",
    "Repairing",
    "Retriever",
    "Session",
    "StudyEnded",
    "StudyList",
    "StudyPlanned",
    "Verdict",
    "Waiting",
    "Wanted",
    "check_named",
    "decode_list",
    "named_keys",
    "parse_list",
]
