"""Requests on the control socket that are too long, too slow, too deep or no requests: refused in little memory."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import repeat
from pathlib import Path

import httpx
import pytest
import trio

from gateway.control import api, wire
from gateway.control.client import Client
from gateway.core.errors import UsageError
from tests.support.gateway import Gateway, peak_resident_mib
from tests.support.processes import Running

MIB = 1024 * 1024
GROWTH_MIB = 150


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Running]]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    with gateway.serving() as process:
        yield gateway, process


def ask(state: Path, path: str, pieces: Iterable[bytes], *, length: int | None = None) -> bytes:
    """Send a POST piece by piece until it is answered; return the answer."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(60)
        client.connect(str(state / "control.sock"))
        framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode())
        with suppress(OSError):
            for piece in pieces:
                client.sendall(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
            if length is None:
                client.sendall(b"0\r\n\r\n")
        answer = b""
        with suppress(OSError):
            while part := client.recv(65536):
                answer += part
                if b'"message"' in answer:
                    break
        return answer


PATHS = ("/find", "/pull", "/queue/list", "/jobs/show")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_request_of_gigabytes_is_refused_in_little_memory(running: tuple[Gateway, Running], path: str, chunked: bool) -> None:
    gateway, process = running
    before = peak_resident_mib(process)
    answer = ask(gateway.state, path, repeat(b" " * MIB, 1500), length=None if chunked else 1500 * MIB)
    assert answer == b"" or b"more than 32 MiB" in answer
    assert process.alive() and gateway.json("status")["gateway"]["role"] == "gateway"
    assert peak_resident_mib(process) < before + GROWTH_MIB


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 200_000, id="deep lists"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff\xfe{", id="no UTF-8"),
        pytest.param(b"<html></html>", id="a page"),
        pytest.param(b'{"id": 1e999}', id="infinity"),
        pytest.param(b'{"id": ' + b"9" * 10_000 + b"}", id="a long number"),
        pytest.param(b'{"id": "\\ud800"}', id="half a character"),
        pytest.param(b'{"id": 1, "id": 2, "x": 3}', id="unknown key"),
    ],
)
def test_a_request_that_is_none_is_refused(running: tuple[Gateway, Running], body: bytes) -> None:
    gateway, process = running
    assert b"not a request that this gateway understands" in ask(gateway.state, "/jobs/show", [body], length=len(body))
    assert process.alive()


def test_a_client_that_leaves_in_its_request_costs_nothing(running: tuple[Gateway, Running]) -> None:
    gateway, process = running
    for _ in range(20):
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(gateway.state / "control.sock"))
            client.sendall(b"POST /find HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\n\r\n{")
    assert gateway.json("status")["gateway"]["role"] == "gateway" and process.alive()
    assert "control_request_failed" not in process.output


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "BODY_S", 0.1)

    class Slow:
        async def stream(self) -> object:
            while True:
                yield b" "
                await trio.sleep(0.01)

    with pytest.raises(UsageError, match="not come whole"):
        trio.run(api._body, Slow())


def test_a_command_refuses_to_send_what_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.client.MAX_REQUEST_BYTES", 10)
    with pytest.raises(UsageError, match="more than 32 MiB"):
        Client(httpx.Client()).post("/echo", wire.EchoCommand(names=("a" * 20,)))
