"""What a checker must be told, and what it says."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from glowsim.core.pool import Controllers, PoolSpec

__all__ = ["Facts", "Violation"]


class Violation(NamedTuple):
    """An invariant that did not hold.

    >>> str(Violation("I2", 3.0, 17, "time ran back from 4 s to 3 s"))
    'I2 at 3 s, record 17: time ran back from 4 s to 3 s'
    """

    invariant: str
    """I1 to I14, as the design numbers them."""
    t_s: float
    number: int
    """The journal's record at which it showed, counted from 0; -1 where no record can be named."""
    message: str

    def __str__(self) -> str:
        """Return it as a line to print."""
        return f"{self.invariant} at {self.t_s:g} s, record {self.number}: {self.message}"


class Facts(NamedTuple):
    """What a journal does not say about an agent; a limit that is None is not checked.

    >>> Facts(slots=4, timeout_s=30.0, cancel_grace_s=5.0, follower_limit=100, queue_limit=50).hedges
    0
    """

    slots: int
    timeout_s: float
    cancel_grace_s: float
    follower_limit: int
    hold_limit: int = 0
    """Requests that its limiter may hold until the world has told; 0: it never holds any."""
    queue_limit: int | None = None
    caches: bool = False
    """Whether requests with equal cache keys may join one another."""
    hedges: int = 0
    """Attempts that a request may have open beside its first."""
    gate_s: float = 0.0
    """Longest that a breaker leaves a ready instance without work before it is tried again, the time of that
    trial included; 0: there is no breaker, inf: nobody knows."""
    metered: bool = True
    """Whether its attempts say what they used; an upstream may not."""
    affinity: bool = False
    """Whether its balancer promises that sessions keep their instance."""
    min_instances: int | None = None
    max_instances: int | None = None
    cooldown_up_s: float | None = None
    cooldown_down_s: float | None = None
    rate_per_s: float | None = None
    """Requests a second that its limiter lets in, all keys together."""
    burst: float = 1.0
    """Requests that it lets in at once."""

    @classmethod
    def of(cls, spec: PoolSpec, controllers: Controllers, **known: Any) -> Facts:
        """Return the facts of a pool as far as it says them itself; ``known`` are the others, by name."""
        derived: dict[str, Any] = {
            "slots": spec.slots,
            "timeout_s": spec.timeout_s,
            "cancel_grace_s": spec.cancel_grace_s,
            "follower_limit": spec.follower_limit,
            "hold_limit": spec.hold_limit if hasattr(controllers.limiter, "to_ask") else 0,
            "caches": controllers.cache is not None,
            "gate_s": 0.0 if controllers.breaker is None else inf,
        }
        return cls(**derived | known)
