"""The words of the field as types. Pure: no I/O, no clock, no library but the standard one.

An *instance* is one SOP Instance with its bytes; a *delivery* is one instance on its way to one destination; a
*retrieval* is one study asked of one source by C-FIND, then C-MOVE or C-GET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

IMPLEMENTATION_CLASS_UID = "2.25.183107443287560924419316043587236105117"
"""(0002,0012) and the Implementation Class UID of our associations (PS3.7 §D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME = "DICOM_GATEWAY_1"
"""(0002,0013) and the Implementation Version Name of our associations: at most 16 characters."""

MAX_UID_LENGTH = 256
"""The longest UID that is carried. PS3.5 §9.1 allows 64 characters; no file, path, command or context is made of unbounded ones."""

UID_RULE = f"control characters, wildcards, backslashes, or more than {MAX_UID_LENGTH} characters"
"""The faults for which a UID cannot be carried, in words."""

_UID = re.compile(rf"(?! )[^\x00-\x1f\x7f-\x9f*?\\\u0100-\U0010ffff]{{1,{MAX_UID_LENGTH}}}(?<! )")
_CONFORMING_UID = re.compile(r"[0-9.]{1,64}")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


def is_uid(value: str) -> bool:
    """Tell whether `value` can be carried as a UID: what names one thing in a query and can be shown and stored.

    PS3.5 §9.1 wants 1 to 64 digits and dots. Anonymisers and old devices write letters, spaces within, or more, and their instances
    must not be lost. Left out are control characters, which harm whoever shows them, and `*`, `?` and the backslash, which would
    make one UID a pattern or a list (PS3.4 §C.2.2.2). Code that makes a path or a URL of it has to quote it.
    """
    return _CONFORMING_UID.fullmatch(value) is not None or _UID.fullmatch(value) is not None


def is_conforming_uid(value: str) -> bool:
    """Tell whether `value` is made of 1 to 64 digits and dots (PS3.5 §9.1), whatever its components are."""
    return _CONFORMING_UID.fullmatch(value) is not None


def is_sop_class(value: str) -> bool:
    """Tell whether `value` can be carried as a SOP Class UID: presentation contexts are made of it, in ASCII (PS3.8 §9.3.1)."""
    return is_uid(value) and value.isascii()


def printable(text: str) -> str:
    """Return `text` with control characters replaced: what peers and files hold must not steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def is_ae_title(value: str) -> bool:
    """Tell whether `value` is an AE title: 1 to 16 printable ASCII characters, no backslash, not only spaces (PS3.5 §6.2)."""
    return _AE_TITLE.fullmatch(value) is not None and value.strip() != ""


class DeliveryState(StrEnum):
    """The state of one delivery, of an instance to a destination; the allowed changes are in `ledger.database.transitions`."""

    PENDING = "pending"
    SENDING = "sending"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    VERIFIED = "verified"
    HELD = "held"
    DROPPED = "dropped"


SETTLED = frozenset({DeliveryState.VERIFIED, DeliveryState.DROPPED})
"""Nothing more will happen by itself or is owed: the bytes need not be kept for this delivery."""

WORKING = frozenset({DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEFERRED, DeliveryState.DELIVERED})
"""The gateway still works on it by itself; held and dropped ones wait for a person or for nobody."""


class Mode(StrEnum):
    """The choice of a transfer syntax where a destination accepts several: `transfer_syntax` in the configuration."""

    AS_IS = "as-is"
    """As it came."""

    J2K_LOSSLESS = "j2k-lossless"
    """Uncompressed instances are compressed as JPEG 2000 Lossless."""

    EXPLICIT_LE = "explicit-le"
    """Instances that were compressed without loss are decompressed."""

    HTJ2K_LOSSLESS = "htj2k-lossless"
    """Uncompressed instances are compressed as High-Throughput JPEG 2000 Lossless."""


class Proof(StrEnum):
    """The proof that a verified delivery rests on."""

    STATUS = "status"
    """The destination answered success."""

    BEFORE = "exists (was there before)"
    """The destination lists it, as it did before it was sent: whether it took what was sent, or kept what it had, is not known."""

    EXISTS = "exists"
    """The destination lists it, and did not, as far as it could be asked, before it was sent."""

    COMMITMENT = "commitment"
    """The destination took responsibility for it (PS3.4 §J)."""

    DIGEST = "digest"
    """The destination's stored instance has the elements and pixels of the one that was sent."""


class StatusClass(StrEnum):
    """The class of a destination's answer to one instance, in whatever protocol it answers."""

    DONE = "done"
    """It took the instance: go on to the proof that is asked for."""

    WARNING = "warning"
    """It took the instance, with a warning that the user can see."""

    DUPLICATE = "duplicate"
    """It says that it has the instance already: check that, then done."""

    RETRY = "retry"
    """It is short of something: try again later, capped, then hold."""

    RETRY_ONCE = "retry_once"
    """One more try in a new session, then hold."""

    REFUSE = "refuse"
    """Another try cannot help: hold at once."""

    UNKNOWN = "unknown"
    """The answer leaves open whether it has the instance: ask for it before the next try."""


@dataclass(frozen=True, slots=True)
class Status:
    """A status that a destination answers: its number in the protocol of its kind, as people write it, its meaning, its class."""

    code: int
    shown: str
    meaning: str
    status_class: StatusClass

    @property
    def words(self) -> str:
        """The status for people."""
        return f"{self.shown} {self.meaning}"


class VerdictKind(StrEnum):
    """The verdict on a retrieval (promise 2)."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    EMPTY = "empty"
    FAILED = "failed"


class Basis(StrEnum):
    """The ground on which a retrieval's expectation rests."""

    UIDS = "uids"
    """The SOP Instance UIDs listed by C-FIND at IMAGE level."""

    COUNTS = "counts"
    """Only the counts (0020,1206)/(0020,1208)/(0020,1209): the source does not answer at IMAGE level."""


class Priority(IntEnum):
    """The order where not everything can go at once: C-MOVEs and C-GETs at a source, deliveries at a destination."""

    LOW = 0
    """Work that nobody waits for: a migration."""

    NORMAL = 1

    HIGH = 2
    """Work that somebody waits for now: it overtakes everything else."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """The purpose of an arriving instance: the retrieval that it is counted to, and the destinations of that one.

    `destinations` are names of ``[destinations]``, whatever the routes say; None is where the routes lead.
    """

    retrieval_id: int
    destinations: tuple[str, ...] | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Provenance:
    """The sender of an instance, and the operation under which it was sent.

    `move_originator_ae` and `move_originator_message_id` are (0000,1030) and (0000,1031), present when the C-STORE is a
    sub-operation of a C-MOVE (PS3.7 §9.3.1.1); of one of our C-GETs they are our own AE title and the C-GET's Message ID.
    """

    calling_ae: str
    called_ae: str
    address: str
    association: str
    source: str | None = None
    move_originator_ae: str | None = None
    move_originator_message_id: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceIdentity:
    """The UIDs that name an instance and how it is encoded."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """The place of an instance's data set: `length` bytes from `offset` in what `location` names, with its XXH3-128 `digest`.

    `location` is opaque to everyone but the spool: ``spool:TOKEN`` for spooled bytes, ``file:SIZE:MTIME:PATH`` for a file sent
    in place, as it was when it was registered. The digest is computed for both, spooled bytes while they are written, a file in
    place once while it is registered; the same instance has the same digest wherever it lies.
    """

    location: str
    offset: int
    length: int
    digest: str

    def __post_init__(self) -> None:
        """Have no content without bytes, or before its file, come into being.

        Raises:
            ValueError: it would be one.

        """
        if self.length < 1 or self.offset < 0:
            raise ValueError(f"a data set of {self.length} bytes at {self.offset}")


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes that routing may ask for: attribute keywords to values, in memory only (patient data is never recorded).

    Beside DICOM keywords there are ``calling_ae``, ``called_ae`` and ``source``.
    """

    values: Mapping[str, str] = field(default_factory=dict)

    def get(self, keyword: str) -> str | None:
        """Return the value of `keyword`, multiple values joined by a backslash, or None where the instance has none."""
        return self.values.get(keyword)


@dataclass(frozen=True, slots=True)
class Consignment:
    """One delivery as a destination adapter sees it: which instance, where its bytes are, how often it was tried."""

    delivery_id: int
    instance_id: int
    destination: str
    identity: InstanceIdentity
    content: Content
    attempts: int
    last_status: int | None = None
    """The destination's last answer, where it answered."""

    uncertain: bool = False
    """True when an earlier attempt ended without an answer, so the destination may already hold it."""

    has_rivals: bool = False
    """True when other content is known under the same SOP Instance UID: that the destination has the UID proves nothing."""

    mode: Mode | None = None
    """The transfer syntax that its route asks for, in place of the destination's own wish."""

    sent_as: str | None = None
    """The transfer syntax UID that was chosen for it at an earlier look; None where nothing speaks against the best one."""

    was_there: bool | None = None
    """Whether the destination listed it before it was sent for the first time; None where that was not or could not be asked."""


class Action(StrEnum):
    """The actions of a person on deliveries."""

    RETRY = "retry"
    """Try again now with all attempts anew: held, deferred, or dropped ones whose bytes are still kept."""

    HOLD = "hold"
    """Stop trying until someone releases or retries it: pending and deferred ones."""

    RELEASE = "release"
    """Let held ones go on where they stood, with the attempts counted so far."""

    DROP = "drop"
    """Give up: nothing more is owed, and the bytes go once no other destination needs them."""


DEFAULT_NODE = "main"
"""The name of the only node, where the configuration gives it no other (``[node] name``)."""


class Role(StrEnum):
    """The parts of a gateway that run."""

    GATEWAY = "gateway"
    """Everything: it retrieves, delivers and confirms, and listens where it is to be called."""

    DESK = "desk"
    """The state folder is open for questions and queue actions only; nothing is received or sent."""
