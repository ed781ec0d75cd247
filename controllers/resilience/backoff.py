"""Exponential back-off with full jitter, within a retry budget."""

from __future__ import annotations

from math import inf
from typing import Annotated

from glowsim.core.parameters import Bound, Count, Fraction, PositiveSeconds, Seconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream, uniform_at
from glowsim.core.types import Outcome, Request

__all__ = ["BackoffRetrier"]

_ROUNDING = 1e-9
"""Five successes worth a fifth of a retry each are worth one."""


class BackoffRetrier(Stateful):
    """Decides that a failed attempt is followed by another after a random wait, while the budget lasts.

    The wait after attempt n is uniform in [0, min(longest_s, base_s * 2**(n-1))): full jitter. It depends
    on the request and on n alone, not on who else retries. Where the instance asked for patience, the wait
    begins after that, so that those who were asked together do not come back together.

    A retry takes 1 from the budget and a success brings ``budget_ratio``; beside that, dt seconds turn it
    from b into (b + budget_min_per_s * dt) / (1 + dt / budget_s): it fills at the minimum rate and leaks
    what is about ``budget_s`` old, so that yesterday's successes do not pay for today's storm. Without
    traffic it holds the reserve of budget_min_per_s * budget_s, and it starts with that. Hence, in T seconds
    from the start, attempts <= requests * (1 + budget_ratio) + budget_min_per_s * T + reserve.

    Parameters
    ----------
    stream
        Where the jitter comes from.
    attempts
        Attempts in all, the first included.
    base_s
        Longest wait after the first attempt, above 0.
    longest_s
        Longest wait of all, at least ``base_s``; what an instance asked for comes on top.
    longest_retry_after_s
        Up to where an instance is obeyed that asks for patience; 0: never.
    budget_ratio
        Retries as a share of successes, 0 to 1. None: no budget, so each failure is retried until its
        attempts are used up.
    budget_min_per_s
        Retries a second that need no successes, 0 or more.
    budget_s
        About how long what has come into the budget stays there, above 0.

    Raises
    ------
    ValueError
        ``longest_s`` is below ``base_s``.

    Notes
    -----
    Sources: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015; Finagle's
    ``RetryBudget`` (20 % of the requests and 10 a second, which last 10 s). Departures: successes fill the
    budget, not requests, so that in an outage only the minimum is left; and it leaks steadily, where
    Finagle drops what is ten seconds old.

    Known weakness: at less than 1 / (budget_ratio * budget_s) requests a second only the reserve is there
    to spend, so with budget_min_per_s * budget_s below 1 a quiet agent never retries.

    >>> retrier = BackoffRetrier(Stream(1), attempts=2, base_s=0.2)
    >>> request = Request(1, 0, 900, 100)
    >>> 0.0 <= retrier.after(0.0, request, 1, Outcome.ERROR, 0.0) < 0.2
    True
    >>> retrier.after(0.0, request, 2, Outcome.ERROR, 0.0)
    inf
    """

    state = ("_stream", "_key", "_budget", "_budget_at_s")

    def __init__(
        self,
        stream: Stream,
        *,
        attempts: Count = 3,
        base_s: PositiveSeconds = 0.2,
        longest_s: PositiveSeconds = 10.0,
        longest_retry_after_s: Seconds = 60.0,
        budget_ratio: Fraction | None = 0.2,
        budget_min_per_s: Annotated[float, Bound(0.0)] = 1.0,
        budget_s: PositiveSeconds = 10.0,
    ) -> None:
        if longest_s < base_s:
            raise ValueError(f"longest_s: {longest_s} is below base_s, {base_s}; give at least that")
        self._stream = stream
        self._attempts = attempts
        self._base_s = base_s
        self._longest_s = longest_s
        self._longest_retry_after_s = longest_retry_after_s
        self._ratio = budget_ratio
        self._min_per_s = budget_min_per_s
        self._budget_s = budget_s
        self._key = 0
        """What the waits are drawn from; 0 until the first, so that a run without retries draws nothing."""
        self._budget = budget_min_per_s * budget_s
        self._budget_at_s = 0.0

    def after(
        self, t_s: float, request: Request, attempts: int, outcome: Outcome, retry_after_s: float
    ) -> float:
        """Return seconds to wait before the next attempt, or inf to give up."""
        if attempts >= self._attempts:
            return inf
        if self._ratio is not None:
            budget = self._budget_now(t_s)
            if budget < 1.0 - _ROUNDING:
                return inf
            self._budget, self._budget_at_s = max(0.0, budget - 1.0), t_s
        if not self._key:
            self._key = 1 + self._stream.below(1 << 53)
        ceiling_s = min(self._longest_s, self._base_s * 2.0 ** min(attempts - 1, 1000))
        asked_s = min(retry_after_s, self._longest_retry_after_s)
        return asked_s + ceiling_s * uniform_at(self._key, request.request_id, attempts)

    def succeeded(self, t_s: float, request: Request) -> None:
        """Refill the budget."""
        ratio = self._ratio
        if ratio is not None:
            passed_s = t_s - self._budget_at_s  # as in `_budget_now`; every request comes here
            leaked = (self._budget + self._min_per_s * passed_s) / (1.0 + passed_s / self._budget_s)
            self._budget = leaked + ratio
            self._budget_at_s = t_s

    def _budget_now(self, t_s: float) -> float:
        passed_s = t_s - self._budget_at_s
        return (self._budget + self._min_per_s * passed_s) / (1.0 + passed_s / self._budget_s)
