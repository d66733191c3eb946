"""Every setting is documented with its default, and nothing that is no setting is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gateway.config import settings
from gateway.config.show import toml_value

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")

HEADINGS: dict[str, type[BaseModel]] = {
    "`[gateway]`": settings.GatewayTable,
    "`[node]`": settings.NodeTable,
    "`[ledger]`": settings.LedgerTable,
    "`[listen]`": settings.ListenTable,
    "`[listen.tls]`": settings.ListenTlsTable,
    "`[spool]`": settings.SpoolTable,
    "`[serve]`": settings.ServeTable,
    "`[log]`": settings.LogTable,
    "`[sources.NAME]`": settings.SourceTable,
    '`[destinations.NAME]` with `kind = "dicom"`': settings.DicomDestination,
    '`[destinations.NAME]` with `kind = "folder"`': settings.FolderDestination,
    "retry": settings.RetryTable,
    "TLS": settings.TlsTable,
    "REST and DICOMweb": settings.RestTable,
    "`[schedule.NAME]`": settings.ScheduleTable,
    "`[[routes]]`": settings.RouteTable,
    "`[[sync]]`": settings.SyncTable,
    "`[[compare]]`": settings.CompareTable,
}


def rows(heading: str) -> dict[str, str]:
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", section, re.MULTILINE))


def defaults(table: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in table.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if field.is_required() or default is PydanticUndefined:
            yield name, "required"
        elif default is None:
            yield name, "none"
        elif isinstance(default, BaseModel):
            yield name, "see below"
        else:
            plain = list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default
            yield name, f"`{toml_value(plain)}`"


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_table_is_documented_setting_by_setting(heading: str) -> None:
    table = HEADINGS[heading]
    # [listen] has its TLS table under a heading of its own.
    expected = {name: default for name, default in defaults(table) if (table, name) != (settings.ListenTable, "tls")}
    assert rows(heading) == expected


def test_every_table_of_settings_has_a_heading() -> None:
    tables = {
        value
        for value in vars(settings).values()
        if isinstance(value, type) and issubclass(value, settings.Table) and value.model_fields
    }
    assert tables - {settings.Settings} == set(HEADINGS.values())
    for name in settings.Settings.model_fields:
        assert f"[{name}" in PAGE or f"[[{name}" in PAGE
