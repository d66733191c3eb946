"""The operator's log of what was sent where, study by study: a line a study and destination instead of one a batch.

Workers note what they sent; whoever tells of it takes what has been quiet for a while, and puts back what is not through. In memory
and bounded: what a restart forgets is in the ledger, and a line that is missing costs no instance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

QUIET_S = 3.0
"""A study of which nothing was sent for so long may be through."""

LONGEST_PAUSE_S = 60.0
"""A study that is not through, because its rest waits, is looked at again no later than this."""

MAX_STUDIES = 10_000
"""Studies noted at a time; one more takes the place of the one that was noted first."""


@dataclass(slots=True)
class Sent:
    """Instances of one study that a destination took, and when: UTC seconds since the epoch."""

    began_at: float
    ended_at: float
    instances: int = 0
    size_bytes: int = 0
    look_at: float = 0.0
    pause_s: float = QUIET_S

    @property
    def seconds(self) -> float:
        """The time from the first instance to the last."""
        return self.ended_at - self.began_at


Key = tuple[str, str]
"""Name of a destination, Study Instance UID."""

Note = Callable[[str, Mapping[str, Sent]], None]
"""Takes what a destination took, by study."""


class Journal:
    """Adds up what was sent. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[Key, Sent] = {}

    def note(self, destination: str, studies: Mapping[str, Sent]) -> None:
        """Note a batch; see `Note`."""
        with self._lock:
            for study, part in studies.items():
                key = (destination, study)
                if key not in self._sent and len(self._sent) >= MAX_STUDIES:
                    del self._sent[next(iter(self._sent))]
                sent = self._sent.setdefault(key, Sent(part.began_at, part.ended_at))
                sent.began_at, sent.ended_at = min(sent.began_at, part.began_at), max(sent.ended_at, part.ended_at)
                sent.instances += part.instances
                sent.size_bytes += part.size_bytes
                sent.look_at, sent.pause_s = sent.ended_at + QUIET_S, QUIET_S

    def take(self, now: float) -> dict[Key, Sent]:
        """Take out what has been quiet until `now`, UTC seconds since the epoch."""
        with self._lock:
            quiet = {key: sent for key, sent in self._sent.items() if sent.look_at <= now}
            for key in quiet:
                del self._sent[key]
        return quiet

    def put_back(self, key: Key, sent: Sent, now: float) -> None:
        """Put back what is not through; more of it may have been noted meanwhile."""
        with self._lock:
            more = self._sent.get(key)
            if more is not None:
                more.began_at = min(more.began_at, sent.began_at)
                more.instances += sent.instances
                more.size_bytes += sent.size_bytes
            elif len(self._sent) < MAX_STUDIES:
                sent.pause_s = min(2 * sent.pause_s, LONGEST_PAUSE_S)
                sent.look_at = now + sent.pause_s
                self._sent[key] = sent
