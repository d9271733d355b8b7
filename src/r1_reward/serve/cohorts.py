"""Samples of one prompt that arrive one by one are judged together: for trainers whose workers see one sample each.

    cohorts = Cohorts(settings, metrics, state, judge)
    prompt = Prompt(question, images, {"votes": 1, "schedule": "circular"})
    await cohorts.rewards("step 7, prompt 3", 8, prompt, [Sample.of("rollout 0", response)])   # waits for the other 7

Every request of a group names the same group, size, prompt and options, whatever route it came by. The group is judged
when its last sample has come. While requests wait they do not count against ``max_queue``, so their siblings get in;
and the group's judging has all of ``timeout``, however long they waited.

- A group that is not complete within ``group_wait`` seconds of its first sample is given up: 503, nothing is judged.
- A sample that comes again under its id gets the answer of the group, also when the group is done: for half an hour, of
  the latest groups. With another content it is refused (409).
- Another prompt, other options or another size under the id of a group, or a sample more than its size: 409, and the
  group that was there is left as it is.
- A judge that fails is an error for the whole group; a sample that comes again under its id has it judged again.
- A sample that is too long for the server or the judge, or that has no readable comparison, has no reward and a reason;
  the others are judged.
- A sample whose client has hung up stays if it has an id, under which its answer can be fetched; else it is taken out.
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
from r1_reward.serve.metrics import Metrics, State
from r1_reward.serve.settings import ServerSettings

_LOG = logging.getLogger(__name__)
KEPT_SECONDS, KEPT_SAMPLES = 1800.0, 65_536
"""How long, and for how many samples at most, answers are kept for those that come again."""


class Prompt(NamedTuple):
    """What the samples of a group have in common."""

    question: Shown
    images: OpenedImages
    options: Mapping[str, Any]
    """How they are judged, as of :func:`r1_reward.serve.grouping.score_each`."""
    criteria: str | None = None
    """By what they are judged, where that is said."""

    def fingerprint(self, size: int) -> dict[str, Any]:
        """Return what must be equal, by the names that messages use."""
        shared = {"question": _digest(self.question), "images": self.images.digest}
        return {**shared, **self.options, "criteria": self.criteria, "group_size": size}


class Sample(NamedTuple):
    """One response of a group."""

    id: Hashable
    """By which it is known when it comes again."""
    named: bool
    """Whether the client has given that id."""
    response: Shown | None
    """None once it is judged, and where it cannot be shown."""
    digest: str
    why: str | None = None
    """Why it cannot be shown."""

    @classmethod
    def of(cls, id: str | None, response: Shown, why: str | None = None) -> Self:
        """Return a sample with the client's id, if it has one; ``why`` says why it cannot be shown."""
        own = object() if id is None else id
        return cls(own, id is not None, None if why else response, _digest(response), why)


class JudgingFailed(Refusal):
    """The judge failed on a group that was complete; all its samples are told so."""


Judge: TypeAlias = Callable[[Prompt, list[Shown]], Awaitable[list[Scored]]]
"""Different responses or equal ones to what each has earned; raises Refusal where the judge fails."""
Gone: TypeAlias = Callable[[], Awaitable[None]]
"""Ends when the client has hung up."""


class _Group:
    """The samples of one prompt on their way."""

    def __init__(self, name: str, shared: dict[str, Any], size: int, *, attempt: int, replay: bool) -> None:
        self.name, self.shared, self.size, self.attempt, self.replay = name, shared, size, attempt, replay
        self.samples: dict[Hashable, Sample] = {}
        self.stage: Literal["waiting", "judging", "done", "failed"] = "waiting"
        self.answer: asyncio.Future[dict[Hashable, Scored] | Refusal] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class Cohorts:
    """The groups of one server; all of it runs in the event loop."""

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
        """Return how many groups wait for samples."""
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
    ) -> list[Scored]:
        """Return what some samples of a group have earned, once all of it have come and are judged.

        Args:
            name: The id of the group.
            size: How many samples it has.
            prompt: What they answer, with its pictures open.
            samples: Those that come now, each with another id.
            gone: Ends when the client has hung up.
            attempt: A later one replaces what there is under that id, of which the samples that wait get 503.
            replay: Whether answers are kept; without, the id is free again once the group is judged.

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
        del prompt  # while it waits, a request holds no pictures
        answer = await self._wait(group, samples, gone)
        if isinstance(answer, Refusal):  # a copy: each of several is raised, and answered, by itself
            raise type(answer)(answer.status, answer.message, answer.field, answer.headers)
        return [answer[sample.id] for sample in samples]

    def close(self) -> None:
        """Tell all that wait for siblings that none will be let in any more."""
        for group in list(self._groups.values()):
            if group.stage == "waiting":
                self._give_up(group, _closing())

    def _require_place(self) -> None:
        """Raise the refusal of a new group where too many requests wait; siblings of those that wait always get in."""
        waiting = self._state.waiting
        if waiting >= self._settings.max_waiting:
            full = f"{waiting} requests wait for their groups, as many as a new group may join (--max-waiting)"
            raise Refusal(429, f"{full}; try again later", headers={"Retry-After": "1"})

    def _require_few_pixels(self, name: str, samples: Iterable[Sample]) -> None:
        """Raise the refusal of responses that show, and hold while they wait, more pixels than one request may."""
        shown = pictures_of(*(one.response for one in samples if one.response is not None))
        pixels, most = sum(picture.width * picture.height for picture in shown), self._settings.max_pixels
        if pixels > most:
            held = f"{pixels:,} pixels in the responses of the group {_short(name)} together"
            raise Refusal(422, f"{held}; this server takes at most {most:,} (--max-pixels)", "responses")

    def _current(self, name: str, attempt: int) -> _Group | None:
        """Return the group of that name, None if it is to begin; raises Refusal where a later attempt has begun."""
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
        self, group: _Group, samples: Sequence[Sample], gone: Gone | None
    ) -> dict[Hashable, Scored] | Refusal:
        """Wait outside the gate for the answer; whoever has hung up does not wait."""
        answer = group.answer
        waits: set[asyncio.Future[Any]] = {answer}
        hung_up = asyncio.ensure_future(gone()) if gone is not None else None
        if hung_up is not None:
            waits.add(hung_up)
        self._state.wait()
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._state.go_on()
            if hung_up is not None:
                hung_up.cancel()
            if not answer.done():
                self._withdraw(group, samples)
        return answer.result() if answer.done() else Refusal(400, "the client has hung up")

    def _withdraw(self, group: _Group, samples: Sequence[Sample]) -> None:
        """Take out of a group what nobody can ask for again."""
        if group.stage != "waiting":
            return
        for sample in samples:
            if not sample.named:
                del group.samples[sample.id]
        if not group.samples:
            self._drop(group)

    def _begin(self, group: _Group, prompt: Prompt) -> None:
        """Have a group judged that is complete."""
        self._stop_timer(group)
        if group.stage == "failed":
            group.answer = asyncio.get_running_loop().create_future()
        group.stage = "judging"
        task = asyncio.ensure_future(self._score(group, prompt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _score(self, group: _Group, prompt: Prompt) -> None:
        """Judge a group and tell all that wait for it."""
        try:
            scored = await self._rewards_of(group, prompt)
        except Refusal as refusal:
            self._fail(group, JudgingFailed(refusal.status, refusal.message, refusal.field, refusal.headers))
        except Exception:  # noqa: BLE001  others wait for an answer, whatever a model raises
            _LOG.exception("a group cannot be judged")
            self._fail(group, JudgingFailed(500, "something went wrong here; the server's log says what"))
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
        """Return what the judge says of a group, by the ids of its samples."""
        # In an order of their own, so that rewards do not depend on who came first.
        samples = sorted(group.samples.values(), key=lambda one: one.digest)
        shown = {one.id: one.response for one in samples if one.response is not None}
        judged = await self._judge(prompt, list(shown.values())) if shown else []
        return {one.id: Scored(None, one.why) for one in samples} | dict(zip(shown, judged, strict=True))

    def _fail(self, group: _Group, refusal: Refusal) -> None:
        """Tell a failure to all; keep the samples for a while where they can be asked for again."""
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
        came = f"{len(group.samples)} of {group.size} responses came within {self._settings.group_wait:g} seconds"
        self._metrics.groups.labels("expired").inc()
        reason = f"{came} (--group-wait); nothing was judged, and all of them must be sent again"
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
        """Forget the answers that were kept for long enough."""
        while self._done and (self._kept > KEPT_SAMPLES or self._done[0][0] + KEPT_SECONDS < self._clock()):
            _, group = self._done.popleft()
            self._kept -= len(group.samples)
            self._drop(group)


def _require_pictures(prompt: Prompt) -> None:
    """Raise the refusal of a prompt that shows other pictures than came: before it is any part of a group."""
    try:
        check_group(prompt.question, prompt.images, prompt.criteria)
    except UserError as error:
        raise Refusal.wrong(error) from error


def _require_same(group: _Group, shared: dict[str, Any]) -> None:
    """Raise the refusal of a request that shares the id of a group but not its prompt."""
    other = [name for name in {**group.shared, **shared} if group.shared.get(name) != shared.get(name)]
    if other:
        reason = f"another {other[0]} than that of the group {_short(group.name)}, which is left as it is"
        raise Refusal(409, f"{reason}; every prompt must have a group of its own", other[0])


def _require_known(group: _Group, samples: Sequence[Sample]) -> None:
    """Raise the refusal of samples that say something else than before, or are more than the group has."""
    for sample in samples:
        known = group.samples.get(sample.id)
        if known is not None and known.digest != sample.digest:
            reason = f"the sample {_short(str(sample.id))} of the group {_short(group.name)} came with another content"
            raise Refusal(409, f"{reason}, which is kept", "samples")
    new = sum(sample.id not in group.samples for sample in samples)
    _require_room(group.name, group.size, len(group.samples), new)


def _require_room(name: str, size: int, there: int, new: int) -> None:
    if new and there + new > size:
        reason = f"the group {_short(name)} has {size} responses, of which {there} are here"
        raise Refusal(409, f"{reason}; {new} more do not fit, and none of them was taken", "group_size")


def _closing() -> Refusal:
    return Refusal(503, "the server is shutting down; nothing of the group was judged", headers={"Retry-After": "5"})


def _digest(shown: Shown) -> str:
    return hashlib.sha256(key_of(shown).encode("utf-8", "surrogatepass")).hexdigest()


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:37]}...")
