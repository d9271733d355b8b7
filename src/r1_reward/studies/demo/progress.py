"""The progress display of the demo: one bar per phase, with live accuracy."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

SHOWN = {
    "accuracy": "accuracy {:.2f}",
    "mean_token_accuracy": "token accuracy {:.2f}",
    "parse_rate": "readable {:.2f}",
    "loss": "loss {:.3f}",
}
"""Logged values to show, in this order."""


class DemoProgress:
    """A rich progress display shared by all phases; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> DemoProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def finished(self, phase: str, seconds: float) -> None:
        """Print that a phase is done."""
        for name in [name for name in self._tasks if name == phase]:
            self._bars.stop_task(self._tasks.pop(name))
        self.console.print(f"[green]done[/] {phase} in {seconds:.0f} s", highlight=False)

    def skipped(self, phase: str) -> None:
        """Print that an earlier run finished a phase."""
        self.console.print(f"[dim]kept[/] {phase}", highlight=False)

    def callback(self, phase: str, steps: int, *, saved: Callable[[], None]) -> TrainerCallback:
        """Return a trainer callback that advances this phase's bar, and calls ``saved`` after each checkpoint."""
        return _BarCallback(self._bars, self._task(phase, steps), saved)

    def counter(self, phase: str, total: int, status: str) -> Callable[[int], None]:
        """Return a function that advances the bar by a number of finished items."""
        task = self._task(phase, total)
        self._bars.update(task, status=status, total=total, completed=0)
        return lambda done: self._bars.update(task, advance=done)

    def note(self, phase: str, text: str) -> None:
        """Print a line about a phase above the bars."""
        self.console.print(f"[dim]{phase}[/]: {text}", highlight=False)

    def _task(self, phase: str, total: int) -> TaskID:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, status="")
        return self._tasks[phase]


class _BarCallback(TrainerCallback):
    def __init__(self, bars: Progress, task: TaskID, saved: Callable[[], None]) -> None:
        self._bars, self._task, self._saved = bars, task, saved

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._bars.update(self._task, completed=state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._saved()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        shown = [text.format(float(logs[key])) for key, text in SHOWN.items() if logs and logs.get(key) is not None]
        if shown:
            self._bars.update(self._task, status=", ".join(shown))
