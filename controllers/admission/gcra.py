"""The generic cell rate algorithm a key."""

from __future__ import annotations

from collections.abc import Sequence

from controllers.admission.amounts import Of, Per
from controllers.admission.meter import ROUNDING_S, Meter
from glowsim.core.parameters import Count, Positive, Seconds
from glowsim.core.price import Price
from glowsim.core.types import Request

__all__ = ["Gcra"]


class Gcra(Meter):
    """Decides that each key's requests come at ``rate_per_s``, up to ``tolerance_s`` ahead of their time.

    Each key has a theoretical arrival time, ``tat``, at which its next request is due. With T = 1 / rate, a
    request of n is admitted if it comes no earlier than tolerance before that::

        admit if  tat - t <= tolerance;  then  tat = max(tat, t) + T n

    A request of 1 meets a `TokenBucket` whose burst is 1 + rate x tolerance. A larger one is another matter:
    it is asked only whether those before it were in time, so none is too large to be ever admitted, and its
    size makes the next one wait. What is admitted within any W seconds uses at most rate (W + tolerance) and
    one request more. Choose it where sizes differ a lot, the bucket where the burst must hold.

    Reserving, settling and forgetting are those of the bucket.

    Parameters
    ----------
    prices
        Those of each agent's model, by the agent's number.
    rate_per_s
        Requests, tokens or US dollars a second, above 0.
    tolerance_s
        How far ahead of its time a request may come, 0 or more: 0 spaces them evenly.
    per
        Whose rate it is; all requests without a user, tenant or session (key 0) share one.
    of
        What is counted.
    keys
        Keys that are remembered.

    Notes
    -----
    Source: ITU-T Recommendation I.371, the generic cell rate algorithm GCRA(T, tau), virtual scheduling.

    >>> limiter = Gcra((), rate_per_s=100, tolerance_s=0, of="tokens")
    >>> [limiter.admit(t_s, Request(1, 0, 900, 100)) for t_s in (0.0, 4.0, 10.0)]
    [0.0, 6.0, 0.0]
    """

    def __init__(
        self,
        prices: Sequence[Price],
        *,
        rate_per_s: Positive,
        tolerance_s: Seconds = 0.0,
        per: Per = "agent",
        of: Of = "requests",
        keys: Count = 10_000,
    ) -> None:
        super().__init__(prices, rate_per_s=rate_per_s, per=per, of=of, keys=keys)
        self._tolerance_s = tolerance_s

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, or the seconds until the request may come."""
        key_of = self._key
        key = key_of(request)
        known_s = self._moment_s.get(key)
        tat_s = t_s if known_s is None or known_s < t_s else known_s
        wait_s = tat_s - t_s - self._tolerance_s
        if wait_s > ROUNDING_S:
            return wait_s
        if known_s is None and len(self._moment_s) >= self._keys:
            wait_s = self._make_room(t_s)
            if wait_s > 0.0:
                return wait_s
        amounts = self._amounts
        self._moment_s[key] = tat_s + (1 if amounts is None else amounts[0](request)) * self._unit_s
        return 0.0
