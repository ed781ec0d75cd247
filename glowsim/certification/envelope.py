"""The traffic that a certificate was earned on, and whether live traffic is still like it.

Traffic is looked at in blocks of 100 requests one after the other, so a quiet fleet and a busy one are judged alike:
how fast a block came and how long its inputs were; how its requests ended, how long their answers were and took.
An envelope is the widest that any replication's blocks went. Were live traffic drawn as the replications were, one more
period of their length would leave a bound by chance once in ``replications + 1`` times at most, before the margin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from glowsim.core.errors import GlowsimError
from glowsim.core.reasons import Code
from glowsim.core.types import Abandoned, Answer, Arrived, Command, Event, Fail, Finished, Reject

__all__ = ["BLOCK", "Bounds", "EnvelopeError", "Watch", "figures_of", "widest"]

BLOCK = 100
"""Requests in a block."""
_MARGIN = 0.1
_ERROR_MARGIN = 0.01
"""Added to a share of errors: what has never failed may fail once in a block."""


class EnvelopeError(GlowsimError):
    """An envelope cannot be made or read."""


class Bounds(NamedTuple):
    """Where a figure of a block stayed.

    >>> Bounds(0.0, 12.0).hold(12.5)
    False
    """

    low: float
    high: float

    def hold(self, value: float) -> bool:
        """Return whether a value is within."""
        return self.low <= value <= self.high


FIGURES = {
    "rate_per_s": "requests a second",
    "tokens_in": "mean tokens of an input",
    "tokens_out": "mean tokens of an answer that was made for its request",
    "latency_s_p95": "p95 latency in seconds",
    "error_share": "share of requests that were not answered",
}
"""Figure of a block -> what it is; of the first and the last two only the upper bound is one."""
_ONLY_HIGH = frozenset({"rate_per_s", "latency_s_p95", "error_share"})


def figures_of(requests: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return figure -> its value in each whole block of one replication.

    Parameters
    ----------
    requests
        Columns of its table ``requests`` as it is saved, with words for endings; shorter than a block, they are one.

    Raises
    ------
    EnvelopeError
        There are fewer than two requests.
    """
    arrived, ended = (np.asarray(requests[name], float) for name in ("t_arrive_s", "t_end_s"))
    tokens_in, tokens_out = (np.asarray(requests[name], float) for name in ("tokens_in", "tokens_out"))
    ending, how = (np.asarray(requests[name], str) for name in ("ending", "how"))
    if len(arrived) < 2:
        raise EnvelopeError("a replication has fewer than two requests: make the scenario longer")
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    order = np.argsort(arrived, kind="stable")
    for rows in _blocks(order):
        _note(found, arrivals(arrived[rows].tolist(), tokens_in[rows].tolist()))
    over = np.flatnonzero(np.isin(ending, ("answered", "rejected", "failed")))
    over = over[np.argsort(ended[over], kind="stable")]
    for rows in _blocks(over):
        answered = rows[ending[rows] == "answered"]
        own = answered[how[answered] == "own"]
        latency_s = (ended[answered] - arrived[answered]).tolist()
        _note(found, ends(latency_s, tokens_out[own].tolist(), len(rows)))
    return found


def _blocks(order: Any) -> list[Any]:
    whole = [order[i : i + BLOCK] for i in range(0, len(order) - BLOCK + 1, BLOCK)]
    return whole or ([order] if len(order) else [])


def _note(found: dict[str, list[float]], figures: Iterable[tuple[str, float]]) -> None:
    for name, value in figures:
        found[name].append(value)


def arrivals(times_s: Sequence[float], tokens_in: Sequence[int | float]) -> Iterable[tuple[str, float]]:
    """Yield the figures of a block of arrivals, in their order."""
    took_s = times_s[-1] - times_s[0]
    yield "rate_per_s", (len(times_s) - 1) / took_s if took_s > 0.0 else inf
    yield "tokens_in", float(np.mean(tokens_in))


def ends(
    latency_s: Sequence[float], tokens_out: Sequence[int | float], ended: int
) -> Iterable[tuple[str, float]]:
    """Yield the figures of a block of ends: of the answers the latencies, of those made for the request the lengths."""
    yield "error_share", 1.0 - len(latency_s) / ended
    if latency_s:
        yield "latency_s_p95", sorted(latency_s)[ceil(0.95 * len(latency_s)) - 1]
    if tokens_out:
        yield "tokens_out", float(np.mean(tokens_out))


def widest(replications: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Bounds]:
    """Return figure -> where all blocks of all replications stayed, with a margin of a tenth.

    Parameters
    ----------
    replications
        Of each `figures_of`, at least one.

    >>> widest([{"tokens_in": [90.0, 110.0]}, {"tokens_in": [100.0]}])["tokens_in"]
    Bounds(low=81.0, high=121.0)
    """
    envelope = {}
    for name in FIGURES:
        values = [value for each in replications for value in each.get(name, ())]
        if not values:
            continue
        low = 0.0 if name in _ONLY_HIGH else min(values) * (1.0 - _MARGIN)
        high = max(values) + _ERROR_MARGIN if name == "error_share" else max(values) * (1.0 + _MARGIN)
        envelope[name] = Bounds(round(low, 9), round(high, 9) if isfinite(high) else high)
    return envelope


class Watch:
    """Holds live traffic against an envelope, block by block.

    Parameters
    ----------
    envelope
        Figure -> its bounds.
    left
        Is told (t_s, figure, value, bounds) of every block that leaves them.
    """

    def __init__(
        self, envelope: Mapping[str, Bounds], left: Callable[[float, str, float, Bounds], None]
    ) -> None:
        self._envelope = envelope
        self._left = left
        self._open: dict[int, float] = {}
        """Request -> when it arrived."""
        self._arrived_s: list[float] = []
        self._tokens_in: list[int] = []
        self._latency_s: list[float] = []
        self._tokens_out: list[int] = []
        self._ended = 0

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Take in an event and the commands that answered it."""
        t_s, tokens_out = event[0], 0
        if type(event) is Arrived:
            self._arrive(t_s, event)
        elif type(event) is Finished:
            tokens_out = event.usage.tokens_out
        elif type(event) is Abandoned:
            self._open.pop(event.request_id, None)
        for command in commands:
            kind = type(command)
            if kind is Answer:
                self._end(t_s, command, tokens_out)
            elif kind is Reject or kind is Fail:
                self._end(t_s, command, None)

    def _arrive(self, t_s: float, event: Arrived) -> None:
        self._open[event.request.request_id] = t_s
        self._arrived_s.append(t_s)
        self._tokens_in.append(event.request.tokens_in)
        if len(self._arrived_s) == BLOCK:
            self._judge(t_s, arrivals(self._arrived_s, self._tokens_in))
            self._arrived_s.clear()
            self._tokens_in.clear()

    def _end(self, t_s: float, command: Any, tokens_out: int | None) -> None:
        arrived_s = self._open.pop(command.request_id, None)
        if arrived_s is None:
            return
        self._ended += 1
        code = command.reason.code
        if tokens_out is not None and code != Code.APOLOGY:
            self._latency_s.append(t_s - arrived_s)
            if code == Code.OWN:
                self._tokens_out.append(tokens_out)
        if self._ended == BLOCK:
            self._judge(t_s, ends(self._latency_s, self._tokens_out, BLOCK))
            self._latency_s.clear()
            self._tokens_out.clear()
            self._ended = 0

    def _judge(self, t_s: float, figures: Iterable[tuple[str, float]]) -> None:
        for name, value in figures:
            bounds = self._envelope.get(name)
            if bounds is not None and not bounds.hold(value):
                self._left(t_s, name, value, bounds)
