"""A limit that replicas share, spent as leases."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Literal

from glowsim.core.parameters import Bound, Fraction, PositiveSeconds
from glowsim.core.protocols import HOLD
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Ask, Request, Status, Told, Usage

__all__ = ["LeasedLimiter"]


class LeasedLimiter(Stateful):
    """Decides by leases: it spends what the shared limit granted, and asks again before that is gone.

    One ask is open at a time. A lease is whole requests, and what is left of it when it expires is lost;
    so the replicas together never exceed the shared limit, and unused leases are the price. When dry it
    holds the request until it is told. Denied, it rejects for as long as it was told (``timeout_s``, if for
    no time, or if granted less than one request). Without an answer the fallback holds for ``timeout_s``.

    Parameters
    ----------
    agent
        The agent's number: the subject of the ask, whose kind is ``limit``.
    grant
        Requests to ask for at once, at least 1.
    low_water
        Asks when no more than this share of ``grant`` is left, 0 to 1.
    timeout_s
        Patience with the shared limit, above 0.
    when_unknown
        The fallback: ``admit`` may exceed the limit, ``reject`` never does.

    >>> limiter = LeasedLimiter(3, grant=2)
    >>> request = Request(1, 3, 900, 100)
    >>> limiter.admit(0.0, request) == HOLD, limiter.to_ask(0.0, 1)
    (True, Ask(ask_id=1, kind='limit', subject=3, amount=2, timeout_s=0.25))
    >>> limiter.told(0.1, Told(0.1, 1, Status.GRANTED, value=2, expires_s=60.0))
    >>> limiter.admit(0.1, request), limiter.to_ask(0.1, 2) is None
    (0.0, False)
    """

    state = ("_leases", "_asking", "_fallback_s", "_unknown")

    def __init__(
        self,
        agent: int,
        *,
        grant: Annotated[float, Bound(1.0)],
        low_water: Fraction = 0.5,
        timeout_s: PositiveSeconds = 0.25,
        when_unknown: Literal["reject", "admit"] = "reject",
    ) -> None:
        self._agent = agent
        self._grant = grant
        self._low = low_water * grant
        self._timeout_s = timeout_s
        self._lenient = when_unknown == "admit"
        self._leases: deque[tuple[int, float]] = deque()
        """(requests left, expires_s), oldest first; none is empty."""
        self._asking = False
        self._fallback_s = 0.0
        """Until then it neither asks nor holds."""
        self._unknown = False

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, seconds after which to try again, or `HOLD` until the shared limit has told."""
        leases = self._leases
        while leases:
            left, expires_s = leases[0]
            if t_s < expires_s:
                if left > 1:
                    leases[0] = (left - 1, expires_s)
                else:
                    leases.popleft()
                return 0.0
            leases.popleft()
        if t_s >= self._fallback_s:
            return HOLD
        return 0.0 if self._unknown and self._lenient else self._fallback_s - t_s

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Take in what was used, which changes nothing: a request counts once it was admitted."""

    def to_ask(self, t_s: float, ask_id: int) -> Ask | None:
        """Return an ask for another grant, if it is time for one."""
        if self._asking or t_s < self._fallback_s:
            return None
        left = 0
        for requests, expires_s in self._leases:
            if t_s < expires_s:
                left += requests
        if left > self._low:
            return None
        self._asking = True
        return Ask(ask_id, "limit", self._agent, self._grant, self._timeout_s)

    def told(self, t_s: float, told: Told) -> None:
        """Take in a grant, a denial, or that no answer came."""
        self._asking = False
        self._unknown = told.status == Status.UNKNOWN
        requests = int(told.value)
        if told.status == Status.GRANTED and requests > 0:
            self._leases.append((requests, told.expires_s))
            return
        denied = told.status == Status.DENIED and told.value > 0.0
        self._fallback_s = t_s + (told.value if denied else self._timeout_s)
