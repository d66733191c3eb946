"""Logs: stable events, JSON off a terminal, and nothing of a data set whatever a library writes."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.config.settings import LogTable
from gateway.core import log

NAME = "DOE^JANE"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, show = logging.getLogger(), warnings.showwarning
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:], warnings.showwarning = handlers, show
    root.setLevel(level)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_a_line_is_one_json_event(stream: io.StringIO) -> None:
    log.configure(LogTable(), stream)
    structlog.get_logger().info("association_accepted", association="a1", count=3)
    (event,) = events(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "association_accepted", "association": "a1", "count": 3, "level": "info"}


def test_on_a_terminal_it_is_text(stream: io.StringIO) -> None:
    terminal = Terminal()
    log.configure(LogTable(), terminal)
    structlog.get_logger().info("association_accepted", association="a1")
    assert "association_accepted" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_json_can_be_asked_for_on_a_terminal(stream: io.StringIO) -> None:
    terminal = Terminal()
    log.configure(LogTable(format="json"), terminal)
    structlog.get_logger().info("x")
    assert json.loads(terminal.getvalue())["event"] == "x"


def test_the_level_is_the_lowest_that_is_written(stream: io.StringIO) -> None:
    log.configure(LogTable(level="warning"), stream)
    logger = structlog.get_logger()
    logger.info("quiet")
    logger.warning("loud")
    assert [event["event"] for event in events(stream)] == ["loud"]


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom", "pynetdicom.acse", "pydicom.valuerep"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_dicom_libraries_never_get_their_text_into_the_log(stream: io.StringIO, name: str, level: str) -> None:
    log.configure(LogTable.model_validate({"level": level}), stream)
    logging.getLogger(name).debug("value %s", NAME)
    logging.getLogger(name).info("value %s", NAME)
    logging.getLogger(name).warning("invalid value %s", NAME)
    assert NAME not in stream.getvalue()
    (event,) = events(stream)
    assert (event["event"], event["logger"], event["text"], event["level"]) == ("library", name, log.WITHHELD, "warning")


def test_other_libraries_are_passed_on_from_a_warning(stream: io.StringIO) -> None:
    log.configure(LogTable(), stream)
    logging.getLogger("hypercorn.error").info("noise")
    logging.getLogger("hypercorn.error").warning("address %s in use", "x")
    assert [(event["logger"], event["text"]) for event in events(stream)] == [("hypercorn.error", "address x in use")]


def test_an_exception_is_logged_by_type_and_place_not_by_its_text(stream: io.StringIO) -> None:
    log.configure(LogTable(), stream)

    def decode() -> None:
        raise ValueError(f"invalid value {NAME}")

    try:
        decode()
    except ValueError:
        structlog.get_logger().exception("intake_failed")
        logging.getLogger("hypercorn").exception("failed")
    assert NAME not in stream.getvalue()
    for event in events(stream):
        assert event["exception"] == "ValueError"
        assert ":decode:" in event["raised_at"][-1]


def test_warnings_are_logged_by_kind_and_place_not_by_their_text(stream: io.StringIO) -> None:
    log.configure(LogTable(), stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(
            UserWarning(f"Invalid value for VR PN: {NAME}"), UserWarning, "/x/site-packages/pydicom/valuerep.py", 7
        )
    (event,) = events(stream)
    assert NAME not in stream.getvalue()
    assert (event["event"], event["category"], event["module"], event["line"]) == (
        "library_warning",
        "UserWarning",
        "pydicom/valuerep.py",
        7,
    )


def test_configuring_twice_writes_once(stream: io.StringIO) -> None:
    log.configure(LogTable(), stream)
    log.configure(LogTable(), stream)
    logging.getLogger("sqlalchemy").warning("once")
    assert len(events(stream)) == 1


FIRST_LINES_AT_ONCE = """
import sys, threading, types
from gateway.core import log
begun, second_is_out, set_up = threading.Event(), threading.Event(), log._configure_structlog
def slowly(*how: object) -> None:
    begun.set()
    second_is_out.wait(0.5)
    set_up(*how)
log._configure_structlog = slowly
log.configure(types.SimpleNamespace(level="warning", format="json"))
assert "structlog" not in sys.modules
def say(event: str) -> None:
    log.get_logger().debug("not_to_be_seen")
    log.get_logger().warning(event)
first = threading.Thread(target=say, args=("first",))
first.start()
begun.wait()
say("second")
second_is_out.set()
first.join()
"""


def test_no_line_goes_out_before_logs_are_set_up() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_LINES_AT_ONCE], capture_output=True, text=True, check=True)

    assert done.stdout == ""
    assert sorted(json.loads(line)["event"] for line in done.stderr.splitlines()) == ["first", "second"]
