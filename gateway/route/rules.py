"""Compiled routes and their evaluation. Pure; safe to call from any thread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.config.routing_keys import OPERATION_KEYS
from gateway.config.settings import RouteTable
from gateway.core.domain import Attributes, Mode


@dataclass(frozen=True, slots=True)
class Rule:
    """One route, compiled: for each key the pattern that one of its values must match as a whole."""

    name: str
    conditions: tuple[tuple[str, re.Pattern[str]], ...]
    destinations: tuple[str, ...]
    mode: Mode | None = None

    def matches(self, attributes: Attributes) -> bool:
        """Tell whether every condition holds."""
        return all(_matches(pattern, attributes.get(key) or "") for key, pattern in self.conditions)


@dataclass(frozen=True, slots=True)
class Rules:
    """All routes in the configuration's order, and the DICOM keywords that they ask for."""

    rules: tuple[Rule, ...]
    keywords: frozenset[str]


def compile_routes(routes: Iterable[RouteTable]) -> Rules:
    """Compile the configuration's routes; keywords that do not exist are reported by `gateway.config`, and match nothing."""
    rules = tuple(_compile(table) for table in routes)
    asked = {key for rule in rules for key, _ in rule.conditions}
    return Rules(rules, frozenset(asked - OPERATION_KEYS))


def route(rules: Rules, attributes: Attributes) -> dict[str, Mode | None]:
    """Return the destinations of all routes that match, in order; empty is unrouted.

    With each comes the transfer syntax that a route asks for there; of several routes that do, the first decides.
    """
    found: dict[str, Mode | None] = {}
    for rule in rules.rules:
        if rule.matches(attributes):
            for name in rule.destinations:
                found[name] = found.get(name) or rule.mode
    return found


def _compile(table: RouteTable) -> Rule:
    conditions = tuple((key, _pattern(value)) for key, value in table.when.items())
    return Rule(table.name, conditions, table.to, table.transfer_syntax)


def _pattern(value: str | Sequence[str]) -> re.Pattern[str]:
    wildcards = (value,) if isinstance(value, str) else value
    return re.compile("|".join(f"(?:{_expression(wildcard)})" for wildcard in wildcards) or r"(?!)", re.DOTALL)


def _expression(wildcard: str) -> str:
    """Translate to a regular expression that backtracks over no ``*``: each middle part binds where it first fits."""
    if "*" not in wildcard:
        return _literal(wildcard)
    if wildcard.strip("*") == "":
        return ".+"
    first, *middle, last = (_literal(part) for part in wildcard.split("*"))
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last


def _literal(text: str) -> str:
    return "".join("." if character == "?" else re.escape(character) for character in text)


def _matches(pattern: re.Pattern[str], value: str) -> bool:
    """Match the whole attribute or one of its values (PS3.5 §6.4). An absent one is empty, which ``*`` does not match."""
    if pattern.fullmatch(value):
        return True
    return "\\" in value and any(pattern.fullmatch(part) for part in value.split("\\"))
