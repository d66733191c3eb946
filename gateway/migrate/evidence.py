"""What is known of how many matches a source gives to a query at most. Pure.

Few sources say that there would have been more matches (Orthanc does, by status FE00); most just stop. So the number of matches
alone has to tell: a source that once gave more was not cut short by a limit on the number when it gave fewer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

LEAST_CAP = 10
"""Sources that give fewer matches than this at most are not looked for; one can be declared by ``max_results``."""


@dataclass(frozen=True, slots=True)
class Study:
    """A match at STUDY level; time, name and id are as the source writes them, empty where it does not say. In memory only."""

    study_instance_uid: str
    instance_count: int | None = None
    time: str = ""
    patient_id: str = ""
    patient_name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source answered to one query.

    `matches` counts all that came, those too that are no studies of their own or plainly no matches. `cut` says that the source
    itself tells of more, or refuses for finding too much; `refused`, that it does not answer such a query at all.
    """

    studies: Sequence[Study] = ()
    matches: int = 0
    cut: bool = False
    refused: bool = False


@dataclass
class Evidence:
    """What is known of a source, shared by all its queries.

    `cap` is the number of matches at which it stops, None where none is known. `tells` says that it says so when it stops. `most`
    is the number it ever gave, `checked` the greatest number that was found to be all there was.
    """

    cap: int | None = None
    tells: bool = False
    most: int = 0
    checked: int = 0

    def note(self, answer: Answer) -> None:
        """Learn from an answer."""
        self.most = max(self.most, answer.matches)
        if answer.cut and answer.matches:
            self.tells = True
            self.found_cut(answer.matches)
        elif self.cap is not None and answer.matches > self.cap:
            self.cap = None

    def found_cut(self, matches: int) -> None:
        """Learn that an answer of so many matches was not all there was; one without any was refused, and says nothing of a cap."""
        if matches:
            self.cap = matches if self.cap is None else min(self.cap, matches)

    def found_whole(self, matches: int) -> None:
        """Learn that an answer of so many matches was all there was."""
        self.checked = max(self.checked, matches)

    def whole(self, answer: Answer) -> bool:
        """Tell whether an answer that was noted has certainly not been cut short."""
        if answer.cut or answer.refused:
            return False
        if self.tells or answer.matches == 0:
            return True
        return answer.matches < (max(self.most, LEAST_CAP) if self.cap is None else self.cap)

    def likely(self, answer: Answer) -> bool:
        """Tell whether as many matches were all there was an earlier time: a short look will do."""
        return self.cap is None and not answer.cut and 0 < answer.matches <= self.checked

    def text(self) -> str:
        """Return it as `from_text` reads it."""
        return json.dumps({"cap": self.cap, "tells": self.tells, "most": self.most, "checked": self.checked})

    @classmethod
    def from_text(cls, text: str | None, *, max_results: int | None = None) -> Self:
        """Return what an earlier run learned, and what the configuration says, which counts for more."""
        known = cls(**json.loads(text)) if text else cls()
        if max_results is not None:
            known.cap = max_results
        return known
