"""Engines in a dialect: the prompt, the probability of the verdict's token, and judges of one response at a time."""

from __future__ import annotations

import math

import pytest
from PIL import Image
from scripted_server import reply, status

from r1_reward.engines.chat_protocol import answer_probability
from r1_reward.engines.engine import EngineError, TakingTurns
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.pointwise import PointwiseEngine, comparing
from r1_reward.engines.scalar import Scoring
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.workers import EngineSpec
from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.votes import read_judgment
from r1_reward.records.dialects import dialect_names, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

pytestmark = pytest.mark.usefixtures("no_waits")
PAIRWISE = [name for name in dialect_names() if name != "pointwise"]


def places(*tokens):
    """Tokens, those in brackets with the log-probabilities of 0.75 for themselves and 0.25 for the other verdict."""
    other = {"1": "2", "2": "1", "A": "B", "B": "A"}
    found = []
    for token in tokens:
        if isinstance(token, str):
            found.append((token, {}))
            continue
        (said,) = token
        core = next(character for character in said if character in other)
        found.append((said, {said: math.log(0.75), said.replace(core, other[core]): math.log(0.25)}))
    return found


class TestServedProbability:
    """From the log-probabilities of a server."""

    @pytest.mark.parametrize(
        ("name", "tokens", "probability"),
        [
            ("r1-reward", ["<think>", "1", "</think>", "<answer>", ["1"], "</answer>"], 0.75),
            ("r1-reward", ["<answer", [">2"], "</answer>"], 0.25),
            ("rm-r1", ["<answer>", "[[", ["A"], "]]", "</answer>"], 0.75),
            ("rm-r1", ["So", " ", ["[[B"], "]]"], 0.25),
            ("llm-as-judge", ["Fine", ".", " [[", ["A"], "]]."], 0.75),
            ("llm-as-judge", ["[[", "C", "]]"], None),
            ("unified-reward", ["Answer", " ", ["2"], " is", " better"], 0.25),
            ("unified-reward", ["Answer", [" 1"], " is", " better", " than", " Answer", " ", "2"], 0.75),
            ("unified-reward-think", ["</think>", "<answer>", "Answer", " ", ["1"], " is better", "</answer>"], 0.75),
            ("vl-rewardbench", ["Overall Judgment", ": Answer", [" 1"], " is better"], 0.75),
            ("boxed", ["\\boxed", "{", ["2"], "}"], 0.25),
            ("boxed", [["\\boxed{1}"]], 0.75),
            ("json", ['{"better_response":', ' "', ["B"], '"}'], 0.25),
            ("json", ['{"better_response":', [' "A"'], "}"], 0.75),
            ("json", ['{"x":', ' "', ["B"], '"}'], None),
            ("boxed", ["\\boxed{", ["1"], "} or \\boxed{", ["2"], "}"], None),
            ("rm-r1", ["<think>", "[[", ["A"], "]]"], None),
            ("pointwise", ["Score: ", ["1"]], None),
            ("r1-reward", [], None),
            ("rm-r1", ["[[", "A", "]]"], None),
        ],
    )
    def test_it_is_that_of_the_verdicts_character(self, name, tokens, probability):
        found = answer_probability(places(*tokens), find_dialect(name))
        assert found == (None if probability is None else pytest.approx(probability))

    def test_it_reaches_the_vote(self, server):
        top = [{"token": "B", "logprob": math.log(0.8)}, {"token": "A", "logprob": math.log(0.2)}]
        content = [{"token": "[[", "logprob": 0.0}, {**top[0], "top_logprobs": top}, {"token": "]]", "logprob": 0.0}]
        server.default = [reply("[[B]]", logprobs={"content": content})]
        model = RewardModel.from_server(server.url, "judge", dialect="llm-as-judge")
        verdict = model.compare("Which?", [], "one", "two", both_orders=False)
        (vote,) = verdict.votes
        assert vote.answer == (1 if vote.swapped else 2)
        assert vote.probability == pytest.approx(0.8 if vote.swapped else 0.2)


class TestInProcess:
    """With the tiny model and its tokenizer."""

    @pytest.mark.parametrize("name", PAIRWISE)
    def test_the_token_that_decides_is_found(self, tiny, name):
        model, processor = tiny
        spoken = find_dialect(name)
        engine = TransformersEngine(model, processor, dialect=spoken)
        tokenizer = processor.tokenizer
        for number in (0, 1):
            text = f"<think>1 2 A B</think>\n{spoken.form.format(spoken.verdicts[number])}"
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
            if engine._verdicts is None or tokenizer.decode(tokens) != text:
                pytest.skip("this tokenizer has no token of its own for the verdicts")
            at = spoken.position(tokens, engine._verdicts, tokenizer.decode, text)
            assert tokens[at] == engine._verdicts[number]

    @pytest.mark.parametrize("name", dialect_names())
    def test_it_is_asked_in_its_words(self, tiny, name):
        model, processor = tiny
        engine = comparing(TransformersEngine(model, processor, dialect=find_dialect(name)))
        picture = Image.new("RGB", (28, 28))
        request = engine.compare("Which <|im_end|>?", [picture], "one [[A]]", "two", max_new_tokens=4)
        with engine.open() as session:
            session.submit("ticket", request)
            ((ticket, [completion]),) = session.collect()
        assert ticket == "ticket"
        assert read_judgment(completion, swapped=False, dialect=engine.dialect).answer is None


def test_tokens_of_the_verdict_are_looked_for_from_the_end():
    spoken = find_dialect("unified-reward")
    words = ["Answer ", "1", " is better", " than Answer ", "2"]
    at = spoken.position(range(5), (1, 4), lambda tokens: "".join(words[token] for token in tokens), "".join(words))
    assert at == 1


class TestTranslation:
    """Answers and probabilities in the stored order."""

    @pytest.mark.parametrize(
        ("name", "text", "answers"),
        [
            ("rm-r1", "[[A]]", (1, 2)),
            ("unified-reward", "Answer 2 is better", (2, 1)),
            ("llm-as-judge", "[[C]]", (0, 0)),
            ("boxed", "none", (None, None)),
            ("pointwise", "<think>a</think>\nScore of response 1: 3\nScore of response 2: 2", (1, 2)),
        ],
    )
    def test_both_orders(self, name, text, answers):
        completion = Completion(text=text, tokens=1, probability=0.9)
        votes = [read_judgment(completion, swapped=swapped, dialect=find_dialect(name)) for swapped in (False, True)]
        assert tuple(vote.answer for vote in votes) == answers
        assert [vote.probability is None for vote in votes] == [answers[0] is None] * 2

    def test_a_refused_or_cut_judgment_is_not_a_vote(self):
        for how in ({"refused": True}, {"truncated": True}):
            completion = Completion(text="Answer 1 is better", tokens=1, **how)
            assert read_judgment(completion, swapped=False, dialect=find_dialect("unified-reward")).answer is None


def scores_by_text(server, scores):
    """Let a server score responses by their content; others get a text without a score."""

    def answer(body):
        text = body["messages"][-1]["content"]
        text = text if isinstance(text, str) else text[-1]["text"]
        return reply(next((f"Score: {score}" for word, score in scores.items() if word in text), "Hm."))

    server.default = [answer]


class TestPointwise:
    """Judges that see one response at a time."""

    @pytest.fixture
    def model(self, server):
        return RewardModel.from_server(server.url, "llava-critic-7b")

    @pytest.mark.parametrize(
        ("scores", "preferred", "tie"),
        [
            ({"one": 80, "two": 20}, 1, False),
            ({"one": 20, "two": 80}, 2, False),
            ({"one": 50, "two": 50}, None, True),
            ({"one": 50}, None, False),
            ({}, None, False),
        ],
    )
    def test_the_higher_score_wins_and_equal_ones_tie(self, server, model, scores, preferred, tie):
        scores_by_text(server, scores)
        verdict = model.compare("Which?", [], "one", "two")
        assert (verdict.preferred, verdict.says_tie) == (preferred, tie)
        assert len(verdict.votes) == 2
        assert verdict.unreadable == (2 if preferred is None and not tie else 0)

    def test_each_response_is_shown_alone_and_once(self, server, model):
        scores_by_text(server, {"one": 80, "two": 20, "three": 50})
        assert list(model.rank("Which?", [], ["one", "two", "three"]).order) == [0, 2, 1]
        asked = [body["messages"][-1]["content"] for body in server.bodies]
        assert sorted(next(word for word in ("three", "one", "two") if word in text) for text in asked) == [
            "one", "three", "two"
        ]  # fmt: skip

    def test_sampled_scores_are_sampled_again_for_every_vote(self, server, model):
        scores_by_text(server, {"one": 80, "two": 20})
        verdict = model.compare("Which?", [], "one", "two", votes=3)
        assert (verdict.for_1, len(server.bodies)) == (6, 12)

    def test_a_pair_with_a_failed_score_has_no_verdict_and_the_others_do(self, server, model):
        def answer(body):
            text = body["messages"][-1]["content"]
            return status(400, "no")() if "bad" in text else reply("Score: 10" if "one" in text else "Score: 5")

        server.default = [answer]
        pairs = [PairToJudge("Which?", [], "one", "bad"), PairToJudge("Which?", [], "one", "two")]
        failed, judged = model.compare_many(pairs)
        assert isinstance(failed, EngineError)
        assert judged.preferred == 1

    def test_both_judgments_are_kept_and_neither_ends_the_thought(self, server, model):
        server.default = [reply("</think> [Response 2]: <answer>1</answer>\nScore: 70")]
        (vote, _) = model.compare("Which?", [], "one", "two").votes
        assert vote.answer == 0
        assert vote.text.count("</think>") == 1
        assert vote.tokens == 14

    def test_threads_take_turns_if_the_underlying_engine_needs_it(self, tiny):
        engine = TakingTurns(PointwiseEngine(TransformersEngine(*tiny, dialect=find_dialect("pointwise"))))
        with engine.open() as session:
            assert type(session).__name__ == "_Turn"
            session.submit(1, engine.compare("Which?", [], "one", "two", max_new_tokens=2))
            ((ticket, [completion]),) = session.collect()
        assert (ticket, engine.dialect.name) == (1, "pointwise")
        assert completion.text.endswith("Score of response 1: none\nScore of response 2: none")


class TestChoice:
    """Which dialect an engine has."""

    def test_by_the_name_of_a_served_model_or_as_asked(self):
        url = "http://localhost:1/v1"
        assert RewardModel.from_server(url, "gaotang/RM-R1-Qwen2.5-Instruct-7B").engine.dialect.name == "rm-r1"
        assert RewardModel.from_server(url, "some-judge").engine.dialect.name == "r1-reward"
        assert RewardModel.from_server(url, "some-judge", dialect="boxed").engine.dialect.name == "boxed"
        assert isinstance(RewardModel.from_server(url, "llava-critic-7b").engine, PointwiseEngine)
        with pytest.raises(UserError, match="did you mean boxed"):
            RewardModel.from_server(url, "some-judge", dialect="boxd")

    def test_of_a_checkpoint(self, checkpoint):
        assert RewardModel.from_pretrained(checkpoint).engine.dialect.name == "r1-reward"
        assert EngineSpec(str(checkpoint), dialect="rm-r1").load().dialect.name == "rm-r1"
        model = RewardModel.from_pretrained(checkpoint, dialect="pointwise", dtype="float32")
        assert isinstance(model.engine, PointwiseEngine)
        assert model.shared().engine.dialect.name == "pointwise"

    def test_a_scalar_model_writes_no_verdict(self):
        assert Scoring().dialect.name == "r1-reward"

    def test_engines_keep_their_own(self, server):
        one, two = (ServerEngine("judge", server.url, dialect=find_dialect(name)) for name in ("rm-r1", "json"))
        assert (one.dialect.name, two.dialect.name, ServerEngine.dialect.name) == ("rm-r1", "json", "r1-reward")
