"""So many requests at once a key."""

from __future__ import annotations

from controllers.admission.amounts import Per, key_of
from glowsim.core.errors import ControllerError
from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request, Usage

__all__ = ["ConcurrencyLimiter"]


class ConcurrencyLimiter(Stateful):
    """Decides that each key has at most ``limit`` requests open at once.

    A request is open from its admission until it is settled, waiting and backing off included: with mean
    time in the system T, a key gets at most limit / T a second (Little's law). Only keys with open requests
    are remembered.

    Parameters
    ----------
    limit
        Open requests a key, at least 1.
    per
        Whose they are; all requests without a user, tenant or session (key 0) share one.
    retry_s
        Seconds that a refused client is told to wait, above 0. Nobody knows when an open request will end,
        so unlike the other limiters' this wait is a hint and no promise.

    Raises
    ------
    ControllerError
        A request is settled that is not open.

    Notes
    -----
    Source: J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9(3), 1961.

    Known weakness: it cannot tell a slow fleet from a greedy client; when the fleet slows down, a limit that
    was generous refuses.

    >>> limiter = ConcurrencyLimiter(limit=1, per="user")
    >>> first, second = Request(1, 0, 900, 100, user=7), Request(2, 0, 900, 100, user=7)
    >>> limiter.admit(0.0, first), limiter.admit(0.0, second)
    (0.0, 1.0)
    >>> limiter.settle(2.0, first, Usage(900, 0, 40)); limiter.admit(2.0, second)
    0.0
    """

    state = ("_open",)

    def __init__(
        self,
        *,
        limit: Count,
        per: Per = "user",
        retry_s: PositiveSeconds = 1.0,
    ) -> None:
        self._limit = limit
        self._key = key_of(per)
        self._retry_s = retry_s
        self._open: dict[int, int] = {}

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, or the seconds that a client should leave it for."""
        key_of = self._key
        key = key_of(request)
        now_open = self._open.get(key, 0)
        if now_open >= self._limit:
            return self._retry_s
        self._open[key] = now_open + 1
        return 0.0

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Free the request's place."""
        key_of = self._key
        key = key_of(request)
        still_open = self._open.get(key, 0) - 1
        if still_open > 0:
            self._open[key] = still_open
        elif still_open == 0:
            del self._open[key]
        else:
            raise ControllerError(
                f"request {request[0]} is settled, but none of its key {key} is open: admit first, settle once"
            )
