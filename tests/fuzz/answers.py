"""Fuzz target: what peers answer to questions: C-FIND identifiers, N-EVENT-REPORTs, and the JSON of QIDO-RS and of an Orthanc.

The first byte of an input chooses what the rest is. Any rest is read, or ends in an error of our own tree; every text that is
read out of it can be written to a file, a database and a URL.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from urllib.parse import quote

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.archives.dicomweb.json import matches_of
from gateway.archives.http import parsed
from gateway.archives.orthanc import Orthanc
from gateway.association.dimse.commitment import InstanceReference, commitment_report, commitment_request
from gateway.association.dimse.identifier import decode_identifier, uids
from gateway.association.scu.query import RETURN_KEYS, as_values, contradicts, count_of, text
from gateway.config.settings import RestTable
from gateway.core.errors import ProtocolError, WebServiceError
from tests.fuzz import head

EXPLICIT, IMPLICIT = head.EXPLICIT, head.IMPLICIT
PREFIX_BYTES = 1
KEYWORDS = tuple(dict.fromkeys(keyword for keys in RETURN_KEYS.values() for keyword in keys))
WANTED = frozenset(tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)
FIND, REPORT, QIDO, REST = 0, 2, 4, 5

_orthanc = Orthanc(RestTable(url="http://127.0.0.1:1"))


def seeds() -> Iterator[bytes]:
    """Yield answers that are right, odd and hostile."""
    for position, syntax in enumerate((EXPLICIT, IMPLICIT)):
        for undefined in (False, True):
            match = head.example(undefined=undefined)
            match.NumberOfStudyRelatedInstances, match.ModalitiesInStudy = "12", ["CT", "SR"]
            yield bytes([FIND + position]) + head.encoded(match, syntax)
            yield bytes([FIND + position]) + head.encoded(_deep(12, undefined=undefined), syntax)
        report = commitment_request("1.2.3", [InstanceReference("1.2", f"1.2.{number}") for number in range(3)])
        failed = Dataset()
        failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason = "1.2", "1.2.9", 0x0112
        report.FailedSOPSequence = Sequence([failed])
        yield bytes([REPORT + position]) + head.encoded(report, syntax)
    match_json = {
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
        "00201208": {"vr": "IS", "Value": [12]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    }
    yield bytes([QIDO]) + json.dumps([match_json, {}]).encode()
    resource = {"ID": "ab-12", "Type": "Study", "MainDicomTags": {"StudyInstanceUID": "1.2.3"}, "Series": ["cd-34"]}
    yield bytes([REST]) + json.dumps([resource]).encode()


def _deep(levels: int, *, undefined: bool) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = "1.2.3"
    for _ in range(levels):
        outer = Dataset()
        outer.StudyInstanceUID = "1.2.3"
        outer.ReferencedStudySequence = Sequence([dataset])
        outer["ReferencedStudySequence"].is_undefined_length = undefined
        dataset.is_undefined_length_sequence_item = undefined
        dataset = outer
    return dataset


def one_input(data: bytes) -> None:
    """Read one answer."""
    if not data:
        return
    kind, body = data[0] % 6, data[1:]
    if kind >= QIDO:
        _by_http(body, rest=kind == REST)
        return
    syntax = IMPLICIT if kind % 2 else EXPLICIT
    if kind >= REPORT:
        try:
            report = commitment_report(decode_identifier(body, syntax))
        except ProtocolError:
            return
        writable(report.transaction_uid, *(one.sop_instance_uid for one in (*report.committed, *report.failed)))
        return
    for wanted in (None, WANTED):
        try:
            match = decode_identifier(body, syntax, wanted)
        except ProtocolError:
            continue
        values = as_values(match)
        writable(*values.values(), *(text(match, keyword) for keyword in KEYWORDS))
        assert wanted is None or values.keys() <= {*KEYWORDS, "SpecificCharacterSet"}
        count_of(match, "NumberOfStudyRelatedInstances")
        contradicts(match, dict.fromkeys(KEYWORDS, "1.2.3"))
        try:
            writable(*uids(match, "FailedSOPInstanceUIDList"), *uids(match, "StudyInstanceUID"))
        except ProtocolError:
            continue


def _by_http(body: bytes, *, rest: bool) -> None:
    try:
        document = parsed(body, "http://peer")
        if rest:
            for found in _orthanc._objects(document):
                resource = _orthanc._resource(found, "Series")
                writable(resource.id, resource.uid("Study"), *resource.tags.values())
            return
    except WebServiceError:
        return
    for match in matches_of(document) or ():
        writable(match.uid("StudyInstanceUID"), *(match.text(keyword) for keyword in KEYWORDS))
        match.count("NumberOfStudyRelatedInstances")


def writable(*texts: str) -> None:
    """Make sure that what was read can be written. Raises UnicodeError."""
    for each in texts:
        quote(each.encode("utf-8"))


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change elements, or for JSON, values, marks and depth."""
    if not data:
        return data
    if data[0] % 6 < QIDO:
        changed = head.mutate(bytes([head.SYNTAXES.index(IMPLICIT if data[0] % 2 else EXPLICIT)]) + data[1:], chance)
        if chance.random() < 0.1:
            changed = changed + _character_set(chance, implicit=bool(data[0] % 2))
        return data[:1] + changed[1:]
    body = bytearray(data[1:])
    for _ in range(chance.choice((1, 2, 4))):
        at = chance.randrange(len(body) + 1)
        body[at : at + chance.choice((0, 0, 1, 3))] = chance.choice(_JSON)
    return data[:1] + bytes(body)


def _character_set(chance: random.Random, *, implicit: bool) -> bytes:
    value = chance.choice(
        (b"bz2 ", b"hex ", b"idna", b"punycode", b"ISO_IR 999 ", b"ISO 2022 IR 87", b"undefined ", b"\\\\", b"\xff\xfe")
    )
    length = len(value).to_bytes(4, "little") if implicit else b"CS" + len(value).to_bytes(2, "little")
    return b"\x08\0\x05\0" + length + value


_JSON = (
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"null",
        b"true",
        b"1e999",
        b"-Infinity",
        b"NaN",
        b"9" * 30,
        b"9" * 5000,
        b"\\ud800",
    ),
    *(b'"\\ud83d"', b"\xff\xfe", b"\0", b"[" * 2000, b'{"a":' * 2000, b'"vr"', b'"Value"', b'[{"Alphabetic":[]}]', b'"\\u0000"'),
)
