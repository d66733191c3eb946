"""TLS between bytes and bytes, without a socket: who owns one moves what is here, a lot of it at a time.

OpenSSL on a socket of its own reads and writes a record, 16 KiB at most, with system calls of its own, two to read one. Here
many records come in with one `recv` and go out with one `send`, and the waits and their deadlines are the owner's alone.
Errors are those of `ssl`. One thread at a time.
"""

from __future__ import annotations

import mmap
import ssl
from contextlib import suppress

WIRE_BYTES = 128 * 1024
"""Taken off the socket at a time: what is decrypted from it is still in the processor's cache when it is used."""


class RecordLayer:
    """One end of a TLS connection (RFC 8446 §5, RFC 5246 §6).

    Received bytes go into `room` and are made known by `took`; bytes to send are in `outgoing`, which is to be looked
    at after `handshake`, `read_into` and their errors (an alert, the answer to a KeyUpdate).

    Raises ValueError for a `server_name` that cannot be one, and for a `session` of another context.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None, session: ssl.SSLSession | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name, session=session
        )
        # Memory that is taken page by page as it is used: an idle peer uses one.
        self.room = memoryview(mmap.mmap(-1, WIRE_BYTES))
        self._end: ssl.SSLError | None = None

    def took(self, count: int) -> None:
        """Take the first `count` bytes in `room` as what came next; 0 as the end of the connection."""
        if count:
            self._incoming.write(self.room[:count])
        else:
            self._incoming.write_eof()

    def outgoing(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; tell whether it is complete, and where not, more has to come.

        Raises:
            ssl.SSLError: it failed; the alert for the peer is in `outgoing`.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def stirs(self) -> bool:
        """Tell whether something came that is not read yet, be it less than a record."""
        return bool(self._end or self._incoming.pending or self._object.pending())

    def read_into(self, view: memoryview) -> int:
        """Put what came, decrypted, into `view` until either ends; return how many bytes, 0 where no record is there whole.

        Raises:
            ssl.SSLZeroReturnError: the peer ended the session (close_notify) behind all that was read.
            ssl.SSLError: a record or alert that ends the session, behind all that was read.
        """
        if self._end is not None:
            raise self._end
        got = 0
        try:
            # Without these questions each of OpenSSL's buffers that runs dry would cost an exception.
            while got < len(view) and (self._incoming.pending or self._object.pending()):
                count = self._object.read(len(view) - got, view[got:])
                if not count:
                    raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the peer ended the TLS session")
                got += int(count)
        except ssl.SSLWantReadError:
            # The next record is not whole yet: what was read before it is returned.
            return got
        except ssl.SSLError as error:
            self._end = error
            if not got:
                raise
        return got

    def write(self, data: memoryview) -> bytes:
        """Return `data` as records, after what was outgoing before."""
        self._object.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return the alert that ends the session in order (close_notify), empty where it has failed or was ended before."""
        with suppress(ssl.SSLError):  # nobody waits for the peer's own close_notify
            self._object.unwrap()
        return self._outgoing.read()

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate, in DER."""
        return self._object.getpeercert(binary_form=True)

    @property
    def resumed(self) -> bool:
        """Whether an earlier session goes on, in which the certificate was checked."""
        return bool(self._object.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session that a later connection can resume; None while the peer gave no ticket."""
        session = self._object.session
        return session if session is not None and session.has_ticket else None
