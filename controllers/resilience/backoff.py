"""Exponential back-off with full jitter, within a budget."""

from __future__ import annotations

from math import inf

from glowsim.core.parameters import Count, Fraction, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import Outcome, Request

__all__ = ["BackoffRetrier"]

_ROUNDING = 1e-9
"""Ten successes worth a tenth of a retry each are worth one."""


class BackoffRetrier(Stateful):
    """Decides that a failed attempt is followed by another after a random wait, while the budget lasts.

    The wait after attempt n is uniform between 0 and base_s * 2**(n-1), at most ``longest_s``, and at least
    what the instance asked for. The budget starts with ``budget_floor`` retries and holds no more; a retry
    costs one and a success brings ``budget``. So in any stretch of time there are at most budget_floor +
    budget * successes retries: an outage is not answered by a storm.

    Parameters
    ----------
    stream
        Where the jitter comes from.
    attempts
        Attempts in all, the first included.
    base_s
        Longest wait after the first attempt, above 0.
    longest_s
        Longest wait of all, at least ``base_s``; an instance may ask for more.
    budget
        Retries as a share of successes, 0 to 1.
    budget_floor
        Retries that need no successes.

    Raises
    ------
    ValueError
        ``longest_s`` is below ``base_s``.

    Notes
    -----
    Sources: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015; the retry throttling of
    gRPC proposal A6.

    >>> retrier = BackoffRetrier(Stream(1), attempts=2, base_s=0.2)
    >>> request = Request(1, 0, 900, 100)
    >>> 0.0 <= retrier.after(0.0, request, 1, Outcome.ERROR, 0.0) < 0.2
    True
    >>> retrier.after(0.0, request, 2, Outcome.ERROR, 0.0)
    inf
    """

    state = ("_stream", "_left")

    def __init__(
        self,
        stream: Stream,
        *,
        attempts: Count = 3,
        base_s: PositiveSeconds = 0.2,
        longest_s: PositiveSeconds = 10.0,
        budget: Fraction = 0.2,
        budget_floor: Count = 10,
    ) -> None:
        if longest_s < base_s:
            raise ValueError(f"longest_s: {longest_s} is below base_s, {base_s}; give at least that")
        self._stream = stream
        self._ceilings_s = [base_s]
        while len(self._ceilings_s) < attempts:
            self._ceilings_s.append(min(longest_s, 2.0 * self._ceilings_s[-1]))
        self._attempts = attempts
        self._budget = budget
        self._most = float(budget_floor)
        self._left = self._most

    def after(
        self, t_s: float, request: Request, attempts: int, outcome: Outcome, retry_after_s: float
    ) -> float:
        """Return seconds to wait before the next attempt, or inf to give up."""
        if attempts >= self._attempts or self._left < 1.0 - _ROUNDING:
            return inf
        self._left = max(0.0, self._left - 1.0)
        return max(retry_after_s, self._stream.uniform() * self._ceilings_s[attempts - 1])

    def succeeded(self, t_s: float, request: Request) -> None:
        """Refill the budget."""
        if self._left < self._most:
            self._left = min(self._most, self._left + self._budget)
