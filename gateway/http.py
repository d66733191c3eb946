"""HTTP services of peers: how they are reached, and where httpx's exceptions end. Blocking; for any thread.

What a service says in its own words is no part of an error: it may name a patient.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from gateway.errors import WebServiceError, WebServiceRefused, WebServiceUnreachable
from gateway.settings import RestTable

ANSWER_S = 120.0
"""How long an answer may take to begin, and each part of it to come: a search in a large archive takes its time."""

CONNECT_S = 15.0

KEEP_S = 0.5
"""How long a connection without work is kept: less than the second after which an Orthanc closes it."""

CONNECTIONS = 16


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
        self._http = httpx.Client(auth=auth, timeout=timeout, limits=limits, verify=_trust(table))

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def get(self, path: str, parameters: Mapping[str, Any] | list[tuple[str, str]] | None = None, **headers: str) -> httpx.Response:
        """Return the answer to GET `path`. Raises WebServiceError."""
        return self._answer("GET", path, params=parameters, headers=headers)

    def post(self, path: str, document: object) -> httpx.Response:
        """Return the answer to POST `path` with a JSON document, or with text as it is. Raises WebServiceError."""
        body = {"content": document} if isinstance(document, str) else {"json": document}
        return self._answer("POST", path, **body)

    def delete(self, path: str) -> httpx.Response:
        """Return the answer to DELETE `path`. Raises WebServiceError."""
        return self._answer("DELETE", path)

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[httpx.Response]:
        """Give the answer to GET `path` while its body comes. Raises WebServiceError."""
        with self._mapped(), self._http.stream("GET", self.url + path, headers=headers) as response:
            self._judge(response)
            yield response

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._mapped():
            try:
                response = self._http.request(method, self.url + path, **request)
            except httpx.RemoteProtocolError:
                # The service closed an idle connection just when it was used again. Changes are for the caller to repeat.
                if method == "DELETE":
                    raise
                response = self._http.request(method, self.url + path, **request)
            self._judge(response)
            return response

    def _judge(self, response: httpx.Response) -> None:
        if not response.is_success:
            raise WebServiceRefused(response.status_code, url=self.url)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise WebServiceUnreachable("no answer in time", url=self.url) from error
        except httpx.TransportError as error:
            raise WebServiceUnreachable(f"no connection ({type(error).__name__})", url=self.url) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WebServiceError(f"cannot be asked ({type(error).__name__})", url=self.url) from error


def document(response: httpx.Response, url: str) -> Any:
    """Return the JSON that was answered. Raises WebServiceError where it is none."""
    try:
        return response.json()
    except ValueError as error:
        raise WebServiceError("the answer is no JSON", url=url) from error


def _trust(table: RestTable) -> ssl.SSLContext | bool:
    if table.ca is None:
        return True
    return ssl.create_default_context(cafile=str(table.ca))
