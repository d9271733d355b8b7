"""The interface of every engine: requests go in, and completions come out as they become ready.

:class:`~r1_reward.engines.in_process.TransformersEngine` runs a checkpoint in this process,
:class:`~r1_reward.engines.server.ServerEngine` asks OpenAI-compatible servers, and
:class:`~r1_reward.engines.scalar.ScalarEngine` compares the rewards of a scalar model. All are used the same way::

    with engine.open() as session:
        while session.room() > 0:                    # while more requests are welcome
            session.submit("my ticket", engine.compare("Which digit?", pictures, "A three.", "An eight."))
        for ticket, answer in session.collect():     # whatever is ready; a list of completions or an EngineError
            ...

A request names one seed for each completion it wants, and its answer depends only on the request, not on other
requests. :func:`in_order` is the simple form: it takes an iterable and yields the answers in order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from r1_reward.records.content import Shown, pictures_of
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

if TYPE_CHECKING:
    from PIL import Image


GIVE_UP = 100
"""Consecutive rows without an answer before a long run ends: the server is probably gone, or the image folder wrong."""


class Request(NamedTuple):
    """Chat messages with an ``{"type": "image"}`` part for every picture, the pictures in that order, and the seeds."""

    messages: list[dict[str, Any]]
    images: list[Image.Image]
    seeds: tuple[int, ...] = (0,)
    """One completion is sampled for each."""
    temperature: float = 0.0
    """0 is greedy decoding, where all seeds give the same completion."""
    max_new_tokens: int = 1024


class EngineError(UserError):
    """One request could not be answered; the message says who failed and why. The other requests continue."""


class ReadsTextOnly(EngineError):
    """A request shows pictures to a text-only model; nothing was generated. The other requests continue."""

    def __init__(self, model: str, pictures: int, said: str = "") -> None:
        """Take the model's name, the number of pictures, and the server's message, if there is one."""
        self.who = f"{model} reads text only" + (f" ({said})" if said else "")
        super().__init__(f"{self.who}, and the prompt shows {'a picture' if pictures == 1 else f'{pictures} pictures'}")


Answered: TypeAlias = "list[Completion] | EngineError"
"""One completion for each seed of a request, or the error instead."""


class Session(Protocol):
    """An engine at work, used from one thread."""

    def room(self) -> int:
        """Return how many more requests are welcome now; at 0 or less, collect first."""
        ...

    def submit(self, ticket: Any, request: Any) -> None:
        """Take a request that the engine made; ``ticket`` comes back with its answer."""
        ...

    def collect(self) -> list[tuple[Any, Answered]]:
        """Wait until something is ready and return all that is, in any order; empty if nothing is in flight.

        Raises:
            UserError: nothing can be answered at all (no server, a wrong key, out of memory).
        """
        ...


class Engine(Protocol):
    """What the vote loop needs from a model or a server."""

    special_tokens: tuple[str, ...]
    """Tokens with a special meaning for the model, which no question or response may contain."""
    dialect: Dialect
    """How its completions say which response is better."""
    deterministic: bool
    """Whether another vote, order or temperature would give the same result (a scalar model)."""

    def open(self) -> AbstractContextManager[Session]:
        """Start a session; leaving it cancels the requests in flight."""
        ...

    def compare(
        self,
        question: Shown,
        images: Sequence[Image.Image],
        first: Shown,
        second: Shown,
        *,
        seeds: tuple[int, ...] = (0,),
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
    ) -> Any:
        """Return the request that asks which of two responses is better, one judgment for each seed.

        ``images`` come before the prompt; pictures inside the contents stay where they are.
        """
        ...


class Generative:
    """The shared part of all engines whose models write their judgments."""

    special_tokens: tuple[str, ...] = ()
    dialect: Dialect = find_dialect(DEFAULT)
    deterministic = False

    @property
    def refused(self) -> Sequence[str]:
        """What its server refuses and what that loses, in sentences for a report."""
        return ()

    def compare(
        self,
        question: Shown,
        images: Sequence[Image.Image],
        first: Shown,
        second: Shown,
        *,
        seeds: tuple[int, ...] = (0,),
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
    ) -> Request:
        """Return the judging prompt of the dialect as a request."""
        return self._ask(question, images, (first, second), (seeds, temperature, max_new_tokens))

    def ask_alone(
        self,
        question: Shown,
        images: Sequence[Image.Image],
        response: Shown,
        *,
        seeds: tuple[int, ...] = (0,),
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
    ) -> Request:
        """Return the request for the score of one response, for a pointwise dialect."""
        return self._ask(question, images, (response,), (seeds, temperature, max_new_tokens))

    def _ask(
        self,
        question: Shown,
        images: Sequence[Image.Image],
        responses: tuple[Shown, ...],
        options: tuple[tuple[int, ...], float, int],
    ) -> Request:
        messages = self.dialect.messages(question, *responses, images=len(images), special_tokens=self.special_tokens)
        return Request(messages, [*images, *pictures_of(question, *responses)], *options)

    def open(self) -> AbstractContextManager[Session]:
        """Start a session."""
        raise NotImplementedError

    def generate(self, requests: Iterable[Request]) -> Iterator[Answered]:
        """Yield the answer to each request, in order; see :func:`in_order`."""
        return in_order(self, requests)


class BatchSession:
    """A session of an engine that answers one batch of requests at a time while its caller waits."""

    exclusive = True
    """Whether threads must take turns."""

    def __init__(self, size: int, answer: Callable[[list[Any]], Iterable[Answered]]) -> None:
        """Take the number of requests in a batch, and the function that answers them in order."""
        self._size, self._answer = size, answer
        self._tickets: list[Any] = []
        self._requests: list[Any] = []

    def room(self) -> int:
        """Return how many more requests fit into the next batch."""
        return self._size - len(self._requests)

    def submit(self, ticket: Any, request: Any) -> None:
        """Add a request to the next batch."""
        self._tickets.append(ticket)
        self._requests.append(request)

    def collect(self) -> list[tuple[Any, Answered]]:
        """Answer all submitted requests."""
        tickets, requests = self._tickets, self._requests
        self._tickets, self._requests = [], []
        return list(zip(tickets, self._answer(requests), strict=True)) if requests else []

    def __enter__(self) -> BatchSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._tickets, self._requests = [], []


class TakingTurns:
    """An engine that several threads may use: it works for one of them at a time.

    A turn is one ``collect``, which answers all that the thread has submitted. For a model in this process that is up
    to a session's ``room``: a few batches of requests, with all of their votes.
    """

    def __init__(self, engine: Engine) -> None:
        """Take the engine to share."""
        self.engine = engine
        self.special_tokens, self.deterministic = engine.special_tokens, engine.deterministic
        self.dialect = engine.dialect
        self.compare = engine.compare
        self._lock = threading.Lock()

    def score(self, candidates: Sequence[Any], **options: Any) -> Any:
        """Return a scalar engine's scores of single responses."""
        scalar: Any = self.engine
        with self._lock:
            return scalar.score(candidates, **options)

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Start a session."""
        with self.engine.open() as session:
            # A session with its own thread does not need to take turns.
            yield _Turn(session, self._lock) if getattr(session, "exclusive", False) else session


class _Turn:
    def __init__(self, session: Session, lock: threading.Lock) -> None:
        self._session, self._lock = session, lock
        self.room, self.submit = session.room, session.submit

    def collect(self) -> list[tuple[Any, Answered]]:
        with self._lock:
            return self._session.collect()


def in_order(engine: Generative, requests: Iterable[Request]) -> Iterator[Answered]:
    """Yield the answer to each request in order, as soon as it and those before it are ready.

    Requests are taken as far ahead as the engine has room for. Closing the iterator cancels the requests in flight.

    Raises:
        UserError: nothing can be answered at all.
    """
    stream = enumerate(requests)
    ready: dict[int, Answered] = {}
    waiting: deque[int] = deque()
    with engine.open() as session:
        while True:
            while session.room() > 0 and (item := next(stream, None)) is not None:
                session.submit(*item)
                waiting.append(item[0])
            if not waiting:
                return
            ready.update(session.collect())
            while waiting and waiting[0] in ready:
                yield ready.pop(waiting.popleft())
