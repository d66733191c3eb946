"""Imports of a command before it works, and its help: no command imports packages that it does not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__, cli
from tests.support.gateway import COMMAND, Gateway, folder_destination

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

DECODING = ("numpy", "pydicom", "pynetdicom", "httpx")
"""Packages that a command does not need which only reads the ledger."""

ASK = """
import json, sys
from gateway.cli import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name or name.startswith("gateway."))]), file=sys.stderr)
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


@pytest.mark.parametrize("arguments", [("status",), ("queue", "list"), ("config",)])
def test_who_only_looks_imports_nothing_that_decodes_or_calls(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    site = Gateway(tmp_path, {"destinations": {"archive": folder_destination(tmp_path / "archive")}})
    code, modules = imported(*arguments, "--config", str(site.config), cwd=tmp_path)
    assert code == 0
    assert modules.isdisjoint(DECODING)


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
