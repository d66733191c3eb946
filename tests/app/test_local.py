"""A gateway in a command's own process: its API asked directly, its socket open to others, and how both end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.association.scu import requestor
from gateway.cli.options import settings_of
from gateway.control.embedded import local
from gateway.control.wire import EchoCommand, FindCommand, JobQuery
from gateway.core.domain import Role
from gateway.core.errors import StateFolderInUse
from gateway.core.metrics import REGISTRY
from gateway.spool.lock import StateLock
from tests.support.gateway import Gateway


def test_an_answer_of_the_api_comes_without_a_connection(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.DESK) as ask:
        status, body = ask("GET", "/health", b"")
    assert status == 200
    assert json.loads(body)["role"] == "desk"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("GET", "/find", b"", 405),
        ("POST", "/find", b"no JSON", 400),
        ("POST", "/find", FindCommand(source="nobody").model_dump_json().encode(), 400),
        ("POST", "/jobs/show", JobQuery(id=7).model_dump_json().encode(), 400),
    ],
)
def test_a_refusal_is_the_same_as_over_the_socket(site: Gateway, method: str, path: str, body: bytes, status: int) -> None:
    with local(settings_of(site.config), role=Role.DESK) as ask:
        assert ask(method, path, body)[0] == status
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(20)
            other.connect(str(site.state / "control.sock"))
            head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            other.sendall(head.encode() + body)
            assert other.recv(64).split()[1] == str(status).encode()


def test_another_command_attaches_to_a_desk(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.DESK) as ask:
        other = subprocess.run(site.command("queue", "list"), cwd=site.folder, capture_output=True, timeout=60, check=False)
        assert ask("GET", "/health", b"")[0] == 200
    assert other.returncode == 0, other.stderr


def test_nothing_is_opened_that_nobody_asked_for(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.DESK) as ask:
        ask("GET", "/health", b"")
        assert not (site.state / "ledger.db").exists()
        ask("GET", "/jobs", b"")
        assert (site.state / "ledger.db").exists()
        assert not (site.state / "spool").exists()


def test_a_ledger_elsewhere_is_locked_as_the_state_folder_is(site: Gateway, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    site.write(ledger={"url": f"sqlite:///{elsewhere / 'l.db'}"})
    with local(settings_of(site.config), role=Role.DESK) as ask:
        assert ask("GET", "/jobs", b"")[0] == 200
        with pytest.raises(StateFolderInUse):
            StateLock(elsewhere)
    assert (elsewhere / "l.db").exists()
    assert not (site.state / "ledger.db").exists()
    StateLock(elsewhere).close()


def test_a_ledger_that_cannot_be_read_is_the_answer_of_who_needs_it(site: Gateway) -> None:
    site.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (site.state / "ledger.db").write_bytes(b"no ledger at all" * 4096)
    with local(settings_of(site.config), role=Role.DESK) as ask:
        assert ask("GET", "/health", b"")[0] == 200
        status, body = ask("GET", "/status", b"")
    assert status >= 500
    assert json.loads(body)["kind"] in {"LedgerDamaged", "LedgerForeign"}


def test_status_has_every_metric_where_a_gateway_runs(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.GATEWAY) as ask:
        metrics = json.loads(ask("GET", "/status", b"")[1])["metrics"]
    assert list(metrics) == [metric.name for metric in REGISTRY]
    with local(settings_of(site.config), role=Role.DESK) as ask:
        assert json.loads(ask("GET", "/status", b"")[1])["metrics"] == {}


def test_who_asks_after_the_end_is_told(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.DESK) as ask:
        pass
    with pytest.raises(ConnectionError):
        ask("GET", "/health", b"")


@pytest.mark.parametrize("reads", [True, False], ids=["no A-ASSOCIATE-AC", "no word at all"])
@pytest.mark.parametrize("command", [FindCommand(source="silent"), EchoCommand(names=["silent"])], ids=["find", "echo"])
def test_an_interrupt_ends_an_association_that_is_not_open(
    site: Gateway, command: BaseModel, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    negotiate = requestor._negotiate
    monkeypatch.setattr(requestor, "_negotiate", lambda *given: negotiate(*given[:-1], 86_400.0))  # no deadline ends it
    path = "/find" if isinstance(command, FindCommand) else "/echo"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        site.write(sources={"silent": {"ae_title": "SILENT", "host": "127.0.0.1", "port": silent.getsockname()[1]}})
        ended = list[bool]()

        def interrupt() -> None:
            peer, _ = silent.accept()
            with peer:
                peer.settimeout(60)
                if reads:
                    peer.recv(65536)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                while peer.recv(65536):
                    continue
                ended.append(True)

        waiting = threading.Thread(target=interrupt)
        waiting.start()
        with (
            pytest.raises(KeyboardInterrupt),
            local(settings_of(site.config), role=Role.DESK) as ask,
        ):
            ask("POST", path, command.model_dump_json().encode())
        waiting.join(60)
    assert ended == [True]
    assert not (site.state / "control.sock").exists()
