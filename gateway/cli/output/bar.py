"""The progress bar itself, on standard error; apart from `progress`, because only a terminal needs its library."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from gateway.cli.output import render


def bar() -> Progress:
    """Return a progress bar for one task at a time, gone once it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), _Field("detail"), _Field("note"))
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)


class _Field(ProgressColumn):
    """A task's own text, without markup: it may hold what a peer sent."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(render.printable(str(task.fields.get(self._name, ""))))
