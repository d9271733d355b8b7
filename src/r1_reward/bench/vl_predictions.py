"""Read prediction files on VL-RewardBench, from its own script, VLMEvalKit and lmms-eval.

All three ask for a judgment in words, "Overall Judgment: Answer 2 is better", and parse it by the same rule
(:func:`read_text`). They differ in the orders, in how they handle an unreadable text, and in what they record about it.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from r1_reward.bench.benchmark import About, Benchmark, Judged, PredictionFormat
from r1_reward.bench.fields import Fields, short
from r1_reward.bench.lmms_eval import general_remarks, is_sample, own_score, own_scores, prompt_of, read_sample
from r1_reward.bench.rows import Vote
from r1_reward.records.checks import kind_of
from r1_reward.records.parsing import spoken_from
from r1_reward.records.schema import Answer

RANKINGS: list[tuple[Any, Answer]] = [([0, 1], 1), ([1, 0], 2)]
"""The rank of each response: 0 is best."""

# ---- the official script

_OFFICIAL_K = (1, 3, 5, 7, 9)  # drawn by cal.py in this order from one random stream
_JUDGED = re.compile(r"overall judgment|therefore", re.IGNORECASE)
_BETTER = re.compile(r"answer\s*(\d+)\s*is\s*(?:the\s*)?(?:slightly\s*)?better", re.IGNORECASE)
_STATUSES = {"agree": True, "reject": False, "doesntMatch": None}


class Said(NamedTuple):
    """The verdict in a judge's text, by the rule of the official script and lmms-eval."""

    number: str | None
    """The number of the better answer, as digits; None without a verdict."""
    draft: bool = False
    """Whether the only verdict is in an unclosed thought and does not count."""


def read_text(text: str) -> Said:
    """Parse the last "Answer N is better" after the first "Overall Judgment" or "Therefore", in linear time.

    This matches the scripts, so a file gets exactly their score, with one exception: they accept verdicts in an
    unclosed thought.
    """
    flat = text.replace("\n", "").replace("*", "")
    start = _JUDGED.search(flat)
    *_, last = (None, *_BETTER.finditer(flat, start.end())) if start else (None,)
    if last is None:
        return Said(None)
    if spoken_from(text) is None:
        return Said(None, draft=True)
    return Said(str(int(last[1])) if len(last[1]) < 20 else last[1])  # normalizes digits of any script


def official_order(lines: int, k: int) -> list[int]:
    """Return the order in which the official cal.py reads a file's lines to take the first ``k`` votes of each item.

    The script draws for K = 1, 3, 5, 7 and 9 in this order; any other K is drawn as if it were the first.
    """
    draw = random.Random(1234)
    before = _OFFICIAL_K.index(k) if k in _OFFICIAL_K else 0
    for _ in range(before * lines):
        draw.randint(0, lines - 1)
    order = list(range(lines))
    for here in range(lines):
        there = draw.randint(0, lines - 1)
        order[here], order[there] = order[there], order[here]
    return order


def _official_row(data: Mapping[str, Any]) -> Any:
    """Return the row of a line: older files have it under the key 0, with null for a failed vote."""
    return data["0"] if "0" in data and "id" not in data else data


def _is_official(data: Mapping[str, Any]) -> bool:
    row = _official_row(data)
    if not isinstance(row, Mapping):
        return row is None and len(data) == 1
    meta = row.get("meta")
    return "ranking" in row and isinstance(meta, Mapping) and ("filter_choice" in meta or "flag_status" in meta)


def _read_vote(line: Fields, benchmark: Benchmark) -> Judged:
    """Parse a line of the official inference script: one vote on an item."""
    data = _official_row(line.data)
    if data is None:
        return Judged(None, (), line)
    row, meta = Fields(data), Fields(data["meta"])
    id, query, responses = row.text("id"), row.text("query"), row.texts("response")
    preferred = row.label("ranking", RANKINGS)
    vote, remarks = _official_vote(meta, preferred)
    row.problems += [(f"meta.{field}", reason) for field, reason in meta.problems]
    line.problems += row.problems if data is line.data else [(f"0.{field}", reason) for field, reason in row.problems]
    item = id + query + "\t".join(sorted(responses))
    return Judged(
        id, (vote,), line, item=item, about=_about(benchmark, id, responses, preferred), remarks=tuple(remarks)
    )


def _official_vote(meta: Fields, preferred: Answer) -> tuple[Vote, list[str]]:
    text, status, turned = (meta.data.get(name) for name in ("filter_choice", "flag_status", "random_number"))
    if not isinstance(text, str | None):
        meta.problems.append(("filter_choice", f"must be text, not {kind_of(text)}"))
    if turned is not None and (type(turned) is not int or turned not in (0, 1)):
        meta.problems.append(("random_number", f"must be 0 or 1, not {short(turned)}"))
    if meta.problems:
        return Vote(None), []
    first = None if turned is None else (preferred == 1) == (turned == 0)
    recorded = status if isinstance(status, str) and status in _STATUSES else None
    if text is None or first is None:
        if recorded is None:
            lost = "text (filter_choice)" if text is None else "order (random_number)"
            reason = "is missing" if status is None else f"must be {', '.join(_STATUSES)}, not {short(status)}"
            meta.problems.append(("flag_status", f"{reason}; without the {lost} it is needed for the vote"))
            return Vote(None), []
        return Vote(_STATUSES[recorded], first, characters=None if text is None else len(text)), ["no text"]
    said = read_text(text)
    # As in the script, any number other than the rejected response's, even 3, is a vote for the preferred one.
    correct = None if said.number is None else said.number != ("2" if first else "1")
    remarks = ["draft"] if said.draft else []
    if said.number not in ("1", "2", None):
        remarks.append("odd")
    if recorded is not None and _STATUSES[recorded] != correct and not said.draft:
        remarks.append("restated")
    return Vote(correct, first, characters=len(text)), remarks


def _about(benchmark: Benchmark, id: str, responses: tuple[str, str], preferred: Answer) -> About:
    if not id:
        return About()
    chosen, rejected = responses if preferred == 1 else responses[::-1]
    return benchmark.about(Fields({"chosen": chosen, "rejected": rejected}), id)


_DRAFTS = "{:,} texts have a verdict only in an unclosed thought; they count as unreadable"


def _about_votes(counts: Mapping[str, int]) -> list[str]:
    said = {
        "fewer votes": "{:,} items have fewer votes than the others.",
        "no text": "{:,} votes have no text to parse; their flag_status is used.",
        "restated": "{:,} texts contradict their flag_status; the texts are scored, as in the official script.",
        "odd": "{:,} votes are for an answer that is neither 1 nor 2; they count as right, as in the official script.",
        "draft": f"{_DRAFTS} (the official script accepts them).",
    }
    return [text.format(counts[name]) for name, text in said.items() if counts.get(name)]


OFFICIAL_VOTES = PredictionFormat(
    name="official-votes",
    fields="ranking and meta with filter_choice or flag_status",
    marked=_is_official,
    read=_read_vote,
    orders="random",
    notes=(
        "Each line is a vote: lines with the same id, query and responses form an item, as in the official cal.py. Its "
        "score with K votes is --rule drop --votes K; without --votes all votes count.",
    ),
    remarks=_about_votes,
    draw=official_order,
)

# ---- VLMEvalKit

_PARITY = "by length parity"
"""Both harnesses swap the responses if their total number of characters is odd."""


def _first_shown(responses: tuple[str, str], preferred: Answer) -> bool:
    """Return whether the preferred response was shown first."""
    return (preferred == 1) == (sum(map(len, responses)) % 2 == 0)


def _is_vlmevalkit(data: Mapping[str, Any]) -> bool:
    return {"index", "response", "prediction"} <= data.keys() and ("human_ranking" in data or "answer" in data)


def _read_vlmevalkit(row: Fields, benchmark: Benchmark) -> Judged:
    """Parse a row of VLMEvalKit's predictions, with or without scores."""
    name = "human_ranking" if _is_given(row.data.get("human_ranking")) else "answer"
    cells = Fields({"response": _cell(row.data["response"]), name: _cell(row.data.get(name))})
    responses, preferred = cells.texts("response"), cells.label(name, RANKINGS)
    row.problems += cells.problems
    id = next((row.data[name] for name in ("id", "question_id") if isinstance(row.data.get(name), str)), None)
    # The paper's category depends on the id.
    about = _about(benchmark, id or "-", responses, preferred)
    about = about if id is not None else About(longer=about.longer)
    if _is_given(given := row.data.get("category")):
        about = about._replace(category=_category(row, str(given).lower(), benchmark))
    text = row.data["prediction"]
    first = _first_shown(responses, preferred)
    said = read_text(text) if isinstance(text, str) else Said(None)
    answer = said.number if said.number in ("1", "2") else None
    vote = Vote(
        None if answer is None else answer == ("1" if first else "2"),
        first,
        characters=len(text) if isinstance(text, str) else None,
    )
    remarks = ["text" if isinstance(text, str) else "no text"] + ["draft"] * said.draft
    if "score" not in row.data:
        return Judged(id, (vote,), row, about=about, remarks=tuple(remarks))
    own = vote._replace(correct=_score(row))
    if vote.correct is None:
        remarks.append("read")
    elif vote.correct != own.correct:
        remarks.append("contrary")
    return Judged(id, (own,), row, by_text=(vote,), about=about, remarks=tuple(remarks))


def _category(row: Fields, given: str, benchmark: Benchmark) -> str | None:
    if given in (benchmark.categories or ()):
        return given
    row.problems.append(("category", f"{given!r} is not a category of {benchmark.title}"))
    return None


def _is_given(cell: Any) -> bool:
    return cell is not None and cell != "" and cell == cell  # pandas reads empty cells as nan


def _cell(value: Any) -> Any:
    """Parse a list in a text cell; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _score(row: Fields) -> bool:
    given = row.data["score"]
    try:
        score = float(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else None
    except ValueError:
        score = None
    if score not in (0, 1):
        row.problems.append(("score", f"must be 1 or 0, not {short(given)}"))
    return score == 1


def _about_predictions(counts: Mapping[str, int]) -> list[str]:
    notes = []
    if missing := counts.get("no text", 0):
        notes.append(f"{missing:,} rows have no text of the judge: an .xlsx cell is limited to 32,767 characters.")
    if drafts := counts.get("draft", 0):
        notes.append(f"{_DRAFTS.format(drafts)}.")
    return notes


def _about_scores(counts: Mapping[str, int]) -> list[str]:
    return [
        "The rule wrong uses the file's own scores: VLMEvalKit parses each text with a language model, and scores 0 if "
        "that fails. Parse rate and the rules drop and coin use the texts, parsed like in the official script: "
        f"{counts.get('read', 0):,} have no verdict in its format, and {counts.get('contrary', 0):,} contradict the "
        "score.",
        *_about_predictions(counts),
    ]


VLMEVALKIT = PredictionFormat(
    name="vlmevalkit",
    fields="index, response, prediction and human_ranking or answer",
    marked=lambda data: _is_vlmevalkit(data) and "score" not in data,
    read=_read_vlmevalkit,
    orders=_PARITY,
    writer="VLMEvalKit",
    notes=(
        "VLMEvalKit parses each text with a language model before scoring; here the texts are parsed like in the "
        "official script. VLMEvalKit's own scores are in the file next to this one whose name includes that model's.",
    ),
    remarks=_about_predictions,
)
VLMEVALKIT_SCORES = replace(
    VLMEVALKIT,
    name="vlmevalkit-scores",
    fields="the same and score",
    marked=lambda data: _is_vlmevalkit(data) and "score" in data,
    tells_unreadable=False,
    notes=(),
    blind_note="Some rows have no text, or no text has a verdict in the official format: the parse rate is unknown, "
    "and the rules drop and coin cannot be applied. VLMEvalKit scores 0 for a text that its model cannot parse.",
    remarks=_about_scores,
)

# ---- lmms-eval

_METRIC = "vlreward_score"


def _read_sample(row: Fields, benchmark: Benchmark) -> Judged:
    """Parse a sample of lmms-eval; for a readable text, its score shows which answer is right."""
    sample = read_sample(row, _METRIC)
    said, (total, lengths) = read_text(sample.text), _lengths(prompt_of(row))
    target = str(row.data.get("target")).replace(" ", "")
    preferred = next((label for ranking, label in RANKINGS if str(ranking).replace(" ", "") == target), None)
    first = None if preferred is None or total is None else (preferred == 1) == (total % 2 == 0)
    if said.number in ("1", "2"):
        first = (said.number == "1") == sample.right
    about = benchmark.about(Fields({}), sample.id) if sample.id else About()
    if lengths is not None and first is not None:
        chosen, rejected = lengths if first else lengths[::-1]
        about = about._replace(longer=(chosen > rejected) - (chosen < rejected))
    correct = None if said.number is None else sample.right
    remarks = own_score(sample, about.category) + ("guess",) * (correct is None)
    vote = Vote(correct, first, characters=len(sample.text))
    return Judged(sample.id, (vote,), row, about=about, index=sample.index, remarks=remarks)


def _lengths(prompt: str) -> tuple[int | None, tuple[int, int] | None]:
    """Return the total length of the two answers in a prompt, and their lengths; None where ambiguous."""
    _, start, rest = prompt.partition("\n\nAnswer 1: ")
    both, end, _ = rest.rpartition("\n\nPlease evaluate both answers")
    parts = both.split("\n\nAnswer 2: ")
    if not start or not end or len(parts) == 1:
        return None, None
    total = len(both) - len("\n\nAnswer 2: ")
    return total, (len(parts[0]), len(parts[1])) if len(parts) == 2 else None


def _about_samples(counts: Mapping[str, int]) -> list[str]:
    overall, macro = own_scores(counts)
    return [
        f"{counts.get('guess', 0):,} texts have no verdict in the official format and count as unreadable: lmms-eval "
        "parses them with a language model and otherwise guesses at random; the file does not say which. Its own "
        f"score, with these: macro {100 * macro:.2f} % (the one it prints), overall {100 * overall:.2f} %.",
        *general_remarks(counts),
    ]


LMMS_EVAL = PredictionFormat(
    name="lmms-eval-vl_rewardbench",
    fields=_METRIC,
    marked=lambda data: is_sample(data, _METRIC),
    read=_read_sample,
    orders=_PARITY,
    writer="lmms-eval",
    remarks=_about_samples,
)
