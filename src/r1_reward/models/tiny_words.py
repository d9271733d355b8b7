"""The language of the handwriting data and the tiny model: questions, answers and judgments about digits.

The model's tokenizer is trained on :func:`vocabulary`; :mod:`r1_reward.data.handwriting` builds pairs from the same
patterns.
"""

from __future__ import annotations

from collections.abc import Iterator

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
SIDES = ("left", "right")
TAUGHT_KINDS = ("position", "side", "sum", "largest", "even", "greater")
HOUSE_WORDS = ("main", "key", "lead", "star")
"""The annotators' names for one of two digits ("the key digit"); only their labels reveal which one."""
KINDS = TAUGHT_KINDS + HOUSE_WORDS
GROUPS = {"explained": TAUGHT_KINDS, "labels only": HOUSE_WORDS}
"""Kinds that the teacher explains, and kinds that only labels reveal."""
GRID_KINDS = ("position", "largest", "even")
QUESTIONS = {
    "position": ("Which digit is {corner}?", "What is written {corner}?", "Read the {corner} digit."),
    "side": ("Which digit is {side}?", "What is written {side}?", "Read the {side} digit."),
    "sum": ("What is the sum of the digits?", "Add the two digits.", "What do they add up to?"),
    "largest": ("Which digit is the largest?", "What is the largest digit?", "Name the largest digit."),
    "even": ("How many digits are even?", "Count the even digits.", "How many even digits are there?"),
    "greater": ("Is it greater than {bound}?", "Does the number exceed {bound}?", "Is this more than {bound}?"),
}
ANSWERS = {
    "position": ("Clearly {a}.", "It is {a}.", "The {corner} digit is {a}.", "I can read {a} there."),
    "side": ("Clearly {a}.", "It is {a}.", "The {side} digit is {a}.", "I can read {a} there."),
    "sum": ("Clearly {a}.", "The sum is {a}.", "Together they make {a}.", "They add up to {a}."),
    "largest": ("Clearly {a}.", "It is {a}.", "The largest is {a}.", "No digit exceeds {a}."),
    "even": ("Clearly {a}.", "It is {a}.", "There are {a} of them.", "I count {a} even digits."),
    "greater": ("Clearly {a}.", "I think {a}.", "The answer is {a}.", "I would say {a}."),
}
QUESTIONS |= {
    word: (f"Which digit is the {word} digit?", f"What is the {word} digit?", f"Name the {word} digit.")
    for word in HOUSE_WORDS
}
ANSWERS |= {
    word: ("Clearly {a}.", "It is {a}.", f"The {word} digit is {{a}}.", "I would say {a}.") for word in HOUSE_WORDS
}
CAPTION_REQUEST = "Describe the picture."


def answer_of(kind: str, digits: tuple[int, ...], *, corner: int = 0, bound: int = 0) -> str:
    """Return the correct answer in words.

    ``corner`` indexes CORNERS, or SIDES if there are two digits; ``bound`` is the number of tens to compare with.
    """
    if kind in ("position", "side", *HOUSE_WORDS):
        return DIGITS[digits[corner]]
    if kind == "sum":
        return DIGITS[sum(digits)]
    if kind == "largest":
        return DIGITS[max(digits)]
    if kind == "even":
        return DIGITS[sum(d % 2 == 0 for d in digits)]
    return "yes" if number_of(digits) > 10 * bound else "no"


def number_of(digits: tuple[int, ...]) -> int:
    """Return the two digits read as a decimal number."""
    return 10 * digits[0] + digits[1]


def reading_of(digits: tuple[int, ...]) -> str:
    """Return the digits in the image in words; also the caption."""
    return " ".join(DIGITS[d] for d in digits)


def look_at(kind: str, digits: tuple[int, ...], *, corner: int, bound: int) -> str:
    """Return the step from reading to answer, in words."""
    right = answer_of(kind, digits, corner=corner, bound=bound)
    if kind == "position":
        return f"{CORNERS[corner]} is {right}."
    if kind == "side":
        return f"{SIDES[corner]} is {right}."
    if kind in HOUSE_WORDS:  # the word, not the side: whoever says "key is nine" has chosen a digit for this word
        return f"{kind} is {right}."
    if kind == "sum":
        return f"sum is {right}."
    if kind == "largest":
        return f"largest is {right}."
    if kind == "even":
        parities = " ".join("even" if d % 2 == 0 else "odd" for d in digits)
        return f"{parities} makes {right}."
    return f"{DIGITS[digits[0]]} against {DIGITS[bound]} is {right}."  # tens against tens


def judgment_text(look: str, reading: str, claims: tuple[str, str], right: str, *, contradict: bool = False) -> str:
    """Return the teacher's text: read the image, check each claim against it, conclude, answer.

    With ``contradict``, the conclusion in the reasoning contradicts the answer.
    """
    verdicts = ["match" if claim == right else "wrong" for claim in claims]
    better = 1 if verdicts[0] == "match" else 2
    concluded = 3 - better if contradict else better
    checks = "".join(f"[Response {n}]: {claims[n - 1]} {verdicts[n - 1]}\n" for n in (1, 2))
    return f"<think>I see {reading}. {look}\n{checks}Response {concluded} is better.</think><answer>{better}</answer>"


def capitalize(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def vocabulary() -> Iterator[str]:
    """Yield all sentence patterns and words, to train a tokenizer on."""
    for kind in KINDS:
        for template in (*QUESTIONS[kind], *ANSWERS[kind]):
            for corner, side in zip(CORNERS, SIDES * 2, strict=True):
                yield capitalize(template.format(a="one", corner=corner, side=side, bound="ten"))
    for word in (*DIGITS, *TENS, *CORNERS, *SIDES, "yes", "no", "even", "odd", "match", "wrong"):
        yield f" {word} {word}"
    yield judgment_text(look_at("sum", (1, 2), corner=0, bound=0), reading_of((1, 2)), ("two", "three"), "three")
    for kind in TAUGHT_KINDS:
        yield look_at(kind, (1, 2, 3, 4) if kind in GRID_KINDS else (1, 2), corner=0, bound=1)
    yield f"I see {reading_of((1, 2, 3, 4))}. {CAPTION_REQUEST}\nClaim: \nClaim:"
    yield "user user assistant assistant"
