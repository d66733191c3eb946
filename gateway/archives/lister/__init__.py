"""Complete lists from an archive, although it gives only so many matches to a query: the one lister of the house.

Most archives stop at a number of matches, at STUDY, SERIES or IMAGE level, and few of them say so. Deciding is pure: `evidence`
judges from the size of an answer, and from what the archive counts, whether it was cut short; `studies` and `below` say what to ask
next and are fed the answers; `parts` and `narrowing` are the narrower queries. `c_find` asks a peer by C-FIND, on the thread of
whoever calls it, and `memory` keeps in the ledger for a week how many matches an archive gives.

A doubt whether everything was found is told (`Listing.doubt`), and the caller must not call such a result whole.
"""

from gateway.archives.lister.below import InstanceLister, PresenceLister, SeriesLister
from gateway.archives.lister.c_find import ask_by, go_through, list_all
from gateway.archives.lister.evidence import Answer, Evidence, Knowledge, Level, Lister, Listing, Match, Query, count_of
from gateway.archives.lister.studies import StudyLister

__all__ = [
    "Answer",
    "Evidence",
    "InstanceLister",
    "Knowledge",
    "Level",
    "Lister",
    "Listing",
    "Match",
    "PresenceLister",
    "Query",
    "SeriesLister",
    "StudyLister",
    "ask_by",
    "count_of",
    "go_through",
    "list_all",
]
