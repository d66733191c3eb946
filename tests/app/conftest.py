from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway import cli
from gateway.config.settings import LogTable
from gateway.control.embedded import local
from gateway.core import log
from gateway.core.domain import Role
from tests.support import gateway as support


@dataclass(frozen=True)
class Ended:
    """The result of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The document that ``--json`` wrote."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def logs_end_with_the_test() -> Iterator[None]:
    """A command sets logging up for its process; here the process lives on and its captured streams do not.

    An engine that a test starts itself logs before any command did: not to standard output, which belongs to ``--json``.
    """
    log.configure(LogTable(level="error"), sys.__stderr__)
    yield
    structlog.reset_defaults()


@pytest.fixture
def site(tmp_path: Path) -> support.Gateway:
    """A gateway whose one destination is the folder ``archive``; nothing runs yet."""
    tables = {"destinations": {"archive": support.folder_destination(tmp_path / "archive")}}
    return support.Gateway(tmp_path / "site", tables)


@pytest.fixture
def run(site: support.Gateway, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, as the console script does."""

    def command(*arguments: str | Path) -> Ended:
        capfd.readouterr()
        code = cli.run([*map(str, arguments), "--config", str(site.config)])
        return Ended(code, *capfd.readouterr())

    return command


@contextmanager
def running(site: support.Gateway) -> Iterator[None]:
    """Run the whole gateway of `site` on a thread of this process."""
    from gateway.cli.options import settings_of

    with local(settings_of(site.config), role=Role.GATEWAY, listens=True):
        yield
