"""A token bucket a key."""

from __future__ import annotations

from math import inf
from operator import itemgetter
from typing import Literal

from glowsim.core.parameters import Count, Positive
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request, Usage

__all__ = ["TokenBucket"]

_ROUNDING_S = 1e-6
"""Whoever comes back after the wait that was stated must not be a rounding error early."""


class TokenBucket(Stateful):
    """Decides that each key may use ``rate_per_s`` in the long run and ``burst`` at once.

    A bucket is one number, the moment at which it will be full again; an amount moves that moment by
    amount / rate, and is admitted if it then lies at most burst / rate ahead. Tokens are reserved in full
    (input and the most that may come out) and settled by what was used: the rest flows back, an excess is
    charged and may leave a debt. A request counts as one whatever becomes of it.

    A full bucket says nothing, so it is forgotten when room is needed. While every bucket is in use, a new
    key waits for the first to fill. Requests in flight may bring back as many forgotten keys as they are.

    Parameters
    ----------
    rate_per_s
        Requests or tokens a second, above 0.
    burst
        Requests (at least 1) or tokens at once; a larger request is never admitted: its wait is inf.
    per
        Whose bucket it is; all requests without a tenant or user (key 0) share one.
    unit
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

    >>> bucket = TokenBucket(rate_per_s=2, burst=1)
    >>> [bucket.admit(t_s, Request(1, 0, 900, 100)) for t_s in (0.0, 0.1, 0.5)]
    [0.0, 0.4, 0.0]
    """

    state = ("_full_s", "_room_s")

    def __init__(
        self,
        *,
        rate_per_s: Positive,
        burst: Positive,
        per: Literal["agent", "tenant", "user"] = "agent",
        unit: Literal["requests", "tokens"] = "requests",
        keys: Count = 10_000,
    ) -> None:
        if unit == "requests" and burst < 1:
            raise ValueError(f"burst: {burst} requests at once lets none in; give at least 1")
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._span_s = burst / rate_per_s
        self._key: itemgetter[int] = itemgetter(Request._fields.index(per))
        self._tokens = unit == "tokens"
        self._keys = keys
        self._full_s: dict[int, float] = {}
        self._room_s = 0.0
        """While every bucket is in use: none is full before this moment."""

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, or the seconds until the bucket holds enough."""
        amount = float(request.tokens_in + request.max_tokens_out) if self._tokens else 1.0
        if amount > self._burst:
            return inf
        key_of = self._key
        key = key_of(request)
        known_s = self._full_s.get(key)
        full_s = t_s if known_s is None or known_s < t_s else known_s
        full_s += amount / self._rate_per_s
        wait_s = full_s - self._span_s - t_s
        if wait_s > _ROUNDING_S:
            return wait_s
        if known_s is None and len(self._full_s) >= self._keys:
            wait_s = self._make_room(t_s)
            if wait_s > 0.0:
                return wait_s
        self._full_s[key] = full_s
        return 0.0

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Replace the tokens that were reserved by those that were used."""
        if not self._tokens:
            return
        over = usage.tokens_in + usage.tokens_out - request.tokens_in - request.max_tokens_out
        key = self._key(request)
        full_s = max(self._full_s.get(key, t_s), t_s) + over / self._rate_per_s
        if full_s > t_s:
            self._full_s[key] = full_s
        else:
            self._full_s.pop(key, None)
        self._room_s = min(self._room_s, full_s)

    def _make_room(self, t_s: float) -> float:
        if t_s < self._room_s:
            return self._room_s - t_s
        in_use = {key: full_s for key, full_s in self._full_s.items() if full_s > t_s}
        if len(in_use) < self._keys:
            self._full_s, self._room_s = in_use, 0.0
            return 0.0
        self._room_s = min(in_use.values())
        return self._room_s - t_s
