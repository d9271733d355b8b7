"""The web page: add pictures, write a question and answers (with or without pictures), and watch the votes come in.

    app = create_app(model, settings)
    mount_page(app, model)                  # at /ui, beside the HTTP routes

Votes appear one by one with their reasoning; what a vote says about the two answers is shown side by side. All user
and model text is escaped. :mod:`r1_reward.serve.cards` renders the cards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from r1_reward.judge.candidates import Candidates
from r1_reward.judge.prepare import OpenedImages, check_text, open_images
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.voting import Verdict
from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.content import Shown, pictures_of, text_of
from r1_reward.records.errors import UserError
from r1_reward.records.texts import is_blank
from r1_reward.serve import cards
from r1_reward.serve.budget import Budget
from r1_reward.serve.errors import Refusal
from r1_reward.serve.pictures import declared_pixels
from r1_reward.serve.settings import ServerSettings
from r1_reward.store.contents import open_content

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI
    from PIL import Image

MAX_ANSWERS = 6
MAX_VOTES = 8
PATH = "/ui"
_EXAMPLE_KINDS = ("side", "position", "greater", "largest")
_UPLOAD = "32mb"
_KEEP_UPLOADS = 3600  # seconds
# On a narrow screen the result is below everything else.
_SHOW_RESULT = "() => { if (innerWidth < 700) document.querySelector('#result').scrollIntoView({behavior: 'smooth'}) }"


Answer: TypeAlias = "str | Mapping[str, Any] | None"
"""The content of an answer box: a text, or ``{"text": ..., "files": [path, ...]}``."""


class Example(NamedTuple):
    """An example question with two answers."""

    picture: Image.Image
    question: str
    answers: tuple[str, str]


def examples() -> list[Example]:
    """Return examples with the scanned digits that ship with scikit-learn, one of each kind."""
    from r1_reward.data.handwriting import build_world

    world = build_world(seed=11, train_pairs=0, test_pairs=60, house_share=0.0)
    first = {pair.kind: pair for pair in reversed(world.test)}
    return [
        Example(
            world.images[pair.images[0]], text_of(pair.question), (text_of(pair.response_1), text_of(pair.response_2))
        )
        for pair in (first[kind] for kind in _EXAMPLE_KINDS)
    ]


def judge(
    model: RewardModel,
    pictures: Sequence[Any] | None,
    question: str,
    answers: Sequence[Answer],
    *,
    votes: int,
    both_orders: bool,
    budget: Budget,
    criterion: str = "",
) -> Iterator[str]:
    """Yield the page's result as HTML after each vote; an error is shown above the votes drawn so far.

    ``pictures`` are paths, or pairs of a path and a caption. An answer is a text, or a text followed by pictures; blank
    answers are left out, and the others keep their numbers. One click uses one ``budget``, like a request to the HTTP
    routes.
    """
    shown: dict[int, Shown] = {}
    found: dict[tuple[int, int], Verdict] = {}
    total, thumbnails, dialect = 0, {}, model.engine.dialect
    try:
        paths = [one[0] if isinstance(one, (tuple, list)) else one for one in pictures or ()]
        opened = _open(paths, budget, "pictures")
        check_text(question, "question")
        criteria = None if is_blank(criterion or "") else criterion
        shown = _answers(answers, budget)
        _spend(budget, question, criteria, shown, votes, both_orders)
        thumbnails = {number: cards.thumbnails(pictures_of(answer)) for number, answer in shown.items()}
        each = 1 if model.engine.deterministic else votes * (1 + both_orders)
        total = each * len(list(combinations(shown, 2)))
        yield cards.result(shown, found, total, dialect, thumbnails)
        for i, j in combinations(shown, 2):
            watched = model.watch(question, opened, shown[i], shown[j], criteria, votes=votes, both_orders=both_orders)
            for verdict in watched:
                found[i, j] = verdict
                yield cards.result(shown, found, total, dialect, thumbnails)
                budget.check_time()
    except (UserError, Refusal) as error:
        yield cards.notice(str(error)) + (cards.result(shown, found, total, dialect, thumbnails) if found else "")


def _answers(answers: Sequence[Answer], budget: Budget) -> dict[int, Shown]:
    """Return the answers that are not blank, by number, with their pictures opened.

    Raises:
        UserError: there are fewer than two, or two are equal.
    """
    shown: dict[int, Shown] = {}
    for number, answer in enumerate(answers, 1):
        box: Mapping[str, Any] = {"text": answer} if isinstance(answer, str) else answer or {}
        text, paths = box.get("text") or "", box.get("files") or ()
        opened = _open(paths, budget, f"pictures of answer {number}")
        said = [] if is_blank(text) else [text]
        if said or opened.pictures:
            shown[number] = open_content([*said, *opened.pictures], f"answer {number}")
    if len(shown) < 2:
        raise UserError("Write at least two answers.")
    if len(Candidates.of(list(shown.values())).different) < len(shown):
        what = "text and pictures" if pictures_of(*shown.values()) else "text"
        raise UserError(f"Two answers have the same {what}; there is nothing to compare.")
    return shown


def _open(paths: Sequence[Any], budget: Budget, field: str) -> OpenedImages:
    """Open uploaded pictures; their headers are checked for their size before any is decoded."""
    budget.pictures(len(paths), field)
    for number, path in enumerate(paths):
        with suppress(OSError):  # open_images below reports the error
            budget.pixels(declared_pixels(Path(path).read_bytes()), f"{field}[{number}]")
    return open_images(list(paths))


def _spend(
    budget: Budget, question: str, criteria: str | None, answers: Mapping[int, Shown], votes: int, both_orders: bool
) -> None:
    budget.text(question, "question")
    budget.text(criteria or "", "criterion")
    for number, answer in answers.items():
        budget.text(text_of(answer), f"answer {number}")
    budget.responses(len(answers), "answers")
    pairs = len(list(combinations(answers, 2)))
    budget.judgments(pairs, votes=votes, both_orders=both_orders, field="answers")


def build_page(model: RewardModel, settings: ServerSettings, *, name: str) -> gradio.Blocks:
    """Return the page; ``name`` is the model's name on it, ``settings`` has its limits."""
    import gradio

    with gradio.Blocks(title="r1-reward", analytics_enabled=False, delete_cache=(_KEEP_UPLOADS, _KEEP_UPLOADS)) as page:
        gradio.HTML(cards.heading(name))
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=5, min_width=320):
                pictures = gradio.Gallery(
                    label="Pictures", type="filepath", format="png", file_types=["image"], interactive=True,
                    height=170, columns=4, fit_columns=False, object_fit="contain", buttons=[], elem_id="pictures",
                )  # fmt: skip
                question = gradio.Textbox(label="Question", lines=1, max_lines=6, elem_id="question")
                criterion = gradio.Textbox(
                    label="Criterion", placeholder="what to judge by (optional)", lines=1, max_lines=4,
                    elem_id="criterion",
                )  # fmt: skip
                boxes = [
                    gradio.MultimodalTextbox(
                        label=f"Answer {n}", lines=2, max_lines=12, visible=n <= 2, elem_id=f"answer-{n}",
                        sources="upload", file_types=["image"], file_count="multiple", submit_btn=False,
                        placeholder="text, pictures, or both", max_plain_text_length=MAX_RESPONSE_CHARS,
                        elem_classes="rr-answer",
                    )
                    for n in range(1, MAX_ANSWERS + 1)
                ]  # fmt: skip
                more = gradio.Button("Add an answer", size="sm", elem_id="more")
                with gradio.Row():
                    votes = gradio.Slider(
                        1, MAX_VOTES, value=1, step=1, label="Votes per order", elem_id="votes", min_width=200
                    )
                    orders = gradio.Checkbox(True, label="Show both orders", elem_id="orders", min_width=200)
                button = gradio.Button("Judge", variant="primary", elem_id="judge")
                loaders = _add_examples(gradio)
            with gradio.Column(scale=7, min_width=320):
                result = gradio.HTML(cards.waiting(), elem_id="result")
        shown = gradio.State(2)
        _connect(gradio, model, settings, pictures, question, criterion, boxes, votes, orders, button, result)
        more.click(_one_more, shown, [shown, more, *boxes], api_visibility="private", show_progress="hidden")
        filled = [pictures, question, criterion, shown, more, *boxes, result]
        for loader, example in loaders:
            loader.click(partial(_fill, example), None, filled, api_visibility="private", show_progress="hidden")
    return page


def _add_examples(gradio: Any) -> list[tuple[Any, Example]]:
    """Add a row of example pictures, each with a button."""
    gradio.HTML('<div class="rr-label">Examples: scanned handwriting</div>')
    loaders = []
    with gradio.Row():
        for number, example in enumerate(examples(), 1):
            with gradio.Column(min_width=60):
                gradio.HTML(cards.thumbnail(example.picture))
                loader = gradio.Button(example.question, size="sm", elem_id=f"example-{number}")
                loaders.append((loader, example))
    return loaders


def _connect(
    gradio: Any, model: RewardModel, settings: ServerSettings, pictures: Any, question: Any, criterion: Any,
    boxes: list[Any], votes: Any, orders: Any, button: Any, result: Any,
) -> None:  # fmt: skip
    """Make the button start judging; it is disabled until the votes are drawn."""

    def run(
        pictures: Any, question: str, criterion: str, votes: float, both_orders: bool, *answers: Answer
    ) -> Iterator[str]:
        # The page's slider enforces these bounds; a handwritten request may exceed them.
        count = min(MAX_VOTES, max(1, int(votes)))
        yield from judge(
            model,
            pictures,
            question,
            answers,
            votes=count,
            both_orders=both_orders,
            budget=Budget(settings),
            criterion=criterion,
        )

    inputs = [pictures, question, criterion, votes, orders, *boxes]
    button.click(None, js=_SHOW_RESULT)
    begin = button.click(
        lambda: gradio.update(interactive=False), None, button, api_visibility="private", show_progress="hidden"
    )
    judged = begin.then(run, inputs, result, api_visibility="private", show_progress="hidden")
    judged.then(lambda: gradio.update(interactive=True), None, button, api_visibility="private", show_progress="hidden")


def _one_more(shown: int) -> list[Any]:
    import gradio

    shown = min(MAX_ANSWERS, shown + 1)
    boxes = [gradio.update(visible=number <= shown) for number in range(1, MAX_ANSWERS + 1)]
    return [shown, gradio.update(interactive=shown < MAX_ANSWERS), *boxes]


def _fill(example: Example) -> list[Any]:
    """Return the updates that fill the page with an example."""
    import gradio

    texts = [*example.answers, *[""] * (MAX_ANSWERS - 2)]
    boxes = [gradio.update(value={"text": text, "files": []}, visible=number < 2) for number, text in enumerate(texts)]
    return [[example.picture], example.question, "", 2, gradio.update(interactive=True), *boxes, cards.waiting()]


def mount_page(app: FastAPI, model: RewardModel, *, name: str = "reward model") -> FastAPI:
    """Mount the page at ``/ui`` of the application from ``create_app``; the application's limits apply to it.

    The model must be safe to use from several threads (:meth:`r1_reward.judge.reward_model.RewardModel.shared`).

    Raises:
        UserError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio would send usage data
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UserError("the web page needs gradio: pip install 'r1-reward[ui]'") from error
    from fastapi.responses import RedirectResponse

    for address in ("/", PATH):  # the page is at /ui/
        app.get(address, include_in_schema=False)(lambda: RedirectResponse(f"{PATH}/"))
    fonts = ["system-ui", "sans-serif"]  # the default theme loads its fonts from a CDN
    theme = gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"], primary_hue="blue")
    return gradio.mount_gradio_app(
        app,
        build_page(model, app.state.service.settings, name=name),
        path=PATH,
        footer_links=[],
        run_history=False,
        max_file_size=_UPLOAD,
        show_error=False,
        ssr_mode=False,
        theme=theme,
        css=cards.CSS,
    )
