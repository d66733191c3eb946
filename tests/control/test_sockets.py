import socket
import stat
import sys
from pathlib import Path

import pytest

from gateway.control import sockets


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def test_only_the_owner_may_open_the_control_socket(state: Path) -> None:
    with sockets.listen(state):
        assert stat.S_IMODE((state / sockets.SOCKET_NAME).stat().st_mode) == 0o600


def test_a_socket_left_by_a_killed_gateway_is_silent_and_replaced(state: Path) -> None:
    sockets.listen(state).close()
    assert (state / sockets.SOCKET_NAME).exists()
    assert not sockets.answers(state)
    with sockets.listen(state):
        assert sockets.answers(state)


def test_no_state_folder_means_that_nobody_answers(tmp_path: Path) -> None:
    assert not sockets.answers(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reaches a socket through a folder's descriptor")
def test_a_path_longer_than_a_unix_socket_address_works_all_the_same(tmp_path: Path) -> None:
    state = tmp_path / ("d" * 100) / ("e" * 100)
    state.mkdir(parents=True)
    with sockets.listen(state) as control:
        assert (state / sockets.SOCKET_NAME).is_socket()
        with sockets.short_address(state) as address, socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            control.accept()[0].close()
        assert sockets.answers(state)
