"""Bytes of messages and errors on the control socket: made, read, and the same as ever."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from gateway.control import events
from gateway.control.wire import QueueFilter, RemoteError, Summary, decode, described, encode, error_document, line, raise_document
from gateway.core import errors
from gateway.core.domain import Basis, VerdictKind
from gateway.jobs.sync.cycle import Cycle
from gateway.retrieve import JobEnded, JobStarted, Progress, Repairing, StudyEnded, StudyPlanned, Verdict, Waiting

STREAMS = (events.PULL, events.SEND, events.SYNC, events.MIGRATE, events.COMPARE, events.EXPORT)

INCOMPLETE = Verdict(VerdictKind.INCOMPLETE, "1.2", Basis.UIDS, 2, 1, missing=("1.2.9",), note="why", unfit={"1.2.9": "twice"})

LINES = [
    (JobStarted(1, "archive", resumed=True), '{"event":"job_started","job_id":1,"source":"archive","resumed":true}'),
    (
        StudyPlanned("1.2", 7, Basis.COUNTS, None, 0, 3),
        '{"event":"study_planned","study_instance_uid":"1.2","retrieval_id":7,"basis":"counts","expected":null,"skipped":0,"present":3}',
    ),
    (
        Progress("1.2", 7, 10, 4, 4096),
        '{"event":"progress","study_instance_uid":"1.2","retrieval_id":7,"expected":10,"received":4,"bytes":4096}',
    ),
    (
        Repairing("1.2", 7, "image", 1, 6),
        '{"event":"repairing","study_instance_uid":"1.2","retrieval_id":7,"step":"image","round":1,"missing":6,"after":"answered"}',
    ),
    (Waiting("1.2", "busy", 1.5), '{"event":"waiting","study_instance_uid":"1.2","reason":"busy","seconds":1.5}'),
    (
        StudyEnded(INCOMPLETE, earlier=True),
        '{"event":"study_ended","verdict":{"kind":"incomplete","study_instance_uid":"1.2","basis":"uids","expected":2,"received":1,'
        '"skipped":0,"missing":["1.2.9"],"note":"why","seconds":0.0,"bytes":0,"asked":"","retrieval_id":null,'
        '"unfit":{"1.2.9":"twice"}},"earlier":true}',
    ),
    (
        JobEnded(1, complete=2, error="broken"),
        '{"event":"job_ended","job_id":1,"complete":2,"incomplete":0,"empty":0,"failed":0,"error":"broken"}',
    ),
    (
        Cycle("day", "pacs", 1, at=0.0, look_s=0.1, over_s=60.0, found=9, instances=90, remarks=("a was not asked",)),
        '{"event":"cycle","sync":"day","source":"pacs","number":1,"at":0.0,"look_s":0.1,"over_s":60.0,"found":9,"missing":0,'
        '"started":0,"paused":0,"underway":0,"growing":0,"moved":0,"unfinished":0,"series":0,"instances":90,"bytes":0,"error":"",'
        '"remarks":["a was not asked"],"instances_a_minute":90.0}',
    ),
    (
        events.Delivering(2, {"a": {"states": {"pending": 2}, "proofs": {}}}),
        '{"event":"delivering","working":2,"destinations":{"a":{"states":{"pending":2},"proofs":{}}}}',
    ),
    (
        events.FilesRead(2, {"queued": 1, "failed": 1}, 512),
        '{"event":"files","found":2,"counts":{"queued":1,"failed":1},"size_bytes":512}',
    ),
    (
        events.FilesWritten({"written": 1}, 1, 512),
        '{"event":"files","counts":{"written":1},"instances":1,"size_bytes":512}',
    ),
    (
        events.Comparing(1, 2, 30, 4, 5),
        '{"event":"comparing","studies":1,"series":2,"instances":30,"contents":4,"different":5}',
    ),
    (events.ComparisonWaits("outside its hours"), '{"event":"waiting","reason":"outside its hours"}'),
    (events.Listing(7, events.Portions(2, 9)), '{"event":"listing","studies":7,"portions":{"listed":2,"of":9}}'),
    (
        events.MigrationStarted(3, "pacs", detached=False),
        '{"event":"migration_started","job_id":3,"source":"pacs","detached":false}',
    ),
    (
        events.Migrating({"studies": 4, "ended": 1}, events.Portions(2, 9), 2, "", None, {"20240101": "refused"}),
        '{"event":"migrating","studies":{"studies":4,"ended":1},"portions":{"listed":2,"of":9},"at_a_time":2,"waiting":"",'
        '"seconds_left":null,"problems":{"20240101":"refused"}}',
    ),
    (Summary({"detached": True, "job_id": 3}), '{"event":"summary","detached":true,"job_id":3}'),
]


@pytest.mark.parametrize(("message", "text"), LINES, ids=lambda value: type(value).__name__)
def test_each_message_is_the_line_that_it_has_always_been(message: Any, text: str) -> None:
    assert line(encode(message)).decode() == text + "\n"


@pytest.mark.parametrize(("message", "text"), LINES, ids=lambda value: type(value).__name__)
def test_each_message_is_read_from_its_line_in_every_stream_it_is_in(message: Any, text: str) -> None:
    mine = [kinds for kinds in STREAMS if type(message) in kinds]
    assert mine
    for kinds in mine:
        assert decode(json.loads(text), kinds) == message


@pytest.mark.parametrize("kinds", STREAMS, ids=["pull", "send", "sync", "migrate", "compare", "export"])
def test_no_two_messages_of_a_stream_share_a_name_and_each_has_its_line(kinds: tuple[Any, ...]) -> None:
    assert len({kind.name for kind in kinds}) == len(kinds)
    assert set(kinds) <= {type(message) for message, _ in LINES}


def test_messages_and_fields_of_a_newer_gateway_are_passed_over() -> None:
    assert decode({"event": "from_the_future", "x": 1}, events.PULL) is None
    started = {"event": "job_started", "job_id": 1, "source": "archive", "resumed": True, "new": 2}
    assert decode(started, events.PULL) == JobStarted(1, "archive", resumed=True)


@pytest.mark.parametrize(
    "document",
    [{"event": "job_started"}, {"event": "study_ended", "verdict": 5}, {"event": "study_ended", "verdict": {"kind": "else"}}],
)
def test_a_message_without_what_it_says_is_of_another_version(document: dict[str, Any]) -> None:
    with pytest.raises(RemoteError, match="another version"):
        decode(document, events.PULL)


def test_an_error_in_a_stream_is_raised_as_it_was() -> None:
    with pytest.raises(errors.SpoolFull, match="1 byte left"):
        decode({"event": "error", **error_document(errors.SpoolFull("1 byte left"))}, events.PULL)


def _error(kind: type[errors.GatewayError]) -> errors.GatewayError:
    """Return an error of `kind`, none of whose fields has its default."""
    given: dict[str, Any] = {
        "message": "some text",
        "peer": "AE@host:104",
        "url": "https://pacs/dicom-web",
        "operation": "C-MOVE",
        "status": 0xA801,
        "result": 2,
        "source": 3,
        "reason": 2,
        "meaning": "local limit exceeded",
        "retryable": True,
        "problems": [errors.Problem("config.toml:3", "listen.port", "'x'", "a number")],
    }
    if kind.__init__ is Exception.__init__:
        return kind("some text")
    return kind(**{name: given[name] for name in list(inspect.signature(kind).parameters)})


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GatewayError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_keeps_type_text_and_fields_across_the_socket(kind: type[errors.GatewayError]) -> None:
    error = _error(kind)
    with pytest.raises(kind) as raised:
        raise_document(json.loads(line(error_document(error))))
    assert type(raised.value) is kind
    assert raised.value.args == error.args
    assert raised.value.retryable == error.retryable
    assert vars(raised.value) == vars(error) | {"retryable": error.retryable}


def test_an_error_in_a_report_is_kind_text_and_whether_to_try_again() -> None:
    error = errors.DimseFailed("C-MOVE", 0xA801, peer="AE@host:104")
    assert described(error) == {"kind": "DimseFailed", "message": "AE@host:104: C-MOVE answered A801", "retryable": False}
    assert error_document(error) == described(error) | {"fields": {"operation": "C-MOVE", "status": 0xA801, "peer": "AE@host:104"}}


def test_the_problems_of_a_configuration_cross_the_socket_one_by_one() -> None:
    problem = errors.Problem("config.toml:3", "listen.port", "'x'", "a number")
    with pytest.raises(errors.ConfigurationError) as raised:
        raise_document(error_document(errors.ConfigurationError([problem])))
    assert raised.value.problems == (problem,)


@pytest.mark.parametrize("kind", ["FromTheFuture", "Sequence", "dataclass", "annotations", None])
def test_an_unknown_kind_becomes_a_remote_error_with_the_gateways_words(kind: str | None) -> None:
    with pytest.raises(RemoteError, match="something new"):
        raise_document({"kind": kind, "message": "something new"})


def test_a_line_is_one_line_whatever_the_text() -> None:
    assert line({"a": "b\nc\u2028ü"}).count(b"\n") == 1


def test_a_filter_without_conditions_selects_everything_and_says_so() -> None:
    assert QueueFilter().selection().is_everything
    assert not QueueFilter(ids=(1,)).selection().is_everything
