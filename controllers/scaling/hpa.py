"""Scaling as the horizontal pod autoscaler of Kubernetes does."""

from __future__ import annotations

from math import ceil, inf

from controllers.scaling.highest import Highest
from glowsim.core.parameters import Count, Fraction, PositiveSeconds, Seconds
from glowsim.core.protocols import Load, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, Constraint, Reason

__all__ = ["HpaScaler"]

_ROUNDING = 1e-9


class HpaScaler(Stateful):
    """Decides as the horizontal pod autoscaler does, to compare with.

    With r = utilisation of the ready instances / ``target``, it calls for ceil(ready * r) instances, and for
    what there is where abs(1 - r) <= ``tolerance``. It goes up to the least that it called for within
    ``stabilise_up_s``, at most to twice what there is or to four more, and down to the most that it called
    for within ``stabilise_down_s``. Utilisation is the mean number in the system since the last look over
    what the ready instances serve at once.

    Parameters
    ----------
    min_instances, max_instances
        Limits, at least 1: it does not scale to zero.
    target
        Utilisation to scale to, above 0.
    tolerance
        Distance of r from 1 at which nothing is done, 0 to 1.
    stabilise_up_s, stabilise_down_s
        Seconds whose most cautious call counts, 0 or more.
    sync_s
        Seconds between two looks, above 0. With nothing in the system it looks only when its answer changes.

    Raises
    ------
    ValueError
        The limits contradict each other, or the target is 0.

    Notes
    -----
    Source: the Kubernetes documentation of horizontal pod autoscaling ("Algorithm details", "Configurable
    scaling behavior") with its defaults: tolerance 0.1, windows of 0 and 300 s, a look every 15 s, and the
    limit on the way up of 100 % or 4 pods in 15 s.

    Weak at: r does not see instances that start, so slow starts call for more than is needed; and a target
    on a number that the gateway bounds, such as busy slots, never fires.

    >>> scaler = HpaScaler(target=0.75, max_instances=100)
    >>> load = Load(360, 0, 360.0, ready=50, starting=0, draining=0, slots=8, concurrency=8)
    >>> scaler.decide(0.0, load).instances
    60
    """

    state = ("_most", "_least")

    def __init__(
        self,
        *,
        min_instances: Count = 2,
        max_instances: Count = 10,
        target: Fraction = 0.7,
        tolerance: Fraction = 0.1,
        stabilise_up_s: Seconds = 0.0,
        stabilise_down_s: Seconds = 300.0,
        sync_s: PositiveSeconds = 15.0,
    ) -> None:
        if min_instances > max_instances:
            raise ValueError(
                f"min_instances: {min_instances} is above max_instances, {max_instances}; lower it"
            )
        if target == 0.0:
            raise ValueError("target: 0 would take instances without end; take more")
        self._min = min_instances
        self._max = max_instances
        self._target = target
        self._tolerance = tolerance
        self._sync_s = sync_s
        self._most = Highest(stabilise_down_s)
        self._least = Highest(stabilise_up_s)
        """Of what was called for, negated."""

    def decide(self, t_s: float, load: Load) -> Wanted:
        """Return how many instances to have, why, and when to look again."""
        have = load.ready + load.starting
        busy = load.in_flight + load.queued > 0
        work = load.mean_in_system / load.concurrency if busy else 0.0
        utilisation = work / load.ready if load.ready else 0.0
        ratio = utilisation / self._target if load.ready else 1.0
        held = abs(1.0 - ratio) <= self._tolerance + _ROUNDING
        called_for = have if held else ceil(load.ready * ratio - _ROUNDING)
        if not self._most:
            self._most.add(t_s, have)
        most, least = self._most.add(t_s, called_for), -self._least.add(t_s, -called_for)
        want = min(max(have, least), most)
        bound = Constraint.NONE if want == called_for else Constraint.COOLDOWN
        if want > max(2 * have, have + 4):
            want, bound = max(2 * have, have + 4), Constraint.STEP
        if not self._min <= want <= self._max:
            bound = Constraint.MINIMUM if want < self._min else Constraint.MAXIMUM
            want = max(self._min, min(want, self._max))
        code = Code.HELD if held else Code.LOAD_HIGH if ratio > 1.0 else Code.LOAD_LOW
        reason = Reason(code, bound, utilisation, self._target, called_for)
        return Wanted(want, reason, self._next_look_s(t_s, want, busy=busy or not load.ready))

    def _next_look_s(self, t_s: float, want: int, *, busy: bool) -> float:
        if self._min == self._max == want:
            return inf
        if busy:
            return t_s + self._sync_s
        return inf if want == self._min else max(self._most.falls_s(), t_s + self._sync_s)
