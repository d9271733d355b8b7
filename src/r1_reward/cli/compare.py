"""``r1-reward compare``, ``r1-reward rank``, ``r1-reward calibrate``: the reward model on the command line.

``r1-reward compare --model M --image scene.png --question "Which digit?" --a "A three." --b "An eight."``

A question or an answer that begins with ``@`` is read from the file of that name; ``@@`` means a literal ``@``.
Pictures of an answer (``--image-1 one.png --image-2 two.png``) are shown after its text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.cli.judging import AsJson, Frames, OneProcess, frames_to_show, load_judge
from r1_reward.cli.options import Fields, with_settings
from r1_reward.engines.options import EngineOptions
from r1_reward.judge.settings import JudgeSettings, VoteSettings
from r1_reward.records.errors import UserError
from r1_reward.records.settings import at_home

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType
    from rich.text import Text

    from r1_reward.judge.ranking import Ranking
    from r1_reward.judge.reward_model import RewardModel
    from r1_reward.judge.voting import Verdict
    from r1_reward.records.dialect import Dialect
    from r1_reward.records.schema import Judgment
    from r1_reward.store.video import Video

_EXCERPT = 100  # characters of an answer in a table

ImagePaths = Annotated[  # text, because a path would turn https:// into https:/
    list[str] | None, typer.Option("--image", help="A picture, or a data URI; may be repeated.", metavar="PATH")
]
VideoPaths = Annotated[
    list[Path] | None, typer.Option("--video", help="A video file or folder of frames, shown after the pictures.")
]
FirstPictures = Annotated[
    list[str] | None,
    typer.Option("--image-1", help="A picture of response 1, shown after its text; may be repeated.", metavar="PATH"),
]
SecondPictures = Annotated[
    list[str] | None,
    typer.Option("--image-2", help="A picture of response 2, shown after its text; may be repeated.", metavar="PATH"),
]
Criteria = Annotated[str | None, typer.Option(help="Criteria for judging the answers, or @FILE.")]
Question = Annotated[str, typer.Option(help="The question about the pictures, or @FILE.")]
Votes = Annotated[VoteSettings, Fields(names={"both_orders": "/--one-order"})]
CalibrationFolder = Annotated[
    Path | None, typer.Option("--calibration", help="Folder with calibration.json; default: the checkpoint's.")
]


@with_settings
def compare(
    judge: JudgeSettings,
    question: Question,
    a: Annotated[str, typer.Option("--a", help="Response 1, or @FILE.")],
    b: Annotated[str, typer.Option("--b", help="Response 2, or @FILE.")],
    votes: Votes,
    engine: OneProcess,
    image: ImagePaths = None,
    image_1: FirstPictures = None,
    image_2: SecondPictures = None,
    video: VideoPaths = None,
    criteria: Criteria = None,
    frames: Frames = None,
    calibration: CalibrationFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say which of two answers is better, and why."""
    asked, told = _text(question), None if criteria is None else _text(criteria)
    first, second = _answer(_text(a), image_1), _answer(_text(b), image_2)
    media = _media(image, video)
    model = _load(judge, engine, frames, calibration)
    verdict = model.compare(asked, media, first, second, told, **votes.model_dump())
    _show(_verdict_json(verdict), lambda: _verdict_panels(verdict, model.engine.dialect), as_json)


@with_settings
def rank(
    judge: JudgeSettings,
    question: Question,
    answers: Annotated[list[str], typer.Argument(help="The answers, each as text or @FILE.")],
    votes: Votes,
    engine: OneProcess,
    image: ImagePaths = None,
    video: VideoPaths = None,
    criteria: Criteria = None,
    frames: Frames = None,
    budget: Annotated[int | None, typer.Option(min=0, help="Maximum number of comparisons.")] = None,
    calibration: CalibrationFolder = None,
    as_json: AsJson = False,
) -> None:
    """Rank answers from best to worst, with scores; --json numbers them from 0."""
    asked, responses = _text(question), [_text(answer) for answer in answers]
    told = None if criteria is None else _text(criteria)
    media = _media(image, video)
    model = _load(judge, engine, frames, calibration)
    ranking = model.rank(asked, media, responses, budget=budget, criteria=told, **votes.model_dump())
    _show(_ranking_json(ranking), lambda: _ranking_table(ranking, responses), as_json)


@with_settings
def calibrate(
    judge: JudgeSettings,
    data: Annotated[str, typer.Option(help="A pair file, a folder or a Hub dataset the model was not trained on.")],
    engine: OneProcess,
    out: Annotated[Path | None, typer.Option(help="Folder for calibration.json; default: the checkpoint's.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the reliability diagram (.png, .svg, .pdf).")] = None,
    split: Annotated[str, typer.Option(help="Split of a folder or Hub dataset.")] = "train",
    frames: Frames = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate the model's probabilities: fit a temperature on labeled pairs and save it with the model."""
    from rich.console import Console
    from rich.progress import track

    from r1_reward.store.pairs import load_pairs

    if out is None and (engine.base_url or not Path(judge.model).is_dir()):
        raise UserError(f"{judge.model}: not a local folder; set --out to the folder for calibration.json.")
    folder = out or Path(judge.model)
    shown = frames_to_show(frames, None if engine.base_url else judge.model)
    loaded = load_pairs(at_home(data), split=split, video_frames=shown, repeats=True, ties=True)
    pairs = loaded.select([number for number, label in enumerate(loaded["preferred"]) if label])
    if not len(pairs):
        raise UserError(f"{data}: every pair is a tie, but calibration needs pairs with a better response.")
    model = load_judge(judge, engine, shown)
    rows = track(pairs, "judging", total=len(pairs), console=Console(stderr=True))
    fitted = model.calibrate(rows, plot=plot, save_to=folder)
    ties = len(loaded) - len(pairs)
    counts = {"pairs": len(loaded), "ties": ties, "left_out": len(loaded) - fitted.n}
    report = {**counts, **fitted.model_dump(), "folder": str(folder)}
    others = "the others have no readable vote, or no token probability" + (f", and {ties} are ties" if ties else "")
    lines = [
        f"{fitted.n} of {len(loaded)} pairs used; {others}",
        f"temperature {fitted.temperature:.3f}",
        f"expected calibration error {fitted.ece_before:.4f} -> {fitted.ece_after:.4f}",
        f"Brier score {fitted.brier_before:.4f} -> {fitted.brier_after:.4f}",
        f"file: {folder / 'calibration.json'}",
    ]
    _show(report, lambda: [_safe("\n".join(lines))], as_json)


def _load(judge: JudgeSettings, engine: EngineOptions, frames: int | None, calibration: Path | None) -> RewardModel:
    from r1_reward.judge.calibration import Calibration

    held = None
    if calibration is not None and (held := Calibration.load(calibration)) is None:
        raise UserError(f"{calibration}: calibration.json not found; r1-reward calibrate writes one.")
    model = load_judge(judge, engine, frames)
    model.calibration = held or model.calibration
    return model


def _media(images: list[str] | None, videos: list[Path] | None) -> list[Image | Video]:
    """Return the pictures and video before the question, opened so that errors appear before the model loads."""
    from r1_reward.store.encoded import kind_of_source
    from r1_reward.store.video import Video

    for path in videos or ():
        if kind_of_source(str(path)) != "path":
            raise UserError(
                "--video: must be a file or a folder of frames; URLs are not fetched, so save the video first."
            )
    return [*_pictures(images), *(Video(path) for path in videos or ())]


def _pictures(paths: list[str] | None) -> list[Image]:
    from r1_reward.store.contents import open_picture

    return [open_picture(path, "the picture") for path in at_home(paths or [])]


def _answer(text: str, pictures: list[str] | None) -> str | list[str | Image]:
    """Return an answer: its text, followed by its pictures if it has any."""
    opened = _pictures(pictures)
    return [*([text] if text.strip() else []), *opened] if opened else text


def _text(argument: str) -> str:
    """Return a text, or the content of the file it names with ``@``."""
    if not argument.startswith("@"):
        return argument
    if argument.startswith("@@"):
        return argument[1:]
    path = at_home(Path(argument[1:]))
    try:
        return path.read_text(encoding="utf-8").strip("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); write @@ for a literal @.") from error
    except ValueError as error:
        raise UserError(f"{path}: not UTF-8 text.") from error


def _show(report: dict[str, Any], render: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    from rich.console import Console

    console = Console()
    for renderable in render():
        console.print(renderable)


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    fields = {
        name: getattr(verdict, name) for name in ("preferred", "probability", "for_1", "for_2", "ties", "unreadable")
    }
    votes = [vote.model_dump() for vote in verdict.votes]
    return {**fields, "flips": verdict.flips, "tokens": verdict.tokens, "votes": votes}


def _ranking_json(ranking: Ranking) -> dict[str, Any]:
    return {**ranking._asdict(), "comparisons": [one._asdict() for one in ranking.comparisons]}


def _verdict_panels(verdict: Verdict, dialect: Dialect) -> list[RenderableType]:
    """Return the winner and the certainty, then each vote with its reasoning."""
    from rich.panel import Panel

    if verdict.preferred is not None:
        title = f"Response {verdict.preferred} is better"
    elif verdict.says_tie:
        title = "A tie: neither response is better"
    elif verdict.readable:
        title = "No verdict: the votes are tied"
    else:
        title = "No verdict: no vote can be read"
    ties = f"{verdict.ties} for a tie, " if verdict.ties else ""
    counts = f"{verdict.for_1} for response 1, {verdict.for_2} for response 2, {ties}{verdict.unreadable} unreadable"
    lines = [f"votes: {counts}"]
    if verdict.truncated:
        lines.append(f"cut by the token limit: {verdict.truncated} of {len(verdict.votes)} (raise --max-new-tokens)")
    if verdict.probability is not None:
        lines.insert(0, f"probability that response 1 is better: {verdict.probability:.3f}")
    if verdict.flips is not None:
        lines.append(f"votes that flip with the order: {verdict.flips:.0%}")
    lines.append(f"generated tokens: {verdict.tokens}")
    votes = [_vote_panel(number, vote, dialect) for number, vote in enumerate(verdict.votes, 1)]
    return [Panel(_safe("\n".join(lines)), title=title), *votes]


def _vote_panel(number: int, vote: Judgment, dialect: Dialect) -> RenderableType:
    from rich.panel import Panel

    says = {None: "cannot be read", 0: "says tie"}.get(vote.answer) or f"prefers response {vote.answer}"
    title = f"vote {number}, response {2 if vote.swapped else 1} shown first as [Response 1]: {says}"
    end = "\n(cut off at the token limit)" if vote.truncated else ""
    return Panel(_safe((dialect.reasoning(vote) or vote.text) + end), title=_safe(title), title_align="left")


def _ranking_table(ranking: Ranking, responses: list[str]) -> list[RenderableType]:
    """Return the answers from best to worst, and the number of comparisons."""
    from rich.table import Table

    table = Table("place", "answer", "score", "standard error", "text")
    for place, i in enumerate(ranking.order, 1):
        text = " ".join(responses[i].split())
        shown = text if len(text) <= _EXCERPT else text[: _EXCERPT - 3] + "..."
        score, error = f"{ranking.scores[i]:+.2f}", f"{ranking.standard_errors[i]:.2f}"
        table.add_row(str(place), str(i + 1), score, error, _safe(shown))
    unreadable = sum(one.probability is None for one in ranking.comparisons)
    note = f"comparisons: {len(ranking.comparisons)}, without a readable vote: {unreadable}"
    if len(responses) > 1 and unreadable == len(ranking.comparisons):
        note += "; this order is meaningless"
    return [table, _safe(note)]


def _safe(text: str) -> Text:
    """Return an untrusted text without rich markup or terminal escape sequences."""
    from rich.text import Text

    return Text("".join(character if character.isprintable() or character in "\n\t" else " " for character in text))
