"""The shape of a configuration, read off the settings' models. Pure.

A `Shape` says what a place holds: a table of known keys, a table of names (``[sources.NAME]``), a list, or a value.
Walking raw TOML beside its shape finds every value's field before anything is validated, so that paths, secrets and
the environment are treated by what a key *is*, not by lists of keys.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway.config.settings import Settings

KeyPath = tuple[str | int, ...]
Raw = dict[str, Any]


class Holds(Enum):
    """The kinds of places in the configuration."""

    TABLE = "table"
    NAMED = "named"
    LIST = "list"
    VALUE = "value"


@dataclass(frozen=True)
class Shape:
    """The shape of one place; `models` are a table's alternatives, `item` what names or a list hold."""

    holds: Holds
    models: tuple[type[BaseModel], ...] = ()
    item: Shape | None = None
    annotation: Any = None
    field: FieldInfo | None = None

    def fields(self, raw: object) -> dict[str, FieldInfo]:
        """Return the fields of the table `raw`: of the model that its discriminating key chooses, or of all of them."""
        chosen = [model for model in self.models if _chosen(model, raw)] or list(self.models)
        return {name: field for model in chosen for name, field in model.model_fields.items()}

    @property
    def is_secret(self) -> bool:
        """Tell whether the value here is a password."""
        return self.annotation is SecretStr


@dataclass(frozen=True)
class Place:
    """One value of a raw configuration with its key path and shape; `table` is the raw table that holds it."""

    path: KeyPath
    shape: Shape
    table: Raw

    @property
    def value(self) -> Any:
        """The raw value."""
        return self.table[str(self.path[-1])]


def _chosen(model: type[BaseModel], raw: object) -> bool:
    kind = model.model_fields.get("kind")
    return kind is None or (isinstance(raw, dict) and raw.get("kind") in get_args(kind.annotation))


def shape_of(annotation: Any, field: FieldInfo | None = None) -> Shape:
    """Return the shape that a type annotation of the settings describes."""
    options = _options(annotation)
    models = tuple(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    if models:
        return Shape(Holds.TABLE, models=models, field=field)
    only = options[0]
    if get_origin(only) is dict:
        item = shape_of(get_args(only)[1])
        return Shape(Holds.NAMED if item.holds is Holds.TABLE else Holds.VALUE, item=item, annotation=only, field=field)
    if get_origin(only) is tuple:
        return Shape(Holds.LIST, item=shape_of(get_args(only)[0]), annotation=only, field=field)
    return Shape(Holds.VALUE, annotation=only, field=field)


def _options(annotation: Any) -> list[Any]:
    """Return what an annotation allows beside None, without its metadata."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return [option for part in get_args(annotation) if part is not type(None) for option in _options(part)]
    return [annotation]


ROOT = Shape(Holds.TABLE, models=(Settings,))


def below(shape: Shape, segment: str | int, raw: object) -> Shape | None:
    """Return the shape at `segment` below `shape`, whose raw value is `raw`; None where nothing may stand there."""
    match shape.holds:
        case Holds.TABLE:
            field = shape.fields(raw).get(str(segment))
            return shape_of(field.annotation, field) if field else None
        case Holds.NAMED | Holds.LIST | Holds.VALUE:
            return shape.item


def step(raw: object, segment: str | int) -> object:
    """Return what stands at `segment` of the raw value `raw`, or None."""
    if isinstance(raw, dict):
        return raw.get(segment)
    if isinstance(raw, list) and isinstance(segment, int) and segment < len(raw):
        return raw[segment]
    return None


def values(raw: object, shape: Shape = ROOT, path: KeyPath = ()) -> Iterator[Place]:
    """Yield every value in `raw` that a table's field describes, in the file's order; unknown keys are left out."""
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            if shape.item is not None:
                yield from values(item, shape.item, (*path, index))
    if not isinstance(raw, dict) or shape.holds not in {Holds.TABLE, Holds.NAMED}:
        return
    for key in list(raw):
        inner = below(shape, key, raw)
        if inner is None:
            continue
        if inner.holds is Holds.VALUE:
            yield Place((*path, key), inner, raw)
        else:
            yield from values(raw[key], inner, (*path, key))


def tables(raw: object, shape: Shape = ROOT, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Shape, Raw]]:
    """Yield every table of known keys in `raw` with its key path and shape."""
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            if shape.item is not None:
                yield from tables(item, shape.item, (*path, index))
    if not isinstance(raw, dict):
        return
    if shape.holds is Holds.TABLE:
        yield path, shape, raw
    for key, value in list(raw.items()):
        inner = below(shape, key, raw)
        if inner is not None and shape.holds is not Holds.VALUE:
            yield from tables(value, inner, (*path, key))


def dotted(path: KeyPath) -> str:
    """Write a key path as a person would: ``destinations.orthanc-a.port``, ``routes[0].to``."""
    text = ""
    for segment in path:
        text += f"[{segment}]" if isinstance(segment, int) else f".{segment}" if text else segment
    return text


def expectation(shape: Shape | None) -> str:
    """Say in words what a value of `shape` has to be."""
    if shape is None:
        return "another value"
    if shape.field is not None and shape.field.description:
        return shape.field.description
    if shape.holds in {Holds.TABLE, Holds.NAMED}:
        return "a table"
    if shape.holds is Holds.LIST:
        return "a list of tables" if shape.item and shape.item.holds is Holds.TABLE else "a list of strings"
    if options := _alternatives(shape.annotation):
        return "one of " + ", ".join(f'"{option}"' for option in options)
    return _KINDS.get(shape.annotation, "a string") + _bounds(shape.field)


def _alternatives(annotation: Any) -> Sequence[Any]:
    """Return the values that an annotation lists, if it does."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(annotation) if isinstance(annotation, type) and issubclass(annotation, StrEnum) else ()


_KINDS: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false", Path: "a path"}


def _bounds(field: FieldInfo | None) -> str:
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    parts = [
        _words.format(_number(bound))
        for item in _constraints(field)
        for name, _words in words.items()
        if (bound := getattr(item, name, None)) is not None
    ]
    return " " + " ".join(parts) if parts else ""


def _constraints(field: FieldInfo | None) -> list[Any]:
    """Return the limits of a field's value, also those inside ``X | None``."""
    if field is None:
        return []
    inner = [part for part in get_args(field.annotation) if get_origin(part) is Annotated]
    nested = [item for part in inner for item in get_args(part)[1:]]
    return [*field.metadata, *[limit for item in nested for limit in getattr(item, "metadata", [item])]]


def _number(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
