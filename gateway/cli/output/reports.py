"""Reports that a command leaves in a file of its user's. They may name patients' files: nobody else may read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from gateway.core.errors import UsageError
from gateway.core.files import unusable


def write(path: Path, text: str) -> None:
    """Write a report, in place of an earlier one.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(str(unusable(error, "cannot write the report", path))) from error


def as_csv(rows: Iterable[Iterable[object]], *, line_end: str = "\n") -> str:
    """Return rows as CSV; pure."""
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows(rows)
    return text.getvalue()
