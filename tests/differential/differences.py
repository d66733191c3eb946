"""Where the gateway and stock pynetdicom may differ, and why: one table. Nothing else may.

A stream is searched for what is irregular in it. Each kind of irregularity excuses differences in some respects, and no others;
whatever it is, the messages of one side are always the first ones of the other's, byte for byte, and a context that both accept is
accepted in the same transfer syntax.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import UID_dictionary

from tests.differential import reference
from tests.differential.reference import Message, word
from tests.differential.results import Result
from tests.differential.transcript import split

CONTEXTS, REJECTION, MESSAGES, INSTANCES, RESPONSES, END = "contexts", "rejection", "messages", "instances", "responses", "end"
_ALL = (CONTEXTS, REJECTION, MESSAGES, INSTANCES, RESPONSES, END)
_SERVED = (MESSAGES, INSTANCES, RESPONSES, END)
_ASKED = ("results", REJECTION, END)


@dataclass(frozen=True)
class Difference:
    """Why both may differ, and in which respects. `timing` says that they do only now and then."""

    reason: str
    respects: tuple[str, ...]
    timing: bool = False


DELIBERATE: dict[str, Difference] = {
    # A-ASSOCIATE-RQ
    "protocol version": Difference("PS3.8 §9.3.2: only bit 0 is tested; pynetdicom wants the number 1", _ALL),
    "title": Difference("what is no AE title is rejected with its reason, and NUL is padding; pynetdicom aborts", _ALL),
    "application context": Difference("a wrong or missing one is rejected (1, 1, 2); pynetdicom does not look", _ALL),
    "item": Difference("PS3.8 §9.3.1: an unknown or bad item costs itself only; pynetdicom drops the whole PDU", _ALL),
    "maximum length": Difference("in less than 7 bytes nothing can be sent; pynetdicom accepts and then cannot answer", _ALL),
    "unknown SOP class": Difference("an unknown SOP class is taken for storage; pynetdicom supports what it is told", _ALL),
    # The stream of PDUs
    "pdu type": Difference("both abort; pynetdicom before it answers what came earlier", _SERVED, timing=True),
    "pdu length": Difference("bounded before it is read; pynetdicom waits for what the header says", _ALL),
    "pdu order": Difference("both abort; pynetdicom before it answers what came earlier", (CONTEXTS, *_SERVED)),
    "at once": Difference("what follows the A-ASSOCIATE-RQ unasked waits for the answer; pynetdicom aborts", (CONTEXTS, *_SERVED)),
    "behind the release": Difference(
        "PS3.8 §9.2 Sta8: A-RELEASE-RP goes out at once; pynetdicom may read on", _SERVED, timing=True
    ),
    # Presentation data values
    "pdv length": Difference("PS3.8 §9.3.5: PDVs fill their PDU; pynetdicom drops the PDU, or what is left", _SERVED),
    "empty fragment": Difference("an empty fragment that is not the last is refused: a message could go on for ever", _SERVED),
    "context": Difference("PS3.8 Annex E: a message has one context; pynetdicom takes its last command fragment's", _SERVED),
    "fragment order": Difference("PS3.7 §6.3.1: command before data set; pynetdicom takes data from before the command", _SERVED),
    "two messages": Difference("pynetdicom loses what follows a message's end in the same PDU", _SERVED),
    "not accepted": Difference("refused at its first fragment; pynetdicom looks when the message is whole", _SERVED),
    # Commands and what they ask for
    "command": Difference("PS3.7 §6.3.1, §E.1: a malformed command set ends the association; pydicom reads on as it can", _SERVED),
    "element": Difference("what no one needs may be missing or doubled; pynetdicom ignores the message or crashes", _SERVED),
    "uid": Difference("what is no UID is answered 0117 or 0122; pynetdicom takes it or ignores the message", _SERVED),
    "SOP class": Difference("an instance belongs to its context; pynetdicom goes by its Affected SOP Class", _SERVED),
    "operation": Difference("an operation that is not served is answered 0122 or 0211; pynetdicom aborts or keeps quiet", _SERVED),
    "cut report": Difference(
        "Event Information whose lengths lead beyond its end is answered 0110; pynetdicom takes what is there", (RESPONSES,)
    ),
    # Answers of acceptors
    "rejection": Difference("whatever it says, an A-ASSOCIATE-RJ rejects; pynetdicom wants the numbers of Table 9-21", _ASKED),
    "accept": Difference("PS3.8 §9.3.1: a bad item costs itself only; pynetdicom drops the whole PDU", _ASKED),
    "response": Difference("a response to another message, or in another context, is none; pynetdicom takes it", _ASKED),
    "pdus": Difference("a PDU that may not come now ends the association at once; pynetdicom may have what it wants first", _ASKED),
}


def disagreements(turns: Sequence[Sequence[bytes]], ours: Result, stock: Result) -> list[str]:
    """Return what is different and has no excuse."""
    kinds = irregularities(turns, ours)
    excused = {respect for kind in kinds for respect in DELIBERATE[kind].respects}
    found = [
        f"{respect}: {getattr(ours, respect)} here, {getattr(stock, respect)} there"
        for respect in _ALL
        if getattr(ours, respect) != getattr(stock, respect) and respect not in excused
    ]
    found += _never(ours, stock)
    return [f"{one} ({', '.join(sorted(kinds)) or 'a regular stream'})" for one in found]


def _never(ours: Result, stock: Result) -> Iterator[str]:
    """Yield the differences for which there is no excuse."""
    if ours.hung:
        yield "the association never ended"
    both = min(len(ours.messages), len(stock.messages))
    if ours.messages[:both] != stock.messages[:both]:
        yield f"other messages: {ours.messages} here, {stock.messages} there"
    for number, (result, syntax) in (ours.contexts or {}).items():
        other, other_syntax = (stock.contexts or {}).get(number, (None, ""))
        if result == other == 0 and syntax != other_syntax:
            yield f"context {number} in {syntax} here, in {other_syntax} there"


def irregularities(turns: Sequence[Sequence[bytes]], ours: Result) -> set[str]:
    """Return the kinds of what is irregular in a requestor's stream; `ours` tells the contexts that it may use."""
    stream = b"".join(part for turn in turns for part in turn)
    pdus = split(stream)
    if not pdus:
        return set()
    accepted = {number for number, (result, _) in (ours.contexts or {}).items() if result == 0}
    return {*_request(pdus[0]), *_order(turns, pdus), *_messages(b"".join(pdus[1:]), accepted)}


def _request(pdu: bytes) -> Iterator[str]:
    """Yield what is irregular in the first PDU."""
    (length,) = struct.unpack_from(">I", pdu.ljust(6, b"\0"), 2)
    if length > reference.MAX_ASSOCIATE_BYTES:
        yield "pdu length"
    if pdu[0] != reference.ASSOCIATE_RQ:
        yield "pdu order"
    elif len(pdu) < 6 + 68 or len(pdu) < 6 + length:
        yield "pdu length"
    else:
        yield from _fields(pdu[6:])


def _fields(body: bytes) -> Iterator[str]:
    if body[:2] != b"\0\1":
        yield "protocol version"
    for title in (body[4:20], body[20:36]):
        if not title.strip(b" ") or any(not 0x20 <= byte < 0x7F or byte == 0x5C for byte in title):
            yield "title"
    items = list(_items(body[68:]))
    contexts = [value for kind, value in items if kind == 0x20]
    if [value for kind, value in items if kind == 0x10] != [b"1.2.840.10008.3.1.1.1"]:
        yield "application context"
    if any(kind not in (0x10, 0x20, 0x50) for kind, _ in items) or len({value[:1] for value in contexts}) != len(contexts):
        yield "item"
    users = [value for kind, value in items if kind == 0x50]
    if len(users) != 1 or not contexts:
        yield "item"
    for context in contexts:
        yield from _context(context)
    for user in users:
        yield from _user(user)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each item; of one that is longer than what there is the type -1."""
    while data:
        kind, length = struct.unpack_from(">BxH", data.ljust(4, b"\0"))
        yield (kind if len(data) >= 4 + length else -1), data[4 : 4 + length]
        data = data[4 + length :]


def _context(value: bytes) -> Iterator[str]:
    items = list(_items(value[4:]))
    if not value[:1] or value[0] % 2 == 0 or [kind for kind, _ in items] != [0x30, *[0x40] * (len(items) - 1)] or len(items) < 2:
        yield "item"
    for kind, uid in items:
        if not is_uid(uid):
            yield "item"
        elif kind == 0x30 and uid.decode() not in UID_dictionary:
            yield "unknown SOP class"


_USER_ITEMS = {0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58}


def _user(value: bytes) -> Iterator[str]:
    items = list(_items(value))
    kinds = [kind for kind, _ in items]
    once = [kind for kind in kinds if kind in (0x51, 0x52, 0x53, 0x55, 0x58)]
    if not {0x51, 0x52} <= set(kinds) <= _USER_ITEMS or len(set(once)) != len(once):
        yield "item"
    for kind, item in items:
        if kind == 0x51 and (len(item) != 4 or 0 < int.from_bytes(item, "big") < 7):
            yield "maximum length"
        if (kind == 0x52 and not is_uid(item)) or (kind == 0x55 and not _printable(item)) or not _well_formed(kind, item):
            yield "item"


def _well_formed(kind: int, item: bytes) -> bool:
    """Tell whether the items of PS3.7 §D.3.3 are what they have to be."""
    if kind == 0x54:
        (length,) = struct.unpack_from(">H", item.ljust(2, b"\0"))
        return len(item) == 4 + length and is_uid(item[2:-2]) and set(item[-2:]) <= {0, 1}
    # Those that are not read here at all, and are not in what any program sends that was recorded.
    return kind not in (0x53, 0x56, 0x57)


def is_uid(raw: bytes) -> bool:
    """Tell whether `raw` is digits and dots, 1 to 64 of them, with one NUL of padding at most."""
    text = raw[:-1] if raw.endswith(b"\0") else raw
    parts = text.split(b".")
    return 0 < len(text) <= 64 and all(part.isdigit() and (part == b"0" or part[:1] != b"0") for part in parts)


def _printable(raw: bytes) -> bool:
    return 0 < len(raw) <= 16 and all(0x20 <= byte < 0x7F for byte in raw)


def _order(turns: Sequence[Sequence[bytes]], pdus: list[bytes]) -> Iterator[str]:
    """Yield what is irregular in which PDUs come when."""
    if len(split(b"".join(turns[0]))) > 1:
        yield "at once"
    kinds = [pdu[0] for pdu in pdus]
    if reference.RELEASE_RQ in kinds and kinds.index(reference.RELEASE_RQ) < len(kinds) - 1:
        yield "behind the release"
    if any(_shared(pdu) for pdu in pdus[1:]):
        yield "two messages"


def _shared(pdu: bytes) -> bool:
    """Tell whether something follows the last fragment of a message in a P-DATA-TF."""
    at, ended = 6, False
    while pdu[0] == reference.P_DATA and len(pdu) - at >= 6:
        if ended:
            return True
        size, _, control = struct.unpack_from(">IBB", pdu, at)
        ended = control & 3 == 2
        at += 4 + max(size, 2)
    return False


def _messages(stream: bytes, accepted: set[int]) -> Iterator[str]:
    reading = reference.read(stream)
    if reading.kind:
        yield reading.kind
    if any(context_id not in accepted for context_id in reading.context_ids):
        yield "not accepted"
    for message in [*reading.messages, *([reading.begun] if reading.begun else [])]:
        yield from _command(message)


_REQUIRED = {
    0x0001: {0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000},
    0x0030: {0x0000, 0x0002, 0x0100, 0x0110, 0x0800},
    0x0100: {0x0000, 0x0002, 0x0100, 0x0110, 0x0800, 0x1000, 0x1002},
    0x0130: {0x0000, 0x0003, 0x0100, 0x0110, 0x0800, 0x1001, 0x1008},
}
_OPTIONAL = {0x0001: {0x1030, 0x1031}}
_STORE, _ECHO, _EVENT, _ACTION = _REQUIRED
_CLASSES = {_ECHO: b"1.2.840.10008.1.1", _EVENT: b"1.2.840.10008.1.20.1", _ACTION: b"1.2.840.10008.1.20.1"}


def _command(message: Message) -> Iterator[str]:
    """Yield what is irregular in a command set that can be read."""
    command, operation = message.command, message.operation
    if operation not in _REQUIRED:
        yield "operation"
        return
    numbers = set(command)
    if not _REQUIRED[operation] <= numbers <= _REQUIRED[operation] | _OPTIONAL.get(operation, set()) or message.irregular:
        yield "element"
    if (message.data is None) is (operation != _ECHO) or word(command, 0x0700) > 2:
        yield "element"
    if any(not is_uid(command[number]) for number in (0x0002, 0x0003, 0x1000, 0x1001) if number in command):
        yield "uid"
    sop_class = command.get(0x0002, command.get(0x0003, b"")).rstrip(b"\0")
    if operation == 0x0100 and message.data is not None and not _whole(message.data):
        yield "cut report"
    if sop_class != _CLASSES.get(operation, sop_class) or sop_class.decode("latin-1") not in UID_dictionary:
        yield "SOP class"


def _whole(data: bytes) -> bool:
    """Tell whether the elements of a data set, and of the items of its sequences with a length, end within what they stand in."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            return False
        vr, item = data[at + 4 : at + 6], data[at : at + 2] == b"\xfe\xff"
        if item or not vr.isalpha():
            length, behind = int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        elif vr in (b"SQ", b"OB", b"OW", b"UN", b"UT", b"UC", b"UR"):
            length, behind = int.from_bytes(data[at + 8 : at + 12], "little"), at + 12
        else:
            length, behind = int.from_bytes(data[at + 6 : at + 8], "little"), at + 8
        if length == 0xFFFFFFFF:
            length = 0
        elif behind + length > len(data) or ((item or vr == b"SQ") and not _whole(data[behind : behind + length])):
            return False
        at = behind + length
    return True


def of_acceptor(recorded: Sequence[Sequence[bytes]], played: Sequence[Sequence[bytes]]) -> set[str]:
    """Return the kinds of what is irregular in an acceptor's stream, `recorded` being how it was."""
    return set(_answers(_joined(recorded), _joined(played)))


def _joined(turns: Sequence[Sequence[bytes]]) -> bytes:
    return b"".join(part for turn in turns for part in turn)


def _answers(recorded: bytes, played: bytes) -> Iterator[str]:
    before, after = split(recorded), split(played)
    if before[:1] != after[:1]:
        yield "rejection" if before[0][0] == reference.ASSOCIATE_RJ else "accept"
    if [part[0] for part in before] != [part[0] for part in after]:
        yield "pdus"
    then, now = reference.read(b"".join(before[1:])), reference.read(b"".join(after[1:]))
    if now.kind:
        yield now.kind
    if [_answer(one) for one in then.messages] != [_answer(one) for one in now.messages]:
        yield "response"
    if any(
        one.irregular or set(one.command) != set(other.command) for one, other in zip(now.messages, then.messages, strict=False)
    ):
        yield "element"


def _answer(message: Message) -> tuple[int, int, int]:
    return message.context_id, message.operation, word(message.command, reference.RESPONDED_ID)
