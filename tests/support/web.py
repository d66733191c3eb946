"""An HTTP service that does as a test says, on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.ports import HOST


@dataclass
class Reply:
    """An answer of the service; without a status it closes the connection instead."""

    status: int | None = 200
    content_type: str = "application/dicom+json"
    body: bytes = b""
    pieces: Iterable[bytes] | None = None
    """Sent one after the other, in place of `body`, until the client leaves."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """A running service: where it is, and the requests that it was sent."""

    url: str
    requests: list[str] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)


@contextmanager
def site(answer: Callable[[str, str], Reply]) -> Iterator[Site]:
    """Serve what `answer` says for a method and the path with its query."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            running.requests.append(self.path)
            running.authorization.append(self.headers.get("Authorization", ""))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = answer(self.command, self.path)
            if reply.status is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.pieces is not None:
                self._stream(reply.pieces)
                return
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def _stream(self, pieces: Iterable[bytes]) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with suppress(OSError):
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - as the standard library wants them called

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    running = Site(f"http://{HOST}:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
