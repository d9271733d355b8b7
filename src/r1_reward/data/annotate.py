"""Annotate pairs with a teacher: ask until it agrees with the label, keep its reasoning and count the attempts.

The first attempt is greedy, later ones are sampled. The output folder is ready for training, and a killed run resumes::

    settings = AnnotateSettings(teacher="openai:gpt-4o")
    report = annotate("mixed", Path("annotated"), settings, money=Money(2.5, 10.0, limit=500.0))

``attempts.jsonl`` gets a line for every reply as soon as it arrives: the same call resumes where a killed one stopped
and pays again only for requests that were in flight. The pairs, ``dropped.jsonl`` and, last, ``report.json`` follow.
Each output row has:

- ``attempts``: the number of the first attempt that agrees with the label, or None. A row with None has *failed* if
  some attempt contradicted the label, and has *no verdict* if none could be parsed; ``attempts.jsonl`` shows which.
- ``reasoning``: the text of the first attempt that agrees and is usable for training: well-formed and free of control
  tokens. A teacher that agrees in another format is asked again; ``attempts`` still counts the first agreement.

With ``reorder`` the responses are shown in random order from the second attempt on. Reasoning refers to "Response 1",
so each row is stored in the order in which its reasoning was written. That keeps text and responses consistent, but
reproduces the teacher's position bias; the report gives both shares and warns.

A row that the server did not answer is not a failure of the teacher. It is left out and listed; the next call asks
about it again, unless the server answers other rows but rejects this one.
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
    """Annotate every row that is not yet in ``out``, write the pairs and return the report.

    At most ``concurrency`` requests are open at a server and at most ``requests_per_minute`` are sent, retries
    included; a local teacher generates ``batch_size`` sequences at a time. None of these affects a verdict.
    A run that reaches ``money.limit`` ends cleanly: ``complete`` in the report is False, ``stopped`` says why, and
    ``left`` counts the remaining rows. A run also ends this way if none of the first replies can be parsed, unless
    ``on_unreadable`` is "warn". A complete folder is not touched.

    Raises:
        UserError: the folder holds another run or is in use, a setting is wrong, or the teacher cannot be reached.
    """
    spec = parse_teacher(settings.teacher)
    if spec.url is None and money != Money():
        raise UserError(f"--teacher {settings.teacher} is a local checkpoint and costs nothing; omit prices and limit.")
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
    """Create the folder, or check that it holds this same run, and lock it; raises UserError."""
    source = Path(path)
    if out.resolve() in (source.resolve(), source.resolve().parent):
        raise UserError(f"{out}: contains the pairs to annotate; choose another folder with --out.")
    pair_files(path)
    weights = weights_fields(spec.model, served=spec.url is not None)
    return run_folder(out, {"format": 1, **settings.describe(), **weights})


def _finished(out: Path, path: str | Path) -> dict[str, Any] | None:
    """Return the report if the folder already has all rows of this input, else None."""
    report = read_json(out / REPORT) if (out / REPORT).exists() else None
    same = isinstance(report, dict) and report.get("complete") and report.get("input") == data_identity(path)
    return report if same else None
