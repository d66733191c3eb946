"""The one error tree. Library exceptions are mapped to it once, at the adapter, with ``from``.

::

    GatewayError
    ├── ConfigurationError        every problem of a configuration, together
    ├── StateFolderInUse          another gateway owns the state folder
    ├── GatewayStopping           the gateway is told to stop: the same command carries on later (retryable)
    ├── GatewayLost               the gateway ended while a command was talking to it (retryable)
    ├── TaskCrashed               a part of the gateway failed in a way that nobody foresaw: the gateway ends
    ├── JobFailed                 a job failed in a way that nobody foresaw: that job ends
    ├── UsageError                a request that cannot be carried out as asked (unknown name, no such study …)
    ├── FileUnusable              a file, folder or socket cannot be used: what, where, what to do   (retryable when it may pass)
    ├── Refusal                   what a peer's request is answered with instead of success (PS3.7 Annex C)
    ├── SpoolError
    │   ├── SpoolFull             no room: the peer is told A700                      (retryable)
    │   ├── SpoolIOError          a write, fsync or rename failed: the bytes are not safe
    │   └── SpoolMissing          the ledger names bytes that are not there
    ├── LedgerError
    │   ├── LedgerUnavailable     the database cannot take the change now             (retryable)
    │   │   └── LedgerDamaged     the database is not what it was: a person has to look at it
    │   ├── LedgerForeign         the file is a database of another program
    │   ├── ChangeRejected        the database never takes the change: a constraint forbids it
    │   ├── LedgerTooNew          written by a newer gateway
    │   └── IllegalTransition     a state change that the table of transitions forbids
    ├── CodecError                the codec cannot do with an instance what was asked; it is what it was
    │   ├── NotTranscodable       it is not of a kind that the other syntax can hold, or not what its elements say
    │   ├── PixelsDiffer          the proof failed: decoded again, the pixels are not what they were
    │   ├── CodecFailed           the codec refused it, crashed, took too long or too much memory
    │   └── Incomparable          nobody could tell whether two encodings hold the same
    ├── SourceDamaged             what was being sent is not what its digest says: it was not sent whole
    ├── WebServiceError           a peer's HTTP service (REST, DICOMweb) answers what makes no sense
    │   ├── WebServiceUnreachable no connection, or no answer in time                 (retryable)
    │   └── WebServiceRefused     a status that is no success                  (retryable when 429 or 5xx)
    ├── DestinationUnavailable    a destination without association (a folder) takes nothing now (retryable)
    └── AssociationError
        ├── PeerUnreachable       no TCP connection                                   (retryable)
        ├── TlsFailed             no TLS session: certificate, name, version
        ├── AssociationRejected   A-ASSOCIATE-RJ (PS3.8 §9.3.4)           (retryable when transient)
        ├── AssociationAborted    A-ABORT, A-P-ABORT or a closed connection           (retryable)
        │   ├── ConnectionLost    the connection was closed or reset, without A-ABORT (retryable)
        │   └── AssociationEnded  the same before anything of the request was sent    (retryable)
        ├── PeerTimeout           a deadline passed: nothing came, or nothing was read (retryable)
        ├── ProtocolError         the peer broke PS3.7 or PS3.8
        ├── NoPresentationContext the peer accepted no context for what must be sent
        └── DimseFailed           a final status that is no success (PS3.7 Annex C)

``retryable`` says whether the same attempt may succeed later without anyone changing anything. No message carries
patient data: UIDs, AE titles, addresses and counts only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class GatewayError(Exception):
    """The root of everything that this package raises on purpose."""

    retryable: bool = False


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: where it is, what was found there and what was expected."""

    where: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: found {self.found}; expected {self.expected}"


class ConfigurationError(GatewayError):
    """All problems of one configuration, reported together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StateFolderInUse(GatewayError):
    """Another gateway holds the lock of the state folder."""


class GatewayStopping(GatewayError):
    """The gateway is told to stop; the same command, given again, carries on where it stopped."""

    retryable = True


class GatewayLost(GatewayError):
    """The gateway ended while a command was talking to it; the same command carries on where it stopped."""

    retryable = True


class TaskCrashed(GatewayError):
    """A part of the gateway failed in a way that nobody foresaw, so that the gateway ends; the log says where."""


class JobFailed(GatewayError):
    """A job failed in a way that nobody foresaw, so that it ends and nothing else does; the log says where."""

    @classmethod
    def of(cls, error: BaseException) -> JobFailed:
        """Return the failure of a job by `error`, whose own text may hold patient data."""
        return cls(f"internal error {type(leaf(error)).__name__}; the gateway's log says where")


class UsageError(GatewayError):
    """The request cannot be carried out as asked; the message says what would work."""


class FileUnusable(GatewayError):
    """The operating system refuses a file, folder or socket; the message says which, why, and what to do (`gateway.core.files`)."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(message)


class Refusal(GatewayError):
    """A service refuses a peer's request: `status` is the DIMSE status that the peer is answered."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class SpoolError(GatewayError):
    """The spool could not do what was asked."""


class SpoolFull(SpoolError):
    """No room, or less than the configured reserve."""

    retryable = True


class SpoolIOError(SpoolError):
    """The operating system refused a write, an fsync or a rename: the bytes are not safe and were discarded."""


class SpoolMissing(SpoolError):
    """Bytes that the ledger refers to are not there or are not what they were."""


class LedgerError(GatewayError):
    """The ledger could not do what was asked."""


class LedgerUnavailable(LedgerError):
    """The database cannot take the change now (disk full, I/O error, closed)."""

    retryable = True


class LedgerDamaged(LedgerUnavailable):
    """The ledger's file is damaged, cut short or gone: nothing is read or written any more, and nothing taken in."""

    retryable = False


class LedgerForeign(LedgerError):
    """The file that should be the ledger is a database of another program; it was left as it is."""


class ChangeRejected(LedgerError):
    """The database does not take the change for what it says (a constraint): another try cannot help."""


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer gateway than this one."""


class IllegalTransition(LedgerError):
    """A state change that the table of allowed transitions does not list."""


class SourceDamaged(GatewayError):
    """The bytes being sent differ from their digest: their last fragment was not sent, and the association was aborted."""


class CodecError(GatewayError):
    """The codec cannot do with an instance what was asked; the message says why, and nothing was changed."""


class NotTranscodable(CodecError):
    """The instance is of a kind that the other transfer syntax cannot hold, or is not what its own elements say.

    Known before anything is encoded; another transfer syntax may do.
    """


class PixelsDiffer(CodecError):
    """The encoded pixels do not decode to those they were made of: they must never be sent."""


class CodecFailed(CodecError):
    """A codec refused the instance, crashed on it, or needed more time or memory than one instance may cost."""


class Incomparable(CodecError):
    """Two encodings of an instance cannot be held against each other; the message says why, without any value of theirs."""


class WebServiceError(GatewayError):
    """A peer's HTTP service did not do what was asked; `url` is its root, without user and password."""

    def __init__(self, message: str, *, url: str = "") -> None:
        self.url = url
        super().__init__(f"{url}: {message}" if url else message)


class WebServiceUnreachable(WebServiceError):
    """No connection to the service, no trust in its certificate, or no answer in time."""

    retryable = True


class WebServiceRefused(WebServiceError):
    """The service answered with `status`, which is no success (RFC 9110 §15). Its own words are no part of the message."""

    def __init__(self, status: int, *, url: str = "") -> None:
        self.status = status
        self.retryable = status == 429 or status >= 500
        hint = {401: ": check username and password", 403: ": this user may not", 404: ": not found"}.get(status, "")
        if 300 <= status < 400:
            hint = ", which leads elsewhere: a sign-in page or a proxy's? Give the url of the service itself"
        super().__init__(f"answered {status}{hint}", url=url)


class DestinationUnavailable(GatewayError):
    """A destination that is reached without an association takes nothing now: not writable, no room, not there."""

    retryable = True


class AssociationError(GatewayError):
    """Something between us and a peer went wrong; `peer` is ``AE@host:port`` where it is known."""

    def __init__(self, message: str, *, peer: str = "") -> None:
        self.peer = peer
        super().__init__(f"{peer}: {message}" if peer else message)


class PeerUnreachable(AssociationError):
    """No TCP connection: refused, no route, unknown name, or no answer in time."""

    retryable = True


class TlsFailed(AssociationError):
    """No TLS session: wrong certificate, name or version, or the peer does not speak TLS."""


class AssociationRejected(AssociationError):
    """The peer answered A-ASSOCIATE-RJ; fields as in PS3.8 §9.3.4."""

    def __init__(self, *, result: int, source: int, reason: int, meaning: str, peer: str = "") -> None:
        self.result = result
        self.source = source
        self.reason = reason
        self.retryable = result == 2
        super().__init__(f"association rejected: {meaning}", peer=peer)


class AssociationAborted(AssociationError):
    """The association ended without release: A-ABORT, A-P-ABORT, or the connection was closed or reset."""

    retryable = True


class ConnectionLost(AssociationAborted):
    """The peer closed or reset the connection without a word of DICOM."""


class AssociationEnded(AssociationAborted):
    """The association ended while it was idle: nothing of the request at hand was sent, so its outcome is known."""


class PeerTimeout(AssociationError):
    """A deadline passed while waiting for the peer to send or to read."""

    retryable = True


class ProtocolError(AssociationError):
    """The peer broke PS3.7 or PS3.8; the association is aborted with `reason` (PS3.8 Table 9-26)."""

    def __init__(self, message: str, *, reason: int = 0, peer: str = "") -> None:
        self.reason = reason
        super().__init__(message, peer=peer)


class UnreadableAnswer(ProtocolError):
    """A peer answered a question with a data set that cannot be read; the question is over, and others may be asked."""


class NoPresentationContext(AssociationError):
    """The peer accepted no presentation context for the SOP class and transfer syntax at hand."""


class DimseFailed(AssociationError):
    """A DIMSE operation ended with a status that is no success (PS3.7 Annex C).

    The peer's Error Comment (0000,0902) is free text that may name a patient, so it is no part of the message.
    """

    def __init__(self, operation: str, status: int, *, peer: str = "") -> None:
        self.operation = operation
        self.status = status
        super().__init__(f"{operation} answered {status:04X}", peer=peer)


def leaf(error: BaseException) -> BaseException:
    """Return the first error at the bottom of a group, and one that is no group as it is."""
    return leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def require_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Make sure that all `names` are among the configured ones.

    Raises:
        UsageError: some are not; it says which, what may have been meant, and which there are.
    """
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    close = list(dict.fromkeys(match for name in unknown for match in get_close_matches(name, known, n=1)))
    meant = f"; did you mean {' and '.join(map(repr, close))}?" if close else ""
    raise UsageError(f"no {what} is called {' or '.join(map(repr, unknown))}{meant} (known: {', '.join(known) or 'none'})")


class Interrupted(GatewayError):
    """Somebody interrupted a command that works; it says what goes on without it."""
