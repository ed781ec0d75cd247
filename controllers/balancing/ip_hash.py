"""A hash of the user, modulo the number of instances."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Final

from controllers.balancing.lookup import by_number
from glowsim.core.instance import Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import mix
from glowsim.core.types import Reported, Request

__all__ = ["IpHash"]

_USER: Final = 10
"""Its place in a `Request`."""
_TRIES = 5


class IpHash(Stateful):
    """Decides by the user alone: the instance in place hash(user) mod n of all that are ready, by number.

    Where that one may get no work now (full, or shut by its breaker), the hash is hashed again, up to five
    times in all, and then an allowed one is taken; so only the users of that one move, and move back.
    Requests without a user are spread by their own number. No address reaches the gateway: the user's key
    stands for it.

    Notes
    -----
    Source: nginx's ``ip_hash``, which likewise hashes modulo and hashes again past servers that are down
    (20 times, and then takes turns). Weakness: a change of n moves nearly everybody, from n to n + 1 the
    share n / (n + 1); for a pool that scales there is `consistent_hash`, which moves 1 / (n + 1). And it
    does not look at load.

    >>> from glowsim.core.instance import Eligible
    >>> pool = {number: Instance(number, 0, 4) for number in range(3)}
    >>> allowed, balancer = Eligible(pool), IpHash()
    >>> for each in pool.values(): allowed.add(each); balancer.joined(0.0, each)
    >>> [balancer.pick(0.0, Request(i, 0, 900, 100, user=5), allowed).number for i in range(3)]
    [2, 2, 2]
    """

    state = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: list[int] = []
        """Those that are ready, ascending."""

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance of the request's user."""
        there, numbers = by_number(allowed), self._numbers
        hashed = mix(request[_USER] or request[0])
        for _ in range(_TRIES if numbers else 0):
            chosen = there.get(numbers[hashed % len(numbers)])
            if chosen is not None and chosen.place >= 0:
                return chosen
            hashed = mix(hashed)
        return allowed[hashed % len(allowed)]

    def joined(self, t_s: float, instance: Instance) -> None:
        """Count a new instance in."""
        self.left(t_s, instance.number)
        insort(self._numbers, instance.number)

    def left(self, t_s: float, instance: int) -> None:
        """Count an instance out."""
        place = bisect_left(self._numbers, instance)
        if self._numbers[place : place + 1] == [instance]:
            del self._numbers[place]

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, of which a hash knows nothing."""
