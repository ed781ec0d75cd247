"""Scaling to a promise on waiting, by Erlang C."""

from __future__ import annotations

from math import ceil, exp, inf
from typing import Annotated

from controllers.scaling.highest import Highest
from glowsim.core.parameters import Bound, Count, Fraction, PositiveSeconds, Seconds
from glowsim.core.protocols import Load, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, Constraint, Reason

__all__ = ["QueueingScaler", "servers_for"]


def servers_for(load_erlangs: float, wait_s: float, service_s: float, late: float, most: int) -> int:
    """Return the fewest servers with P(wait > ``wait_s``) <= ``late`` in M/M/c, or ``most``.

    With a the offered load, Erlang B by its recursion B(n) = a B(n-1) / (n + a B(n-1)), and Erlang C from it:
    P(wait > t) = C(n, a) exp(-(n - a) t / service). Source: Erlang, 1917.

    >>> servers_for(10.0, 0.0, 1.0, 0.2, 1000)
    14
    """
    blocked = 1.0
    for n in range(1, most):
        blocked = load_erlangs * blocked / (n + load_erlangs * blocked)
        if n > load_erlangs:
            waits = n * blocked / (n - load_erlangs * (1.0 - blocked))
            if waits * exp(-(n - load_erlangs) * wait_s / service_s) <= late:
                return n
    return most


class QueueingScaler(Stateful):
    """Decides on the fewest instances with which at most a share of ``late`` waits longer than ``wait_s``.

    The offered load is taken to be the number in the system, the larger of its mean since the last look and
    its exponentially weighted mean over ``memory_s``: without a queue that is the load by Little's law, and
    with one it is more, which clears the queue. `servers_for` gives the places to serve, and over what an
    instance serves at once, rounded up, the instances. Down goes to the most called for within ``hold_s``.
    The reason carries the utilisation, the one that the promise amounts to, and the instances called for.

    A target on utilisation is too much for a large fleet and too little for a small one: for 1 in 5 to wait
    at all, 10 erlangs need 14 servers (71 % busy), and 600 need 627 (96 %).

    Parameters
    ----------
    min_instances, max_instances
        Limits; a minimum of 0 scales to zero after ``hold_s`` with nothing in the system.
    service_s
        Mean time to serve a request, above 0.
    wait_s, late
        The promise: at most this share waits longer than this many seconds, 0 or more.
    memory_s
        Time constant of the mean, above 0.
    hold_s
        Seconds whose highest call counts on the way down, 0 or more.
    look_s
        Seconds between two looks while there is work, above 0.

    Raises
    ------
    ValueError
        The limits contradict each other.

    Notes
    -----
    Weak at: it takes arrivals for Poisson and services for exponential, and the same for all. Where they vary
    more, as those of agents do, waits are longer by about half the sum of the two squared coefficients of
    variation (Allen and Cunneen), and more are late than promised. Draining instances' work counts as load.

    >>> scaler = QueueingScaler(service_s=2.0, wait_s=0.0, late=0.2)
    >>> load = Load(10, 0, 10.0, ready=2, starting=0, draining=0, slots=4, concurrency=4)
    >>> scaler.decide(0.0, load).instances
    4
    """

    state = ("_mean", "_looked_s", "_most")

    def __init__(
        self,
        *,
        min_instances: Annotated[int, Bound(0)] = 2,
        max_instances: Count = 10,
        service_s: PositiveSeconds,
        wait_s: Seconds = 1.0,
        late: Fraction = 0.05,
        memory_s: PositiveSeconds = 60.0,
        hold_s: Seconds = 300.0,
        look_s: PositiveSeconds = 15.0,
    ) -> None:
        if min_instances > max_instances:
            raise ValueError(
                f"min_instances: {min_instances} is above max_instances, {max_instances}; lower it"
            )
        self._min = min_instances
        self._max = max_instances
        self._service_s = service_s
        self._wait_s = wait_s
        self._late = late
        self._memory_s = memory_s
        self._look_s = look_s
        self._mean = 0.0
        self._looked_s = -inf
        self._most = Highest(hold_s)

    def decide(self, t_s: float, load: Load) -> Wanted:
        """Return how many instances to have, why, and when to look again."""
        have, limit = load.ready + load.starting, self._max * load.concurrency
        weight = 1.0 - exp((self._looked_s - t_s) / self._memory_s)
        self._mean += weight * (load.mean_in_system - self._mean)
        self._looked_s = t_s
        busy = load.in_flight + load.queued > 0
        called_for, promised = 0, 0.0
        if busy:
            erlangs = max(self._mean, load.mean_in_system)
            places = servers_for(erlangs, self._wait_s, self._service_s, self._late, limit)
            called_for = ceil(places / load.concurrency)
            promised = erlangs / (called_for * load.concurrency)
        if not self._most:
            self._most.add(t_s, have)
        most = self._most.add(t_s, called_for)
        want, bound = max(called_for, min(have, most)), Constraint.NONE
        if want > called_for:
            bound = Constraint.COOLDOWN
        if not self._min <= want <= self._max:
            bound = Constraint.MINIMUM if want < self._min else Constraint.MAXIMUM
            want = max(self._min, min(want, self._max))
        code = Code.LOAD_HIGH if want > have else Code.LOAD_LOW if want < have else Code.HELD
        utilisation = load.mean_in_system / (have * load.concurrency) if have else 0.0
        reason = Reason(code, bound, utilisation, promised, called_for)
        return Wanted(want, reason, self._next_look_s(t_s, want, busy=busy))

    def _next_look_s(self, t_s: float, want: int, *, busy: bool) -> float:
        if self._min == self._max == want:
            return inf
        if busy:
            return t_s + self._look_s
        return inf if want == self._min else max(self._most.falls_s(), t_s + self._look_s)
