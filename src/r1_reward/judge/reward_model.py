"""The reward model as one object: compare two answers, score one, rank N.

    model = RewardModel.from_pretrained("yifanzhang114/R1-Reward")
    verdict = model.compare("Which digit is top left?", ["scene.png"], "A three.", "An eight.", votes=5)
    verdict.preferred, verdict.probability, verdict.votes[0].text
    model.rank("Which digit is top left?", ["scene.png"], answers, budget=200).order

It runs a checkpoint in this process or asks a server (``from_server``), and supports scalar reward models as well.

A verdict depends only on the question, the pictures, the responses, the options and the model's ``seed``, so the same
question gets the same verdict every time; use another seed for another draw. An unreadable judgment is not a vote and
gives no reward: the result is None.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, get_args

from r1_reward.engines.engine import Engine, EngineError, TakingTurns
from r1_reward.engines.options import TRANSFORMERS, VLLM, EngineName, require_one_place
from r1_reward.engines.pointwise import comparing
from r1_reward.judge import ranking, voting
from r1_reward.judge.calibration import Calibration, fit_calibration, reliability_plot
from r1_reward.judge.candidates import Asked, Candidates
from r1_reward.judge.comparisons import Comparison
from r1_reward.judge.groups import Group, RewardKind, score_groups
from r1_reward.judge.prepare import Images, InvalidPair, PairToJudge, check_content, fill, prepare, prepare_all
from r1_reward.judge.ranking import Ranking
from r1_reward.judge.settings import ScheduleName, Stop, VoteSettings
from r1_reward.judge.votes import Orders, Plan, draw_votes, watch_votes
from r1_reward.judge.voting import Verdict, majority
from r1_reward.records.content import Content
from r1_reward.records.dialects import AUTO
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.model_names import chosen_dialect
from r1_reward.store.video import FRAMES

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LOG = logging.getLogger(__name__)
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_PLOTS = (".png", ".svg", ".pdf")


class VoteOptions(TypedDict, total=False):
    """How the votes of each comparison are drawn; see :meth:`RewardModel.compare`."""

    votes: int
    both_orders: bool
    temperature: float | None
    stop: Stop | None


class Best(NamedTuple):
    """The winner of a knockout."""

    index: int  # type: ignore[assignment]
    """The index of the winning response, from 0."""
    comparisons: tuple[Comparison, ...]
    """All comparisons, by index of the responses."""


class CalibratedVerdict(Verdict):
    """A verdict with a calibrated probability.

    Only probabilities from tokens are calibrated; one estimated from vote counts stays the same. The preferred response
    never changes.
    """

    calibration: Calibration

    @property
    def probability(self) -> float | None:
        """Probability that response 1 is better, in [0, 1]; None if no vote is readable."""
        raw = super().probability
        return self.calibration.apply(raw) if raw is not None and _from_tokens(self) else raw


class RewardModel:
    """A judge of answers about images: compare two, score one against others, rank many."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int = 1024,
        calibration: Calibration | None = None,
        seed: int = 0,
        video_frames: int | None = None,
    ) -> None:
        """Take an engine; ``max_new_tokens`` limits one judgment, ``seed`` decides orders and sampling.

        A video is shown as up to ``video_frames`` frames; None is the number the checkpoint was trained with, else 8.
        """
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens: must be 1 or more, not {max_new_tokens}.")
        if video_frames is not None and video_frames < 1:
            raise UserError(f"video_frames: must be 1 or more, not {video_frames}.")
        from r1_reward.models.checkpoint import video_frames_of

        self.video_frames = video_frames or video_frames_of(getattr(engine, "processor", None)) or FRAMES
        self.engine, self.max_new_tokens, self.calibration, self.seed = engine, max_new_tokens, calibration, seed

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        batch_size: int = 64,
        max_pixels: int | None = None,
        dtype: str = "auto",
        max_new_tokens: int = 1024,
        seed: int = 0,
        video_frames: int | None = None,
        dialect: str = AUTO,
        engine: EngineName = TRANSFORMERS,
        engine_args: Mapping[str, Any] | None = None,
    ) -> RewardModel:
        """Load a checkpoint, generative or scalar, from a folder or the Hub, and its ``calibration.json`` if any.

        ``batch_size`` counts sequences generated at once, ``max_pixels`` scales larger pictures down, ``dtype`` is
        ``auto`` (the checkpoint's), ``float32``, ``bfloat16`` or ``float16``. A video is shown as up to
        ``video_frames`` frames, by default as many as in training, or 8 if it had no videos. ``dialect`` names the
        judge's prompt and verdict format, by default the one for its name or model card (docs/dialects.md), else
        R1-Reward's. ``engine`` is ``transformers`` or ``vllm`` (pip install 'r1-reward[vllm]'), which accepts its own
        ``engine_args``, such as ``{"gpu_memory_utilization": 0.5}``.

        Raises:
            UserError: the checkpoint or its calibration cannot be read, the engine is not installed or cannot start,
                or an option is out of range.
        """
        name = str(path_or_hub_id)
        loaded = _load(name, batch_size, max_pixels, dtype, dialect, engine, engine_args or {})
        calibration = Calibration.load(name)
        return cls(loaded, max_new_tokens=max_new_tokens, calibration=calibration, seed=seed, video_frames=video_frames)

    def shared(self) -> RewardModel:
        """Return the same model for use by several threads, which take turns."""
        engine = self.engine if isinstance(self.engine, TakingTurns) else TakingTurns(self.engine)
        return RewardModel(
            engine,
            max_new_tokens=self.max_new_tokens,
            calibration=self.calibration,
            seed=self.seed,
            video_frames=self.video_frames,
        )

    @classmethod
    def from_server(
        cls,
        base_url: str | Sequence[str],
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
        batch_votes: bool = False,
        timeout: float = 120.0,
        max_new_tokens: int = 1024,
        seed: int = 0,
        video_frames: int | None = None,
        dialect: str = AUTO,
    ) -> RewardModel:
        """Judge with a model behind one or several OpenAI-compatible servers; see ``ServerEngine``.

        ``concurrency`` is the number of concurrent requests to each server, by default as many as it answers in time.
        ``batch_votes`` asks for all votes on a pair in one order together, which vLLM answers about twice as fast;
        they are drawn from the seed of the first and differ from votes drawn one by one.

        ``dialect`` is as in :meth:`from_pretrained`, but only the model's name on the server is known.
        """
        from r1_reward.engines.server import ServerEngine

        if not base_url:
            raise UserError("base_url: pass the URL of at least one server, such as http://localhost:8000/v1.")
        options: dict[str, Any] = {"api_key": api_key, "timeout": timeout}
        options |= {"concurrency": concurrency, "batch_votes": batch_votes}
        spoken = chosen_dialect(dialect, model, served=True)
        engine = comparing(ServerEngine(model, base_url, **options, dialect=spoken))
        return cls(engine, max_new_tokens=max_new_tokens, seed=seed, video_frames=video_frames)

    def compare(
        self,
        question: Content,
        images: Images,
        a: Content,
        b: Content,
        criteria: str | None = None,
        *,
        votes: int = 1,
        both_orders: bool = True,
        temperature: float | None = None,
        stop: Stop | None = None,
    ) -> Verdict:
        """Return which of two responses is better, with every vote.

        Args:
            question: The question about the pictures; like each response, text or a list of parts: texts, pictures and
                videos in their order (:mod:`r1_reward.records.content`).
            images: Paths, bytes of picture files, PIL images or a :class:`Video`; may be empty. They are shown before
                the question, or where the contents have places for pictures (``{"type": "image"}``).
            a: Response 1.
            b: Response 2. Comparing b with a gives the same verdict, swapped.
            criteria: What to judge by; the prompt has it after the question.
            votes: Votes for each order shown. A scalar model has one vote and ignores the order.
            both_orders: Show each response first equally often, with ``2 * votes`` votes in total; if False, show each
                pair only in one order, drawn from its content.
            temperature: The sampling temperature; None is 0 for one vote and 1 for several.
            stop: Skip votes that cannot change which response is preferred (``exact``), or that rarely would
                (``sequential``): in at most 5 % of cases in one order, for any votes; with two alternating orders,
                which are not a random order, in at most 6.4 % with up to 10 votes each, computed over all cases.
                Counts and probability are then those of the votes drawn.

        Raises:
            UserError: an option, a text or a picture cannot be used.
            EngineError: the engine could not answer.
        """
        item = PairToJudge(question, images, a, b, criteria)
        (result,) = self.compare_many([item], votes=votes, both_orders=both_orders, temperature=temperature, stop=stop)
        return _verdict_or_raise(result)

    def compare_many(
        self,
        items: Iterable[PairToJudge | Mapping[str, Any]],
        *,
        votes: int = 1,
        both_orders: bool = True,
        temperature: float | None = None,
        stop: Stop | None = None,
    ) -> Iterator[Verdict | EngineError]:
        """Yield the verdict on each pair, or row of a pair file, in order; options as for :meth:`compare`.

        Items are taken a few batches ahead. An item that cannot be judged yields an error in its place: an
        :class:`~r1_reward.judge.prepare.InvalidPair` if the item itself is at fault.

        Raises:
            UserError: an option is out of range; later, nothing can be judged at all (no server, out of memory).
        """
        plan = self._plan(votes, both_orders, temperature, stop)
        return (drawn if isinstance(drawn, EngineError) else self._verdict(drawn) for drawn in self._votes(items, plan))

    def watch(
        self,
        question: Content,
        images: Images,
        a: Content,
        b: Content,
        criteria: str | None = None,
        *,
        votes: int = 1,
        both_orders: bool = True,
        temperature: float | None = None,
    ) -> Iterator[Verdict]:
        """Yield the verdict after each vote; the last is the result of :meth:`compare`, with the same errors."""
        plan = self._plan(votes, both_orders, temperature)
        pair = prepare(PairToJudge(question, images, a, b, criteria), video_frames=self.video_frames)
        return (self._verdict(votes_so_far) for votes_so_far in watch_votes(self.engine, pair, plan))

    def score(
        self,
        question: Content,
        images: Images,
        response: Content,
        *,
        against: Sequence[Content],
        criteria: str | None = None,
        **options: Unpack[VoteOptions],
    ) -> float | None:
        """Return the mean probability, in [0, 1], that a response is better than those it is compared ``against``.

        One that looks the same counts as one half without being judged; one that is given twice is judged once and
        counts twice. Unreadable comparisons are left out; None if all of them are. Criteria, options and errors as for
        :meth:`compare`.
        """
        frames = self.video_frames
        if isinstance(against, Sequence) and not isinstance(against, str):
            contents = {f"against[{number}]": other for number, other in enumerate(against)}
            contents = {"question": question, "response": response, **contents}
            (question, response, *against), images = fill(contents, images)
        shown = check_content(response, "response", video_frames=frames)
        others = Candidates.of(against, "against", video_frames=frames)
        everybody = [shown, *(others.different[place] for place in others.places)]
        asked = Asked.of(question, images, everybody, criteria, video_frames=frames)
        places = asked.candidates.places
        opponents = range(1, len(asked.candidates.different))
        answers = self._comparer(asked, options)([(0, i) for i in opponents])
        won: dict[int, float | None] = {0: 0.5, **dict(zip(opponents, answers, strict=True))}
        known = [p for place in places[1:] if (p := won[place]) is not None]
        return sum(known) / len(known) if known else None

    def rank(
        self,
        question: Content,
        images: Images,
        responses: Sequence[Content],
        *,
        budget: int | None = None,
        criteria: str | None = None,
        **options: Unpack[VoteOptions],
    ) -> Ranking:
        """Return the order and Bradley-Terry scores of responses, with at most ``budget`` comparisons.

        Without a budget, up to 8 responses are all compared with each other, more by a schedule; see
        :func:`r1_reward.judge.ranking.rank`. Who meets whom is drawn from the content and the model's ``seed``. Equal
        texts are judged once and share their score. Unreadable comparisons are left out of the scores and have the
        probability None. Criteria, options and errors as for :meth:`compare`.
        """
        asked = Asked.of(question, images, responses, criteria, video_frames=self.video_frames)
        compare, count = self._comparer(asked, options), len(asked.candidates.different)
        seed, names = asked.drawn(self.seed)
        return asked.candidates.spread(ranking.rank(count, compare, budget=budget, seed=seed, names=names))

    def best_of_n(
        self,
        question: Content,
        images: Images,
        responses: Sequence[Content],
        *,
        criteria: str | None = None,
        **options: Unpack[VoteOptions],
    ) -> Best:
        """Return the winner of a knockout, with about one comparison per response.

        The draw is as in :meth:`rank`. Equal texts are judged once; the first one represents them. Criteria, options
        and errors as for :meth:`compare`.
        """
        asked = Asked.of(question, images, responses, criteria, video_frames=self.video_frames)
        candidates, compare = asked.candidates, self._comparer(asked, options)
        seed, names = asked.drawn(self.seed)
        index, comparisons = ranking.best_of_n(len(candidates.different), compare, seed=seed, names=names)
        return Best(candidates.places.index(index), candidates.among_all(comparisons))

    def rewards(
        self,
        question: Content,
        images: Images,
        responses: Sequence[Content],
        *,
        kind: RewardKind = "win_rate",
        criteria: str | None = None,
        schedule: ScheduleName = "round-robin",
        comparisons: int | None = None,
        **options: Unpack[VoteOptions],
    ) -> list[float | None]:
        """Return one reward for each response, None if no comparison with it could be read.

        ``win_rate`` compares all N (N - 1) / 2 pairs of different texts and gives the mean of 2 P(win) - 1 over the
        others, in [-1, 1]; ``bradley_terry`` gives scores in logits with mean 0, unbounded, from the same comparisons.
        Another ``schedule`` takes fewer: ``circular`` N, ``bracket`` N - 1, ``adaptive`` at most ``comparisons``
        (default 2 N); the scores then predict the missing comparisons. Equal texts share their reward, which is 0 if
        there is no other text; a single response has none. See :mod:`r1_reward.judge.groups`. Criteria, options and
        errors as for :meth:`compare`.
        """
        self._plan(**options)

        def compare(pairs: Iterable[PairToJudge]) -> Iterator[Verdict | EngineError]:
            return self.compare_many(pairs, **options)

        group = Group(question, images, responses, criteria)
        (scored,) = score_groups(
            [group],
            compare,
            kind=kind,
            schedule=schedule,
            comparisons=comparisons,
            seed=self.seed,
            video_frames=self.video_frames,
        )
        if isinstance(scored, EngineError):
            raise _cause(scored)
        if scored.errors:
            raise _cause(scored.errors[0])
        return scored.rewards

    def calibrate(
        self, pairs: Iterable[Mapping[str, Any]], *, plot: Path | None = None, save_to: Path | None = None
    ) -> Calibration:
        """Fit a calibration on rows of a pair file and use it from now on.

        Each pair is judged greedily once in both orders; the probability is the mean over the two votes. Pairs without
        a readable vote, or without token probabilities, are left out and counted in a warning.

        Args:
            pairs: The result of :func:`r1_reward.store.pairs.load_pairs`, without the model's training data.
            plot: File for the reliability diagram (.png, .svg or .pdf).
            save_to: Folder for ``calibration.json``: the checkpoint's, so that ``from_pretrained`` finds it.

        Raises:
            UserError: too few pairs are left, or all of them have the same label, or the same outcome.
            EngineError: a pair could not be judged.
        """
        if plot is not None and Path(plot).suffix.lower() not in _PLOTS:
            raise UserError(f"{plot}: a plot's name must end in {', '.join(_PLOTS)}.")
        probabilities, labels, left_out = self._labelled(pairs)
        if left_out:
            total = len(labels) + left_out
            _LOG.warning("%d of %d pairs left out: no readable vote, or no token probability.", left_out, total)
        if left_out and not labels:
            raise UserError("nothing to calibrate: no pair has a readable vote with a token probability.")
        calibration = fit_calibration(probabilities, labels)
        if calibration.at_bound:
            _LOG.warning("the temperature %.3g is at the end of its range: too few pairs?", calibration.temperature)
        if save_to is not None:
            calibration.save(Path(save_to))
        if plot is not None:
            Path(plot).parent.mkdir(parents=True, exist_ok=True)
            reliability_plot(probabilities, labels, calibration).savefig(plot)
        self.calibration = calibration
        return calibration

    def _labelled(self, pairs: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[bool], int]:
        """Return uncalibrated probabilities, whether response 1 is preferred, and how many pairs were left out."""
        waiting: list[bool] = []

        def rows() -> Iterator[Mapping[str, Any]]:
            for row in pairs:
                if row.get("preferred") not in (1, 2):
                    raise UserError(f"pair {len(waiting) + 1}: preferred: must be 1 or 2.")
                waiting.append(row["preferred"] == 1)
                yield row

        probabilities, labels, left_out = [], [], 0
        for number, drawn in enumerate(self._votes(rows(), self._plan())):
            if isinstance(drawn, EngineError):
                raise EngineError(f"pair {number + 1}: {drawn}") from drawn
            verdict = majority(drawn)
            if verdict.probability is None or not _from_tokens(verdict):
                left_out += 1
                continue
            probabilities.append(verdict.probability)
            labels.append(waiting[number])
        return probabilities, labels, left_out

    def _comparer(self, asked: Asked, options: VoteOptions) -> ranking.CompareBatch:
        """Return a function that compares responses by their indices."""
        self._plan(**options)
        different = asked.candidates.different

        def compare(pairs: Sequence[tuple[int, int]]) -> list[float | None]:
            items = [PairToJudge(asked.question, asked.images, different[i], different[j]) for i, j in pairs]
            return [_verdict_or_raise(result).probability for result in self.compare_many(items, **options)]

        return compare

    def _plan(
        self,
        votes: int = 1,
        both_orders: bool = True,
        temperature: float | None = None,
        stop: Stop | None = None,
    ) -> Plan:
        """Check the options and return the plan, with defaults that depend on other options."""
        VoteSettings(votes=votes, both_orders=both_orders, temperature=temperature, stop=stop)
        if votes > 1 and self.engine.deterministic:
            raise UserError(f"votes: a scalar reward model gives the same vote {votes} times; draw a single vote.")
        if temperature is None:
            temperature = 0.0 if votes == 1 else 1.0
        stopping: voting.Stopping | None = None
        if stop == "sequential":
            stopping = voting.SequentialStopping(votes * (2 if both_orders else 1))
        elif stop == "exact":
            stopping = voting.ExactStopping()
        if self.engine.deterministic:  # one vote is enough
            return Plan(1, "stored", 0.0, None, self.max_new_tokens, self.seed)
        orders: Orders = "both" if both_orders else "one"
        return Plan(votes, orders, temperature, stopping, self.max_new_tokens, self.seed)

    def _votes(
        self, items: Iterable[PairToJudge | Mapping[str, Any]], plan: Plan
    ) -> Iterator[list[Judgment] | EngineError]:
        return draw_votes(self.engine, prepare_all(items, video_frames=self.video_frames), plan)

    def _verdict(self, votes: Sequence[Judgment]) -> Verdict:
        verdict = majority(votes)
        if self.calibration is None:
            return verdict
        calibrated = CalibratedVerdict(*verdict)
        calibrated.calibration = self.calibration
        return calibrated


def _load(
    name: str,
    batch_size: int,
    max_pixels: int | None,
    dtype: str,
    dialect: str,
    engine: EngineName,
    engine_args: Mapping[str, Any],
) -> Any:
    from r1_reward.engines.workers import EngineSpec

    if batch_size < 1:
        raise UserError(f"batch_size: must be 1 or more, not {batch_size}.")
    if dtype not in _DTYPES:
        raise UserError(f"dtype: must be one of {', '.join(_DTYPES)}, not {dtype!r}.")
    if engine not in (names := get_args(EngineName)):
        raise UserError(f"engine: must be one of {', '.join(names)}, not {engine!r}.")
    require_one_place(engine, None, engine_args=engine_args)
    if engine == VLLM:
        from r1_reward.engines.vllm import VllmEngine

        options: dict[str, Any] = {"batch_size": batch_size, "max_pixels": max_pixels, "dtype": dtype}
        return comparing(VllmEngine(name, dialect=chosen_dialect(dialect, name), engine_args=engine_args, **options))
    if dtype == "auto":
        return EngineSpec(name, batch_size, max_pixels, dialect=dialect).load()
    from r1_reward.engines.in_process import TransformersEngine
    from r1_reward.models.checkpoint import limit_pixels
    from r1_reward.models.placing import placed
    from r1_reward.models.scalar import is_scalar
    from r1_reward.models.text_only import load_judge

    if is_scalar(name):
        raise UserError(f"dtype: {name} is a scalar reward model, which runs in the dtype it was trained in (auto).")
    model, processor = placed(lambda: load_judge(name, dtype=dtype))
    if max_pixels is not None:
        limit_pixels(processor, max_pixels)
    spoken = chosen_dialect(dialect, name)
    return comparing(TransformersEngine(model, processor, batch_size=batch_size, dialect=spoken))


def _verdict_or_raise(result: Verdict | EngineError) -> Verdict:
    if isinstance(result, EngineError):
        raise _cause(result)
    return result


def _cause(error: EngineError) -> BaseException:
    """Return the exception to raise for an error: the pair's own error if the pair is at fault."""
    return error.__cause__ if isinstance(error, InvalidPair) and error.__cause__ is not None else error


def _from_tokens(verdict: Verdict) -> bool:
    """Return whether the probability of a verdict comes from token probabilities, not from counts."""
    readable = [vote for vote in verdict.votes if vote.answer is not None]
    return bool(readable) and all(vote.probability is not None for vote in readable)
