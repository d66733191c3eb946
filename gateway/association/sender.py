"""The data path out: messages as P-DATA-TF PDUs that the peer takes, many of them with one system call (PS3.8 §9.3.5, PS3.7 §6.3).

Headers and data stand in one reused buffer as they go over the wire: the file is read by position into the gaps between
the headers, so that nothing is copied and TLS gets long records.
"""

from __future__ import annotations

from gateway.association.command import CommandSet
from gateway.association.requests import ByteSource
from gateway.association.stream import Stream


class Sender:
    """Sends messages over `stream` to a peer that takes P-DATA-TF of `max_pdu_bytes` (0: of any length)."""

    def __init__(self, stream: Stream, *, max_pdu_bytes: int) -> None:
        raise NotImplementedError

    def send_message(self, context_id: int, command: CommandSet, data_set: bytes | ByteSource | None = None) -> None:
        """Send one message. `command` must say by CommandDataSetType whether `data_set` follows.

        Raises:
            AssociationAborted, PeerTimeout: see `Stream.send`.
            OSError: the source could not be read or is shorter than it says; the peer waits for the rest, so abort.
        """
        raise NotImplementedError
