"""A request for a migration: from where, which studies, to where, and how. Pure.

The request is kept in the ledger as canonical JSON, so that the gateway carries it on by itself after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from gateway.core.domain import Priority
from gateway.core.errors import UsageError
from gateway.core.single_values import SingleValue
from gateway.retrieve import KEYWORDS, JobSpec, check_named


@dataclass(frozen=True)
class MigrationRequest:
    """The studies to migrate: those of a range of study dates, or those of a list; exactly one of them is given.

    `first` and `last` are ISO dates, both inclusive; with `reverse` the last day comes first. Everything goes to `destinations`,
    else where the routes lead. `moves` is how many studies at most move at a time, no more than the source's. `max_used` is a share
    of the spool's file system (0 to 1) above which nothing is begun. `when` names a schedule.

    Raises:
        UsageError: neither or both were given, a date is none, the range is empty, or a study UID is no UID.
    """

    source: str
    first: str = ""
    last: str = ""
    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    reverse: bool = False
    destinations: tuple[str, ...] = ()
    moves: int | None = None
    skip_existing: bool = False
    max_used: float | None = None
    delete_from_source: bool = False
    when: str | None = None
    priority: Priority = Priority.LOW

    def __post_init__(self) -> None:
        ways = [bool(self.first or self.last), *(bool(getattr(self, name)) for name in KEYWORDS)]
        if sum(ways) != 1:
            raise UsageError("name the studies in one way: --from and --to, or --list")
        if self.first or self.last:
            begin, end = self._date(self.first, "--from"), self._date(self.last, "--to")
            if begin > end:
                raise UsageError("--from is after --to (--reverse begins with the last day)")
        if (self.moves is not None and self.moves < 1) or not 0 < (1.0 if self.max_used is None else self.max_used) <= 1:
            raise UsageError("--moves: expected 1 or more; --max-used: a share from 0 to 1")
        check_named(self)

    @staticmethod
    def _date(text: str, option: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise UsageError(f"{option}: found {text[:20]!r}; expected a date such as 2000-01-31") from error

    def portions(self) -> tuple[str, ...]:
        """Return the label of each part that is listed at a time, in order: days, or ``#1`` … for the entries of the list."""
        if self.first:
            begin, end = date.fromisoformat(self.first), date.fromisoformat(self.last)
            labels = [(begin + timedelta(days=number)).isoformat() for number in range((end - begin).days + 1)]
        else:
            labels = [f"#{number}" for number in range(1, len(self._values()) + 1)]
        return tuple(reversed(labels)) if self.reverse else tuple(labels)

    def keys(self, label: str) -> Mapping[str, str]:
        """Return the matching keys of the C-FIND that lists a portion (PS3.4 §C.2.2.2)."""
        if self.first:
            return {"StudyDate": label.replace("-", "")}
        keyword = next(keyword for name, keyword in KEYWORDS.items() if getattr(self, name))
        return {keyword: SingleValue(self._values()[int(label[1:]) - 1])}

    def _values(self) -> tuple[str, ...]:
        return next(values for name in KEYWORDS if (values := tuple(dict.fromkeys(getattr(self, name)))))

    def criteria(self) -> str:
        """Return the request as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, criteria: str) -> MigrationRequest:
        """Return the request that `criteria` was made of; what an older gateway did not know has its default."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in json.loads(criteria).items() if key in known}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**values | {"priority": Priority(values.get("priority", Priority.LOW))})

    def fingerprint(self) -> str:
        """Return what identifies the same migration given again, however it is to be done (64 hexadecimal digits)."""
        what = replace(self, moves=None, max_used=None, when=None, priority=Priority.LOW, delete_from_source=False)
        return hashlib.sha256(f"migrate {what.criteria()}".encode()).hexdigest()

    def spec(self) -> JobSpec:
        """Return what the job is done for."""
        return JobSpec("migrate", self.fingerprint(), self.criteria(), self.destinations, self.priority, reopen=True)
