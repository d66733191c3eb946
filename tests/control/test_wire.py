import pytest

from gateway.control.wire import QueueFilter, RemoteError, error_document, line, raise_document
from gateway.core import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("no source 'x'"),
        errors.SpoolFull("1 byte left"),
        errors.PeerUnreachable("connection refused", peer="AE@host:104"),
        errors.AssociationRejected(result=2, source=3, reason=2, meaning="local limit exceeded", peer="AE@host:104"),
        errors.DimseFailed("C-MOVE", 0xA801, peer="AE@host:104"),
    ],
)
def test_an_error_keeps_type_text_and_retryability_across_the_socket(error: errors.GatewayError) -> None:
    with pytest.raises(type(error)) as raised:
        raise_document(error_document(error))
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert raised.value.retryable == error.retryable


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
