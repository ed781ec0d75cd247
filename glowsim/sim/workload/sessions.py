"""Sessions: a user's turns with an agent, each with all that came before in its prompt.

Sessions arrive like requests do. A turn begins when the one before has ended and the user has thought; its
prompt is the context so far and what the user adds. Who asks whom, when, how long the user thinks and what
is added is drawn ahead as a function of (seed, session, turn), so two policies meet the same users; how long
the context is by then depends on what the agents did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams, key_of, mix
from glowsim.core.types import Request
from glowsim.sim.laws import Law
from glowsim.sim.service import Truth
from glowsim.sim.workload.columns import Columns
from glowsim.sim.workload.sources import Receiver

__all__ = ["SessionSource", "SessionShape"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_BLOCK = 512
_new = tuple.__new__


@dataclass(frozen=True)
class SessionShape:
    """What sessions look like.

    Parameters
    ----------
    turns
        Law of their number; at least 1 and at most ``most_turns``.
    most_turns
        At least 1.
    think
        Law of the seconds from an end to the user's next turn.
    first_tokens_in
        Law of what the first turn brings; the later ones bring what the workload says.
    max_context
        Tokens at which a context is cut back to ``compacted`` before a turn.
    compacted
        What is left of it then.
    hand_over
        Agent -> (next agent, share of its turns that are followed at once by one of that agent), ...
    users
        How many different ones begin sessions; None: each session is somebody else's.
    """

    turns: Law
    most_turns: int
    think: Law
    first_tokens_in: Law | None = None
    max_context: float = inf
    compacted: int = 0
    hand_over: Mapping[int, tuple[tuple[int, float], ...]] | None = None
    users: int | None = None


class _Session:
    """A session under way."""

    __slots__ = ("compactions", "context", "key", "requests", "text_key", "thinks_s", "truths", "turn")

    def __init__(self, key: int, requests: list[Request], truths: list[Truth], thinks_s: list[float]) -> None:
        self.key = key
        self.requests = requests
        self.truths = truths
        self.thinks_s = thinks_s
        self.turn = 0
        self.context = 0
        self.compactions = 0
        self.text_key = mix(key)
        """Of its context, since it was last cut back."""


class SessionSource:
    """Sends the turns of sessions.

    Parameters
    ----------
    name
        Of the workload: names its streams.
    columns
        Draws the requests; their input tokens are what a turn adds.
    blocks
        Moments (s) at which sessions begin.
    shape
        What sessions look like.
    streams
        Of this replication.
    until_s
        No session begins, and no turn, after this.
    tasks
        No more than so many sessions.
    """

    waits = True
    remembers = True

    def __init__(
        self, name: str, columns: Columns, blocks: Iterator[Array], shape: SessionShape, streams: Streams,
        until_s: float, tasks: float = inf,
    ) -> None:  # fmt: skip
        self._columns = columns
        self._blocks = blocks
        self._shape = shape
        self._draws = {
            what: streams.generator("workload", name, what)
            for what in ("turns", "think", "first", "user", "next agent")
        }
        self._until_s = until_s
        self._left = tasks
        self._begun = 0
        self._open: dict[int, _Session] = {}
        self._all_begun = False
        self._thinking = 0
        self._key = key_of("session", name)

    def start(self, world: Receiver, index: int, count: int) -> None:
        """Begin the first session when it is due."""
        self._world, self._index, self._count = world, index, count
        self._next_block()

    def _next_block(self) -> None:
        block = next(self._blocks, None)
        n = 0 if block is None else int(min(int(np.searchsorted(block, self._until_s)), self._left))
        if block is None or n == 0:
            self._all_begun = True
            self._end_if_over()
            return
        self._left = 0 if n < len(block) else self._left - n
        self._sessions = self._drawn(n)
        self._times = block[:n].tolist()
        self._world.environment.call_at(self._times[0], self._begin, 0)

    def _drawn(self, n: int) -> list[_Session]:
        """Return the next sessions with all their turns."""
        shape, draws = self._shape, self._draws
        turns = np.clip(np.rint(shape.turns.ppf(draws["turns"].random(n))), 1, shape.most_turns).astype(
            np.int64
        )
        agents = self._paths(turns)
        last = np.cumsum(turns)
        total = int(last[-1])
        session = np.repeat(np.arange(self._begun, self._begun + n), turns)
        turn = np.arange(total) - np.repeat(last - turns, turns)
        ids = ((session * shape.most_turns + turn) * self._count + self._index + 1).tolist()
        agent_of = np.concatenate([path[:k] for path, k in zip(agents, turns.tolist(), strict=True)])
        who = session
        if shape.users is not None:
            who = np.repeat((draws["user"].random(n) * shape.users).astype(np.int64), turns)
        requests, truths = self._columns.rows(ids, [0.0] * total, users=who.tolist(), agents=agent_of)
        thinks = shape.think.ppf(draws["think"].random(total))
        thinks[:-1][agent_of[1:] != agent_of[:-1]] = 0.0  # handed over: the next agent is asked at once
        brought: list[int] | None = None
        if shape.first_tokens_in is not None:
            drawn = shape.first_tokens_in.ppf(draws["first"].random(n))
            brought = np.maximum(np.rint(drawn), 1).astype(np.int64).tolist()
        sessions = []
        for i, (to, k) in enumerate(zip(last.tolist(), turns.tolist(), strict=True)):
            rows = slice(to - k, to)
            mine = requests[rows]
            if brought is not None:
                mine[0] = mine[0]._replace(tokens_in=brought[i])
            key = mix(self._key ^ (self._begun + i))
            sessions.append(_Session(key, mine, truths[rows], thinks[rows].tolist()))
        self._begun += n
        return sessions

    def _paths(self, turns: Ints) -> Ints:
        """Return each session's agents, turn by turn: (sessions, most turns of them)."""
        n, most = len(turns), int(turns.max())
        path = np.repeat(self._columns.whose(n)[:, None], most, axis=1)
        if self._shape.hand_over:
            for turn in range(1, most):
                path[:, turn] = path[:, turn - 1]
                luck = self._draws["next agent"].random(n)
                for agent, following in self._shape.hand_over.items():
                    of_agent, reached = path[:, turn - 1] == agent, 0.0
                    for to, share in following:
                        path[of_agent & (luck >= reached) & (luck < reached + share), turn] = to
                        reached += share
        return path

    def _begin(self, i: int) -> None:
        session = self._sessions[i]
        if i + 1 < len(self._times):
            self._world.environment.call_at(self._times[i + 1], self._begin, i + 1)
            self._send(session)
        else:
            self._send(session)
            self._next_block()

    def _send(self, session: _Session) -> None:
        request, truth = session.requests[session.turn], session.truths[session.turn]
        shape = self._shape
        if session.context + request.tokens_in > shape.max_context:
            session.context = min(session.context, shape.compacted)
            session.compactions += 1
            session.text_key = mix(session.key + session.compactions)
        deadline_s = request.deadline_s
        if deadline_s != inf:
            deadline_s += self._world.environment.now
        session.context = context = session.context + request.tokens_in
        self._open[request.request_id] = session
        # `_replace` of both takes longer than all the rest here
        self._world.arrive(
            _new(Request, (*request[:2], context, *request[3:8], deadline_s, session.key, *request[10:])),
            _new(Truth, (*truth[:-1], session.text_key)),
        )

    def closed(self, request_id: int) -> None:
        """Let the user think and take the next turn, if there is one."""
        session = self._open.pop(request_id)
        contexts = self._world.contexts
        tokens_out = session.truths[session.turn].tokens_out
        grown = session.context + tokens_out
        session.context = grown if contexts is None else contexts.pop(request_id, grown)
        think_s = session.thinks_s[session.turn]
        session.turn += 1
        environment = self._world.environment
        due_s = environment._now + think_s
        if session.turn < len(session.requests) and due_s <= self._until_s:
            self._thinking += 1
            environment.call_at(due_s, self._go_on, session)
        else:
            self._end_if_over()

    def _go_on(self, session: _Session) -> None:
        self._thinking -= 1
        self._send(session)

    def _end_if_over(self) -> None:
        if self._all_begun and not self._open and not self._thinking:
            self._world.source_ended()
