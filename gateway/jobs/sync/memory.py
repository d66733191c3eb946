"""A sync's memory of a study from one look to the next. Pure; times are monotonic seconds.

It is kept in memory only: what a restart forgets costs two looks. Deliveries on their way, or held, are in the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.jobs.sync.growth import Seen
from gateway.jobs.sync.pauses import Attempt, attempted, until_compared
from gateway.jobs.sync.shortfall import Sight


@dataclass(frozen=True)
class Memory:
    """One study: how its series grew, how it last compared, and what its last retrieval came to.

    `agreed` is what the look saw that found nothing lacking, `agreements` how many comparisons in a row found that, `compare_at`
    when its UIDs are compared again though no count has changed.
    """

    series: Mapping[str, Seen] = field(default_factory=dict)
    agreed: Sight | None = None
    agreements: int = 0
    compare_at: float = -math.inf
    attempt: Attempt | None = None

    def is_settled(self, sight: Sight, now: float) -> bool:
        """Tell whether a look that sees `sight` has nothing to ask about the study."""
        return self.agreed == sight and now < self.compare_at

    def agree(self, sight: Sight, now: float, interval_s: float, compare_every_s: float) -> Memory:
        """Nothing was lacking, by UIDs."""
        agreements = self.agreements + 1 if self.agreed == sight else 1
        wait = until_compared(agreements, interval_s, compare_every_s, counted=sight.counted)
        return replace(self, agreed=sight, agreements=agreements, compare_at=now + wait, attempt=None)

    def agree_by_counts(self, sight: Sight, now: float) -> Memory:
        """Nothing was lacking as far as counts tell: the next look that has time for it compares by UIDs."""
        return replace(self, agreed=sight, agreements=0, compare_at=now)

    def differ(self) -> Memory:
        """Something was lacking, or is still growing."""
        return replace(self, agreed=None, agreements=0, compare_at=-math.inf)

    def tried(self, lacking: object, now: float, *, complete: bool) -> Memory:
        """A retrieval of `lacking` ended."""
        return replace(self.differ(), attempt=attempted(self.attempt, lacking, now, complete=complete))
