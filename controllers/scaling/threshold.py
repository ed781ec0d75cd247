"""Scaling on two thresholds around a target."""

from __future__ import annotations

from math import ceil, inf
from typing import Annotated

from glowsim.core.parameters import Bound, Count, Fraction, PositiveSeconds, Seconds
from glowsim.core.protocols import Load, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, Constraint, Reason

__all__ = ["ThresholdScaler"]

_ROUNDING = 1e-9
"""Work for exactly n instances must not ask for one more by a rounding error."""


class ThresholdScaler(Stateful):
    """Decides on as many instances as bring utilisation to ``target``, once it has left the band around it.

    Utilisation is the work in the system (in flight and queued, averaged since the last look) over what the
    instances, starting ones included, serve at once. Above ``scale_up`` or below ``scale_down`` it wants
    ceil(work / (concurrency * target)) instances, within the limits. A change for load waits until the
    cooldown of its direction has passed since the last such change, and since the first look before the
    first way down: the first request of a fleet finds it idle. Two things wait for no cooldown: coming
    back within the limits, and the first instance for work that finds none.

    The reason carries the utilisation, the threshold and the number that the load calls for. With nothing in
    the system it looks again only when the cooldown of the way down has passed, and at the minimum not at
    all: an arrival wakes it.

    Parameters
    ----------
    min_instances, max_instances
        Limits; a minimum of 0 scales to zero when nothing is in the system.
    target
        Utilisation to scale to, above ``scale_down`` and at most ``scale_up``.
    scale_up, scale_down
        Utilisation above and below which to scale, 0 to 1.
    cooldown_up_s, cooldown_down_s
        Seconds since the last change before scaling up or down, 0 or more.
    look_s
        Seconds between two looks, above 0.

    Raises
    ------
    ValueError
        The limits or the thresholds contradict each other.

    Notes
    -----
    The proportional rule is that of the Kubernetes horizontal pod autoscaler (its documentation, "Algorithm
    details"), with a band of its own on either side in place of a tolerance.

    >>> scaler = ThresholdScaler(min_instances=1, max_instances=10)
    >>> load = Load(20, 0, 18.0, ready=2, starting=0, draining=0, slots=16, concurrency=8)
    >>> wanted = scaler.decide(0.0, load)
    >>> wanted.instances, wanted.reason.code.name, wanted.look_s
    (4, 'LOAD_HIGH', 15.0)
    """

    state = ("_changed_s", "_first_look_s")

    def __init__(
        self,
        *,
        min_instances: Annotated[int, Bound(0)] = 2,
        max_instances: Count = 10,
        target: Fraction = 0.7,
        scale_up: Fraction = 0.8,
        scale_down: Fraction = 0.3,
        cooldown_up_s: Seconds = 300.0,
        cooldown_down_s: Seconds = 300.0,
        look_s: PositiveSeconds = 15.0,
    ) -> None:
        if min_instances > max_instances:
            raise ValueError(
                f"min_instances: {min_instances} is above max_instances, {max_instances}; lower it"
            )
        if not scale_down < target <= scale_up:
            raise ValueError(
                f"target: {target} must be above scale_down, {scale_down}, and not above scale_up, {scale_up}"
            )
        self._min = min_instances
        self._max = max_instances
        self._target = target
        self._scale_up = scale_up
        self._scale_down = scale_down
        self._cooldown_up_s = cooldown_up_s
        self._cooldown_down_s = cooldown_down_s
        self._look_s = look_s
        self._changed_s = -inf
        self._first_look_s = inf

    def decide(self, t_s: float, load: Load) -> Wanted:
        """Return how many instances to have, why, and when to look again."""
        have = load.ready + load.starting
        self._first_look_s = min(self._first_look_s, t_s)
        busy = load.in_flight + load.queued > 0
        work = load.mean_in_system / load.concurrency
        called_for = max(ceil(work / self._target - _ROUNDING), int(busy))
        utilisation = work / have if have else inf if called_for else 0.0
        if not self._min <= have <= self._max:
            want = max(self._min, min(have, self._max))
            bound = Constraint.MINIMUM if want > have else Constraint.MAXIMUM
            reason = Reason(Code.HELD, bound, utilisation, 0.0, want)
        else:
            want, reason = self._within(t_s, have, utilisation, called_for)
            if want != have:
                self._changed_s = t_s
        return Wanted(want, reason, self._next_look_s(t_s, want, busy=busy))

    def _next_look_s(self, t_s: float, want: int, *, busy: bool) -> float:
        """Return when the answer could be another one: with nothing to do, not before the way down is free."""
        if self._min == self._max == want:
            return inf  # the one size that it may have
        if busy:
            return t_s + self._look_s
        if want == self._min:
            return inf
        return max(self._settled_s() + self._cooldown_down_s, t_s + self._look_s)

    def _settled_s(self) -> float:
        """Return since when nothing has changed: a fleet is given its cooldown before its first way down."""
        return max(self._changed_s, self._first_look_s)

    def _within(self, t_s: float, have: int, utilisation: float, called_for: int) -> tuple[int, Reason]:
        if utilisation > self._scale_up:
            code, threshold, cooldown_s = Code.LOAD_HIGH, self._scale_up, self._cooldown_up_s if have else 0.0
            want = min(called_for, self._max)
            bound = Constraint.MAXIMUM if want < called_for else Constraint.NONE
        elif utilisation < self._scale_down:
            code, threshold, cooldown_s = Code.LOAD_LOW, self._scale_down, self._cooldown_down_s
            want = max(called_for, self._min)
            bound = Constraint.MINIMUM if want > called_for else Constraint.NONE
        else:
            return have, Reason(Code.HELD, Constraint.NONE, utilisation, 0.0, have)
        since_s = self._settled_s() if want < have else self._changed_s
        if want != have and t_s - since_s < cooldown_s:
            want, bound = have, Constraint.COOLDOWN
        return want, Reason(code, bound, utilisation, threshold, called_for)
