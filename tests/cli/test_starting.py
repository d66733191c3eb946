"""Imports of a command before it works, and its help: no command imports packages that it does not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__, cli
from tests.support.gateway import COMMAND, Gateway, folder_destination
from tests.support.ports import free_port

HEAVY = (
    "cryptography",
    "httpx",
    "hypercorn",
    "numpy",
    "pydicom",
    "pynetdicom",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "trio",
)
"""Packages that take long to import, and that no help needs."""

LOOKING = {"sqlalchemy", "starlette", "trio"}
"""Packages that a desk needs to read the ledger."""

ASKING = {"numpy", "pydicom", "pynetdicom", "starlette", "trio"}
"""Packages that a desk needs to ask a peer; pydicom imports numpy."""

WATCHED = (*HEAVY, "h2", "imagecodecs", "rich.console", "wsproto")

ASK = """
import json, sys
from gateway.cli import run
code = run(sys.argv[1:])
names = sorted(name for name in sys.modules if "." not in name or name.startswith(("gateway.", "rich.", "sqlalchemy.dialects.")))
print(json.dumps([code, names]), file=sys.stderr)
"""


def imported(*arguments: str, cwd: Path) -> tuple[int, set[str]]:
    """Return the exit code of a command and what its process had imported in the end."""
    environ = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",), ("queue", "-h"), ("jobs", "--help")])
def test_help_and_versions_import_no_room_and_no_heavy_library(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, modules = imported(*arguments, cwd=tmp_path)
    assert code == 0
    assert modules.isdisjoint(HEAVY)
    assert not {name for name in modules if name.startswith(("gateway.ledger", "gateway.association", "gateway.app"))}


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name not in {"queue", "jobs"}])
def test_the_help_of_a_command_imports_no_heavy_library(tmp_path: Path, command: str) -> None:
    code, modules = imported(command, "-h", cwd=tmp_path)
    assert code == 0
    assert modules.isdisjoint(HEAVY) or command == "init"


@pytest.fixture
def site(tmp_path: Path) -> Gateway:
    """A gateway that does not run, with a folder, and a peer at a port where nobody listens."""
    peer = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    destinations = {"archive": folder_destination(tmp_path / "archive"), "pacs": {"kind": "dicom", **peer}}
    return Gateway(tmp_path, {"sources": {"pacs": peer}, "destinations": destinations})


def heavy(site: Gateway, *arguments: str) -> tuple[int, set[str]]:
    """Return the exit code of a command and which of the libraries that take long it had imported in the end."""
    code, modules = imported(*arguments, "--config", str(site.config), cwd=site.folder)
    return code, modules.intersection(WATCHED) - {"rich"}


@pytest.mark.parametrize("arguments", [("status",), ("queue", "list"), ("jobs", "list")])
def test_who_looks_into_the_ledger_imports_what_reads_it(site: Gateway, arguments: tuple[str, ...]) -> None:
    assert heavy(site, *arguments) == (0, LOOKING)


@pytest.mark.parametrize("arguments", [("find", "pacs"), ("echo", "pacs")])
def test_who_asks_a_peer_imports_no_ledger_and_no_stage(site: Gateway, arguments: tuple[str, ...]) -> None:
    code, modules = imported(*arguments, "--config", str(site.config), cwd=site.folder)
    assert code == 1
    assert modules.intersection(WATCHED) - {"rich"} == ASKING
    rooms = ("assembly", "ledger", "intake", "delivery", "confirm", "holdings", "sync", "planners", "codec.pool")
    assert not modules.intersection(f"gateway.{room}" for room in rooms)


def test_who_checks_the_configuration_imports_nothing_heavy(site: Gateway) -> None:
    assert heavy(site, "config") == (0, set())


@pytest.mark.parametrize(
    "arguments", [("status",), ("queue", "list"), ("jobs", "list"), ("find", "pacs"), ("echo", "pacs"), ("echo", "archive")]
)
def test_who_asks_the_gateway_that_runs_imports_nothing_heavy(running: Gateway, arguments: tuple[str, ...]) -> None:
    assert heavy(running, *arguments)[1] == set()


@pytest.fixture
def running(site: Gateway) -> Iterator[Gateway]:
    """The same, and it runs."""
    with site.serving():
        yield site


def test_reading_the_ledger_imports_the_words_of_one_database(site: Gateway) -> None:
    _, modules = imported("queue", "list", "--config", str(site.config), cwd=site.folder)
    assert "sqlalchemy.dialects.sqlite" in modules
    assert not {name for name in modules if name.startswith("sqlalchemy.dialects.postgresql")}


def help_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.run([*arguments, "-h"]) == 0
    return capsys.readouterr().out


def test_the_help_has_one_line_within_80_columns_for_each_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of(capsys=capsys).splitlines()
    for name, (_, words) in cli.COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, words] for line in lines), name
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("group", ["queue", "jobs", "config", "certs"])
def test_no_line_of_a_groups_help_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert not [line for line in help_of(group, capsys=capsys).splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize("command", [(name,) for name in cli.COMMANDS] + [("queue", "list"), ("jobs", "report")])
def test_no_help_is_wider_than_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, help_of(*command, capsys=capsys).splitlines())) <= 80


def test_the_versions_of_everything_a_fault_may_come_from_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"gateway {__version__}\n")
    for name in ("pydicom", "pylibjpeg-openjpeg", "pyjpegls", "imagecodecs", "Python 3.", "OpenSSL", "SQLite 3."):
        assert name in told


def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sedn"]) == 2
    assert "Did you mean 'send'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [("gateway se", "1", "send"), ("gateway queue ex", "2", "export"), ("gateway send --fol", "2", "--follow-links")],
)
def test_a_shell_completes_commands_and_options(words: str, position: str, offered: str) -> None:
    environ = os.environ | {"_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    done = subprocess.run(COMMAND, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert offered in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_completion_is_printed_on_request(shell: str) -> None:
    environ = os.environ | {"_GATEWAY_COMPLETE": f"source_{shell}"}
    done = subprocess.run(COMMAND, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "_GATEWAY_COMPLETE" in done.stdout


@pytest.mark.parametrize("group", [[], ["queue"], ["jobs"]])
def test_a_bare_group_of_commands_says_its_help_and_nothing_else(group: list[str]) -> None:
    ended = subprocess.run([*COMMAND, *group], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    text = ended.stdout + ended.stderr
    assert text.startswith(f"Usage: gateway {' '.join([*group, '[OPTIONS] COMMAND'])}")
    assert "--help says what there is" not in text
