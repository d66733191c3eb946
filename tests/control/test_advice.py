"""Advice on the settings of peers of known kinds."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.settings import DicomDestination, SourceTable
from gateway.control.advice import advice

REST = {"url": "http://127.0.0.1:8042"}


def destination(**keys: Any) -> DicomDestination:
    return DicomDestination.model_validate({"kind": "dicom", "ae_title": "A", "host": "127.0.0.1", "port": 104, **keys})


def source(**keys: Any) -> SourceTable:
    return SourceTable.model_validate({"ae_title": "A", "host": "127.0.0.1", "port": 104, **keys})


@pytest.mark.parametrize(
    ("table", "name", "says"),
    [
        (destination(), "OFFIS_DCMTK_367", ["dcmqrscp: associations = 1", "DefaultEncoding"]),
        (destination(associations=1), "OFFIS_DCMTK_369", ["DefaultEncoding"]),
        (destination(rest=REST), "OFFIS_DCMTK_367", []),
        (destination(dicomweb=REST, associations=1), "OFFIS_DCMTK_367", []),
        (destination(), "PYNETDICOM_304", []),
        (destination(), "", []),
        (source(), "OFFIS_DCMTK_367", ["DefaultEncoding"]),
        (source(rest=REST), "OFFIS_DCMTK_367", []),
        (source(), "dcm4che-5.33.0", []),
    ],
)
def test_advice_is_given_to_known_peers_where_settings_differ(
    table: SourceTable | DicomDestination, name: str, says: list[str]
) -> None:
    given = list(advice(table, name))

    assert len(given) == len(says)
    assert all(word in one for word, one in zip(says, given, strict=True))
