"""The gateway as a whole: it takes what a peer stores, drains when told, ends when a part crashes."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gateway.app.engine import Engine
from gateway.app.lifecycle import Stop
from gateway.app.lifecycle import run as run_gateway
from gateway.app.listener import holder_of, problem
from gateway.association.scp.acceptor import CannotListen, ListenerSpec
from gateway.cli.options import settings_of
from gateway.config.settings import ListenTable, ListenTlsTable
from gateway.control.client import connect
from gateway.control.embedded import local
from gateway.control.running import CONTROL
from gateway.core.domain import Role
from gateway.core.errors import TaskCrashed
from tests.app.conftest import Run, running
from tests.support import data
from tests.support import gateway as support
from tests.support.gateway import Gateway, settled
from tests.support.load import Ledger as Sender
from tests.support.load import Template, not_whole
from tests.support.ports import free_port, listens
from tests.support.processes import Running
from tests.support.raw import RawRequestor
from tests.support.waiting import PATIENCE_S, wait_until

DEADLINE_S = PATIENCE_S


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(Template(tmp_path / "template"))


def test_stored_instances_reach_the_folder_unchanged_and_leave_the_spool(
    site: Gateway, run: Run, sender: Sender, tmp_path: Path
) -> None:
    with running(site):
        assert sender.send(site.port, 5)
        settled(site, 5, "verified")
        wait_until(lambda: run("status", "--json").document["spool"]["instances"] == 0, "an empty spool")
        document = run("status", "--json").document
    assert not_whole(tmp_path / "archive", sender.template, sender.acknowledged) == set()
    assert document["gateway"]["role"] == "gateway"
    assert document["gateway"]["listening"] == [f"127.0.0.1:{site.port}"]
    assert document["destinations"][0]["settled"] == {"verified": 5}
    assert document["instances"]["released"] == 5


def test_unrouted_instances_are_kept_shown_and_routed_by_a_later_route(site: Gateway, run: Run, sender: Sender) -> None:
    site.write(routes=[{"name": "mr", "when": {"Modality": "MR"}, "to": ["archive"]}])
    with running(site):
        assert sender.send(site.port, 2)
        # The ledger follows the answer.
        wait_until(lambda: run("status", "--json").document["instances"]["unrouted"] == 2, "both shown as unrouted")
    site.write(routes=[{"name": "all", "to": ["archive"]}])
    with running(site):
        settled(site, 2, "verified")


def test_sigterm_drains_and_exits_0(site: Gateway, sender: Sender) -> None:
    with site.serving() as process:
        assert sender.send(site.port, 3)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(DEADLINE_S) == 0
        assert "draining" in process.output
        assert "gateway_stopped" in process.output


def test_stopping_lets_an_association_finish_its_instance(site: Gateway, sender: Sender, tmp_path: Path) -> None:
    uid = sender.new_uid()
    data = sender.template.instance(uid)
    with site.serving() as process, RawRequestor(site.port, timeout_s=DEADLINE_S) as scu:

        def slowly() -> Iterator[bytes]:
            third = len(data) // 3
            yield data[:third]
            yield data[third : 2 * third]
            wait_until(lambda: list((site.state / "spool" / "segments").iterdir()), "an instance on its way in")
            process.process.send_signal(signal.SIGTERM)
            process.wait_for_line("draining")
            yield data[2 * third :]

        assert scu.store(uid, slowly()) == 0
        assert process.process.wait(DEADLINE_S) == 0
    with running(site):
        settled(site, 1, "verified")
    assert not_whole(tmp_path / "archive", sender.template, {uid}) == set()


def test_a_second_signal_breaks_off_what_still_runs(site: Gateway, sender: Sender) -> None:
    patient = {"GATEWAY__SERVE__DRAIN_TIMEOUT_S": "600"}
    with (
        site.serving(environ=patient) as process,
        socket.create_connection(("127.0.0.1", site.port)) as lingering,
        RawRequestor(site.port) as scu,
    ):
        assert scu.accepted
        lingering.sendall(b"\x01")
        half = scu.request(sender.new_uid())
        scu.send(half)
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_line("draining")
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(DEADLINE_S) == 0


def test_a_second_gateway_on_the_same_state_is_refused_and_told_by_whom(site: Gateway, run: Run) -> None:
    with running(site):
        refused = run("serve")
    assert refused.code == 2
    assert f"process id {os.getpid()}" in refused.err


def test_serving_waits_for_a_short_command_to_leave_the_state_folder(site: Gateway) -> None:
    with local(settings_of(site.config), role=Role.DESK):
        serving = Running(site.command("serve"), cwd=site.folder)
        wait_until(lambda: "gateway_started" not in serving.output, "no start while the folder is taken")
    with serving:
        serving.wait_for_line("gateway_started")
        assert serving.stop() == 0


def test_a_port_that_is_taken_is_a_configuration_error_that_names_it(site: Gateway, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site.write(listen={"port": port})
        refused = run("serve")
    assert refused.code == 2
    assert str(port) in refused.err
    assert not (site.state / "control.sock").exists()


def test_a_socket_left_by_a_killed_gateway_is_no_obstacle(site: Gateway, run: Run) -> None:
    with site.serving() as process:
        process.process.kill()
        process.process.wait(DEADLINE_S)
    assert (site.state / "control.sock").exists()
    assert run("status").code == 0
    with running(site):
        assert run("status", "--json").document["gateway"]["role"] == "gateway"


def test_a_part_that_crashes_ends_the_gateway_with_a_clear_error(site: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        def break_confirmer(engine: Engine) -> None:
            engine.confirmer.nudge = lambda _destination=None: 1 / 0  # type: ignore[method-assign]
            engine.releaser.run_once = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
            engine.settled.give()

        stop = Stop()
        async with trio.open_nursery() as nursery:
            engine = await nursery.start(
                lambda task_status: run_gateway(
                    settings_of(site.config), control=CONTROL, role=Role.GATEWAY, stop=stop, task_status=task_status
                )
            )
            break_confirmer(engine)
            with trio.fail_after(DEADLINE_S):
                await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        trio.run(main)
    crashed = raised.value.subgroup(TaskCrashed)
    assert crashed is not None
    assert "'release' crashed" in str(crashed.exceptions[0])


def test_only_a_pull_by_c_move_says_which_process_has_the_port(site: Gateway, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sources = {
            "calls": support.source(free_port(), retrieve="move", ae_title="CALLS"),
            "answers": support.source(free_port(), retrieve="get", ae_title="ANSWERS"),
        }
        site.write(listen={"port": port}, sources=sources)
        refused = run("pull", "calls", "--study", "1.2.3")
        unreachable = run("pull", "answers", "--study", "1.2.3")
    assert refused.code == 2
    assert f"found {port}, which is in use: " in refused.err
    assert f"(process {os.getpid()})" in refused.err
    assert unreachable.code == 1
    assert "in use" not in unreachable.err
    assert threading.active_count() < 20


def test_a_port_for_tls_that_is_taken_is_named_in_its_own_table() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tls = ListenTlsTable.model_construct(port=taken.getsockname()[1])
        error = CannotListen(ListenerSpec("127.0.0.1", tls.port), OSError(errno.EADDRINUSE, "in use"))
        found = problem(error, ListenTable.model_construct(port=1, tls=tls))
    assert found.where == "[listen.tls]"
    assert "GATEWAY__LISTEN__TLS__PORT" in found.expected


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "a port from 1024 on"),
        (errno.EPERM, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "an address of this machine"),
        (errno.EAFNOSUPPORT, "an address of this machine"),
    ],
)
def test_other_ports_that_cannot_be_listened_on_say_what_to_do(number: int, says: str) -> None:
    error = CannotListen(ListenerSpec("192.0.2.1", 104), OSError(number, os.strerror(number)))
    found = problem(error, ListenTable.model_construct(port=104, tls=None))
    assert "104" in found.found
    assert says in found.expected


def test_who_listens_on_a_port_is_told_from_the_kernels_tables(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 0\n"
    table = head + row.format(port=104, state="01", inode=7) + row.format(port=104, state="0A", inode=8)
    (tmp_path / "net" / "tcp").write_text(table)
    for number, inode in ((10, 7), (11, 8)):
        (tmp_path / str(number) / "fd").mkdir(parents=True)
        (tmp_path / str(number) / "fd" / "3").symlink_to(f"socket:[{inode}]")
        (tmp_path / str(number) / "comm").write_text(f"program{number}\n")
    assert holder_of(104, tmp_path) == "program11 (process 11)"
    assert holder_of(105, tmp_path) == ""
    assert holder_of(104, tmp_path / "nowhere") == ""


def test_a_study_is_one_line_of_the_log_and_a_batch_none(site: Gateway, tmp_path: Path) -> None:
    files = data.ct_series(tmp_path / "in", 5)[0].parent
    with site.serving() as process:
        assert site.run("send", files).returncode == 0
        process.wait_for_line("study_delivered")
        output = process.output
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (told,) = [event for event in events if event["event"] == "study_delivered"]
    assert (told["destination"], told["delivered"], told["verified"], told["held"], told["level"]) == ("archive", 5, 5, 0, "info")
    assert told["seconds"] > 0
    assert told["mb_s"] >= 0
    assert "batch_ended" not in {event["event"] for event in events}


@pytest.mark.parametrize("level", ["debug", "warning"])
def test_serve_logs_as_much_as_it_is_told(site: Gateway, level: str) -> None:
    with Running([*site.command("serve"), "--log-level", level], cwd=site.folder, stop_timeout_s=45) as process:
        wait_until(lambda: listens(site.port), "listening")
        process.stop()
    assert ("gateway_started" in process.output) is (level == "debug")


def test_commands_attach_to_the_gateway_that_runs(site: Gateway) -> None:
    def nobody(_: object) -> object:
        raise AssertionError("no engine may be started beside the one that runs")

    with running(site), connect(settings_of(site.config), local=nobody, works=True) as client:  # type: ignore[arg-type]
        assert client.get("/health")["role"] == "gateway"


def test_a_client_that_reads_nothing_does_not_keep_the_gateway(site: Gateway, tmp_path: Path) -> None:
    site.write(destinations={"down": support.dicom_destination(free_port())})
    files = data.ct_copies(tmp_path / "in", 600, rows=2)[0].parent
    with site.serving() as process, socket.socket(socket.AF_UNIX) as deaf:
        assert site.run("send", files, "--to", "down", "--no-wait").returncode == 0
        deaf.connect(str(site.state / "control.sock"))
        body = b'{"limit": 10000}'
        head = f"POST /queue/list HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(body)}\r\n\r\n"
        deaf.sendall(head.encode() + body)
        assert deaf.recv(1)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(DEADLINE_S) == 0


def test_a_command_says_when_the_gateway_runs_with_another_configuration(site: Gateway, run: Run) -> None:
    with running(site):
        assert "restart" not in run("status").err
        site.write(sources={"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}})
        ended = run("status")
    assert ended.code == 0
    assert "does not have what" in ended.err


def test_without_room_instances_are_refused_for_now_and_status_says_so(site: Gateway, run: Run, sender: Sender) -> None:
    site.write(spool={"reserve_bytes": 1 << 60})
    with running(site):
        assert sender.send(site.port, 1)
        assert "FULL" in run("status").out
    assert sender.statuses == {0xA700}
    site.write(spool={"reserve_bytes": 1 << 24})
    with running(site):
        assert sender.send(site.port, 1)
        assert "FULL" not in run("status").out
    assert 0 in sender.statuses
