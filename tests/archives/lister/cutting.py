"""A source that gives only so many matches to a query, in each of the ways that sources have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.archives.lister import Answer, Evidence, Listing, Match, StudyLister

DAY = {"StudyDate": "20240102"}

Says = Literal["nothing", "cut", "refuses"]


@dataclass(frozen=True)
class Study:
    """A study as the source lists it."""

    study_instance_uid: str
    instance_count: int | None = None
    time: str = ""
    patient_id: str = ""
    patient_name: str = ""
    date: str = ""
    accession_number: str = ""

    def match(self) -> Match:
        """Return what a source answers about it."""
        count = "" if self.instance_count is None else str(self.instance_count)
        return {
            "StudyInstanceUID": self.study_instance_uid,
            "NumberOfStudyRelatedInstances": count,
            "StudyDate": self.date,
            "StudyTime": self.time,
            "PatientID": self.patient_id,
            "PatientName": self.patient_name,
            "AccessionNumber": self.accession_number,
        }


@dataclass
class Cutting:
    """Holds `studies` of one day, which it always lists in the same order, `cap` of them at most."""

    studies: Sequence[Study]
    cap: int | None = None
    says: Says = "nothing"
    folds: bool = False
    """The case of letters does not matter to it."""

    truncates: bool = False
    """It compares times to the second; else as text, as Orthanc does."""

    untimed_match: bool = False
    """A study without a time is in every range of times."""

    ignores: frozenset[str] = frozenset()
    """Keys that it does not look at."""

    sql: bool = False
    """Its data base takes ``%`` and ``_`` for wild cards; what it gives is looked at again, but not counted again."""

    around: Sequence[Study] = ()
    """Studies of the days before and after, which it lists first where it is asked for a range of days."""

    twice: bool = False
    """It lists every study twice."""

    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, keys: Mapping[str, str]) -> Answer:
        """Answer one query."""
        self.asked.append(dict(keys))
        held = (*self.around, *self.studies) if "-" in keys.get("StudyDate", "") else self.studies
        held = [
            study for study in held if not study.date or "StudyDate" in self.ignores or _on(study.date, keys.get("StudyDate", ""))
        ]
        rows = [study for study in held if self._matches(study, keys, sql=self.sql)] * (2 if self.twice else 1)
        cut = self.cap is not None and len(rows) > self.cap
        if cut and self.says == "refuses":
            return Answer(cut=True)
        given = [study for study in rows[: self.cap] if self._matches(study, keys)]
        return Answer([study.match() for study in given], len(given), cut=cut and self.says == "cut")

    def _matches(self, study: Study, keys: Mapping[str, str], *, sql: bool = False) -> bool:
        values = {
            "StudyTime": study.time,
            "PatientID": study.patient_id,
            "PatientName": study.patient_name,
            "AccessionNumber": study.accession_number,
        }
        looked_at = {keyword: key for keyword, key in keys.items() if keyword in values and keyword not in self.ignores}
        return all(
            self._in_range(values[keyword], key) if keyword == "StudyTime" else self._like(values[keyword], key, sql=sql)
            for keyword, key in looked_at.items()
        )

    def _in_range(self, time: str, key: str) -> bool:
        if not time:
            return self.untimed_match
        start, _, end = key.partition("-")
        at = time.split(".", maxsplit=1)[0] if self.truncates else time
        return (not start or at >= start) and (not end or at <= end)

    def _like(self, value: str, key: str, *, sql: bool) -> bool:
        pattern = re.escape(key).replace(r"\*", ".*").replace(r"\?", ".")
        if sql:
            pattern = pattern.replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, value, re.IGNORECASE if self.folds else 0) is not None


def _on(date: str, key: str) -> bool:
    first, dash, last = key.partition("-")
    return (not first or date >= first) and (date <= last if dash and last else bool(dash) or not first or date == first)


def listed(source: Cutting, evidence: Evidence | None = None, keys: Mapping[str, str] = DAY) -> Listing:
    """List what matches `keys` at `source` to the end."""
    lister = StudyLister(keys, evidence or Evidence())
    while (query := lister.query) is not None:
        lister.feed(source.answer(query.keys))
    return lister.listing


def uids(studies: Sequence[Study]) -> set[str]:
    return {study.study_instance_uid for study in studies}
