"""Outcomes that a session reports, kept for a test to look at."""

from __future__ import annotations

from collections.abc import Callable

from gateway.delivery.destination import Outcome


class Outcomes(list[Outcome]):
    """A `Report` that keeps every outcome in its order; `go_on` is asked after each."""

    def __init__(self, go_on: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._go_on = go_on

    def __call__(self, outcome: Outcome) -> bool:
        self.append(outcome)
        return self._go_on()

    def by_number(self) -> dict[int, Outcome]:
        """Return the outcomes by the number of their delivery."""
        return {outcome.delivery_id: outcome for outcome in self}
