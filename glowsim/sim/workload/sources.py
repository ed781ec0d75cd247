"""Who sends requests: an open stream of arrivals, or users who wait for an answer and think before the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappush
from itertools import repeat
from math import inf
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams
from glowsim.core.types import Request
from glowsim.sim.environment import NORMAL, Environment
from glowsim.sim.laws import Law
from glowsim.sim.service import Truth
from glowsim.sim.workload.columns import Columns, Tokens

__all__ = ["ClosedSource", "OpenSource", "Receiver", "Source", "TraceBlocks"]

Array = npt.NDArray[np.float64]
TraceBlocks = Iterator[tuple[Array, Tokens, Tokens]]


class Receiver(Protocol):
    """What sources send into: the simulated world, or a generator of load on a real one."""

    environment: Environment
    """The clock that the sources go by."""
    contexts: dict[int, int] | None
    """Request -> tokens of its context when it ended, where that is known; the source takes them out."""

    @property
    def arrive(self) -> Callable[[Request, Truth], None]:
        """Let a request in, now."""

    def source_ended(self) -> None:
        """Hear from a source that it sends nothing any more."""


class Source(Protocol):
    """Sends requests into a world, one pending arrival at a time."""

    waits: bool
    """Whether it must hear when its requests are closed."""
    remembers: bool
    """Whether it asks how long the contexts of its requests have grown."""

    def start(self, world: Receiver, index: int, count: int) -> None:
        """Begin; its requests' numbers are ``index + 1`` modulo ``count``."""

    def closed(self, request_id: int) -> None:
        """Hear that one of its requests is closed."""


class OpenSource:
    """Arrivals that wait for nobody, in blocks of moments; with a trace, the tokens come along.

    Parameters
    ----------
    columns
        Draws the requests.
    blocks
        Moments (s), or (moments, tokens in, tokens out) of a trace.
    until_s
        No arrivals after this.
    tasks
        No more than so many.
    at_once
        Requests are drawn so many at a time, which takes a moment each time; default: a block at a time.
    """

    waits = False
    remembers = False

    def __init__(
        self, columns: Columns, blocks: Iterator[Array] | TraceBlocks, until_s: float, tasks: float = inf,
        at_once: int | None = None,
    ) -> None:  # fmt: skip
        self._columns = columns
        self._blocks: Iterator[Array | tuple[Array, Tokens, Tokens]] = blocks
        if at_once is not None:
            self._blocks = _in_parts(self._blocks, at_once)
        self._until_s = until_s
        self._left = tasks
        self._sent = 0
        self._entries: Iterator[Any] = iter(())
        """The block's arrivals as they go on the environment's heap; each is made when the one before is due."""

    def start(self, world: Receiver, index: int, count: int) -> None:
        """Send the first one when it is due."""
        self._world, self._index, self._count = world, index, count
        self._world_arrive, self._queue = world.arrive, world.environment._queue
        self._next_block()

    def closed(self, request_id: int) -> None:
        """Take no notice: arrivals wait for nobody."""

    def _next_block(self) -> None:
        block = next(self._blocks, None)
        if block is None or self._left <= 0:
            self._world.source_ended()
            return
        times, tokens = _apart(block)
        n = int(min(int(np.searchsorted(times, self._until_s)), self._left))
        if n == 0:
            self._world.source_ended()
            return
        self._left = 0 if n < len(times) else self._left - n
        moments = times[:n].tolist()
        ids = range(
            self._sent * self._count + self._index + 1, (self._sent + n) * self._count + 1, self._count
        )
        if tokens is not None:
            tokens = (tokens[0][:n], tokens[1][:n])
        rows = zip(*self._columns.rows(ids, moments, tokens), strict=True)
        self._sent += n
        numbers = self._world.environment._eid
        self._entries = zip(moments, repeat(NORMAL), numbers, repeat(self._arrive), rows)
        heappush(self._queue, next(self._entries))

    def _arrive(self, row: tuple[Request, Truth]) -> None:
        following = next(self._entries, None)
        if following is None:
            self._next_block()
        else:
            heappush(self._queue, following)
        arrive = self._world_arrive
        request, truth = row
        arrive(request, truth)


def _in_parts(
    blocks: Iterator[Array | tuple[Array, Tokens, Tokens]], most: int
) -> Iterator[Array | tuple[Array, Tokens, Tokens]]:
    for block in blocks:
        times, tokens = _apart(block)
        for at in range(0, len(times), most):
            part = slice(at, at + most)
            yield times[part] if tokens is None else (times[part], tokens[0][part], tokens[1][part])


def _apart(block: Array | tuple[Array, Tokens, Tokens]) -> tuple[Array, tuple[Tokens, Tokens] | None]:
    return (block[0], (block[1], block[2])) if isinstance(block, tuple) else (block, None)


class ClosedSource:
    """Users who each send a request, wait for its end, think, and send the next.

    They start in their stationary think phase, not all at once. The k-th request of a user is the same
    whatever the others do.

    Parameters
    ----------
    columns
        Draws the requests: one row a user, one block a turn.
    users
        How many, at least 1.
    think
        Law of the time between an end and the next request.
    until_s
        Nobody sends after this.
    tasks
        No more than so many requests in all.
    """

    waits = True
    remembers = False

    def __init__(
        self,
        name: str,
        columns: Columns,
        users: int,
        think: Law,
        streams: Streams,
        until_s: float,
        tasks: float = inf,
    ) -> None:
        self._columns = columns
        self._users = users
        self._think = think
        self._thinking = streams.generator("workload", name, "think")
        self._until_s = until_s
        self._left = tasks
        self._turn = [0] * users
        self._turns: list[tuple[list[Request], list[Truth], list[float]]] = []
        self._idle = 0
        self._streams, self._name = streams, name

    def start(self, world: Receiver, index: int, count: int) -> None:
        """Have every user think for what is left of a think time that began before."""
        self._world, self._index, self._count = world, index, count
        self._call_at = world.environment.call_at
        for user, t_s in enumerate(self._residual()):
            self._call_at(t_s, self._send, user)

    def _residual(self) -> list[float]:
        generator = self._streams.generator("workload", self._name, "first think")
        if not self._think.random:
            whole = self._think.ppf(np.zeros(self._users))
        else:  # a think time found in progress is a long one: drawn by its length
            sample = self._think.ppf((np.arange(4096) + 0.5) / 4096)
            longer = np.cumsum(sample)
            whole = sample[np.searchsorted(longer, generator.random(self._users) * longer[-1])]
        left: list[float] = (whole * generator.random(self._users)).tolist()
        return left

    def _row(self, turn: int) -> tuple[list[Request], list[Truth], list[float]]:
        if turn == len(self._turns):
            users: Sequence[int] = range(self._users)
            base = turn * self._users
            ids = [(base + user) * self._count + self._index + 1 for user in users]
            requests, truths = self._columns.rows(ids, [0.0] * self._users, users=users)
            think = self._think.ppf(self._thinking.random(self._users)).tolist()
            self._turns.append((requests, truths, think))
        return self._turns[turn]

    def _send(self, user: int) -> None:
        if self._left <= 0 or self._world.environment._now > self._until_s:
            self._leave()
            return
        self._left -= 1
        turn = self._turn[user]
        self._turn[user] = turn + 1
        requests, truths, _ = self._row(turn)
        request = requests[user]
        if request.deadline_s < inf:
            request = request._replace(deadline_s=self._world.environment.now + request.deadline_s)
        self._world.arrive(request, truths[user])

    def closed(self, request_id: int) -> None:
        """Let the user think, then send the next."""
        turn, user = divmod((request_id - 1) // self._count, self._users)
        self._call_at(self._world.environment._now + self._turns[turn][2][user], self._send, user)

    def _leave(self) -> None:
        self._idle += 1
        if self._idle == self._users:
            self._world.source_ended()
