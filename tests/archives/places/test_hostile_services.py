"""HTTP services that answer too much, too slowly, too deeply, or something else: an error that says so, never "found 0"."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path

import pytest

from gateway.archives import http
from gateway.archives.places.dicomweb import WebPlace
from gateway.archives.places.orthanc import RestPlace
from gateway.archives.places.place import Place
from gateway.config.settings import RestTable
from gateway.core.errors import WebServiceError, WebServiceUnreachable
from tests.support.web import Reply, Site, site

MIB = 1024 * 1024
LIMIT_MIB = 400
"""Of a process with the libraries, and one answer as long as is taken."""

STUDY = "1.2.3"
KINDS: dict[str, Callable[[str, RestTable], Place]] = {"web": WebPlace, "rest": RestPlace}

MEASURED = """
import sys
from pathlib import Path
from gateway.core.errors import WebServiceError
from gateway.archives.places.orthanc import RestPlace
from gateway.archives.places.dicomweb import WebPlace
from gateway.config.settings import RestTable
place = {"web": WebPlace, "rest": RestPlace}[sys.argv[1]]("archive", RestTable(url=sys.argv[2]))
try:
    print("found", len(place.studies({"StudyDate": "20240101"})))
except WebServiceError as error:
    print(error)
print(next(int(line.split()[1]) // 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@contextmanager
def asked(kind: str, answer: Callable[[str, str], Reply]) -> Iterator[tuple[Place, Site]]:
    with site(answer) as there, closing(KINDS[kind]("archive", RestTable(url=there.url))) as place:
        yield place, there


def many_values() -> Iterator[bytes]:
    """60 MiB of empty lists, which would be gigabytes of objects."""
    yield b"[[]"
    yield from repeat(b",[]" * (MIB // 3), 60)
    yield b"]"


def compressed(piece: bytes, count: int) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    together = b"".join(packer.compress(piece) for _ in range(count))
    yield together + packer.flush()


ENDLESS: dict[str, Callable[[], Reply]] = {
    "a string of 1.5 GB": lambda: Reply(pieces=repeat(b"[" + b'"' + b"x" * MIB, 1500)),
    "1.5 GB of spaces": lambda: Reply(pieces=repeat(b" " * MIB, 1500)),
    "1.5 GB in objects": lambda: Reply(pieces=repeat(b'{"ID":"a"},' * (MIB // 11), 1500)),
    "an HTML page of 1.5 GB": lambda: Reply(content_type="text/html", pieces=repeat(b"<p>" * (MIB // 3), 1500)),
    "zeros, compressed a thousandfold": lambda: Reply(headers={"Content-Encoding": "gzip"}, pieces=compressed(b" " * MIB, 1500)),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_end_is_given_up_in_little_memory(kind: str, name: str) -> None:
    with site(lambda _method, _path: ENDLESS[name]()) as there:
        said, peak = measured(kind, there.url)
    assert "more than 64 MiB" in said and there.url in said
    assert peak < LIMIT_MIB


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_of_very_many_values_is_given_up_in_little_memory(kind: str) -> None:
    with site(lambda _method, _path: Reply(pieces=many_values())) as there:
        said, peak = measured(kind, there.url)
    assert "more than 4000000 values" in said
    assert peak < LIMIT_MIB


def measured(kind: str, url: str) -> tuple[str, int]:
    """Ask in a process of its own; return what it said, and the most memory that it had resident, in MiB."""
    done = subprocess.run([sys.executable, "-c", MEASURED, kind, url], capture_output=True, text=True, check=True, timeout=240)
    said, peak = done.stdout.splitlines()
    return said, int(peak)


WRONG: dict[str, tuple[Reply, str]] = {
    "a sign-in page": (Reply(content_type="text/html; charset=utf-8", body=b"<html>Sign in</html>"), "sign-in page"),
    "plain text": (Reply(content_type="text/plain", body=b"Not now"), "no JSON but text/plain"),
    "XML": (Reply(content_type="application/dicom+xml", body=b"<NativeDicomModel/>"), "no JSON but application/dicom\\+xml"),
    "a type that names someone": (Reply(content_type="Doe^John", body=b"x"), "no JSON but something else"),
    "bytes": (Reply(content_type="", body=b"\x80\x81"), "no JSON"),
    "half an answer": (Reply(body=b'[{"ID": "ab'), "no JSON"),
    "an object": (Reply(body=b"{}"), "no list"),
    "a number": (Reply(body=b"7"), "no list"),
    "null": (Reply(body=b"null"), "no list"),
    "a list of texts": (Reply(body=b'["ab-12"]'), "no list"),
    "a list with one object": (Reply(body=b'[{"ID": "ab-12"}, null]'), "no list"),
    "depth": (Reply(body=b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
    "depth in objects": (Reply(body=b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000), "nested too deeply"),
    "a number of 5,000 digits": (Reply(body=b"[" + b"9" * 5000 + b"]"), "no JSON"),
    "a redirect": (Reply(302, headers={"Location": "http://127.0.0.1:1/login"}), "302, which leads elsewhere"),
    "a permanent redirect": (Reply(308, headers={"Location": "/elsewhere"}), "308, which leads elsewhere"),
    "an error with a page": (Reply(502, "text/html", b"<html>Bad gateway</html>"), "502"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_answer_is_an_error_that_says_so(kind: str, name: str) -> None:
    reply, said = WRONG[name]
    with asked(kind, lambda _method, _path: reply) as (place, _):
        with pytest.raises(WebServiceError, match=said) as caught:
            place.studies({"StudyDate": "20240101"})
        assert "Doe" not in str(caught.value)


BODY = b'[{"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}]'
COMPRESSED: dict[str, tuple[dict[str, str], bytes, str]] = {
    "another encoding": ({"Content-Encoding": "br"}, BODY, "was not asked for"),
    "two encodings": ({"Content-Encoding": "gzip, gzip"}, b"".join(compressed(BODY, 1)), "was not asked for"),
    "cut gzip": ({"Content-Encoding": "gzip"}, b"".join(compressed(BODY, 1))[:-12], "ends within"),
    "damaged gzip": ({"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"\xff" * 50, "damaged"),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_body_that_is_not_whole_is_an_error(name: str) -> None:
    headers, body, said = COMPRESSED[name]
    with (
        asked("web", lambda _method, _path: Reply(headers=headers, body=body)) as (place, _),
        pytest.raises(WebServiceError, match=said),
    ):
        place.studies({})


def test_a_compressed_answer_is_read() -> None:
    bodies = iter([b"".join(compressed(BODY, 1)), b"".join(compressed(b"[]", 1))])
    with asked("web", lambda _method, _path: Reply(headers={"Content-Encoding": "gzip"}, body=next(bodies))) as (place, _):
        assert place.studies({}).keys() == {STUDY}


@pytest.mark.parametrize("identifier", ["../../etc", "a/b", "", "a" * 65, "ab\r\nHost: x", "\ud800", "ab?x=1", "é"])
def test_an_identifier_that_is_none_is_never_part_of_a_path(identifier: str) -> None:
    body = json.dumps([{"ID": identifier, "Type": "Study", "MainDicomTags": {"StudyInstanceUID": STUDY}}]).encode()
    with asked("rest", lambda _method, _path: Reply(body=body)) as (place, there):
        with pytest.raises(WebServiceError, match="identifier"):
            place.series(STUDY)
        assert there.requests == ["/tools/lookup"]


@pytest.mark.parametrize("value", ["\ud800", "\udfff^A", "a\ud83db"])
def test_half_a_character_costs_that_character_only(value: str) -> None:
    element = {"0020000D": {"vr": "UI", "Value": [STUDY]}, "00080061": {"vr": "CS", "Value": [value]}}
    pages = iter([json.dumps([element]).encode(), b"[]"])
    with asked("web", lambda _method, _path: Reply(body=next(pages))) as (place, _):
        (study,) = place.studies({}).values()
    assert "?" in "".join(study.modalities)
    "".join(study.modalities).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_does_not_end_in_time_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WHOLE_ANSWER_S", 0.3)
    with (
        asked(kind, lambda _method, _path: Reply(pieces=dripping(b" "))) as (place, _),
        pytest.raises(WebServiceUnreachable, match="not ended"),
    ):
        place.studies({})


def dripping(piece: bytes) -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield piece


def test_a_file_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(method: str, _path: str) -> Reply:
        if method == "POST":
            return Reply(body=b'[{"ID": "ab-12", "Type": "Instance"}]')
        return Reply(pieces=dripping(b"x"))

    with asked("rest", answer) as (place, _), pytest.raises(WebServiceUnreachable, match="bytes a second"):
        # Now, so that each answer may still take as long as it takes.
        monkeypatch.setattr(http, "ANSWER_S", 0.1)
        place.fetch(STUDY, "1.2", "1.3", tmp_path / "file")


def test_pages_that_never_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.archives.dicomweb.client.MAX_PAGED", 40)
    monkeypatch.setattr("gateway.archives.orthanc.client.MAX_PAGED", 40)
    monkeypatch.setattr("gateway.archives.orthanc.client.PAGE", 5)
    numbers = iter(range(1, 1_000_000))

    def answer(_method: str, path: str) -> Reply:
        some = [next(numbers) for _ in range(5)]
        if path.startswith("/studies"):
            return Reply(body=json.dumps([{"0020000D": {"vr": "UI", "Value": [f"1.{one}"]}} for one in some]).encode())
        return Reply(
            body=json.dumps([{"ID": f"a{one}", "MainDicomTags": {"StudyInstanceUID": f"1.{one}"}} for one in some]).encode()
        )

    with site(answer) as there:
        for make in KINDS.values():
            with closing(make("archive", RestTable(url=there.url))) as place, pytest.raises(WebServiceError, match="more than 40"):
                place.studies({})
