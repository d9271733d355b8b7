"""A teacher judges every pair until it agrees with the label; its reasoning is kept, and how long that took.

The first try is greedy, the next ones are warmer. The folder can be trained on, and taken up again after a kill::

    settings = AnnotateSettings(teacher="openai:gpt-4o")
    report = annotate("mixed", Path("annotated"), settings, money=Money(2.5, 10.0, limit=500.0))

``attempts.jsonl`` has a line for every reply, written the moment it comes: the same call goes on where a killed one
stopped and pays for nothing twice, except what was under way. Then come the pairs, ``dropped.jsonl`` and, last,
``report.json``. What a row says in the end:

- ``attempts``: the number of the first try whose answer agrees with the label; None if none did. Such a row has
  *failed* if some try contradicted the label, and has *no verdict* if none could be read: ``attempts.jsonl`` tells.
- ``reasoning``: the text of the first try that agrees and can be trained on, so one in the format and free of control
  tokens. A teacher that agrees in another format is asked again; ``attempts`` is still the first agreement.

With ``reorder`` the answers change places at random from the second try on. A reasoning speaks of "Response 1", so a
row is stored in the order in which its reasoning was written. That keeps text and answers together, but favours the
position the teacher favours; the report gives both, and warns.

A row the server did not answer is no failure of the teacher's. It is left out and listed; the next call asks about it
again, unless the server rejects its very text.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from r1_reward.data.annotation import AnnotateState, Annotation, Progress
from r1_reward.data.settings import AnnotateSettings, Money
from r1_reward.data.teacher import TeacherSpec, parse_teacher
from r1_reward.data.teaching import teach
from r1_reward.engines.engine import Generative
from r1_reward.judge.settings import OnUnreadable
from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json
from r1_reward.store.identity import data_identity, weights_fields
from r1_reward.store.run_folder import add_remarks, run_folder
from r1_reward.store.shards import REPORT, pair_files

__all__ = ["AnnotateSettings", "AnnotateState", "Money", "annotate"]


def annotate(
    path: str | Path,
    out: Path,
    settings: AnnotateSettings,
    *,
    money: Money = Money(),  # noqa: B008
    concurrency: int | None = None,
    requests_per_minute: float | None = None,
    timeout: float = 120.0,
    retries: int = 5,
    batch_size: int = 64,
    on_unreadable: OnUnreadable = "stop",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ask the teacher about every row that ``out`` does not know yet, write the pairs, and return the report.

    ``concurrency`` requests are open at a server at once, and no more than ``requests_per_minute`` are sent, repeated
    ones included; ``batch_size`` sequences are generated at once by a local teacher. None of them decides a verdict.
    A run that reaches ``money.limit`` ends cleanly; ``complete`` in the report is then False, ``stopped`` says why, and
    ``left`` how many rows are to be asked about. So does a run of whose first replies none can be read, unless
    ``on_unreadable`` says to warn only. A complete folder is left as it is.

    Raises:
        UserError: the folder holds another run or is in use, a setting is wrong, or no row can be asked about at all.
    """
    spec = parse_teacher(settings.teacher)
    if spec.url is None and money != Money():
        raise UserError(f"--teacher {settings.teacher} is a checkpoint and costs nothing; leave prices and limit out.")
    with _opened(out, path, settings, spec):
        finished = _finished(out, path)
        if finished is not None:
            return finished
        run = Annotation(path, out, settings, money, progress, on_unreadable)
        engine: Generative | None = None
        try:
            engine = spec.load(
                batch_size=batch_size,
                concurrency=concurrency,
                requests_per_minute=requests_per_minute,
                timeout=timeout,
                retries=retries,
                dialect=run.dialect,
            )
            stopped = teach(run, engine)
        finally:
            run.attempts.close()
            add_remarks(out, engine.refused if engine else ())
        return run.write(stopped)


def _opened(out: Path, path: str | Path, settings: AnnotateSettings, spec: TeacherSpec) -> AbstractContextManager[None]:
    """Create the folder, or see that it holds this very run, and keep other processes out; raises UserError."""
    source = Path(path)
    if out.resolve() in (source.resolve(), source.resolve().parent):
        raise UserError(f"{out}: holds the pairs to annotate; choose another folder with --out.")
    pair_files(path)
    weights = weights_fields(spec.model, served=spec.url is not None)
    return run_folder(out, {"format": 1, **settings.describe(), **weights})


def _finished(out: Path, path: str | Path) -> dict[str, Any] | None:
    """Return the report of a folder that has all rows of this input."""
    report = read_json(out / REPORT) if (out / REPORT).exists() else None
    same = isinstance(report, dict) and report.get("complete") and report.get("input") == data_identity(path)
    return report if same else None
