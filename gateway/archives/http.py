"""HTTP services of peers: how they are reached, what they may answer, and where httpx's exceptions end. Blocking; for any thread.

Answers come from strangers. They are taken piece by piece and given up at a bound (bytes, values, depth, time), with an error that
says so: an answer that is not all there is never taken for one that holds little. The service's own words are no part
of an error: it may name a patient.
"""

from __future__ import annotations

import json
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx

from gateway.config.settings import RestTable
from gateway.core.errors import WebServiceError, WebServiceRefused, WebServiceUnreachable

ANSWER_S = 120.0
"""The longest wait for an answer to begin, and for each part of it: a search in a large archive takes its time."""

CONNECT_S = 15.0

KEEP_S = 0.5
"""The time that a connection without work is kept: less than the second after which an Orthanc closes it."""

CONNECTIONS = 16

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The longest answer to a question: the instances of a series of 30,000, as Orthanc describes them."""

MAX_VALUES = 4_000_000
"""Values in one answer, counted by what separates them: each costs some hundred bytes of memory, however short it is."""

MAX_PAGED = 1_000_000
"""Resources listed page by page: more is a service that does not end."""

MAX_FILE_BYTES = 64 * 1024**3
"""The longest file that is fetched."""

PIECE_BYTES = 256 * 1024
"""Inflated at a time."""

WHOLE_ANSWER_S = 600.0
"""The longest time that a whole answer to a question may take."""

SLOWEST_BYTES_S = 1024
"""A file that comes more slowly than this, in bytes a second after the first `ANSWER_S`, is given up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a service: a success, its Content-Type, and all of its body."""

    status: int
    content_type: str
    body: bytes


class Service:
    """One HTTP service of a peer. Thread-safe; close it when it is no longer needed."""

    def __init__(self, table: RestTable) -> None:
        """Reach the service at `table`; no connection is made yet."""
        self.url = table.url.rstrip("/")
        auth = None
        if table.username is not None:
            auth = httpx.BasicAuth(table.username, table.password.get_secret_value() if table.password else "")
        limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=KEEP_S)
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        headers = {"Accept-Encoding": "gzip"}
        self._http = httpx.Client(auth=auth, headers=headers, timeout=timeout, limits=limits, verify=_trust(table))

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def get(self, path: str, parameters: Mapping[str, Any] | list[tuple[str, str]] | None = None, **headers: str) -> Answer:
        """Return the answer to GET `path`. Raises WebServiceError."""
        return self._answer("GET", path, params=parameters, headers=headers)

    def post(self, path: str, document: object) -> Answer:
        """Return the answer to POST `path` with a JSON document, or with text as it is. Raises WebServiceError."""
        body = {"content": document} if isinstance(document, str) else {"json": document}
        return self._answer("POST", path, **body)

    def delete(self, path: str) -> Answer:
        """Return the answer to DELETE `path`. Raises WebServiceError."""
        return self._answer("DELETE", path)

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Give the Content-Type of the answer to GET `path`, and its body while it comes. Raises WebServiceError."""
        with self._mapped(), self._http.stream("GET", self.url + path, headers=headers) as response:
            self._judge(response)
            yield response.headers.get("content-type", ""), self._file(response)

    def fetch(self, path: str, file: BinaryIO) -> None:
        """Write the answer to GET `path` into `file`. Raises WebServiceError, and OSError where the file cannot be written."""
        with self.stream(path) as (_, chunks):
            for chunk in chunks:
                file.write(chunk)

    def _answer(self, method: str, path: str, **request: Any) -> Answer:
        with self._mapped():
            try:
                return self._asked(method, path, **request)
            except httpx.RemoteProtocolError:
                # The service closed an idle connection just when it was used again. Changes are for the caller to repeat.
                if method == "DELETE":
                    raise
                return self._asked(method, path, **request)

    def _asked(self, method: str, path: str, **request: Any) -> Answer:
        with self._http.stream(method, self.url + path, **request) as response:
            self._judge(response)
            return Answer(response.status_code, response.headers.get("content-type", ""), self._whole(response))

    def _judge(self, response: httpx.Response) -> None:
        if not response.is_success:
            raise WebServiceRefused(response.status_code, url=self.url)

    def _whole(self, response: httpx.Response) -> bytes:
        body, deadline = bytearray(), time.monotonic() + WHOLE_ANSWER_S
        for chunk in self._decoded(response):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise WebServiceError(f"answers one question with more than {MAX_ANSWER_BYTES >> 20} MiB", url=self.url)
            if time.monotonic() > deadline:
                raise WebServiceUnreachable(f"an answer that had not ended after {WHOLE_ANSWER_S:g} s", url=self.url)
        return bytes(body)

    def _decoded(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body, taken out of gzip in pieces of a bounded size: httpx inflates a chunk a thousandfold at once."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            yield from response.iter_raw()
            return
        if encoding != "gzip":
            raise WebServiceError("answers in a Content-Encoding that was not asked for", url=self.url)
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        for chunk in response.iter_raw():
            left = chunk
            while left:
                yield inflate.decompress(left, PIECE_BYTES)
                left = inflate.unconsumed_tail
        if not inflate.eof:
            raise WebServiceError("an answer that ends within its compressed body", url=self.url)

    def _file(self, response: httpx.Response) -> Iterator[bytes]:
        count, patient_until = 0, time.monotonic() + ANSWER_S
        for chunk in self._decoded(response):
            count += len(chunk)
            if count > MAX_FILE_BYTES:
                raise WebServiceError(f"sends a file of more than {MAX_FILE_BYTES >> 30} GiB", url=self.url)
            if count < (time.monotonic() - patient_until) * SLOWEST_BYTES_S:
                raise WebServiceUnreachable(f"sends a file at less than {SLOWEST_BYTES_S} bytes a second", url=self.url)
            yield chunk

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise WebServiceUnreachable("no answer in time", url=self.url) from error
        except httpx.TransportError as error:
            raise WebServiceUnreachable(f"no connection ({type(error).__name__})", url=self.url) from error
        except zlib.error as error:
            raise WebServiceError("an answer whose compressed body is damaged", url=self.url) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
            # UnicodeError: an identifier that the service gave itself and that no URL can hold.
            raise WebServiceError(f"cannot be asked ({type(error).__name__})", url=self.url) from error


def document(answer: Answer, url: str) -> Any:
    """Return the JSON that was answered. Raises WebServiceError where it is none, or more than `MAX_VALUES`."""
    return parsed(answer.body, url, answer.content_type)


def parsed(body: bytes, url: str, content_type: str = "") -> Any:
    """Return the JSON that `body` is; pure. Raises WebServiceError as `document`."""
    if sum(body.count(mark) for mark in (b",", b":", b"[", b"{")) > MAX_VALUES:
        raise WebServiceError(f"answers one question with more than {MAX_VALUES} values", url=url)
    try:
        return json.loads(body)
    except RecursionError as error:
        raise WebServiceError("the answer is JSON that is nested too deeply", url=url) from error
    except (ValueError, MemoryError) as error:
        kind = content_type.partition(";")[0].strip().lower()
        # Of other words nobody knows what is in them.
        known = kind if kind in _KINDS else "something else"
        why = " (a sign-in page or a proxy's: check the url)" if kind == "text/html" else ""
        raise WebServiceError(f"the answer is no JSON but {known}{why}" if kind else "the answer is no JSON", url=url) from error


_KINDS = frozenset({"text/html", "text/plain", "text/xml", "application/xml", "application/octet-stream", "application/dicom+xml"})


def clean(value: object) -> str | None:
    """Return a text that a service gave, without half characters, which no file, database or URL takes; None for other values."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _trust(table: RestTable) -> ssl.SSLContext | bool:
    if table.ca is None:
        return True
    return ssl.create_default_context(cafile=str(table.ca))
