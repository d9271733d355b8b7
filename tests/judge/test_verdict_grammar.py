"""The grammar of comparative judgments: a table for each rule, its mirror image, its names, and its cost."""

from __future__ import annotations

import doctest
import re
import time

import pytest

from r1_reward.data.handwriting import build_world
from r1_reward.judge import verdict_grammar, verdict_names, verdict_sentences
from r1_reward.judge.rule_referee import conclusion
from r1_reward.judge.verdict_grammar import remarks
from r1_reward.models.tiny_words import TAUGHT_KINDS
from r1_reward.records.parsing import parse_judgment

RULES = {
    "verdicts": [
        ("Therefore, Response 1 is the better response.", 1),
        ("This makes Response 1 the better choice.", 1),
        ("The clear structure makes Response 2 preferable.", 2),
        ("My verdict: Response 2 is slightly better.", 2),
        ("Response 2 would be preferred by most readers.", 2),
        ("Response 1 is, in my opinion, better.", 1),
        ("Response 1 is ranked higher than Response 2.", 1),
        ("I would rate Response 1's answer higher than Response 2's answer.", 1),
        ("I would rate Response 2's answer as slightly worse than Response 1's answer.", 1),
        ("Response 2 receives a lower score than Response 1.", 1),
        ("Response 1 has a slight edge.", 1),
        ("Response 2 edges out Response 1.", 2),
        ("Response 2 is not only longer but also better.", 2),
        ("As Response 1 is more accurate, it is the better choice.", 1),
        ("As Response 2 is clear and correct, it is better.", 2),
    ],
    "verdicts that name their response last": [
        ("The better of the two is Response 2.", 2),
        ("The better response is from Response 1.", 1),
        ("Because of the wrong count given by Response 2, the better response is from Response 1.", 1),
        ("I would give the edge to Response 2.", 2),
        ("The advantage goes to Response 2.", 2),
        ("Both are fine; I lean towards Response 1.", 1),
        ("Final verdict: Response 1", 1),
        ("My final verdict is: [[B]]", 2),
        ("If I had to choose, I would pick Response 2.", 2),
    ],
    "what is measured against is not a subject": [
        ("The count is right, making it significantly better than Response 2's non-response.", 1),
        ("Response 1 gives the right facts compared to Response 2's incorrect statement.", 1),
        ("Compared to Response 1, Response 2 is more accurate.", 2),
        ("Response 2 is less faithful to the picture compared to Response 1.", 1),
        ("The quality of Response 2 surpasses that of Response 1.", 2),
        ("Response 1 beats Response 2, which is wrong.", 1),
        ("Response 1 is closer to the truth than Response 2.", 1),
        ("The proof of Response 2 is worse than that of Response 1.", 1),
        ("It is more helpful, relevant, and accurate than Response 2.", 1),
        ("Response 1 is more accurate than Response 2/the reference.", 1),
    ],
    "possessives and nouns with a response in them": [
        ("Assistant A's answer is better than Assistant B's answer.", 1),
        ("Response 1's correct count stands in contrast to Response 2's incorrect statement.", None),
        ("The explanation provided by Response 1 is better.", 1),
        ("The answer of Response 2 is worse.", 1),
        ("Considering the slight edge in detail provided by Response 1, I would choose Response 1.", 1),
        ("The information in Response 2 names the award winner.", None),
    ],
    "passives": [
        ("Response 2 is outperformed by Response 1.", 1),
        ("Response 1 is preferred over Response 2.", 1),
        ("Response 2 should be chosen.", 2),
        ("Response 1 was rejected.", None),
    ],
    "concessions": [
        ("Thus, while both responses have merit, Response 2 stands out as more accurate.", 2),
        ("In conclusion, Response 2, despite its small mistakes, is better.", 2),
        ("Although it is shorter, and better written, Response 1 is worse.", 2),
        ("While Response 1 is better written, clearer, and more detailed, Response 2 is the better answer.", 2),
        ("Even though Response 2 is more detailed, it is worse than Response 1.", 1),
        ("Response 1 is better, whereas Response 2 is better written.", 1),
    ],
    "contrasts": [
        ("Response 2's answer is accurate but lacks detail and context.", 1),
        ("Response 1 names the dog, while Response 2 is incomplete.", 1),
        ("Response 1 is better in clarity, but Response 2 is better overall.", 2),
        ("Response 1 is inaccurate. In contrast, Response 2 is accurate.", 2),
        ("Response 1 is more concise, while Response 2 is more detailed.", None),
    ],
    "negations": [
        ("Response 1 is not nearly as accurate as Response 2.", 2),
        ("Response 1 isn't worse than Response 2.", 1),
        ("Response 1 should not be preferred.", 2),
        ("I doubt that Response 1 is better.", 2),
        ("Response 2 does not describe the picture as precisely as Response 1.", 1),
        ("Response 1 is not necessarily better.", None),
        ("Response 1 is hardly better than Response 2.", None),
        ("Response 2 is by no means better.", None),
        ("I cannot say that Response 1 is better.", None),
        ("It is not true that Response 1 is better.", None),
    ],
    "wishes, conditions, hearsay, quotations": [
        ("Response 1 could be better.", None),
        ("Response 1 would have been better with a reason.", None),
        ("Response 1 needs a more precise answer.", None),
        ("If the user wants detail, Response 1 is better.", None),
        ("Response 2 claims that Response 1 is better.", None),
        ("One might prefer Response 1.", None),
        ("It is hard to say whether Response 1 is better.", None),
        ('The caption in Response 2 reads "Response 2 is much better than Response 1".', None),
    ],
    "what was thought at first": [
        ("At first sight Response 1 seems better, but Response 2 is actually right.", 2),
        ("Granted, Response 1 is better written. Still, Response 2 answers the question.", None),
        ("Admittedly Response 1 is more polished, yet Response 2 is more accurate.", 2),
        ("Initially I thought Response 1 was better; on closer look, Response 2 is better.", 2),
        ("Response 1 should be better than Response 2, but is not.", None),
        ("One might think Response 1 is better, but it is not.", None),
        ("Response 1 used to be better in my eyes.", None),
        ("I expected Response 1 to be better, but Response 2 is.", None),
        ("True, Response 1 is more detailed; but Response 2 is correct.", 2),
        ("Response 1 nearly beats Response 2.", None),
    ],
    "what is called wrong": [
        ("It would be wrong to call Response 1 better.", None),
        ("It would be a mistake to prefer Response 1 over Response 2.", None),
        ("The claim that Response 1 is better is wrong.", None),
        ("Response 1's claim that it is more accurate is false.", None),
        ("Calling Response 1 better would ignore its error.", None),
        ("Someone could argue that Response 1 is better. I disagree.", None),
        ("Response 1 is wrongly considered better.", None),
        ("I fail to see how Response 1 is better.", None),
        ("It is hard to prefer Response 1 over Response 2.", None),
        ("It's difficult to see Response 1 as better.", None),
        ("I see no way in which Response 1 is better.", None),
        ("I can't see why anyone would prefer Response 1.", None),
        ("I would say that Response 1 is better.", 1),
        ("I have to say that Response 1 is better.", 1),
    ],
    "nobody and nothing": [
        ("Nobody would choose Response 1.", 2),
        ("Few would prefer Response 1 to Response 2.", 2),
        ("No one would say Response 1 is better.", None),
        ("Under no circumstances would I call Response 1 better.", None),
        ("In no way is Response 1 better than Response 2.", None),
        ("Length alone doesn't make Response 1 the better response.", None),
        ("Response 1 is anything but better.", 2),
        ("Response 1 fails to be better than Response 2.", 2),
        ("Response 1 is better than nothing.", None),
        ("There is little to recommend Response 1.", 2),
        ("Response 1 is better than I expected, but Response 2 is better still.", 2),
        ("Response 1 sounds more convincing than it is.", None),
        ("Response 2 is without question the better of the two.", 2),
    ],
    "conditions behind the verdict": [
        ("Response 1 would win if it had counted right.", None),
        ("Response 1 is better only if the user wants brevity.", None),
        ("Had Response 1 counted right, it would be better.", None),
        ("Response 1 would be better were it not for the error.", None),
        ("But for its error, Response 1 would win.", None),
        ("Response 1 is better, even if Response 2 is more detailed.", 1),
        ("Response 1 would be better if it were right, so Response 2 wins.", 2),
    ],
    "objects, appositions, attributes": [
        ("Response 2 corrects Response 1's mistake and is thus better.", 2),
        ("Response 2, not Response 1, is the better one.", 2),
        ("I choose Response 2, not Response 1.", 2),
        ("Response 1 matches Response 2 in detail but loses in accuracy.", 2),
        ("Response 2 does everything Response 1 does, and better.", 2),
        ("Response 2 does what Response 1 does, only worse.", 1),
        ("The less accurate of the two is Response 1.", 2),
        ("The more helpful response is Response 1.", 1),
        ("Response 1 has the advantage of brevity, but Response 2 is right.", 2),
        ("Response 1 gets less right than Response 2.", 2),
        ("Response 1 is less wrong than Response 2.", 1),
        ("Response 1 correctly names the superior officer.", None),
    ],
    "degrees": [
        ("Response 1 is more verbose than Response 2.", 2),
        ("Response 1 contains fewer errors than Response 2.", 1),
        ("Response 2 contains more errors.", 1),
        ("Response 1 provides a higher level of detail.", 1),
        ("Response 2 better captures the scene.", 2),
        ("Response 1 crafts a more convincing reply.", 1),
        ("Response 2 is less helpful, relevant, and accurate.", 1),
    ],
    "scores": [
        ("Response 1 gets 8/10 and Response 2 gets 6/10.", 1),
        ("Response 1: 5/10\nResponse 2: 9/10", 2),
        ("Response 1 earns a score of 7, whereas Response 2 earns a score of 4.", 1),
        ("Response 1 is rated 3 out of 5. Response 2 is rated 4 out of 5.", 2),
        ("Response 1 gets 8/10 and Response 2 gets 8/10.", None),
        ("Response 1 gets 3/10 facts wrong and Response 2 gets 1/10 facts wrong.", None),
        ("Response 1 has an error rate of 5/10, Response 2 of 1/10.", None),
        ("Response 1 gets 8/10, but Response 2 is better.", 2),
        ("Response 1 earns 8/10, while the score of Response 2 is 6/10.", 1),
    ],
    "ties": [
        ("Neither response is better.", None),
        ("Response 1 is as good as Response 2.", None),
        ("There is no clear winner between Response 1 and Response 2.", None),
        ("Response 1 is more detailed. Overall, both answer the question.", None),
        ("Response 1 is better in style. Overall, the two are comparable.", None),
        ("I prefer neither Response 1 nor Response 2.", None),
    ],
    "later and concluding sentences": [
        ("In terms of clarity, Response 1 is better. Overall, Response 2 is better.", 2),
        ("Overall, Response 2 is better. In terms of clarity, Response 1 is better.", 2),
        ("Response 1 is better. Response 2 is more detailed, though.", 1),
        ("Response 1 is more detailed. Response 2 is more concise. Overall, Response 2 is more helpful.", 2),
        ("Response 1 is more detailed. Response 2 is more concise.", None),
        ("Response 1 is correct. Response 2 names a dog.", None),
    ],
}
SENTENCES = [(rule, text, expected) for rule, table in RULES.items() for text, expected in table]
SWAP = {"1": "2", "2": "1", "A": "B", "B": "A"}


def mirror(text):
    """Exchange the two responses, not the digits of scores."""
    return re.sub(r"(Response |Assistant |\[\[)([12AB])\b", lambda name: name[1] + SWAP[name[2]], text)


@pytest.mark.parametrize(("rule", "text", "expected"), SENTENCES)
def test_rule(rule, text, expected):
    assert conclusion(text) == expected
    assert conclusion(mirror(text)) == {1: 2, 2: 1, None: None}[expected]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Response 1", "Response 2"),
        ("**Response 1**", "**Response 2**"),
        ("[Response 1]", "[Response 2]"),
        ("Response A", "Response B"),
        ("Answer 1", "Answer 2"),
        ("Answer A", "Answer B"),
        ("Assistant A", "Assistant B"),
        ("AI assistant 1", "AI assistant 2"),
        ("Model A", "Model B"),
        ("Output (a)", "Output (b)"),
        ('Output "1"', 'Output "2"'),
        ("the first response", "the second response"),
        ("the 1st answer", "the 2nd answer"),
        ("Candidate one", "Candidate two"),
    ],
)
def test_every_name(first, second):
    for better, other, number in ((first, second, 1), (second, first, 2)):
        assert conclusion(f"Overall, {better} is better than {other}.") == number
        assert conclusion(f"{other}'s answer is correct, but it is less detailed than {better}'s.") == number
        assert conclusion(f"I choose {better} over {other}.") == number


def test_the_former_and_the_latter_are_names_after_two_others():
    assert conclusion("Response 2 names the colour, Response 1 does not. The former is better.") == 2
    assert conclusion("Of Response 1 and Response 2, the latter is better.") == 2
    assert conclusion("The latter is better.") is None


def test_a_multiple_choice_answer_is_not_a_name_if_there_are_responses():
    assert conclusion("The correct option is B. Response 1 chose option A, so Response 2 is better.") == 2
    assert conclusion("Assistant A chose Answer B, which is better than Answer A.") is None
    assert conclusion("Option A is better than option B.") == 1  # if nothing else is a name
    assert conclusion("The better choice is 2 cups.") is None


def test_signs_of_the_reader_in_a_text_are_not_names():
    assert conclusion("① is better.") is None


def test_remarks_say_whom_they_are_about():
    (remark,) = remarks("Response 2 is worse than Response 1.")
    assert (remark.rank, remark.prefers, remark.about, remark.blames) == (verdict_grammar.VERDICT, 1, 2, True)
    assert remarks("Is Response 2 better?") == []


def test_the_demo_is_read_as_intended():
    """Every sentence of the handwriting demo concludes for the response it names, contradictory texts too."""
    taught = [pair for pair in build_world(seed=3, train_pairs=3000, test_pairs=2).train if pair.reasoning is not None]
    assert {pair.kind for pair in taught} == set(TAUGHT_KINDS)
    contradictory = 0
    for pair in taught:
        judgment = parse_judgment(pair.reasoning)
        said = int(re.search(r"Response ([12]) is better\.$", judgment.reasoning)[1])
        assert conclusion(judgment.reasoning) == said
        contradictory += said != judgment.answer
    assert contradictory > 5


HOSTILE = [
    "response 1 ", "response 1 is not ", "not think that ", "better ", "more or less ", "than response 2 and ",
    "the ", "although response 1, ", "(", ") ", "winner: ", '" ', '"', "“", "   ", "\t", "'s ", "response 1's ",
    "1 / ", "and, ", "neither ", "[[A]] ", "**", "response 1 is as good as ", "which while but ", "\u0301",
    "score of 9 ", "if it would ", "response 2's claim that ", "calls response 1 ", "at first ", "but not ",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_a_long_sentence_takes_linear_time(part):
    text = "Response 1 " + part * (100_000 // len(part))
    start = time.perf_counter()
    remarks(text)
    verdict_grammar.scores(verdict_names.mark_names(text))
    conclusion(text)
    assert time.perf_counter() - start < 10  # code that looks at every word for each word takes minutes


@pytest.mark.parametrize("module", [verdict_grammar, verdict_names, verdict_sentences])
def test_docstring(module):
    assert doctest.testmod(module).failed == 0
