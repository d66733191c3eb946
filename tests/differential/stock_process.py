"""Stock pynetdicom in a process of its own, so that nothing the gateway sets for its process is set for it.

``python -m tests.differential.stock_process`` takes a request a line of JSON on its standard input and answers each on its
standard output, in the order in which they are done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from pynetdicom import evt

from tests.differential import stock

CLOSE_S = 5.0
"""Seconds until a connection is known as closed, after its peer closed it."""

ANSWER_S = 60.0


class StockPynetdicom:
    """The handle of the process; from any thread. It ends with the context."""

    def __init__(self, storage: Sequence[str], transfer_syntaxes: Sequence[str]) -> None:
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._asked = 0
        command = [sys.executable, "-m", "tests.differential.stock_process"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port: int = self._ask("collect", storage=list(storage), transfer_syntaxes=list(transfer_syntaxes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def take(self, port: int) -> dict[str, Any]:
        """Return the messages and instances that came from the requestor at `port`."""
        return dict(self._ask("take", port=port))

    def operate(self, port: int, operations: Sequence[dict[str, Any]], *, timeout_s: float) -> dict[str, Any]:
        """Request an association of the acceptor at `port` and do `operations`, each answer being awaited for `timeout_s`."""
        return dict(self._ask("operate", port=port, operations=list(operations), timeout_s=timeout_s))

    def _ask(self, do: str, **arguments: Any) -> Any:
        answer: Future[Any] = Future()
        assert self._process.stdin is not None
        with self._lock:
            self._asked += 1
            self._waiting[self._asked] = answer
            self._process.stdin.write(json.dumps({"number": self._asked, "do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        return answer.result(ANSWER_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["number"])
            waiting.set_result(answer["result"])


class _Child:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._collecting: stock.Collecting | None = None

    def serve(self) -> None:
        for line in sys.stdin:
            threading.Thread(target=self._answer, args=(json.loads(line),), daemon=True).start()

    def _answer(self, request: dict[str, Any]) -> None:
        number, do = request.pop("number"), request.pop("do")
        result = {"collect": self._collect, "take": self._take, "operate": self._operate}[do](**request)
        with self._lock:
            print(json.dumps({"number": number, "result": result}), flush=True)

    def _collect(self, **arguments: Any) -> int:
        self._collecting = stock.Collecting(**arguments)
        return self._collecting.port

    def _take(self, port: int) -> dict[str, Any]:
        assert self._collecting is not None
        return self._collecting.take(port, CLOSE_S)

    def _operate(self, port: int, operations: list[dict[str, Any]], timeout_s: float) -> dict[str, Any]:
        return stock.operate(port, "GATEWAY", operations, timeout_s=timeout_s)


def _crashed(crash: threading.ExceptHookArgs) -> None:
    """Close the connection of an association whose reactor died of what it read: its peer would wait until a timeout."""
    trace = crash.exc_traceback
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "run_reactor":
            reactor = trace.tb_frame.f_locals["self"]
            if reactor.socket is not None:
                reactor.socket.close()
            evt.trigger(reactor.assoc, evt.EVT_CONN_CLOSE, {"address": None})
        trace = trace.tb_next


if __name__ == "__main__":
    stock.quieten()
    threading.excepthook = _crashed
    _Child().serve()
