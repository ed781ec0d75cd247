"""Scaling on two thresholds around a target."""

from __future__ import annotations

from math import ceil, floor, inf
from typing import Annotated

from glowsim.core.parameters import Bound, Count, Fraction, PositiveSeconds, Seconds
from glowsim.core.protocols import Load, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, Constraint, Reason

__all__ = ["AgentScaler"]

_new = tuple.__new__
_LOW, _HELD = Code.LOAD_LOW, Code.HELD
_UNBOUND, _COOLDOWN = Constraint.NONE, Constraint.COOLDOWN
_ROUNDING = 1e-9
"""Work for exactly n instances must not ask for one more by a rounding error."""


class AgentScaler(Stateful):
    """Decides on as many instances as bring utilisation to ``target``, once it has left the band around it.

    With w the mean number in the system since the last look (in flight and queued: a backlog counts without
    limit; nothing, when nothing is there now) over what one instance serves at once, and n the instances,
    those that start included, utilisation is u = w / n. Then

    - u > ``scale_up``: up to ceil(w / target), once ``cooldown_up_s`` has passed since the last change. The
      first instance for work that finds none waits for nothing.
    - u < ``scale_down`` at every look for ``cooldown_down_s``: down to ceil(W / target), where W is the
      largest w among those looks. Never so far that W, or what is in the system now, would bring those that
      stay to ``scale_up``. One look that is not low starts the wait anew, as does every change.
    - nothing in the system for ``idle_s``, and a minimum of 0: down to none.

    Coming back within the limits waits for no cooldown and starts none. It looks every ``look_s`` while
    there is work, and otherwise only when one of these waits ends: at its minimum an idle fleet is not looked
    at until a request arrives.

    The reason carries the utilisation, the threshold and the number that the load calls for.

    **The default cooldown of 300 s both ways is dear on the way up.** Ten times the load at once (8 to 80
    requests/s of 1 s, on 2 instances that serve 8 at once, 20 at most, 30 s to start one, a fluid model):
    load stays above 0.8 for 65 to 566 s, by how much of the step the first look has seen, and 5,000 to 45,100
    requests wait for more than 1 s. With ``cooldown_up_s`` 15: 65 to 82 s, and 5,000 to 6,300. Take 0 to 15 s
    up, and 300 s down.

    Parameters
    ----------
    min_instances, max_instances
        Limits; a minimum of 0 scales to zero.
    target
        Utilisation to scale to, above ``scale_down`` and at most ``scale_up``.
    scale_up, scale_down
        Utilisation above and below which to scale, 0 to 1.
    cooldown_s
        Seconds between changes, 0 or more, either way unless told otherwise:
    cooldown_up_s, cooldown_down_s
        for the way up, and for the way down; None: ``cooldown_s``.
    idle_s
        Seconds with nothing in the system before the last instances go, 0 or more.
    max_step
        Instances that one change may add or take away; None: any number.
    look_s
        Seconds between two looks while there is work, above 0.

    Raises
    ------
    ValueError
        The limits or the thresholds contradict each other.

    Notes
    -----
    The proportional rule is that of the Kubernetes horizontal pod autoscaler, with a band in place of its
    tolerance, and its window of 300 s before the way down kept as two numbers: since when, and the highest.

    Weak at: work that piles up while instances start counts as load, so the way up overshoots, and what is
    within the thresholds stays: after that step the 20 instances remain where 15 would do, since at half
    their load nothing is low. And it knows no future: at zero the first request waits for a whole start.

    >>> scaler = AgentScaler(min_instances=1, max_instances=10)
    >>> load = Load(20, 0, 18.0, ready=2, starting=0, draining=0, slots=16, concurrency=8)
    >>> wanted = scaler.decide(0.0, load)
    >>> wanted.instances, wanted.reason.code.name, wanted.look_s
    (4, 'LOAD_HIGH', 15.0)
    """

    state = ("_changed_s", "_idle_since_s", "_low_since_s", "_low_peak")

    def __init__(
        self,
        *,
        min_instances: Annotated[int, Bound(0)] = 2,
        max_instances: Count = 10,
        target: Fraction = 0.7,
        scale_up: Fraction = 0.8,
        scale_down: Fraction = 0.3,
        cooldown_s: Seconds = 300.0,
        cooldown_up_s: Seconds | None = None,
        cooldown_down_s: Seconds | None = None,
        idle_s: Seconds = 300.0,
        max_step: Count | None = None,
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
        self._cooldown_up_s = cooldown_s if cooldown_up_s is None else cooldown_up_s
        self._cooldown_down_s = cooldown_s if cooldown_down_s is None else cooldown_down_s
        self._idle_s = idle_s
        self._step = max_instances if max_step is None else max_step
        self._look_s = look_s
        self._changed_s = -inf
        self._idle_since_s = inf
        self._low_since_s = inf
        self._low_peak = 0.0

    def decide(self, t_s: float, load: Load) -> Wanted:
        """Return how many instances to have, why, and when to look again."""
        in_flight, queued, mean_in_system, ready, starting, _, _, concurrency = load
        have = ready + starting
        now = (in_flight + queued) / concurrency
        work = mean_in_system / concurrency if now else 0.0
        utilisation = work / have if have else inf if now else 0.0
        self._follow(t_s, now, work, utilisation)
        if not self._min <= have <= self._max:
            want = max(self._min, min(have, self._max))
            bound = Constraint.MINIMUM if want > have else Constraint.MAXIMUM
            reason = _new(Reason, (_HELD, bound, utilisation, 0.0, want))
        elif utilisation > self._scale_up:
            want, reason = self._up(t_s, have, work, utilisation)
        elif have and utilisation < self._scale_down:
            want, reason = self._down(t_s, have, now, utilisation)
        else:
            want, reason = have, _new(Reason, (_HELD, _UNBOUND, utilisation, 0.0, have))
        return _new(Wanted, (want, reason, self._next_look_s(t_s, want, busy=now > 0.0)))

    def _follow(self, t_s: float, now: float, work: float, utilisation: float) -> None:
        """Remember since when nothing is there, and since when the load is low, with its highest since."""
        if now:
            self._idle_since_s = inf
        elif t_s < self._idle_since_s:
            self._idle_since_s = t_s
        if utilisation < self._scale_down:
            if t_s < self._low_since_s:
                self._low_since_s = t_s
            if work > self._low_peak:
                self._low_peak = work
        else:
            self._low_since_s, self._low_peak = inf, 0.0

    def _up(self, t_s: float, have: int, work: float, utilisation: float) -> tuple[int, Reason]:
        called_for = max(ceil(work / self._target - _ROUNDING), 1)
        want, bound = called_for, _UNBOUND
        if want > have + self._step:
            want, bound = have + self._step, Constraint.STEP
        if want > self._max:
            want, bound = self._max, Constraint.MAXIMUM
        if have and want > have and t_s < self._changed_s + self._cooldown_up_s:
            want, bound = have, _COOLDOWN
        elif want > have:
            self._changed_s = t_s
        return want, _new(Reason, (Code.LOAD_HIGH, bound, utilisation, self._scale_up, called_for))

    def _down(self, t_s: float, have: int, now: float, utilisation: float) -> tuple[int, Reason]:
        if self._min == 0 and t_s >= self._idle_since_s + self._idle_s:
            called_for = 0
        else:
            called_for = self._enough(now)
            if t_s < self._low_since_s + self._cooldown_down_s:
                bound = _COOLDOWN if called_for < have > self._min else _UNBOUND
                return have, _new(Reason, (_LOW, bound, utilisation, self._scale_down, called_for))
            self._low_since_s, self._low_peak = t_s, 0.0
        want, bound = min(called_for, have), _UNBOUND
        if want < have - self._step:
            want, bound = have - self._step, Constraint.STEP
        if want < self._min:
            want, bound = self._min, Constraint.MINIMUM
        if want < have:
            self._changed_s = t_s
        return want, _new(Reason, (_LOW, bound, utilisation, self._scale_down, called_for))

    def _enough(self, now: float) -> int:
        """Return how few would do: at the target by the highest load while low, and below scale_up by any."""
        peak = self._low_peak
        at_target = ceil(peak / self._target - _ROUNDING)
        by_any = floor((peak if peak > now else now) / self._scale_up + _ROUNDING) + 1
        return at_target if at_target > by_any else by_any

    def _next_look_s(self, t_s: float, want: int, *, busy: bool) -> float:
        """Return the earliest moment at which the answer could be another one."""
        if self._min == self._max == want:
            return inf
        if busy:
            return t_s + self._look_s
        due_s = inf
        if want > max(self._min, 1):
            due_s = self._low_since_s + self._cooldown_down_s
        if want > self._min == 0:
            due_s = min(due_s, self._idle_since_s + self._idle_s)
        return due_s if due_s > t_s else t_s + self._look_s
