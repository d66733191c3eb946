"""The instances that a destination lacks of a study: by counts, then, where these cannot tell, by SOP Instance UIDs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.jobs.sync.series import Series
from gateway.retrieve import Wanted

Lack = Mapping[str, frozenset[str] | None]
"""The lacking instances by Series Instance UID: the SOP Instance UIDs, or None for all that the source has of the series."""


@dataclass(frozen=True)
class Sight:
    """The counts of a study at STUDY level in a look: the source's number of instances, and each destination's.

    None is a number that is not told; 0 at a destination is a study that it does not list.
    """

    count: int | None
    held: Mapping[str, int | None]

    @property
    def counted(self) -> bool:
        """Tell whether both sides say how many instances they have, so that a change shows."""
        return self.count is not None and None not in self.held.values()

    @property
    def equal(self) -> bool:
        """Tell whether every destination has as many instances as the source, as far as they tell."""
        return self.counted and all(count == self.count for count in self.held.values())


class By(Enum):
    """The way in which one series of a source compares with what a destination lists of it."""

    SAME = "same"
    ABSENT = "absent"
    UIDS = "uids"
    """Its UIDs decide: the counts differ, are not known, or are to be confirmed."""


def by_counts(count: int, held: Collection[int | None], *, confirm: bool, excused: bool) -> By:
    """Compare the number of instances of a series at the source with those that a destination says it holds of it.

    `held` is empty where the destination does not list the series. `confirm` has equal counts confirmed by UIDs; `excused` says
    that some of the study need not come, so that counts cannot tell what is lacking.
    """
    there = next(iter(held), 0)
    if there == 0:
        return By.UIDS if excused else By.ABSENT
    return By.SAME if there == count and not confirm else By.UIDS


def instances_in(lack: Lack, series: Mapping[str, Series]) -> int:
    """Return how many instances are lacking."""
    return sum(series[uid].count if uids is None else len(uids) for uid, uids in lack.items())


def united(lacks: Collection[Lack]) -> Lack:
    """Return what at least one of several destinations lacks."""
    found: dict[str, frozenset[str] | None] = {}
    for lack in lacks:
        for uid, uids in lack.items():
            known = found.get(uid, frozenset())
            found[uid] = None if uids is None or known is None else known | uids
    return found


def is_mixed(lack: Lack) -> bool:
    """Tell whether some series are lacking as a whole and others in part: what is wanted of all has to be named then."""
    return None in lack.values() and any(uids is not None for uids in lack.values())


def wanted(study: str, lack: Lack, *, whole: bool) -> Wanted:
    """Return what to retrieve of a study so that nothing of `lack`, which is not mixed, is lacking any more.

    `whole` says that `lack` is every series that the source has: what is added to the study meanwhile is then fetched with it.
    """
    named = [uids for uids in lack.values() if uids is not None]
    if named:
        return Wanted(study, series=frozenset(lack), instances=frozenset[str]().union(*named))
    return Wanted(study, series=None if whole else frozenset(lack))


def comparable(lacks: Mapping[str, Lack], series: Mapping[str, Series]) -> object:
    """Return what tells one lack from another: the same instances lacking at the same destinations compare equal."""
    return frozenset(
        (destination, uid, series[uid].count if uids is None else uids)
        for destination, lack in lacks.items()
        for uid, uids in lack.items()
    )
