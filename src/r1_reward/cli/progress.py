"""Progress displays of commands, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar with the time left; yields a function of rows done, total rows and a note.

    The clock starts at the first update: rows done by an earlier call say nothing about the speed of this one.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task(escape(name), note="", total=None)

        def update(done: int, total: int, note: str = "") -> None:
            if bar.tasks[0].total is None:
                bar.reset(task, total=total, completed=done, note=note)
            else:
                bar.update(task, total=total, completed=done, note=note)

        yield update


@contextmanager
def counter(name: str) -> Iterator[Callable[[str], None]]:
    """Show a note and the elapsed time for work of unknown length; the display disappears at the end."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), note="", total=None)
        yield lambda note: bar.update(task, note=note)
