"""``--list`` of the commands that move or compare studies: the file is read here, and each of its rows accounted for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import render
from gateway.core.errors import UsageError
from gateway.core.files import unusable
from gateway.retrieve.study_lists import ListKind, StudyList, decode_list, parse_list

ListOption = Annotated[
    Path | None,
    typer.Option("--list", help="A file with one study, accession number or patient id a row; - is standard input."),
]
ColumnOption = Annotated[str | None, typer.Option("--column", help="The column of the list: its name, or its position from 1.")]
KindOption = Annotated[
    ListKind | None, typer.Option("--kind", help="The kind of the list's entries, where its header does not say.")
]

STANDARD_INPUT = Path("-")

MAX_LIST_BYTES = 64_000_000
"""A million rows of UIDs."""

SHOWN_ROWS = 50
"""Rows printed of those that name nothing to ask for; --json has all of them."""


@dataclass(frozen=True)
class Listed:
    """The entries that a command is given by its --list; `found` is None where there is none."""

    found: StudyList | None = None

    @property
    def whole(self) -> bool:
        """Tell whether every row of the list is asked for."""
        return self.found is None or not self.found.problems

    def named(
        self, study: Sequence[str] | None = None, accession: Sequence[str] | None = None, patient: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return the studies that options and the list name, as requests have them."""
        return {
            "study_uids": (*(study or ()), *self._values(ListKind.STUDY)),
            "accession_numbers": (*(accession or ()), *self._values(ListKind.ACCESSION)),
            "patient_ids": (*(patient or ()), *self._values(ListKind.PATIENT)),
        }

    def _values(self, kind: ListKind) -> tuple[str, ...]:
        return self.found.values if self.found is not None and self.found.kind is kind else ()

    def document(self) -> dict[str, Any]:
        """Return ``{"list": …}`` for --json: how many values are asked for, how many rows repeat one, which rows are not asked for.

        Empty without a list.
        """
        if self.found is None:
            return {}
        rows = [{"row": problem.row, "value": problem.value, "why": problem.why} for problem in self.found.problems]
        return {"list": {"values": len(self.found.values), "duplicates": self.found.duplicates, "not_asked_for": rows}}

    def tell(self) -> None:
        """Print on standard error how many rows of the list are not asked for, and each with its number, value and why."""
        if self.found is None or not self.found.problems:
            return
        count = len(self.found.problems)
        render.say(f"{render.plural(count, 'row')} of the list {'is' if count == 1 else 'are'} NOT asked for:", err=True)
        for problem in self.found.problems[:SHOWN_ROWS]:
            render.say(f"  {render.printable(str(problem))}", err=True)
        if count > SHOWN_ROWS:
            render.say(f"  … and {count - SHOWN_ROWS} more (--json has them all)", err=True)


def listed_in(path: Path | None, column: str | None, kind: ListKind | None) -> Listed:
    """Return what the list file `path` names, ``-`` being standard input; nothing without a file.

    Raises:
        UsageError: it cannot be read, is too large or is no such list, or `column` or `kind` is given without it.
    """
    if path is None:
        if column is not None or kind is not None:
            raise UsageError("--column and --kind say how to read a --list")
        return Listed()
    name = "standard input" if path == STANDARD_INPUT else str(path)
    try:
        with nullcontext(sys.stdin.buffer) if path == STANDARD_INPUT else path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise UsageError(str(unusable(error, "cannot read the list", path))) from error
    if len(content) > MAX_LIST_BYTES:
        raise UsageError(f"{name}: larger than {render.size(MAX_LIST_BYTES)}; split it into several lists")
    try:
        return Listed(parse_list(decode_list(content), kind=kind, column=column))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
