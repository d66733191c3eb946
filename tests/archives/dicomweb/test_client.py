"""A DICOMweb service that pages as it likes, answers nonsense, or is not there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from gateway.archives.dicomweb import DicomWeb
from gateway.archives.dicomweb.client import query_string
from gateway.archives.dicomweb.json import Match
from gateway.config.settings import RestTable
from gateway.core.errors import WebServiceError, WebServiceRefused, WebServiceUnreachable
from tests.support.ports import free_port
from tests.support.web import Reply, site

ALL = [f"1.2.{number}" for number in range(1200)]


def listed(*uids: str) -> Reply:
    return Reply(body=json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in uids]).encode())


def asked(path: str) -> tuple[int, int]:
    query = parse_qs(urlsplit(path).query)
    return int(query["offset"][0]), int(query["limit"][0])


def pages(most: int) -> Callable[[str, str], Reply]:
    """A service that gives at most so many at a time."""

    def answer(_method: str, path: str) -> Reply:
        offset, limit = asked(path)
        return listed(*ALL[offset : offset + min(limit, most)])

    return answer


def studies(url: str) -> list[str]:
    with closing(DicomWeb(RestTable(url=url))) as web:
        return [match.uid("StudyInstanceUID") for match in web.search("/studies", "StudyInstanceUID", {})]


@pytest.mark.parametrize("most", [10_000, 500, 130])
def test_everything_is_found_whatever_the_service_gives_at_a_time(most: int) -> None:
    with site(pages(most)) as there:
        assert studies(there.url) == ALL


def test_a_service_that_does_not_know_offset_is_not_asked_for_ever() -> None:
    with site(lambda _method, _path: listed(*ALL[:500])) as there:
        assert studies(there.url) == ALL[:500]
        assert len(there.requests) == 2


@pytest.mark.parametrize("reply", [Reply(204), Reply(body=b""), listed()])
def test_nothing_found_may_be_said_in_several_ways(reply: Reply) -> None:
    with site(lambda _method, _path: reply) as there:
        assert studies(there.url) == []


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (Reply(401, body=b"TEST^Patient"), WebServiceRefused, "username and password"),
        (Reply(503), WebServiceRefused, "503"),
        (Reply(body=b"<html>"), WebServiceError, "no JSON"),
        (Reply(body=b'{"a": 1}'), WebServiceError, "no list of matches"),
        (Reply(None), WebServiceUnreachable, "no connection"),
    ],
)
def test_what_goes_wrong_is_told_without_what_the_service_said(reply: Reply, error: type[WebServiceError], says: str) -> None:
    with site(lambda _method, _path: reply) as there, pytest.raises(error, match=says) as raised:
        studies(there.url)
    assert there.url in str(raised.value) and "Patient" not in str(raised.value)
    assert raised.value.retryable is (reply.status in {None, 503})


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(WebServiceUnreachable):
        studies(f"http://127.0.0.1:{free_port()}")


def test_the_password_goes_with_the_request_and_into_no_error() -> None:
    table = {"username": "gateway", "password": SecretStr("secret")}
    with site(lambda _method, _path: Reply(403)) as there:
        with closing(DicomWeb(RestTable(url=there.url, **table))) as web, pytest.raises(WebServiceRefused) as raised:
            list(web.search("/studies", "StudyInstanceUID", {}))
        assert there.authorization == ["Basic Z2F0ZXdheTpzZWNyZXQ="]
    assert "secret" not in str(raised.value) and not raised.value.retryable


def multipart(body: bytes, *, end: bytes = b"\r\n--x--\r\n") -> Reply:
    head = b"--x\r\nContent-Type: application/dicom\r\n\r\n"
    return Reply(content_type='multipart/related; type="application/dicom"; boundary=x', body=head + body + end)


def test_a_file_is_what_stands_between_the_boundaries() -> None:
    whole = bytes(128) + b"DICM" + b"\r\n--y\r\n" * 10_000
    with site(lambda _method, _path: multipart(whole)) as there, closing(DicomWeb(RestTable(url=there.url))) as web:
        file = io.BytesIO()
        web.fetch("1.2", "1.3", "1.4", file)
        assert there.requests == ["/studies/1.2/series/1.3/instances/1.4"]
    assert file.getvalue() == whole


@pytest.mark.parametrize("reply", [multipart(b"DICM", end=b""), Reply(content_type="application/dicom", body=b"DICM")])
def test_a_file_that_does_not_come_whole_is_an_error(reply: Reply) -> None:
    with (
        site(lambda _method, _path: reply) as there,
        closing(DicomWeb(RestTable(url=there.url))) as web,
        pytest.raises(WebServiceError, match="no multipart message"),
    ):
        web.fetch("1.2", "1.3", "1.4", io.BytesIO())


def test_wildcards_stand_in_a_query_as_they_are() -> None:
    assert query_string([("PatientID", "A*?"), ("x", "a b&c"), ("y", "1,2-3")]) == "PatientID=A*?&x=a%20b%26c&y=1,2-3"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["1.2.3"], "1.2.3"),
        (["CT", "SR"], "CT\\SR"),
        ([{"Alphabetic": "A^B", "Ideographic": "C"}], "A^B"),
        ([12], "12"),
        ([None], ""),
        ([{"00080060": {}}], ""),
        ("CT", ""),
        (None, ""),
    ],
)
def test_values_are_read_as_the_model_writes_them(value: object, text: str) -> None:
    assert Match({"00080061": {"vr": "CS", "Value": value}}).text("ModalitiesInStudy") == text


def test_a_match_may_be_anything() -> None:
    assert Match({"00080061": "CT"}).text("ModalitiesInStudy") == ""
    assert Match({"00201208": {"Value": ["many"]}}).count("NumberOfStudyRelatedInstances") is None
    assert Match({"0020000D": {"Value": ["1.2.*"]}}).uid("StudyInstanceUID") == ""
