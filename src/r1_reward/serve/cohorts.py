"""Judge the samples of one prompt together although they arrive one by one, for trainers that send single samples.

    cohorts = Cohorts(settings, metrics, state, judge)
    prompt = Prompt(question, images, {"votes": 1, "schedule": "circular"})
    await cohorts.rewards("step 7, prompt 3", 8, prompt, [Sample.of("rollout 0", response)])   # waits for the other 7

All requests of a group must name the same group, size, prompt and options, whatever route they use. The group is judged
when its last sample arrives. Waiting requests do not count against ``max_queue``, so their siblings get in, and the
judging has the full ``timeout``, however long the requests waited.

- A group that is incomplete ``group_wait`` seconds after its first sample is dropped unjudged; its requests get 503.
- A sample sent again under its id gets the group's answer, even after the group is done: for half an hour, of the
  latest groups. With different content it is refused (409).
- A request with another prompt, other options or another size under the same group id, or with a surplus sample, gets
  409, and the existing group is unchanged.
- If the judge fails, the whole group gets the error; if all samples have ids, sending one again has the group judged
  again.
- A sample that is too long for the server or the judge, or without a readable comparison, gets a reason in place of a
  reward; the others are judged.
- If a client disconnects, its sample stays if it has an id, so that its answer can be fetched later, and is removed
  otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from r1_reward.judge.prepare import OpenedImages, check_group
from r1_reward.records.content import Shown, key_of, pictures_of
from r1_reward.records.errors import UserError
from r1_reward.serve.budget import Clock
from r1_reward.serve.errors import Refusal
from r1_reward.serve.judge_client import Scored
from r1_reward.serve.metrics import Metrics, State, Waits
from r1_reward.serve.settings import ServerSettings

_LOG = logging.getLogger(__name__)
KEPT_SECONDS, KEPT_SAMPLES = 1800.0, 65_536
"""How long, and for how many samples at most, answers are kept for repeated requests."""


class Prompt(NamedTuple):
    """What the samples of a group share."""

    question: Shown
    images: OpenedImages
    options: Mapping[str, Any]
    """How they are judged; see :func:`r1_reward.serve.grouping.score_each`."""
    criteria: str | None = None
    """The criteria of the judgment, if the request states any."""

    def fingerprint(self, size: int) -> dict[str, Any]:
        """Return what all requests of the group must have in common, by field name."""
        shared = {"question": _digest(self.question), "images": self.images.digest}
        return {**shared, **self.options, "criteria": self.criteria, "group_size": size}


class Sample(NamedTuple):
    """One response of a group."""

    id: Hashable
    """Identifies the sample if it is sent again."""
    named: bool
    """Whether the client gave that id."""
    response: Shown | None
    """None once it is judged, or if it cannot be shown."""
    digest: str
    why: str | None = None
    """Why it cannot be shown."""

    @classmethod
    def of(cls, id: str | None, response: Shown, why: str | None = None) -> Self:
        """Return a sample, with the client's id if there is one; ``why`` says why it cannot be shown."""
        own = object() if id is None else id
        return cls(own, id is not None, None if why else response, _digest(response), why)


class JudgingFailed(Refusal):
    """The judge failed on a complete group; all its samples get this error."""


Judge: TypeAlias = Callable[[Prompt, list[Shown]], Awaitable[list[Scored]]]
"""Maps responses, which may be equal, to what each has earned; raises Refusal if the judge fails."""
Gone: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when the client has disconnected."""


class _Group:
    """The samples of one prompt, from the first to arrive until the answer is forgotten."""

    def __init__(self, name: str, shared: dict[str, Any], size: int, *, attempt: int, replay: bool) -> None:
        self.name, self.shared, self.size, self.attempt, self.replay = name, shared, size, attempt, replay
        self.samples: dict[Hashable, Sample] = {}
        self.stage: Literal["waiting", "judging", "done", "failed"] = "waiting"
        self.answer: asyncio.Future[dict[Hashable, Scored] | Refusal] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class Cohorts:
    """The groups of one server; everything runs in the event loop."""

    def __init__(
        self, settings: ServerSettings, metrics: Metrics, state: State, judge: Judge, clock: Clock = time.monotonic
    ) -> None:
        self._settings, self._metrics, self._state, self._judge, self._clock = settings, metrics, state, judge, clock
        self._groups: dict[str, _Group] = {}
        self._done: deque[tuple[float, _Group]] = deque()
        self._kept = 0
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.groups_waiting.set_function(self.__len__)
        metrics.waiting.set_function(lambda: state.waiting)

    def __len__(self) -> int:
        """Return how many groups are waiting for samples."""
        return sum(group.stage == "waiting" for group in list(self._groups.values()))

    async def rewards(
        self,
        name: str,
        size: int,
        prompt: Prompt,
        samples: Sequence[Sample],
        *,
        gone: Gone | None = None,
        attempt: int = 0,
        replay: bool = True,
        waits: Waits | None = None,
    ) -> list[Scored]:
        """Return what some samples of a group have earned, once the whole group has arrived and is judged.

        Args:
            name: The id of the group.
            size: How many samples the group has.
            prompt: What they answer, with its pictures open.
            samples: The samples of this request; their ids differ.
            gone: Returns when the client has disconnected.
            attempt: A later attempt replaces the group of that id; its waiting samples get 503.
            replay: Whether to keep the answers. Otherwise the id is free again once the group is judged.
            waits: The waits of a request that waits for several groups.

        Raises:
            Refusal: the samples do not fit the group, its responses show too many pixels, it stayed incomplete, or its
                judge failed.
        """
        if self._state.closing:
            raise _closing()
        _require_pictures(prompt)
        self._forget_old()
        shared = prompt.fingerprint(size)
        group = self._current(name, attempt)
        if group is None:
            _require_room(name, size, 0, len(samples))
            self._require_few_pixels(name, samples)
            self._require_place()
            group = self._groups[name] = _Group(name, shared, size, attempt=attempt, replay=replay)
            self._limit(group, self._expire)
        else:
            _require_same(group, shared)
            _require_known(group, samples)
            self._require_few_pixels(name, ({one.id: one for one in samples} | group.samples).values())
        group.samples |= {sample.id: sample for sample in samples if sample.id not in group.samples}
        if group.stage == "failed" or (group.stage == "waiting" and len(group.samples) == size):
            self._begin(group, prompt)
        del prompt  # a waiting request must not hold pictures
        answer = await self._wait(group, samples, gone, waits or Waits(self._state))
        if isinstance(answer, Refusal):  # a copy, since several requests raise it
            raise type(answer)(answer.status, answer.message, answer.field, answer.headers)
        return [answer[sample.id] for sample in samples]

    def close(self) -> None:
        """Refuse all requests that wait for siblings: no more will be accepted."""
        for group in list(self._groups.values()):
            if group.stage == "waiting":
                self._give_up(group, _closing())

    def _require_place(self) -> None:
        """Refuse a new group if too many requests are waiting; siblings of waiting requests always get in."""
        waiting = self._state.waiting
        if waiting >= self._settings.max_waiting:
            full = f"{waiting} requests are waiting for their groups, the limit for a new group (--max-waiting)"
            raise Refusal(429, f"{full}; try again later", headers={"Retry-After": "1"})

    def _require_few_pixels(self, name: str, samples: Iterable[Sample]) -> None:
        """Refuse a group whose responses have more pixels than one request may; they stay in memory while it waits."""
        shown = pictures_of(*(one.response for one in samples if one.response is not None))
        pixels, most = sum(picture.width * picture.height for picture in shown), self._settings.max_pixels
        if pixels > most:
            held = f"{pixels:,} pixels in all responses of the group {_short(name)}"
            raise Refusal(422, f"{held}; this server takes at most {most:,} (--max-pixels)", "responses")

    def _current(self, name: str, attempt: int) -> _Group | None:
        """Return the group of that name, or None if a new one starts.

        Raises:
            Refusal: a later attempt has started.
        """
        group = self._groups.get(name)
        if group is None or group.attempt == attempt:
            return group
        if group.attempt > attempt:
            later = f"attempt {attempt} of the group {_short(name)} was replaced by attempt {group.attempt}"
            raise Refusal(409, later, "group")
        replaced = f"attempt {group.attempt} of the group {_short(name)} was replaced by attempt {attempt}"
        if group.stage == "waiting":
            self._give_up(group, Refusal(503, f"{replaced}; nothing was judged", "group"))
        else:
            self._drop(group)
        return None

    async def _wait(
        self, group: _Group, samples: Sequence[Sample], gone: Gone | None, waits: Waits
    ) -> dict[Hashable, Scored] | Refusal:
        """Wait outside the gate for the answer, or until the client disconnects."""
        answer = group.answer
        ends: set[asyncio.Future[Any]] = {answer}
        hung_up = asyncio.ensure_future(gone()) if gone is not None else None
        if hung_up is not None:
            ends.add(hung_up)
        try:
            with waits:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if hung_up is not None:
                hung_up.cancel()
            if not answer.done():
                self._withdraw(group, samples)
        return answer.result() if answer.done() else Refusal(400, "the client closed the connection")

    def _withdraw(self, group: _Group, samples: Sequence[Sample]) -> None:
        """Remove samples without an id from a group: nobody can ask for them again."""
        if group.stage != "waiting":
            return
        for sample in samples:
            if not sample.named:
                del group.samples[sample.id]
        if not group.samples:
            self._drop(group)

    def _begin(self, group: _Group, prompt: Prompt) -> None:
        """Start judging a complete group."""
        self._stop_timer(group)
        if group.stage == "failed":
            group.answer = asyncio.get_running_loop().create_future()
        group.stage = "judging"
        task = asyncio.ensure_future(self._score(group, prompt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _score(self, group: _Group, prompt: Prompt) -> None:
        """Judge a group and answer all its requests."""
        try:
            scored = await self._rewards_of(group, prompt)
        except Refusal as refusal:
            self._fail(group, JudgingFailed(refusal.status, refusal.message, refusal.field, refusal.headers))
        except Exception:  # noqa: BLE001  the waiting requests need an answer, whatever a model raises
            _LOG.exception("judging a group failed")
            self._fail(group, JudgingFailed(500, "internal server error; see the server's log"))
        else:
            group.stage = "done"
            group.samples = {one.id: one._replace(response=None) for one in group.samples.values()}
            if group.replay:
                self._done.append((self._clock(), group))
                self._kept += len(group.samples)
            else:
                self._drop(group)
            self._metrics.groups.labels("completed").inc()
            group.answer.set_result(scored)

    async def _rewards_of(self, group: _Group, prompt: Prompt) -> dict[Hashable, Scored]:
        """Return what each sample of a group has earned, by sample id."""
        # Sorted by content, so that rewards do not depend on the order of arrival.
        samples = sorted(group.samples.values(), key=lambda one: one.digest)
        shown = {one.id: one.response for one in samples if one.response is not None}
        judged = await self._judge(prompt, list(shown.values())) if shown else []
        return {one.id: Scored(None, one.why) for one in samples} | dict(zip(shown, judged, strict=True))

    def _fail(self, group: _Group, refusal: Refusal) -> None:
        """Report a failure to all requests; keep the samples for a while if they can be sent again."""
        self._metrics.groups.labels("failed").inc()
        group.stage = "failed"
        if group.replay and all(sample.named for sample in group.samples.values()) and not self._state.closing:
            self._limit(group, self._drop)
        else:
            self._drop(group)
        group.answer.set_result(refusal)

    def _limit(self, group: _Group, then: Callable[[_Group], None]) -> None:
        group.timer = asyncio.get_running_loop().call_later(self._settings.group_wait, then, group)

    def _expire(self, group: _Group) -> None:
        came = f"only {len(group.samples)} of {group.size} responses arrived in {self._settings.group_wait:g} seconds"
        self._metrics.groups.labels("expired").inc()
        reason = f"{came} (--group-wait); nothing was judged, so send all of them again"
        self._give_up(group, Refusal(503, reason, "group"))

    def _give_up(self, group: _Group, refusal: Refusal) -> None:
        self._drop(group)
        group.answer.set_result(refusal)

    def _drop(self, group: _Group) -> None:
        self._stop_timer(group)
        if self._groups.get(group.name) is group:
            del self._groups[group.name]

    def _stop_timer(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()

    def _forget_old(self) -> None:
        """Forget answers that have been kept long enough."""
        while self._done and (self._kept > KEPT_SAMPLES or self._done[0][0] + KEPT_SECONDS < self._clock()):
            _, group = self._done.popleft()
            self._kept -= len(group.samples)
            self._drop(group)


def _require_pictures(prompt: Prompt) -> None:
    """Refuse a prompt whose pictures do not match its places, before it becomes part of a group."""
    try:
        check_group(prompt.question, prompt.images, prompt.criteria)
    except UserError as error:
        raise Refusal.wrong(error) from error


def _require_same(group: _Group, shared: dict[str, Any]) -> None:
    """Refuse a request that has the id of a group but not its prompt, size or options."""
    other = [name for name in {**group.shared, **shared} if group.shared.get(name) != shared.get(name)]
    if other:
        reason = f"the group {_short(group.name)} has another {other[0]} and is unchanged"
        raise Refusal(409, f"{reason}; use a different group for every prompt", other[0])


def _require_known(group: _Group, samples: Sequence[Sample]) -> None:
    """Refuse samples whose content has changed, or more samples than the group has."""
    for sample in samples:
        known = group.samples.get(sample.id)
        if known is not None and known.digest != sample.digest:
            known_as = f"the sample {_short(str(sample.id))} of the group {_short(group.name)}"
            raise Refusal(409, f"{known_as} arrived before with other content, which is kept", "samples")
    new = sum(sample.id not in group.samples for sample in samples)
    _require_room(group.name, group.size, len(group.samples), new)


def _require_room(name: str, size: int, there: int, new: int) -> None:
    if new and there + new > size:
        reason = f"the group {_short(name)} has {size} responses, and {there} have arrived"
        raise Refusal(409, f"{reason}; {new} more do not fit, and none was accepted", "group_size")


def _closing() -> Refusal:
    return Refusal(503, "the server is shutting down; nothing of the group was judged", headers={"Retry-After": "5"})


def _digest(shown: Shown) -> str:
    return hashlib.sha256(key_of(shown).encode("utf-8", "surrogatepass")).hexdigest()


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:37]}...")
