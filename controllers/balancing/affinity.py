"""Session affinity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.lookup import by_number
from glowsim.core.instance import Instance
from glowsim.core.parameters import Count
from glowsim.core.types import Request

__all__ = ["Affinity"]

_SESSION: Final = 9
"""Its place in a `Request`."""


class Affinity(LeastConnections):
    """Decides that a session stays with its instance while that may get work; otherwise as least connections.

    A session that finds its instance full, shut or gone moves to another and stays with that one: where its
    context was cached last is where it is cheapest to go on. Requests without a session have no home.

    Parameters
    ----------
    sessions
        Sessions that are remembered; beyond them the least recently seen is forgotten, and begins anew.

    Notes
    -----
    Weakness: affinity is bought with balance. It places sessions, not requests, so one long session may
    keep an instance busy while others idle, and instances that join get new sessions only.

    >>> a, b = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> a.place, b.place = 0, 1
    >>> balancer = Affinity()
    >>> [balancer.pick(0.0, Request(i, 0, 900, 100, session=s), [a, b]).number for i, s in enumerate([5, 6, 5, 5])]
    [0, 1, 0, 0]
    """

    state = (*LeastConnections.state, "_homes")

    def __init__(self, *, sessions: Count = 100_000) -> None:
        super().__init__()
        self._sessions = sessions
        self._homes: OrderedDict[int, int] = OrderedDict()
        """Session -> instance, the least recently seen first."""

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the session's instance, or the one with the least work."""
        session = request[_SESSION]
        if not session:
            return super().pick(t_s, request, allowed)
        homes = self._homes
        home = homes.get(session)
        if home is not None:
            chosen = by_number(allowed).get(home)
            if chosen is not None and chosen.place >= 0:
                homes.move_to_end(session)
                return chosen
        chosen = super().pick(t_s, request, allowed)
        homes[session] = chosen.number
        homes.move_to_end(session)
        if len(homes) > self._sessions:
            homes.popitem(last=False)
        return chosen
