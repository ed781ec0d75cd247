"""Weighted turns that go around slow and failing instances."""

from __future__ import annotations

from math import exp
from typing import Annotated, Literal

from controllers.balancing.weighted import Weighted
from glowsim.core.instance import Instance
from glowsim.core.parameters import Bound, Count, Positive, PositiveSeconds, Seconds
from glowsim.core.types import Outcome

__all__ = ["Adaptive"]

_NEITHER = frozenset({Outcome.INVALID, Outcome.CANCELLED})
"""Outcomes that say nothing about the instance."""


class Adaptive(Weighted):
    """Decides as `Weighted`, with weights that follow how the instances' attempts end.

    The weight of an instance is multiplied by

        max(floor, 1 - (1 - health) x exp(-(time since its last attempt ended) / recover_s))
        health = share of attempts that succeeded x min(1, the pool's typical latency / its own)

    The share and its own latency (of successes) are moving averages over about ``memory`` attempts, the
    typical one over as many of each instance. ERROR, UNREACHABLE, THROTTLED, TIMEOUT and LOST are failures;
    INVALID (the task's own fault) and CANCELLED say nothing. An instance of which nothing is known is well.

    It lowers a share and never takes it all away: what fails outright is a breaker's to shut.

    Parameters
    ----------
    memory
        Attempts of an instance that are remembered, at least 1.
    floor
        The part of its weight that an instance keeps, above 0 and up to 1.
    recover_s
        Seconds without word of it after which 63 % of what it had lost is given back, above 0.
    weights, per, load_bias, slow_start_s, aggression
        As those of `Weighted`.

    Raises
    ------
    ValueError
        ``weights`` is empty.

    Notes
    -----
    The rule is this project's own; a floor and a way back are what keep such loops from starving an
    instance on old evidence. Weakness: latency grows with the length of a generation, so with few attempts
    a healthy instance that drew long ones looks slow for a while: raise ``memory`` where lengths vary much.

    >>> a, b = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> turns = Adaptive(memory=2)
    >>> turns.joined(0.0, a); turns.joined(0.0, b)
    >>> for _ in range(2): turns.ended(9.0, b, Outcome.ERROR, 0.1)
    >>> turns.weight(9.0, a), turns.weight(9.0, b), round(turns.weight(600.0, b), 3)
    (1.0, 0.25, 1.0)
    """

    state = (*Weighted.state, "_health", "_typical_s")

    def __init__(
        self,
        *,
        memory: Count = 10,
        floor: Annotated[float, Bound(0.0, 1.0, above=True)] = 0.1,
        recover_s: PositiveSeconds = 60.0,
        weights: tuple[Positive, ...] = (1.0,),
        per: Literal["instance", "region"] = "instance",
        load_bias: Annotated[float, Bound(0.0)] = 0.0,
        slow_start_s: Seconds = 0.0,
        aggression: Positive = 1.0,
    ) -> None:
        super().__init__(
            weights=weights, per=per, load_bias=load_bias, slow_start_s=slow_start_s, aggression=aggression
        )
        self._gain = 1.0 / memory
        self._floor = floor
        self._recover_s = recover_s
        self._health: dict[int, tuple[float, float, float]] = {}
        """Instance -> (share that succeeded, latency or 0.0 if unknown, when it was last heard of)."""
        self._typical_s = 0.0

    def weight(self, t_s: float, instance: Instance) -> float:
        """Return the weight that an instance has now."""
        weight = super().weight(t_s, instance)
        known = self._health.get(instance.number)
        if known is None:
            return weight
        health, latency_s, heard_s = known
        if latency_s > self._typical_s:
            health *= self._typical_s / latency_s
        return weight * max(self._floor, 1.0 - (1.0 - health) * exp((heard_s - t_s) / self._recover_s))

    def joined(self, t_s: float, instance: Instance) -> None:
        """Let a new instance take its first turn at once; it counts as well."""
        super().joined(t_s, instance)
        self._health[instance.number] = (1.0, 0.0, t_s)

    def left(self, t_s: float, instance: int) -> None:
        """Forget an instance."""
        super().left(t_s, instance)
        self._health.pop(instance, None)

    def ended(self, t_s: float, instance: Instance, outcome: Outcome, duration_s: float) -> None:
        """Take in how an attempt ended."""
        known = self._health.get(instance.number)
        if known is None or outcome in _NEITHER:
            return
        share, latency_s, _ = known
        gain = self._gain
        if outcome:
            share -= gain * share
        else:
            share += gain * (1.0 - share)
            latency_s += gain * (duration_s - latency_s) if latency_s else duration_s
            typical_s = self._typical_s
            typical_s += gain / len(self._health) * (duration_s - typical_s) if typical_s else duration_s
            self._typical_s = typical_s
        self._health[instance.number] = (share, latency_s, t_s)
