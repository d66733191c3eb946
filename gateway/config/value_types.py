"""The single values of a configuration: types that check them, for the tables of `gateway.config.settings`. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.core import dates
from gateway.core.domain import is_ae_title
from gateway.core.schedule import HOURS_EXPECTED, parse_days, parse_hours, parse_zone
from gateway.core.throttle import RATE_EXPECTED, parse_rate
from gateway.dicom.syntaxes import SHORT_NAMES, known, uid_of


def _ae_title(value: str) -> str:
    if not is_ae_title(value):
        raise ValueError("an AE title of 1 to 16 printable ASCII characters without a backslash")
    return value.strip()


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError('an address or a network such as "192.0.2.7" or "192.0.2.0/24"') from error


def _node_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", value, re.ASCII) is None:
        raise ValueError("a name of 1 to 32 letters, digits, dots, dashes and underscores that begins with a letter or a digit")
    return value


def _transfer_syntax(value: str) -> str:
    if uid_of(value) not in {each.uid for each in known()}:
        raise ValueError(f"a transfer syntax UID of the standard, or one of {', '.join(SHORT_NAMES)}")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an address that starts with http:// or https://")
    if parts.username or parts.password:
        raise ValueError("an address without user and password: they have their own keys, username and password")
    return value


def _time_zone(value: str) -> str:
    parse_zone(value)
    return value


def _hours(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(HOURS_EXPECTED)  # noqa: TRY004 - pydantic tells of a ValueError
    parse_hours(value)
    return value


def _rate(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(RATE_EXPECTED)  # noqa: TRY004 - pydantic tells of a ValueError
    parse_rate(value)
    return value


def _share(value: object) -> object:
    """Return a share of 1: a number from 0 to 1, or a percentage such as ``90%``."""
    expected = 'a share such as "90%" or 0.9'
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError as error:
            raise ValueError(expected) from error
    return value


_SIZES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def _size(value: object) -> object:
    """Return a number of bytes: one, or a size such as ``500 GB`` with a decimal prefix."""
    if not isinstance(value, str):
        return value
    number, unit = value.strip()[:-2].strip(), value.strip()[-2:]
    try:
        return int(float(number) * _SIZES[unit])
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError('a size such as "500 GB" or "1.5 TB"') from error


def _duration(value: str) -> str:
    dates.seconds(value)
    return value


def _days(value: str) -> str:
    dates.days(value)
    return value


def _time_of_day(value: str) -> str:
    dates.time_of_day(value)
    return value


def _weekdays(value: str) -> str:
    parse_days(value)
    return value


@dataclass(frozen=True)
class MustExist:
    """Marks a path whose file has to be there and readable when the configuration is loaded."""


TransferSyntax = Annotated[str, AfterValidator(_transfer_syntax)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
NodeName = Annotated[str, AfterValidator(_node_name)]
Host = Annotated[str, Field(min_length=1, max_length=255, description="a host name or an address")]
Network = Annotated[str, AfterValidator(_network)]
Url = Annotated[str, AfterValidator(_url)]
PemFile = Annotated[Path, MustExist()]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Hours = Annotated[str, BeforeValidator(_hours)]
Rate = Annotated[str, BeforeValidator(_rate)]
Duration = Annotated[str, AfterValidator(_duration)]
Days = Annotated[str, AfterValidator(_days)]
Share = Annotated[float, BeforeValidator(_share), Field(gt=0, le=1)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
Weekdays = Annotated[str, AfterValidator(_weekdays)]

MatchingKeys = Annotated[dict[str, str], AfterValidator(dates.matching_keys)]
"""C-FIND keys, with dates and times as people write them."""
