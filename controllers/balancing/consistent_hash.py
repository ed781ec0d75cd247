"""A consistent hash with bounded load."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from operator import itemgetter
from typing import Annotated, Any, Literal

import numpy as np

from controllers.balancing.lookup import by_number
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.parameters import Bound, Count
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import mix, mix_all
from glowsim.core.types import Outcome, Reported, Request

__all__ = ["ConsistentHash"]

_STEPS = 16
"""Points that are looked at, and then instances anywhere."""


def _anywhere(request_id: int, allowed: Sequence[Instance], limit: int) -> Instance:
    hashed = request_id
    for _ in range(_STEPS):
        hashed = mix(hashed)
        chosen = allowed[hashed % len(allowed)]
        if chosen.in_flight < limit:
            return chosen
    return min(allowed, key=lambda each: (each.in_flight, each.number))


class ConsistentHash(Stateful):
    """Decides by a key: the first instance at or after its hash on a ring that may take it.

    Every ready instance has ``points`` on the ring. One that joins or leaves moves about 1 / n of the keys,
    to it or from it, and nobody else's. An instance may take the request if it may get work and has less in
    flight than

        ceil(bound x (the pool's work in flight + 1) / instances that may get work)

    so a popular key overflows to the next on the ring. After 16 points in vain, as where the pool is nearly
    full or one key is most of the traffic, up to 16 are tried anywhere, by the request's own number, and
    then the least loaded is taken. Requests without a key are spread by their own number.

    Parameters
    ----------
    key
        What is hashed; ``cache_key`` keeps equal prompts together.
    points
        Points on the ring for each instance, at least 1. Shares differ by about 1 / sqrt(points) (one
        standard deviation): 9 % at 128.
    bound
        How far above the average work in flight an instance may go, above 1; null: no bound.

    Notes
    -----
    Source: Karger et al., "Consistent hashing and random trees", STOC 1997; the bound: Mirrokni, Thorup &
    Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018. Weakness: a tight bound gives
    stickiness away for balance. A change of the fleet costs a sort of all points at the next pick.

    >>> from glowsim.core.instance import Eligible
    >>> pool = {number: Instance(number, 0, 4) for number in range(3)}
    >>> allowed, balancer = Eligible(pool), ConsistentHash(key="user")
    >>> for each in pool.values(): allowed.add(each); balancer.joined(0.0, each)
    >>> [balancer.pick(0.0, Request(i, 0, 900, 100, user=8), allowed).number for i in range(3)]
    [1, 1, 1]
    """

    state = ("_numbers", "_in_flight")

    def __init__(
        self,
        *,
        key: Literal["session", "user", "tenant", "cache_key"] = "session",
        points: Count = 128,
        bound: Annotated[float, Bound(1.0, above=True)] | None = 1.25,
    ) -> None:
        self._key: itemgetter[int] = itemgetter(Request._fields.index(key))
        self._points = points
        self._bound = bound
        self._numbers: set[int] = set()
        """Those that are ready."""
        self._in_flight = 0
        self._laid = True
        self._ring: list[int] = []
        """Hashes, ascending."""
        self._owners: list[int] = []
        """The instance of every hash."""

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance of the request's key, or the next that has room."""
        if not self._laid:
            self._lay()
        bound = self._bound
        limit = UNLIMITED if bound is None else ceil(bound * (self._in_flight + 1) / len(allowed))
        there, owners = by_number(allowed), self._owners
        key_of = self._key
        n = len(owners)
        start = bisect_left(self._ring, mix(key_of(request) or request[0])) - n  # from below 0, to wrap
        for place in range(start, start + min(_STEPS, n)):
            chosen = there.get(owners[place])
            if chosen is not None and chosen.place >= 0 and chosen.in_flight < limit:
                break
        else:
            chosen = _anywhere(request[0], allowed, limit)
        self._in_flight += 1
        return chosen

    def joined(self, t_s: float, instance: Instance) -> None:
        """Put a new instance on the ring."""
        self._numbers.add(instance.number)
        self._laid = False

    def left(self, t_s: float, instance: int) -> None:
        """Take an instance off the ring."""
        if instance in self._numbers:
            self._numbers.remove(instance)
            self._laid = False

    def ended(self, t_s: float, instance: Instance, outcome: Outcome, duration_s: float) -> None:
        """Take in that there is less in flight."""
        self._in_flight -= 1

    def _lay(self) -> None:
        numbers = np.array(sorted(self._numbers), dtype=np.uint64)
        hashes = mix_all(mix_all(numbers)[:, None] ^ np.arange(self._points, dtype=np.uint64)).ravel()
        order = np.argsort(hashes, kind="stable")
        self._ring = hashes[order].tolist()
        self._owners = np.repeat(numbers, self._points)[order].tolist()
        self._laid = True

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._laid = False

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: what is in flight is known."""
