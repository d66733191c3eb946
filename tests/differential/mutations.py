"""Changes to a requestor's part of a transcript. Pure: the same random generator makes the same change.

`NEUTRAL` are those that PS3.8 leaves to the sender, which must change nothing; `HARMFUL` are those that make another stream of it,
mostly one that is wrong.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.differential.reference import P_DATA

Turns = list[list[bytes]]
Mutation = Callable[[Turns, random.Random], Turns]


def _pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _values(data_pdu: bytes) -> list[tuple[int, int, bytes]]:
    """Return context ID, message control header and fragment of each PDV of a whole P-DATA-TF."""
    found, at = [], 6
    while at < len(data_pdu):
        size, context_id, control = struct.unpack_from(">IBB", data_pdu, at)
        found.append((context_id, control, data_pdu[at + 6 : at + 4 + size]))
        at += 4 + size
    return found


def _whole(part: bytes) -> bool:
    return len(part) >= 6 and len(part) == 6 + struct.unpack_from(">I", part, 2)[0]


def _split_fragment(context_id: int, control: int, fragment: bytes, chance: random.Random) -> list[bytes]:
    """Return PDVs that hold `fragment` in one to four parts, none of them empty."""
    cuts = sorted({chance.randrange(1, len(fragment)) for _ in range(chance.randrange(4))}) if len(fragment) > 1 else []
    ends = [*cuts, len(fragment)]
    parts = [fragment[begin:end] for begin, end in zip([0, *cuts], ends, strict=True)]
    return [_pdv(context_id, control if number == len(parts) else control & ~2, part) for number, part in enumerate(parts, start=1)]


def split_fragments(turns: Turns, chance: random.Random) -> Turns:
    """Cut fragments into smaller ones, in the same PDU or in one each."""

    def smaller(part: bytes) -> list[bytes]:
        if part[0] != P_DATA or not _whole(part):
            return [part]
        values = [value for each in _values(part) for value in _split_fragment(*each, chance)]
        return [pdu(P_DATA, b"".join(values))] if chance.random() < 0.5 else [pdu(P_DATA, value) for value in values]

    return [[piece for part in turn for piece in smaller(part)] for turn in turns]


def merge_pdus(turns: Turns, chance: random.Random) -> Turns:
    """Put the PDVs of several PDUs of one message into one PDU."""
    merged = []
    for turn in turns:
        pdus: list[bytes] = []
        for part in turn:
            if pdus and _one_message(pdus[-1], part) and chance.random() < 0.7:
                pdus[-1] = pdu(P_DATA, pdus[-1][6:] + part[6:])
            else:
                pdus.append(part)
        merged.append(pdus)
    return merged


def _one_message(before: bytes, part: bytes) -> bool:
    """Tell whether two P-DATA-TFs hold parts of one message: another may not share the PDU of its end."""
    if not before[0] == part[0] == P_DATA or not _whole(part):
        return False
    control, following = _values(before)[-1][1], _values(part)[0][1]
    # A command of one message, its data set, or the step from the one to the other.
    return control & 1 == following & 1 if not control & 2 else control & 1 > following & 1


NEUTRAL: dict[str, Mutation] = {
    "fragments split": split_fragments,
    "PDUs merged": merge_pdus,
    "fragments split, PDUs merged": lambda turns, chance: merge_pdus(split_fragments(turns, chance), chance),
}


def _positions(turns: Turns) -> list[tuple[int, int]]:
    return [(first, second) for first, turn in enumerate(turns) for second in range(len(turn))]


def _change(turns: Turns, chance: random.Random, change: Callable[[bytes], list[bytes]], kind: int | None = None) -> Turns:
    """Replace one PDU, of `kind` where that is given, by what `change` makes of it."""
    candidates = [(first, second) for first, second in _positions(turns) if kind is None or turns[first][second][0] == kind]
    copy = [list(turn) for turn in turns]
    if candidates:
        first, second = chance.choice(candidates)
        copy[first][second : second + 1] = change(copy[first][second])
    return [turn for turn in copy if turn]


def _patched(part: bytes, at: int, replacement: bytes) -> bytes:
    return part[:at] + replacement + part[at + len(replacement) :]


def flip_bits(turns: Turns, chance: random.Random) -> Turns:
    def flip(part: bytes) -> list[bytes]:
        changed = bytearray(part)
        for _ in range(chance.choice((1, 1, 2, 5))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return [bytes(changed)]

    return _change(turns, chance, flip)


def flip_header_bits(turns: Turns, chance: random.Random) -> Turns:
    """Flip a bit in the first bytes of a P-DATA-TF: its header, the first PDV's, the begin of a command."""

    def flip(part: bytes) -> list[bytes]:
        at = chance.randrange(min(40, len(part)))
        return [_patched(part, at, bytes([part[at] ^ 1 << chance.randrange(8)]))]

    return _change(turns, chance, flip, P_DATA)


def overwrite(turns: Turns, chance: random.Random) -> Turns:
    def write(part: bytes) -> list[bytes]:
        noise = bytes(chance.choice((0, 0xFF, chance.randrange(256))) for _ in range(chance.randrange(1, 9)))
        at = chance.randrange(len(part))
        return [_patched(part, at, noise)[: len(part)]]

    return _change(turns, chance, write)


def cut(turns: Turns, chance: random.Random) -> Turns:
    """End the stream in the middle."""
    first, second = chance.choice(_positions(turns))
    part = turns[first][second]
    kept = part[: chance.randrange(len(part) + 1)]
    last = [*turns[first][:second], *([kept] if kept else [])]
    return [*turns[:first], *([last] if last else [])]


def drop_pdu(turns: Turns, chance: random.Random) -> Turns:
    return _change(turns, chance, lambda part: [])


def duplicate_pdu(turns: Turns, chance: random.Random) -> Turns:
    return _change(turns, chance, lambda part: [part, part])


def swap_pdus(turns: Turns, chance: random.Random) -> Turns:
    pairs = [(first, second) for first, second in _positions(turns) if second + 1 < len(turns[first])]
    copy = [list(turn) for turn in turns]
    if pairs:
        first, second = chance.choice(pairs)
        copy[first][second], copy[first][second + 1] = copy[first][second + 1], copy[first][second]
    return copy


def insert_pdu(turns: Turns, chance: random.Random) -> Turns:
    """Put in a PDU that has no business there."""
    kind = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 0xFF))
    body = bytes(4) if kind in (3, 5, 6, 7) else bytes(chance.randrange(256) for _ in range(chance.randrange(80)))
    return _change(turns, chance, lambda part: [pdu(kind, body), part])


def change_pdu_length(turns: Turns, chance: random.Random) -> Turns:
    """Let a PDU's header say that it is shorter or longer than it is."""

    def lie(part: bytes) -> list[bytes]:
        (length,) = struct.unpack_from(">I", part + bytes(6), 2)
        wrong = chance.choice((0, 1, 4, max(length - 1, 0), length + 1, length + 1000, 0x7FFFFFFF, 0xFFFFFFFF))
        return [_patched(part, 2, struct.pack(">I", wrong))]

    return _change(turns, chance, lie)


def _rebuilt(turns: Turns, chance: random.Random, change: Callable[[int, int, bytes], list[bytes]]) -> Turns:
    """Replace one PDV by those that `change` makes of it, in a PDU with a true length."""

    def rebuild(part: bytes) -> list[bytes]:
        if not _whole(part):
            return [part]
        values = _values(part)
        chosen = chance.randrange(len(values))
        pieces = [change(*each) if number == chosen else [_pdv(*each)] for number, each in enumerate(values)]
        return [pdu(P_DATA, b"".join(piece for each in pieces for piece in each))]

    return _change(turns, chance, rebuild, P_DATA)


def change_control(turns: Turns, chance: random.Random) -> Turns:
    wrong = chance.choice((0, 1, 2, 3, 0x80, 0x83, 0xFF))
    return _rebuilt(turns, chance, lambda context_id, control, fragment: [_pdv(context_id, wrong, fragment)])


def change_context(turns: Turns, chance: random.Random) -> Turns:
    wrong = chance.choice((0, 1, 2, 3, 5, 255))
    return _rebuilt(turns, chance, lambda context_id, control, fragment: [_pdv(wrong, control, fragment)])


def change_pdv_length(turns: Turns, chance: random.Random) -> Turns:
    def lie(context_id: int, control: int, fragment: bytes) -> list[bytes]:
        wrong = chance.choice((0, 1, 2, 3, len(fragment) + 1, len(fragment) + 3, len(fragment) + 40, 0xFFFFFFFF))
        return [struct.pack(">IBB", wrong, context_id, control) + fragment]

    return _rebuilt(turns, chance, lie)


def empty_fragment(turns: Turns, chance: random.Random) -> Turns:
    """Put an empty fragment before one, or behind it as the last."""
    before = chance.random() < 0.5

    def widen(context_id: int, control: int, fragment: bytes) -> list[bytes]:
        if before:
            return [_pdv(context_id, control & ~2, b""), _pdv(context_id, control, fragment)]
        return [_pdv(context_id, control & ~2, fragment), _pdv(context_id, control, b"")]

    return _rebuilt(turns, chance, widen)


def change_command(turns: Turns, chance: random.Random) -> Turns:
    """Drop, double, empty or change an element of a command set, whose fragments keep true lengths."""

    def edit(context_id: int, control: int, fragment: bytes) -> list[bytes]:
        return [_pdv(context_id, control, _edited(fragment, chance) if control & 1 else fragment)]

    return _rebuilt(turns, chance, edit)


def _edited(command: bytes, chance: random.Random) -> bytes:
    elements, at = [], 0
    while at + 8 <= len(command):
        group, number, length = struct.unpack_from("<HHI", command, at)
        elements.append((group, number, command[at + 8 : at + 8 + length]))
        at += 8 + length
    chosen = chance.randrange(1, len(elements))
    group, number, value = elements[chosen]
    noise = bytes(chance.randrange(256) for _ in range(len(value)))
    edits = [[], [elements[chosen]] * 2, [(group, number, b"")], [(group, number, noise)], [(group, number, value + noise)]]
    others = [[(0x0008, number, value)], [(group, 0x0601, value)], [(group, number, value.rstrip(b"\0") + b" \0")]]
    elements[chosen : chosen + 1] = chance.choice([*edits, *others])
    body = b"".join(struct.pack("<HHI", group, number, len(value)) + value for group, number, value in elements[1:])
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _in_request(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    """Return a mutation of the A-ASSOCIATE-RQ's body, whose length stays true."""

    def mutate(turns: Turns, chance: random.Random) -> Turns:
        request = turns[0][0]
        return [[pdu(request[0], change(request[6:], chance)), *turns[0][1:]], *turns[1:]]

    return mutate


def _items(body: bytes) -> list[bytes]:
    found, at = [], 68
    while at < len(body):
        end = at + 4 + struct.unpack_from(">H", body, at + 2)[0]
        found.append(body[at:end])
        at = end
    return found


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def _request_version(body: bytes, chance: random.Random) -> bytes:
    return _patched(body, 0, struct.pack(">H", chance.choice((0, 2, 3, 0x8001))))


def _request_title(body: bytes, chance: random.Random) -> bytes:
    padded = [title.ljust(16) for title in (b"SOMEONE", b"", b"GATE\\WAY", b"\xe4")]
    title = chance.choice((*padded, bytes(16), b"GATEWAY".ljust(16, b"\0")))
    return _patched(body, chance.choice((4, 20)), title)


def _request_items(body: bytes, chance: random.Random) -> bytes:
    """Drop, double, swap or add an item."""
    items = _items(body)
    chosen, other = chance.randrange(len(items)), chance.randrange(len(items))
    unknown = _item(chance.choice((0x00, 0x11, 0x31, 0x60, 0xFE)), b"unknown")
    match chance.randrange(4):
        case 0:
            del items[chosen]
        case 1:
            items.insert(chosen, items[chosen])
        case 2:
            items[chosen], items[other] = items[other], items[chosen]
        case _:
            items.insert(chosen, unknown)
    return body[:68] + b"".join(items)


def _request_byte(body: bytes, chance: random.Random) -> bytes:
    """Change a byte within an item."""
    at = chance.randrange(68, len(body))
    return _patched(body, at, bytes([chance.randrange(256)]))


def _request_maximum(body: bytes, chance: random.Random) -> bytes:
    at = body.find(b"\x51\x00\x00\x04")
    wrong = chance.choice((0, 1, 5, 6, 7, 8, 100, 0xFFFFFFFF))
    return _patched(body, at + 4, struct.pack(">I", wrong)) if at >= 0 else body


def _request_user_item(body: bytes, chance: random.Random) -> bytes:
    """Add a user information sub-item: an unknown one, asynchronous operations, an extended negotiation, an identity."""
    added = (
        _item(0x5F, b"unknown"),
        _item(0x53, b"\0\1\0\1"),
        _item(0x53, b"\0\7\0\7"),
        _item(0x56, b"\0\x111.2.840.10008.1.1\0\0\0\0"),
        _item(0x58, b"\1\0\0\4user\0\0"),
        _item(0x54, b"\0\x111.2.840.10008.1.1\1\1"),
        _item(0x52, b"1.2.3"),
        _item(0x55, b""),
    )
    items = _items(body)
    return body[:68] + b"".join(_item(0x50, item[4:] + chance.choice(added)) if item[0] == 0x50 else item for item in items)


HARMFUL: dict[str, Mutation] = {
    "bits flipped": flip_bits,
    "header bits flipped": flip_header_bits,
    "overwritten": overwrite,
    "cut": cut,
    "PDU dropped": drop_pdu,
    "PDU doubled": duplicate_pdu,
    "PDUs swapped": swap_pdus,
    "PDU inserted": insert_pdu,
    "PDU length": change_pdu_length,
    "control header": change_control,
    "context ID": change_context,
    "PDV length": change_pdv_length,
    "empty fragment": empty_fragment,
    "command element": change_command,
    "protocol version": _in_request(_request_version),
    "AE title": _in_request(_request_title),
    "items": _in_request(_request_items),
    "item byte": _in_request(_request_byte),
    "maximum length": _in_request(_request_maximum),
    "user information": _in_request(_request_user_item),
}
