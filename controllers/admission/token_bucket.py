"""A token bucket a key."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from controllers.admission.amounts import USD, Of, Per
from controllers.admission.meter import ROUNDING_S, Meter
from glowsim.core.parameters import Count, Positive
from glowsim.core.price import Price
from glowsim.core.types import Request

__all__ = ["TokenBucket"]


class TokenBucket(Meter):
    """Decides that each key may use ``rate_per_s`` in the long run and ``burst`` at once.

    A bucket is one number, the moment at which it will be full again; an amount moves that moment by
    amount / rate, and is admitted if it then lies at most burst / rate ahead. So what is admitted within any
    W seconds uses at most burst + rate W, unless a request uses more than it reserved (a retry does).
    Tokens and money are reserved in full (input and the most that may come out) and settled by what was
    used: the rest flows back, an excess is charged and may leave a debt. A request counts as one whatever
    becomes of it: if failures were free, an outage would lift the limit.

    A full bucket says nothing, so it is forgotten when room is needed. While every bucket is in use, a new
    key waits for some to fill. Requests in flight may bring back as many forgotten keys as they are.

    Parameters
    ----------
    prices
        Those of each agent's model, by the agent's number.
    rate_per_s
        Requests, tokens or US dollars a second, above 0.
    burst
        Requests (at least 1), tokens or US dollars at once; a larger request is never admitted: its wait
        is inf.
    per
        Whose bucket it is; all requests without a user, tenant or session (key 0) share one.
    of
        What is counted.
    keys
        Buckets that are remembered.

    Raises
    ------
    ValueError
        ``burst`` would let no request in.

    Notes
    -----
    Source: the generic cell rate algorithm, ITU-T Recommendation I.371, in its virtual-scheduling form.

    Known weakness: with a ``max_tokens_out`` far above what comes out, reservations keep a bucket empty that
    is hardly used; cap them with a planner, or limit ``requests``.

    >>> bucket = TokenBucket((), rate_per_s=2, burst=1)
    >>> [bucket.admit(t_s, Request(1, 0, 900, 100)) for t_s in (0.0, 0.1, 0.5)]
    [0.0, 0.4, 0.0]
    """

    def __init__(
        self,
        prices: Sequence[Price],
        *,
        rate_per_s: Positive,
        burst: Positive,
        per: Per = "agent",
        of: Of = "requests",
        keys: Count = 10_000,
    ) -> None:
        if of == "requests" and burst < 1:
            raise ValueError(f"burst: {burst} requests at once lets none in; give at least 1")
        super().__init__(prices, rate_per_s=rate_per_s, per=per, of=of, keys=keys)
        self._burst = burst * USD if of == "usd" else burst
        self._span_s = burst / rate_per_s

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, or the seconds until the bucket holds enough."""
        used_s = self._unit_s
        if self._amounts is not None:
            amount = self._amounts.reserved(request)
            if amount > self._burst:
                return inf
            used_s *= amount
        key_of = self._key
        key = key_of(request)
        known_s = self._moment_s.get(key)
        full_s = used_s + (t_s if known_s is None or known_s < t_s else known_s)
        wait_s = full_s - self._span_s - t_s
        if wait_s > ROUNDING_S:
            return wait_s
        if known_s is None and len(self._moment_s) >= self._keys:
            wait_s = self._make_room(t_s)
            if wait_s > 0.0:
                return wait_s
        self._moment_s[key] = full_s
        return 0.0
