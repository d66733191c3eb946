"""The choice of the transfer syntax that an instance is sent in: its own, another by transcoding, or none. Pure.

Nothing that lost something is compressed or decompressed unless it is allowed in so many words: once decompressed, nobody sees any
more that it was lossy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from gateway.core.domain import Mode
from gateway.dicom.syntaxes import (
    DEFLATED,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    J2K_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    Coding,
    TransferSyntax,
    syntax,
)

NATIVE_TARGETS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
COMPRESSED_TARGETS = (J2K_LOSSLESS, JPEG_LS_LOSSLESS, HTJ2K_LOSSLESS, RLE_LOSSLESS)


_COMPRESSED_BY_MODE = {Mode.J2K_LOSSLESS: J2K_LOSSLESS, Mode.HTJ2K_LOSSLESS: HTJ2K_LOSSLESS}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The transfer syntaxes whose pixels can be decoded and encoded here."""

    decodable: frozenset[str]
    encodable: frozenset[str]


@dataclass(frozen=True, slots=True)
class SendAsIs:
    """The instance goes out as it is stored."""


@dataclass(frozen=True, slots=True)
class TranscodeTo:
    """The instance goes out in another transfer syntax."""

    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The instance does not go out; `reason` says why nothing else helps, for a person, and names no patient."""

    reason: str


Decision = SendAsIs | TranscodeTo | Hold


NOTHING = Capabilities(frozenset(), frozenset())
"""Of those who do not transcode: every instance goes as it is."""


@lru_cache(maxsize=1024)
def candidates(
    stored: str, mode: Mode, can: Capabilities, *, allow_decompressed_lossy: bool = False, chosen: str | None = None
) -> tuple[str, ...]:
    """Return the transfer syntaxes in which an instance stored as `stored` may go out, the best one first; never empty.

    `chosen` was found out to be the best one for this instance before.
    """
    current = syntax(stored)
    others = tuple(_others(current, can)) if _may_be_opened(current, can, allow_decompressed_lossy) else ()
    wanted = _wanted(current, mode)
    first = tuple(uid for uid in (chosen, wanted) if uid is not None and uid in (stored, *others))
    return tuple(dict.fromkeys((*first, stored, *others)))


def decide(
    stored: str,
    accepted: Collection[str] | None,
    mode: Mode,
    can: Capabilities,
    *,
    allow_decompressed_lossy: bool = False,
    chosen: str | None = None,
    unsuitable: Collection[str] = (),
) -> Decision:
    """Decide how an instance stored in transfer syntax `stored` goes to a destination.

    Args:
        stored: its transfer syntax UID.
        accepted: the transfer syntaxes that the destination accepts for its SOP class; None where any will do.
        mode: what the destination is to be given.
        can: what can be decoded and encoded here.
        allow_decompressed_lossy: pixels that lost something may be decoded.
        chosen: the transfer syntax that was found out to be the best one for this instance before.
        unsuitable: transfer syntaxes in which this instance turned out not to be encodable.
    """
    for candidate in candidates(stored, mode, can, allow_decompressed_lossy=allow_decompressed_lossy, chosen=chosen):
        if candidate in unsuitable or (accepted is not None and candidate not in accepted):
            continue
        return SendAsIs() if candidate == stored else TranscodeTo(candidate)
    return Hold(_reason(syntax(stored), can, allow_decompressed_lossy))


def _may_be_opened(stored: TransferSyntax, can: Capabilities, allow_lossy: bool) -> bool:
    return stored.uid in can.decodable and (stored.lossless or allow_lossy)


def _others(stored: TransferSyntax, can: Capabilities) -> Iterator[str]:
    yield from NATIVE_TARGETS
    yield from (uid for uid in COMPRESSED_TARGETS if uid in can.encodable)
    yield DEFLATED


def _wanted(stored: TransferSyntax, mode: Mode) -> str:
    if mode is Mode.EXPLICIT_LE and stored.lossless:
        return EXPLICIT_LITTLE
    return _COMPRESSED_BY_MODE.get(mode, stored.uid) if stored.native else stored.uid


def _reason(stored: TransferSyntax, can: Capabilities, allow_lossy: bool) -> str:
    if stored.uid not in can.decodable:
        remedy = "" if stored.coding is Coding.OTHER else ": a codec package is not installed (docs/install.md)"
        return f"{stored.name} cannot be decoded here{remedy}"
    if not stored.lossless and not allow_lossy:
        return "pixels that may be lossy are not decompressed without allow_decompressed_lossy"
    return "there is no transfer syntax that it accepts and that this instance can be brought into"
