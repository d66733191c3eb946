"""The matrix as a page for users: `docs/transfer-syntaxes.md` has it between two marks, written by nobody's hand."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

from gateway.dicom.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, J2K_LOSSLESS, JPEG_LS_LOSSLESS, known, syntax
from tests.matrix.judge import REASONS, TRUNCATED, Facts, facts, reason_of
from tests.matrix.peers import KINDS, MODES
from tests.matrix.running import Cell
from tests.support.transcoding import of_file

PAGE = Path(__file__).parents[2] / "docs/transfer-syntaxes.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
WIDTH = 132

_SYMBOLS = {EXPLICIT_LITTLE: "E", IMPLICIT_LITTLE: "I", J2K_LOSSLESS: "J", JPEG_LS_LOSSLESS: "S"}
_COLUMNS = {
    "orthanc": "Orthanc, takes all",
    "uncompressed": "uncompressed only",
    "j2k": "JPEG 2000 Lossless only",
    "jpeg-ls": "JPEG-LS Lossless only",
}
Outcomes = tuple[tuple[str, ...], ...]
"""A symbol for each mode, for each kind of peer."""

Row = tuple[str, str, Outcomes]
"""Transfer syntax UID, kind of pixels, and what became of them."""


def symbol(cell: Cell) -> str:
    """Return what became of a cell; to be asked while what was received is there."""
    if cell.received is None:
        number = reason_of(cell)
        return "?" if number is None else ascii_lowercase[number]
    received = of_file(cell.received).syntax
    return "=" if received == facts(cell.path).stored else _SYMBOLS.get(received, "?")


def kind(file: Facts) -> str:
    """Return what there is in a file, as far as it matters for compression."""
    if file.name in TRUNCATED:
        return "cut off"
    return {1: "grey", 3: "colour"}.get(file.samples, f"{file.samples} samples") if file.has_pixels else "no pixels"


def matrix(found: Mapping[Path, Mapping[tuple[str, str], str]], left_out: Mapping[str, str]) -> str:
    """Return the text between the marks.

    `found` has the symbols of each file by peer and mode, `left_out` why others are not in it.
    """
    rows: dict[Row, list[Facts]] = defaultdict(list)
    for path, cells in found.items():
        outcomes = tuple(tuple(cells[peer, mode] for mode in MODES) for peer in KINDS)
        rows[facts(path).stored, kind(facts(path)), outcomes].append(facts(path))
    order = [each.uid for each in known()]
    ordered = sorted(rows.items(), key=lambda row: (order.index(row[0][0]), row[0][1], -len(row[1]), _named(row[1])))
    parts = [_summary(found), _legend(found), _table(ordered), _names(ordered), _left_out(left_out)]
    return "\n\n".join(parts)


def _summary(found: Mapping[Path, Mapping[tuple[str, str], str]]) -> str:
    symbols = [each for cells in found.values() for each in cells.values()]
    as_is, held = symbols.count("="), sum(each in ascii_lowercase for each in symbols)
    return (
        f"{len(found)} files at {len(KINDS) * len(MODES)} destinations: {as_is} were delivered as they are, "
        f"{len(symbols) - as_is - held} transcoded, {held} held."
    )


def _legend(found: Mapping[Path, Mapping[tuple[str, str], str]]) -> str:
    used = {each for cells in found.values() for each in cells.values()}
    lines = ["- `=` as it is stored", *(f"- `{mark}` transcoded into {syntax(uid).name}" for uid, mark in _SYMBOLS.items())]
    held = [(ascii_lowercase[number], reason.words) for number, reason in enumerate(REASONS)]
    assert used <= {"=", *_SYMBOLS.values(), *(mark for mark, _ in held)}, used
    return "\n".join([*lines, *(_wrapped(f"`{mark}` held: {words}", "- ") for mark, words in held)])


def _table(rows: Sequence[tuple[Row, list[Facts]]]) -> str:
    lines = [
        "| row | stored as | pixels | files | " + " | ".join(_COLUMNS[peer] for peer in KINDS) + " |",
        "|---" * (4 + len(KINDS)) + "|",
    ]
    for number, ((stored, what, outcomes), files) in enumerate(rows, 1):
        cells = " | ".join(_cell(each) for each in outcomes)
        lines.append(f"| {number} | {syntax(stored).name} | {what}{_bits(files)} | {len(files)} | {cells} |")
    return "\n".join(lines)


def _bits(files: Sequence[Facts]) -> str:
    bits = sorted({file.bits_stored for file in files if file.has_pixels and file.name not in TRUNCATED})
    return f", {', '.join(map(str, bits))} bit{'s' if bits != [1] else ''}" if bits else ""


def _named(files: Sequence[Facts]) -> list[str]:
    return sorted(file.name for file in files)


def _cell(symbols: tuple[str, ...]) -> str:
    return f"`{symbols[0]}`" if len(set(symbols)) == 1 else f"`{' '.join(symbols)}`"


def _names(rows: Sequence[tuple[Row, list[Facts]]]) -> str:
    lines = [_wrapped(", ".join(_named(files)), f"{number}. ") for number, (_, files) in enumerate(rows, 1)]
    return "The files of each row:\n\n" + "\n".join(lines)


def _left_out(left_out: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, why in left_out.items():
        by_reason[why].append(name)
    lines = [_wrapped(f"{why}: {', '.join(sorted(names))}", "- ") for why, names in sorted(by_reason.items())]
    return "Of these files nothing can be sent:\n\n" + "\n".join(lines)


def _wrapped(text: str, bullet: str) -> str:
    indent = " " * len(bullet)
    return textwrap.fill(
        text, WIDTH, initial_indent=bullet, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def committed() -> str:
    """Return what the page has between the marks."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def write(text: str) -> None:
    """Put `text` between the marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
