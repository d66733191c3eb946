"""The server and the client over a real Unix socket, with operations small enough to see what happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.config.settings import Settings
from gateway.control.client import Client, connect
from gateway.control.server import Emit, EventStream, serve_control
from gateway.control.wire import EchoCommand, RemoteError, error_document
from gateway.core.errors import GatewayLost, PeerUnreachable, UsageError
from tests.support.waiting import PATIENCE_S

DEADLINE_S = PATIENCE_S


@dataclass(frozen=True)
class Started:
    """The operation has begun."""

    name: ClassVar[str] = "started"


@dataclass(frozen=True)
class Number:
    """One number."""

    name: ClassVar[str] = "number"
    number: int


class Served:
    """A control server on a thread of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.started = threading.Event()
        self.ended = threading.Event()
        self.was_cancelled = threading.Event()
        self.thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)

    async def _run(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        api = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/count", self.count, methods=["POST"]),
                Route("/endless", self.endless, methods=["POST"]),
                Route("/fail", self.fail, methods=["POST"]),
                Route("/crash", self.crash, methods=["POST"]),
            ]
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve_control(api, self.state, stop=self._stop, task_status=task_status))
            self.started.set()
        self.ended.set()

    def stop(self) -> None:
        self._token.run_sync_soon(self._stop.set)

    async def health(self, _: Request) -> Response:
        return JSONResponse({"role": "gateway"})

    async def count(self, _: Request) -> Response:
        async def operation(emit: Emit) -> None:
            for number in range(3):
                await emit(Number(number))

        return EventStream(operation)

    async def endless(self, _: Request) -> Response:
        async def operation(emit: Emit) -> None:
            await emit(Started())
            try:
                await trio.sleep_forever()
            finally:
                self.was_cancelled.set()

        return EventStream(operation)

    async def fail(self, _: Request) -> Response:
        async def operation(emit: Emit) -> None:
            await emit(Started())
            raise PeerUnreachable("connection refused", peer="AE@host:104")

        return EventStream(operation)

    async def crash(self, _: Request) -> Response:
        async def operation(emit: Emit) -> None:
            raise KeyError("a bug")

        return EventStream(operation)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    server.thread.start()
    assert server.started.wait(DEADLINE_S)
    yield server
    if not server.ended.is_set():
        server.stop()
    server.thread.join(DEADLINE_S)
    assert server.ended.is_set()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    settings = Settings.model_validate({"gateway": {"state": served.state}})
    with connect(settings, local=_nobody, works=True) as connected:
        yield connected


def _nobody(_: Settings) -> Any:
    raise AssertionError("a gateway answers, so none may be started here")


def test_events_come_in_order_and_end_with_the_operation(client: Client) -> None:
    with client.stream("/count", EchoCommand(), (Number, Started)) as events:
        assert list(events) == [Number(0), Number(1), Number(2)]


def test_closing_the_stream_stops_the_operation(client: Client, served: Served) -> None:
    with client.stream("/endless", EchoCommand(), (Number, Started)) as events:
        reading = iter(events)
        assert next(reading) == Started()
        assert not served.was_cancelled.is_set()
    assert served.was_cancelled.wait(DEADLINE_S)


def test_an_error_inside_an_operation_is_raised_where_its_events_are_read(client: Client) -> None:
    with client.stream("/fail", EchoCommand(), (Number, Started)) as events:
        reading = iter(events)
        assert next(reading) == Started()
        with pytest.raises(PeerUnreachable, match="AE@host:104: connection refused") as raised:
            next(reading)
    assert raised.value.retryable


def test_a_bug_in_an_operation_reaches_the_client_without_details(client: Client) -> None:
    with (
        client.stream("/crash", EchoCommand(), (Number, Started)) as events,
        pytest.raises(RemoteError, match="internal error") as raised,
    ):
        list(events)
    assert "a bug" not in str(raised.value)


def test_a_stopping_gateway_ends_the_stream_and_says_how_to_go_on(client: Client, served: Served) -> None:
    with client.stream("/endless", EchoCommand(), (Number, Started)) as events:
        reading = iter(events)
        next(reading)
        served.stop()
        with pytest.raises(GatewayLost, match="same command"):
            next(reading)
    assert served.was_cancelled.wait(DEADLINE_S)


def test_the_socket_is_gone_after_the_server_stopped(served: Served) -> None:
    served.stop()
    assert served.ended.wait(DEADLINE_S)
    assert list(served.state.iterdir()) == []


def test_a_usage_error_as_a_document_keeps_its_words() -> None:
    assert error_document(UsageError("no such thing"))["message"] == "no such thing"
