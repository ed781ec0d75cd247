"""Two choices by peak latency."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from glowsim.core.instance import Instance
from glowsim.core.parameters import PositiveSeconds, Seconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import Outcome, Reported, Request

__all__ = ["PeakEwma"]

_NEITHER = frozenset({Outcome.INVALID, Outcome.CANCELLED})
"""Outcomes that say nothing about the instance."""
_UNHEARD = (0.0, 0.0)
_UNHEARD_S = 1e9
"""The load, for each piece of work in flight, of an instance that has never answered."""


class PeakEwma(Stateful):
    """Decides for the cheaper of two instances, drawn at random without replacement; ties at random.

    cost = peak latency x (work in flight + 1). The peak jumps up to a longer duration at once, and decays
    from a shorter one and with time: when an attempt ends after d,

        peak <- max(d, peak x w + d x (1 - w)),    w = exp(-(time since the last end) / decay_s)

    and a pick reads peak x w, so that an instance which was slow is tried again. A failure counts as
    ``failed_s`` at least, or one that fails fast would look fast. One that has not answered yet gets a
    single request: idle it costs nothing, busy more than any other.

    Parameters
    ----------
    stream
        Where the draws come from.
    decay_s
        Seconds in which a peak falls to 37 %, above 0; a few times what a request takes.
    failed_s
        Seconds that a failure counts as, at least.

    Notes
    -----
    Source: Finagle's ``PeakEwma`` (load balancing by the peak of the exponentially weighted moving average),
    with the power of two choices; counting failures is this project's. Weakness: it takes the length of a
    generation for the slowness of the instance. Where lengths vary and instances do not, the loads it
    compares are mostly noise: `power_of_two` is the better choice. Measured with ten equal instances at a load
    of 80 % and lognormal service (sigma 1.2): mean response 3.2 times the mean service, against 2.8.

    >>> quick, slow = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> balancer = PeakEwma(Stream(1))
    >>> for each, duration_s in ((quick, 1.0), (slow, 9.0)):
    ...     balancer.joined(0.0, each); balancer.ended(9.0, each, Outcome.OK, duration_s)
    >>> balancer.cost(9.0, quick), balancer.cost(9.0, slow)
    (1.0, 9.0)
    """

    state = ("_stream", "_peaks")

    def __init__(self, stream: Stream, *, decay_s: PositiveSeconds = 60.0, failed_s: Seconds = 10.0) -> None:
        self._stream = stream
        self._decay_s = decay_s
        self._failed_s = failed_s
        self._peaks: dict[int, tuple[float, float]] = {}
        """Instance -> (peak latency or 0.0 if it never answered, when it was last heard of)."""

    def cost(self, t_s: float, instance: Instance) -> float:
        """Return what an instance costs now, in seconds."""
        peak_s, heard_s = self._peaks.get(instance.number, _UNHEARD)
        if not peak_s:
            return instance.in_flight * _UNHEARD_S
        return peak_s * exp((heard_s - t_s) / self._decay_s) * (instance.in_flight + 1)

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the cheaper of two."""
        n = len(allowed)
        if n == 1:
            return allowed[0]
        below = self._stream.below
        i, j = below(n), below(n - 1)
        if j >= i:
            j += 1
        first, second = allowed[i], allowed[j]
        # The pair comes in random order, so that the first of equals is a random one.
        return second if self.cost(t_s, second) < self.cost(t_s, first) else first

    def joined(self, t_s: float, instance: Instance) -> None:
        """Begin with an instance of which nothing is known."""
        self._peaks[instance.number] = (0.0, t_s)

    def left(self, t_s: float, instance: int) -> None:
        """Forget an instance."""
        self._peaks.pop(instance, None)

    def ended(self, t_s: float, instance: Instance, outcome: Outcome, duration_s: float) -> None:
        """Take in how long an attempt took."""
        known = self._peaks.get(instance.number)
        if known is None or outcome in _NEITHER:
            return
        if outcome and duration_s < self._failed_s:
            duration_s = self._failed_s
        peak_s, heard_s = known
        kept = exp((heard_s - t_s) / self._decay_s)
        self._peaks[instance.number] = (max(duration_s, peak_s * kept + duration_s * (1.0 - kept)), t_s)

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: durations are its own."""
