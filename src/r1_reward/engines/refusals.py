"""What a server's error is about: a parameter it does not accept, pictures, or credit; no network access.

Servers report it in many shapes. OpenAI has a field for the parameter (``param``), pydantic for its location (``loc``),
Google for a list of ``fieldViolations``; gateways put one JSON into the message of another; many only write a sentence.
Such a field decides; without one, the sentences do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from r1_reward.engines.length import says_too_long

_READ = 20_000  # characters of an error that are searched
_ECHOES = ("input", "ctx", "url", "request_id")  # keys whose values repeat the request, or are a link
_NAMED_APART = ("param", "field", "parameter")
_OTHER_FIELDS = re.compile(r"(?:messages|model|contents|content|prompt|image|tools|response_format)\b")

_PARAMETERS = {
    "temperature": r"temperature",
    "seed": r"(?:\w+_)?seed",
    "top_p": r"top[-_ ]?p",
    "logprobs": r"\w*log[-_ ]?prob(?:s|abilities)?|top_?n_?tokens|n_probs|alternatives (?:per|for each|at each) token",
    "n": r"(?-i:n)|best_of|one completion(?: choice)?|(?:one|multiple) candidates?|candidate_?count",
    "max_tokens": r"max_?(?:new_?|output_?|completion_?)?tokens",
}
# With ASCII words, Chinese may follow a name without a space.
_AS_WORDS = {
    name: re.compile(rf"(?<!\w)(?:{form})(?!\w)", re.ASCII | re.IGNORECASE) for name, form in _PARAMETERS.items()
}
_PLACES_IN_TEXT = re.compile(r"""loc['"]?\s*:\s*[\[(]\s*['"]body['"]\s*,\s*['"](\w+)""")


def _any_of(*forms: str) -> re.Pattern[str]:
    return re.compile("|".join(forms), re.IGNORECASE)


_UNSUPPORTED = _any_of(
    r"unsupported", r"not (?:\w+ )?support", r"n't support", r"only one", r"not (?:allowed|implemented)"
)
_REFUSING = _any_of(
    r"un(?:supported|known|recogni[sz]ed|expected)|support|invalid|not |n't|cannot|no longer|deprecated|forbid",
    r"disabled|must|should|only|extra|exceed|非法|不支持|不能",
)
_WHAT_THERE_IS = re.compile(
    r"\b(?:expected one of|(?<!not )(?:valid|allowed|supported|available|accepted|known) "
    r"(?:\w+ )?(?:argument|parameter|field|key)s(?: are)?\s*:).*",
    re.IGNORECASE | re.DOTALL,
)
_ABOUT_A_VALUE = _any_of(
    r"too \w+", r"exceed", r"at (?:most|least)", r"(?:less|greater) than", r"below|above|between|[<>]"
)
_ALTOGETHER = _any_of(
    r"un(?:supported|known|recogni[sz]ed|expected|available)",
    r"not (?:\w+ )?(?:support|allow|permit|available|enabled|implemented|a valid)",
    r"n't (?:support|allow|permit)",
    r"\bextra\b",
    r"不支持",
)
_AN_AMOUNT = _any_of(
    r"too \w+|exceed|at (?:most|least)|(?:less|fewer|greater|larger|more|higher) than|below|above|between|[<>≤≥]",
    r"\bmax(?:imum|imal)?\b|\bup to\b|\branges?\b|\blimited to\b|\bonly (?:up )?\d",
    r"\bvalues?\b|\bbeyond\b|\blimit\b|\b(?:that|so|as) many\b",
    r"(?<![\w.-])\d{1,2}(?![\w-])|\b(?:two|three|four|five|ten|twenty)\b",  # not in a status or a model's name
    r"最大|最多|超过|大于|范围",
)
_MONEY = _any_of(
    r"insufficient[ _-]?(?:\w+[ _-])?(?:quota|credit|balance|fund)",
    r"exceeded_current_quota|check your (?:plan and )?billing",
    r"billing[ _](?:hard[ _]limit|not[ _]active)",
    r"(?:balance|credits?|funds?|quota) (?:\w+ ){0,3}(?:too low|not enough|insufficient|negative|overdue)",
    r"(?:overdue|negative|not (?:\w+ )?enough|n't (?:\w+ )?enough) (?:account )?(?:balance|credits?|funds?)",
    r"included credits|(?:out of|no|all|more|requires? \w+) ?(?:available )?credits",
    r"credits? (?:\w+ )*(?:exhausted|depleted|used up)",
    r"payment required|requires billing|arrear|overdue|欠费|余额不足|额度不足|额度已用尽|请充值",
    r"budget[ _](?:\w+ )*exceeded|(?:spending|spend|usage) (?:hard )?limit|key limit exceeded|out of [\w ]{0,20}quota",
)
_SEEN = r"(?:images?|pictures?|vision|image_url|multi-?modal\w*)(?: (?:inputs?|content|modality|parts?))*"
_TEXT_ONLY = _any_of(
    r"\bnot (?:a |compiled for )?multi-?modal",  # vLLM, llamafile
    r"\bat most 0 (?:image|video)",  # vLLM that allows none
    # Not "unsupported image format": that is about one picture.
    rf"\b{_SEEN}(?: (?:is|are))? not (?:supported|enabled|allowed)",  # Mistral, Gemini, llama.cpp
    rf"(?:not|n't|cannot) (?:support|accept|take|handle|process) (?:any )?{_SEEN}\s*(?:[^\w\s]|$|for |in |by )",
    r"no endpoints found that support image",  # OpenRouter
    r"\bimage_url is only supported by",  # OpenAI
    r"unknown variant `?image_url`?, expected `?text",  # DeepSeek
    r"unsupported content part type:? [\"'`]?image",  # llama.cpp's chat templates
    r"content must be a string",  # Groq
    r"input should be ['\"]text['\"]|\[['\"]text['\"]\]",  # the only kind of part allowed: pydantic, Zhipu
    r"missing data required for image input",  # Ollama
    r"\bonly (?:supports?|accepts?|takes?|handles?) text|\btext[- ]only model|不支持(?:图|视觉|多模态)",
)
_A_DAY = re.compile(r"per[-_ ]?day|daily|\b[RT]PD\b", re.IGNORECASE)
_A_MINUTE = re.compile(r"(?:per[-_ ]?|/ ?)(?:min|sec)|\b[RT]PM\b", re.IGNORECASE)
_A_MONTH = re.compile(r"(?:per[-_ ]?|/ ?)month|monthly", re.IGNORECASE)
_GOOGLE = "RESOURCE_EXHAUSTED"
_GOOGLE_EMPTY = re.compile(r"\blimit: 0\b|credits? are depleted", re.IGNORECASE)
_MAY_BE_MONEY = (400, 401, 403, 412, 429)


class _Said(NamedTuple):
    """An unwrapped error: the parameters named in fields, and its sentences."""

    places: tuple[str, ...]
    text: str


def refused_parameters(error: str, sent: Collection[str]) -> set[str]:
    """Return which of the ``sent`` parameters the body of a 4xx is about, by their names in ``sent``.

    ``top_logprobs``, by any server's name, counts as ``logprobs``, and every token limit as the one that was sent. An
    error about the length of the prompt is about none of them, and neither is one about the size of a limit.
    """
    said = _read(error)
    if says_too_long(said.text):
        return set()
    limit = next((name for name in sent if _AS_WORDS["max_tokens"].fullmatch(name)), None)
    ours = {name: limit if name == "max_tokens" else name for name in _PARAMETERS}
    apart = {name for name, words in _AS_WORDS.items() if any(words.fullmatch(place) for place in said.places)}
    if not apart and any(_OTHER_FIELDS.match(place) for place in said.places):
        return set()
    named = apart or set().union(*(_names(sentence) for sentence in _refusing(said.text)))
    if _ABOUT_A_VALUE.search(said.text):
        named.discard("max_tokens")
    return {own for name in named if (own := ours[name]) is not None and own in sent}


def refused_altogether(error: str) -> bool:
    """Return whether an error refuses a parameter at any value, so that a smaller one would not help."""
    text = _read(error).text
    return _ALTOGETHER.search(text) is not None and _AN_AMOUNT.search(text) is None


def _refusing(text: str) -> list[str]:
    """Return the sentences that refuse a parameter, not those that list the accepted ones."""
    sentences = (_WHAT_THERE_IS.sub("", sentence) for sentence in re.split(r"(?<=[.!?;])\s+|\n", text))
    naming = [sentence for sentence in sentences if _names(sentence)]
    return [sentence for sentence in naming if _REFUSING.search(sentence)] or naming[:1]


def _names(sentence: str) -> set[str]:
    return {name for name, words in _AS_WORDS.items() if words.search(sentence)}


def is_refusal(status: int, error: str) -> bool:
    """Return whether an error may be about the request's parameters, so that a try without them may succeed."""
    if used_up(status, error):
        return False
    if status in (500, 501):  # llama.cpp's server has done so
        return bool(_UNSUPPORTED.search(error[:_READ]) and refused_parameters(error, _PARAMETERS))
    return 400 <= status < 500 and status not in (401, 408, 409, 429)


def reads_text_only(error: str) -> bool:
    """Return whether an error means that a model accepts no pictures at all, not that some were too many or damaged.

    It is only meant for errors of requests with pictures.
    """
    return _TEXT_ONLY.search(_read(error).text) is not None


def used_up(status: int, error: str) -> str:
    """Return what an error says is used up, so that no further request can succeed; empty if nothing is.

    That is credit, a hard limit, or a daily or monthly quota; a limit per minute passes.
    """
    text = _read(error).text
    span = next((name for name, words in (("daily", _A_DAY), ("monthly", _A_MONTH)) if words.search(text)), None)
    quota = f"the {span} quota" if status == 429 and span else ""
    if _GOOGLE in text:  # it mentions plan and billing with every limit
        return quota or ("the account's credit" if _GOOGLE_EMPTY.search(text) else "")
    if status == 402 or (status in _MAY_BE_MONEY and _MONEY.search(text) and not _passes(status, text)):
        return "the account's credit"
    return "" if _passes(status, text) else quota


def _passes(status: int, text: str) -> bool:
    return status == 429 and _A_MINUTE.search(text) is not None


def disguised_status(body: bytes) -> int | None:
    """Return the status in a 200 response whose body is only an error; None if there is none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    if not isinstance(answer, dict) or answer.get("choices") or not answer.get("error"):
        return None
    error = answer["error"]
    code = str(error.get("code") if isinstance(error, dict) else answer.get("code"))
    if code.isdecimal() and 400 <= int(code) < 600:
        return int(code)
    return 422 if "validation" in str(answer.get("error_type")) else None


def _read(error: str) -> _Said:
    error = error[:_READ]
    places: list[str] = []
    try:
        sentences = list(_walk(json.loads(error), places))
    except (ValueError, RecursionError):
        sentences = [error]
    # Unescape what is left of JSON in JSON; an escaped line feed must not become the letter n.
    text = "\n".join(sentences).replace("\\n", "\n").replace("\\", "")
    return _Said((*places, *_PLACES_IN_TEXT.findall(text)), text)


def _walk(value: Any, places: list[str]) -> Iterator[str]:
    """Yield all sentences in a JSON value, and add the parameters named in fields to ``places``."""
    if isinstance(value, str):
        if value.lstrip()[:1] in ("{", "["):
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                yield value
            else:
                yield from _walk(inner, places)
        else:
            yield value
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, places)
    elif isinstance(value, dict):
        for key, one in value.items():
            if any(words.fullmatch(key) for words in _AS_WORDS.values()) and isinstance(one, (str, list)):
                places.append(key)  # {"seed": ["Unknown field."]}
            if key.removesuffix("s") in _NAMED_APART and isinstance(one, (str, list)):
                places += [one] if isinstance(one, str) else [name for name in one if isinstance(name, str)]
            elif key == "loc" and isinstance(one, list):
                places += [part for part in one if isinstance(part, str) and part != "body"][:1]
            elif key not in _ECHOES:
                yield from _walk(one, places)
