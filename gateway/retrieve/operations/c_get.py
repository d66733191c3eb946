"""The parts of a retrieval that are asked for in one C-GET each: pure, but for `Heard`, which hears what comes in one.

The presentation contexts of a C-GET say what can come in it, so they are chosen by the SOP classes of what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from gateway.association.dimse.services import AssociationInfo, Reception, StorageService, StoreRequest
from gateway.association.scu.offers import MAX_CLASSES
from gateway.retrieve.recovery import Level, Target, image_targets
from gateway.retrieve.verdict.tally import Expectation


@dataclass(frozen=True)
class Part:
    """A part asked for with the same presentation contexts: the UIDs where they are known, and None for unknown SOP classes."""

    targets: tuple[Target, ...]
    uids: tuple[str, ...]
    sop_classes: frozenset[str] | None


def parts(target: Target, expectation: Expectation) -> tuple[Part, ...]:
    """Return `target` as it is, or in parts whose SOP classes fit on one association."""
    uids = _uids(target, expectation)
    classes = sorted({expectation.sop_classes.get(uid, "") for uid in uids})
    if not uids or not classes[0]:
        return (Part((target,), uids, None),)
    if len(classes) <= MAX_CLASSES:
        return (Part((target,), uids, frozenset(classes)),)
    each = iter(classes)
    batches = iter(lambda: frozenset(islice(each, MAX_CLASSES)), frozenset())
    return tuple(_part_of(target.study, batch, uids, expectation) for batch in batches)


def remaining(part: Part, received: Collection[str], target: Target, expectation: Expectation) -> tuple[Target, ...]:
    """Return what is left to ask of `part` once `received` came; where no UIDs are known, all of it."""
    if not part.uids:
        return part.targets
    missing = [uid for uid in part.uids if uid not in received]
    if len(missing) == len(part.uids):
        return part.targets
    return image_targets(target.study, expectation.listed, missing)


def _part_of(study: str, classes: frozenset[str], uids: Sequence[str], expectation: Expectation) -> Part:
    some = tuple(uid for uid in uids if expectation.sop_classes[uid] in classes)
    return Part(image_targets(study, expectation.listed, some), some, classes)


def _uids(target: Target, expectation: Expectation) -> tuple[str, ...]:
    match target.level:
        case Level.IMAGE:
            return target.uids
        case Level.SERIES:
            return expectation.by_series.get(target.series, ())
    return tuple(expectation.listed)


class Heard:
    """A storage service that notes in `last` (monotonic seconds) when something of an instance came: a long one takes its time."""

    def __init__(self, storage: StorageService) -> None:
        self.last = 0.0
        self._storage = storage

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Reception:
        """Begin to take one instance; see `StorageService`."""
        self.last = time.monotonic()
        return _Noted(self, self._storage.receive(association, request))


class _Noted:
    def __init__(self, heard: Heard, reception: Reception) -> None:
        self._heard = heard
        self._reception = reception
        self.commit = reception.commit
        self.discard = reception.discard

    def write(self, fragments: Sequence[memoryview]) -> None:
        self._heard.last = time.monotonic()
        self._reception.write(fragments)
