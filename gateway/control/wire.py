"""The format of the control socket: requests as models, messages of streams as NDJSON, errors with their fields. Pure.

Both ends use this module, so that an error raised in the gateway is the same error, with the same text, in the command.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.settings import SyncTable
from gateway.config.value_types import MatchingKeys
from gateway.core import errors
from gateway.core.domain import Action, DeliveryState, Priority
from gateway.jobs.compare.request import CompareRequest
from gateway.jobs.migrate.request import MigrationRequest

if TYPE_CHECKING:
    from gateway.ledger.deliveries.queue import Selection

Document = dict[str, Any]
"""A JSON object as it crosses the socket."""

NDJSON = "application/x-ndjson"

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""The longest request: a list of 500,000 studies."""

TOO_LONG = f"a request of more than {MAX_REQUEST_BYTES >> 20} MiB: give a shorter list, or several"

INTERNAL_ERROR = "internal error; the gateway's log says more"


class Request(BaseModel):
    """A request's body: unknown keys are errors."""

    # A command waits for the request that it makes, and not for the others.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class QueueFilter(Request):
    """The deliveries that are meant; `everything` says that no condition at all is meant as such."""

    ids: tuple[int, ...] = ()
    destinations: tuple[str, ...] = ()
    states: tuple[DeliveryState, ...] = ()
    studies: tuple[str, ...] = ()
    everything: bool = False

    def selection(self) -> Selection:
        """Return it as the ledger's queries take it."""
        from gateway.ledger.deliveries.queue import Selection

        return Selection(self.ids, self.destinations, self.states, self.studies)


class QueueList(Request):
    """``POST /queue/list``: a page of deliveries."""

    where: QueueFilter = QueueFilter()
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    offset: Annotated[int, Field(ge=0)] = 0


class QueueAction(Request):
    """``POST /queue/act``: what to do with which deliveries."""

    action: Action
    where: QueueFilter


class QueueExport(Request):
    """``POST /queue/export``: whose instances are written to the folder `to`, an absolute path; no condition: all that is kept."""

    where: QueueFilter = QueueFilter()
    to: str


class EchoCommand(Request):
    """``POST /echo``: names of sources and destinations; none means all."""

    names: tuple[str, ...] = ()


class FolderCommand(Request):
    """``POST /folder/accept``: what lies at the path of the folder destination is its folder from now on."""

    destination: str


class FindCommand(Request):
    """``POST /find``: C-FIND at `source`; `keys` are attribute keywords to matching values."""

    source: str
    level: Literal["STUDY", "SERIES", "IMAGE"] = "STUDY"
    keys: MatchingKeys = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1)] | None = None


class PullCommand(Request):
    """``POST /pull``: what to retrieve from `source`; exactly one way to name the studies is given.

    `wait_s` ends the waiting for deliveries after that many seconds; None waits until each is settled or held. `dry_run` only
    lists; with `detach` it goes on in the gateway.
    """

    source: str
    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    query: MatchingKeys = Field(default_factory=dict)
    skip_existing: bool = False
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    dry_run: bool = False
    detach: bool = False
    wait: bool = True
    wait_s: Annotated[float, Field(gt=0)] | None = None


class SendCommand(Request):
    """``POST /send``: absolute paths of files, folders and zip archives, and the destinations; none: where the routes lead.

    With `follow_links` symbolic links to folders are followed; `dry_run` only tells what would be sent; with `detach` it goes on in
    the gateway.
    """

    paths: tuple[str, ...]
    to: tuple[str, ...] = ()
    follow_links: bool = False
    priority: Priority = Priority.NORMAL
    dry_run: bool = False
    detach: bool = False
    wait: bool = True
    wait_s: Annotated[float, Field(gt=0)] | None = None


class MigrateCommand(Request):
    """``POST /migrate``: what to migrate and how.

    With `detach` it goes on in the gateway; without `wait` it ends before the deliveries do; `dry_run` only lists.
    """

    request: MigrationRequest
    dry_run: bool = False
    detach: bool = False
    wait: bool = True


class CompareCommand(Request):
    """``POST /compare``: which two places are compared and how.

    `wait_s` ends the waiting for the deliveries of a repair after that many seconds.
    """

    request: CompareRequest
    wait_s: Annotated[float, Field(gt=0)] | None = None


class JobAction(Request):
    """``POST /jobs/act``: stop a migration until it is resumed, or carry it on in the gateway."""

    id: int
    action: Literal["pause", "resume"]


class StartAction(Request):
    """``POST /jobs/begin``: begin a sync or comparison of the configuration that is not begun by itself (``sync NAME``)."""

    name: str


class JobQuery(Request):
    """``POST /jobs/show`` and ``/jobs/report``: of which migration."""

    id: int


class SyncCommand(Request):
    """``POST /sync``: a sync as a table of ``[[sync]]`` tells it, endless or for one cycle (`once`); `dry_run` moves nothing."""

    table: SyncTable
    once: bool = False
    dry_run: bool = False
    wait: bool = True
    wait_s: Annotated[float, Field(gt=0)] | None = None


class Message(Protocol):
    """A message of a stream: a frozen dataclass, whose `name` says what it is (`gateway.control.events` has them all)."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class Summary:
    """The last message of a stream: the report of the operation, as ``--json`` and ``gateway jobs report`` print it."""

    name: ClassVar[str] = "summary"
    report: Document


def encode(message: Message) -> Document:
    """Return `message` as the JSON object that crosses the socket."""
    return {"event": message.name, **(message.report if isinstance(message, Summary) else asdict(message))}


def decode(document: Mapping[str, Any], kinds: Iterable[type[Message]]) -> Message | None:
    """Return the message that `encode` made `document` of, one of `kinds`; None for another one, which a newer gateway may tell.

    Raises:
        GatewayError: the document tells of an error, which is raised as in the gateway; or of a message with other fields.

    """
    name = document.get("event")
    if name == _ERROR:
        raise_document(document)
    kind = next((kind for kind in kinds if kind.name == name), None)
    if kind is None:
        return None
    if kind is Summary:
        return Summary({key: value for key, value in document.items() if key != "event"})
    try:
        built: Message = _built(kind, document)
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteError(f"the gateway is of another version: its {name} is not what this command knows") from error
    return built


def _built(kind: Any, document: Mapping[str, Any]) -> Any:
    """Return a dataclass made of its fields in `document`; others may be there too."""
    return kind(**{name: _typed(hint, document[name]) for name, hint in _hints(kind).items() if name in document})


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def _typed(hint: Any, value: Any) -> Any:
    """Return a value of JSON as its field has it: a tuple, a member of an enumeration, a dataclass, or as it is."""
    kind = get_origin(hint) or hint
    if kind is tuple:
        return tuple(value)
    if is_dataclass(kind):
        return _built(kind, value) if isinstance(kind, type) else value
    return kind(value) if isinstance(kind, type) and issubclass(kind, Enum) else value


_ERROR = "error"
"""The name of the line that tells of an error, the last of its stream."""


def error_line(document: Mapping[str, Any]) -> bytes:
    """Return the line of a stream that tells of the error of `document`."""
    return line({"event": _ERROR, **document})


def described(error: errors.GatewayError) -> Document:
    """Return `error` as reports and ``--json`` show it."""
    document: Document = {"kind": type(error).__name__, "message": str(error), "retryable": error.retryable}
    if isinstance(error, errors.ConfigurationError):
        document["problems"] = [vars(problem) for problem in error.problems]
    return document


def error_document(error: errors.GatewayError) -> Document:
    """Return `error` as the JSON object that crosses the socket: as `described`, with its own fields under ``fields``, if any."""
    own = {name: value for name, value in vars(error).items() if name != "retryable" and isinstance(value, str | int | float)}
    return described(error) | ({"fields": own} if own else {})


class RemoteError(errors.GatewayError):
    """A failure in the gateway whose kind this command does not know: an older or newer one runs there."""


def raise_document(document: Mapping[str, Any]) -> None:
    """Raise the error that `document` tells of: of the type that was raised in the gateway, with its text and its fields.

    Raises:
        GatewayError: always.

    """
    kind = getattr(errors, str(document.get("kind")), None)
    message = str(document.get("message", "no message"))
    known = isinstance(kind, type) and issubclass(kind, errors.GatewayError)
    error = kind.__new__(kind) if known and kind is not None else RemoteError(message)
    Exception.__init__(error, message)
    vars(error).update(document.get("fields", {}))
    error.retryable = bool(document.get("retryable", False))
    if isinstance(error, errors.ConfigurationError):
        error.problems = tuple(errors.Problem(**problem) for problem in document.get("problems", ()))
    raise error


def line(document: Mapping[str, Any]) -> bytes:
    """Return one NDJSON line."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
