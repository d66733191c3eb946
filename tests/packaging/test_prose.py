"""Habits of the documentation that a machine can check: lengths of lines, first words, one line a change, decisions on the map."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
READ_BY_USERS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
MARKDOWN = [
    *sorted(REPOSITORY.glob("*.md")),
    *(path for name in ("docs", "benchmarks", "certs", "tests") for path in sorted((REPOSITORY / name).rglob("*.md"))),
]
CODE = sorted((REPOSITORY / "gateway").rglob("*.py"))
DECISIONS = sorted((REPOSITORY / "docs/decisions").glob("*.md"))
WIDTH = 132

NOUN = re.compile(r"(?:What|Who|Whom|Whoever|Whatever|How)\b(?!['’])")
"""A first word that stands for the thing that a sentence should name."""
SENTENCE_END = re.compile(r"(?<=[.!?:])[\"”)*_]*\s+(?=[\"“(*_\[]*[A-Z])")


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def outside_tables(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            yield number, line


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield paragraphs, items, headings and cells of tables with their lines' numbers; no code."""
    fenced, begun, parts = False, 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        ends = not line.strip() or line.startswith(("#", "|", "```", "<!--")) or re.match(r"\s*([-*]|\d+\.)\s", line)
        if ends and parts:
            yield begun, " ".join(parts)
            parts = []
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or not line.strip() or line.startswith("<!--"):
            continue
        elif line.startswith("|"):
            yield from ((number, cell.strip()) for cell in line.strip("|").split("|"))
        elif line.startswith("#"):
            yield number, line.lstrip("# ")
        else:
            begun = begun if parts else number
            parts.append(re.sub(r"^\s*([-*]|\d+\.)\s+", "", line).strip())


def prose_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Yield docstrings, of attributes too, and comments, with their lines' numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def without_subject(text: str) -> list[str]:
    """Return the sentences that begin with a pronoun for what they are about; questions may."""
    found = []
    for number, block in blocks(text):
        for sentence in SENTENCE_END.split(block):
            plain = sentence.lstrip('*_"“([')
            if NOUN.match(plain) and "?" not in plain:
                found.append(f"line {number}: {plain[:60]}")
    return found


@pytest.mark.parametrize("path", MARKDOWN, ids=name)
def test_no_line_outside_tables_is_too_long(path: Path) -> None:
    assert [number for number, line in outside_tables(path.read_text(encoding="utf-8")) if len(line) > WIDTH] == []


@pytest.mark.parametrize("path", READ_BY_USERS, ids=name)
def test_every_sentence_names_its_subject(path: Path) -> None:
    assert without_subject(path.read_text(encoding="utf-8")) == []


def test_every_sentence_of_the_code_names_its_subject() -> None:
    found = [
        f"{name(path)}:{number}: {sentence[:60]}"
        for path in CODE
        for number, text in prose_of_code(path.read_text(encoding="utf-8"))
        for sentence in SENTENCE_END.split(text)
        if NOUN.match(sentence.lstrip()) and not sentence.startswith("How ") and "?" not in sentence
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What comes is kept.", 1),
        ("It is kept. What comes later is refused.", 1),
        ("**What comes is kept.**", 1),
        ("- Who calls is\n  known.", 1),
        ("1. How it goes is open.", 1),
        ("It says so: What it is.", 1),
        ("| a | What comes |", 1),
        ("# What is kept", 1),
        ("What is kept?", 0),
        ("**5. How does it stand?** It stands.", 0),
        ("The kind says what comes and who calls.", 0),
        ("```\nWhat comes\n```", 0),
        ("Somewhat. Whole days count.", 0),
    ],
)
def test_first_words_are_found_wherever_a_sentence_begins(text: str, found: int) -> None:
    assert len(without_subject(text)) == found


def test_a_change_has_one_line() -> None:
    lines = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8").split("## [Unreleased]", 1)[1].splitlines()
    assert [line for line in lines if line and not line.startswith(("- ", "## [", "### "))] == []
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_has_the_version_of_the_package() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    released = re.findall(
        r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert released[0] == version


@pytest.mark.parametrize("path", DECISIONS, ids=name)
def test_a_decision_says_what_and_why_and_is_on_the_map(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (Decision|Why)$", text, re.MULTILINE) == ["Decision", "Why"]
    assert f"(decisions/{path.name})" in (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_hooks_run_what_continuous_integration_runs() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    checks = re.search(r"^check: (.+)$", makefile, re.MULTILINE)
    assert checks is not None
    assert [hook["entry"] for hook in hooks] == [f"make {target}" for target in checks[1].split()]
