"""Detect error messages that chat arenas store in place of a model's answer.

Such an "answer" always loses its vote, so a judge would learn to look for the message instead of the image::

    error_mark("**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**")   # the message
    error_mark("The pop-up says NETWORK ERROR DUE TO HIGH TRAFFIC, so reload it.")                 # None: an answer

The messages are those of FastChat and of the arenas and model servers derived from it. An answer counts as an error if
it begins with a message or breaks off in one, and nothing follows except the rest of the message: more capitals, a
reason, an exception in brackets, an error code. Prose about a message is an answer, and so is a mention or quotation.
"""

from __future__ import annotations

import json
import re
from itertools import islice

_SAYINGS = "|".join(
    [
        r"network error due to high traffic",
        r"api request error",
        r"rate limit (?:per day )?of this model(?: is reached)?",
        r"you have reached the conversation (?:length|turn) limit",
        r"this session has been inactive(?: for too long)?",
        r"(?:your|the) (?:input|text|image|prompt|message|request) violates our content moderation guidelines",
        r"exceeds max(?:imum)? token length",
        r"both models will show the responses all at once",
    ]
)
"""Clauses that only a server writes, in any letter case."""

_PLAIN = "|".join(
    [
        r"(?:text |image )?streaming error",
        r"(?:the |your )?(?:input|prompt|conversation|request)(?: is)? too long",
        r"(?:torch\.cuda\.OutOfMemoryError: )?cuda (?:error: )?out of memory",
        r"cuda error",
        r"(?:the )?request timed out",
        r"(?:the |this )?model is (?:currently )?(?:overloaded|unavailable|not available)",
        r"this model's maximum context length is",
        r"(?:maximum )?context length exceeded",
    ]
)
"""Phrases that real answers may contain, too: an error only if they are the whole text and it is short."""

_SENTINEL = r"\$(?:[A-Z]+_)?(?:ERROR|MODERATION|TIMEOUT|BLOCKED|FAILED|FAILURE|REFUSED)\$|(?<=\*\*)RATE LIMIT PER DAY"
_OPENING = r"[\s*_#\u26a0\ufe0f\u274c\U0001f6ab]*"
_START = re.compile(rf"{_OPENING}(?P<mark>{_SENTINEL}|(?i:{_SAYINGS}))")
_PLAIN_START = re.compile(rf"{_OPENING}(?P<mark>(?i:{_PLAIN}))")
_LINE = re.compile(rf"^{_OPENING}(?P<mark>{_SENTINEL}|{_SAYINGS.upper()})", re.MULTILINE)
_CUT_IN = re.compile(rf"\*\*(?P<mark>{_SAYINGS.upper()})")
_CODE = re.compile(r"(?P<line>^|\n)?[ \t]*(?P<mark>\(error_code: ?\d{1,6}(?:,.{0,2000})?\))$", re.DOTALL)
_CODE_OF_FASTCHAT = re.compile(r"\(error_code: ?(?:1|[45]\d{4})\b")
_EXCEPTION = re.compile(r"\s*(?P<mark>Error code: \d{3} - [{\[]|HTTPS?ConnectionPool\(host=|<Response \[\d{3}\]>)")
_UNFINISHED = re.compile(r"(?:(?<![\u2580-\u259f])\u258c|<span class=\"cursor\">(?:</span>)?)\s*$")
_TAGS = re.compile(r"<[^<>\n]{1,200}>|\(https?://[^\s)]*\)")
_SHOUTED = re.compile(r"[^a-z({]*(?![a-z])")
_SERVING = re.compile(
    r"\b(?:API|NETWORK|SERVERS?|REQUESTS?|MODELS?|SESSION|CONVERSATION|INPUT|PROMPT|CUDA|GPU|STREAM\w*|TOKENS?|RATE|"
    r"TRAFFIC|WORKERS?|GENERATION|RESPONSE|CONTEXT|CONTENT)\b"
)
_FAILING = re.compile(
    r"\b(?:ERRORS?|TIME-?OUT|TIMED OUT|TOO LONG|TOO LARGE|OUT OF MEMORY|OVERLOADED|UNAVAILABLE|NOT AVAILABLE|INACTIVE|"
    r"EXPIRED|VIOLAT\w+|FAIL\w*|BLOCKED|EXCEED\w*|REACHED|BUSY)\b"
)
_EXPLAINS = re.compile(
    r"\b(?:means?|indicat\w+|refers?|suggests?|says|reads|shown|shows|displayed|visible|appears?|usually|typically|"
    r"occurs?|because|this (?:error|message|text|is)|(?:the|this|your) (?:image|picture|photo|screen\w*|error|"
    r"message))\b",
    re.IGNORECASE,
)
_QUOTING = (":", '"', "'", "`", "(", "\u201c", "\u2018", "\u00ab")
_SHORT = 400  # maximum characters of a message with its exception
_TAIL, _TRIES = 4000, 20  # limits on the characters at the end and the messages in them: texts may be adversarial
_EXCERPT = 60


def error_mark(answer: str) -> str | None:
    """Return the error message in place of an answer, cut to 60 characters; None for a real answer."""
    text = answer.strip()
    found = (
        _at_the_start(text) or _alone(text) or _after_a_part(text) or _code_at_the_end(text) or _object(text)
        or _match(_EXCEPTION.match(text)) or _match(_UNFINISHED.search(text))
    )  # fmt: skip
    return found[:_EXCERPT] if found else None


def _match(found: re.Match[str] | None) -> str | None:
    return found[0].strip() if found else None


def _at_the_start(text: str) -> str | None:
    found = _START.match(text)
    if found is None:
        return None
    return found["mark"] if _is_rest(text[found.end() :], spoken=not found["mark"].isupper()) else None


def _alone(text: str) -> str | None:
    """Find messages that are the whole text: a known phrase, or capitals that mention a server failure."""
    found = _PLAIN_START.match(text)
    if len(text) > _SHORT or "\n\n" in text:
        return None
    if found and _is_rest(text[found.end() :]):
        return found["mark"]
    shouted = text.isupper() and (text.startswith("**") or "PLEASE" in text)
    return text if shouted and _SERVING.search(text) and _FAILING.search(text) else None


def _after_a_part(text: str) -> str | None:
    """Find a message that replaces the rest of an answer: on its own line, or within a paragraph."""
    end = max(0, len(text) - _TAIL)
    for found in islice(_LINE.finditer(text, end), _TRIES):
        before = text[: found.start()]
        quoted = before.rstrip().endswith(_QUOTING) or before.count("```") % 2
        if before.strip() and not quoted and _is_rest(text[found.end() :]):
            return found["mark"]
    for found in islice(_CUT_IN.finditer(text, end), _TRIES):
        before = text[: found.start()]
        cut = before.rstrip().endswith((".", "!", "?", "\u2026")) or (before[-1:].isalnum())
        if cut and _is_rest(text[found.end() :]):
            return found["mark"]
    return None


def _code_at_the_end(text: str) -> str | None:
    found = _CODE.search(text, max(0, len(text) - _TAIL))
    if found is None:
        return None
    before = text[: found.start()]
    last = before.rpartition("\n")[2]
    alone = found["line"] is not None or not last.strip()
    behind = _CODE_OF_FASTCHAT.match(found["mark"]) and not any(sign in last for sign in _QUOTING)
    return found["mark"] if alone or behind else None


def _object(text: str) -> str | None:
    """Find the JSON body of a server's error response."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text if isinstance(value, dict) and value.get("object") == "error" else None


def _is_rest(rest: str, *, spoken: bool = False) -> bool:
    """Return whether the text after the first words of a message belongs to the message and is not prose about it.

    ``spoken`` means that those words are not in capitals, so they could be from a real answer.
    """
    rest = _TAGS.sub("", rest)
    if rest[:1].isalnum() or rest[:1] in _QUOTING[1:4] or rest[:1] == "\u201d" or re.match(r"[*_]*\s+[a-z]", rest):
        return False  # "errors", a closing quote, "is what the server says"
    body = rest.lstrip("*_ .!:,;\u2014-\n")
    shouted = _SHOUTED.match(body)
    body = body[shouted.end() :].strip() if shouted and body[:2].isupper() else body
    if not body.strip("*_ .!") or body.startswith(("(", "{", "[")) or re.match(r"(?i:reason|error_code)\b", body):
        return True
    if spoken and not re.match(r"(?:Please|Try|Retry)\b", body):
        return False
    return len(body) <= _SHORT and "\n\n" not in body and not _EXPLAINS.search(body)
