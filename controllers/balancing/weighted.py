"""Weighted turns, by the earliest deadline."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Annotated, Any, Literal

from glowsim.core.instance import Eligible, Instance
from glowsim.core.parameters import Bound, Positive, Seconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["Weighted", "slow_start"]

_LEAST = 0.1
"""The share of its weight that a new instance begins with, so that it is never starved."""
_SLACK = 64
"""Entries of instances that left are dropped when they reach the top, or when they are most of the heap."""


def slow_start(age_s: float, slow_start_s: float, aggression: float) -> float:
    """Return the share of its weight that an instance has ``age_s`` after it joined.

    max(0.1, (max(age, 1 s) / slow_start) ** (1 / aggression)), and 1 from ``slow_start_s`` on. Above 1,
    ``aggression`` ramps fast at first; below 1, slowly at first.

    >>> [slow_start(age_s, 100.0, 1.0) for age_s in (0.0, 25.0, 100.0)]
    [0.1, 0.25, 1.0]
    """
    if age_s >= slow_start_s:
        return 1.0
    share: float = (max(age_s, 1.0) / slow_start_s) ** (1.0 / aggression)
    return min(1.0, max(_LEAST, share))


class Weighted(Stateful):
    """Decides that instances take turns, each with a share in proportion to its weight.

    Every instance has a deadline; the earliest gets the request (among equals, the lowest number), and its
    next one is 1 / weight later. Over a cycle each gets exactly its share, spread over the cycle. One that
    was full or away comes next and does not catch up on other turns it missed: what was due long ago is due
    now. A new one comes next, too. A weight is

        weights[i] x slow start / (work in flight + 1) ** load_bias

    at the moment of the pick. A pick costs O(log n) where it is told of the instances, otherwise it goes
    through those allowed.

    Parameters
    ----------
    weights
        Above 0, taken again from the start where there are more instances or regions than weights.
    per
        Whether ``i`` counts instances, by number, or regions, in the order of the scenario.
    load_bias
        How much work in flight lowers a weight: 0 not at all, 1 in proportion.
    slow_start_s
        Seconds over which the weight of a new instance rises to its full height (see `slow_start`); 0: none.
    aggression
        Shape of that rise, above 0: 1 is a straight line.

    Raises
    ------
    ValueError
        ``weights`` is empty.

    Notes
    -----
    Source: Envoy's round robin and weighted least request, with slow start, as documented in
    "Supported load balancers" and "Slow start mode". Weakness: weights are relative, so slow start does
    nothing while every instance is new; and one that waits for its turn keeps the deadline that it got with
    an older weight, which at low traffic may be long ago.

    >>> fast, slow = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> turns = Weighted(weights=(2, 1))
    >>> [turns.pick(0.0, Request(i, 0, 900, 100), [slow, fast]).number for i in range(6)]
    [0, 1, 0, 0, 1, 0]
    """

    state: tuple[str, ...] = ("_due", "_away", "_turn", "_joined_s")

    def __init__(
        self,
        *,
        weights: tuple[Positive, ...] = (1.0,),
        per: Literal["instance", "region"] = "instance",
        load_bias: Annotated[float, Bound(0.0)] = 0.0,
        slow_start_s: Seconds = 0.0,
        aggression: Positive = 1.0,
    ) -> None:
        if not weights:
            raise ValueError("weights: there are none; give at least one, or leave them out for equal ones")
        self._weights = weights
        self._by_region = per == "region"
        self._load_bias = load_bias
        self._slow_start_s = slow_start_s
        self._aggression = aggression
        self._due: dict[int, float] = {}
        """Instance -> its deadline, counted in turns of weight 1."""
        self._heap: list[tuple[float, int]] = []
        """(deadline, number) of every instance that is not away, perhaps of an earlier deadline."""
        self._away: set[int] = set()
        """Those that were full, or shut by their breaker, when their turn came."""
        self._turn = 0.0
        """The latest deadline of a pick."""
        self._joined_s: dict[int, float] = {}

    def weight(self, t_s: float, instance: Instance) -> float:
        """Return the weight that an instance has now."""
        weights = self._weights
        weight = weights[(instance.region if self._by_region else instance.number) % len(weights)]
        if self._joined_s:
            age_s = t_s - self._joined_s[instance.number]
            weight *= slow_start(age_s, self._slow_start_s, self._aggression)
        if self._load_bias:
            weight /= (instance.in_flight + 1) ** self._load_bias
        return weight

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance with the earliest deadline."""
        heap, due = self._heap, self._due
        if not heap or type(allowed) is not Eligible:
            turn = self._turn
            turn, number = min([(due.get(each.number, turn), each.number) for each in allowed])
            chosen = next(each for each in allowed if each.number == number)
            self._turn = turn = max(turn, self._turn)
            due[number] = turn + 1.0 / self.weight(t_s, chosen)
            return chosen
        while True:
            turn, number = heap[0]
            current = due.get(number)
            if current == turn:
                chosen = allowed.instances[number]
                if chosen.place >= 0:
                    break
                self._away.add(number)
            elif current is not None:
                heapreplace(heap, (current, number))
                continue
            heappop(heap)
        if turn < self._turn:
            turn = self._turn
        else:
            self._turn = turn
        current = due[number] = turn + 1.0 / self.weight(t_s, chosen)
        heapreplace(heap, (current, number))
        return chosen

    def joined(self, t_s: float, instance: Instance) -> None:
        """Let a new instance take its first turn at once."""
        number = instance.number
        self._due[number] = self._turn
        self._away.add(number)
        if self._slow_start_s:
            self._joined_s[number] = t_s
        self.moved(instance)

    def moved(self, instance: Instance) -> None:
        """Let an instance that was away when its turn came have one again."""
        if instance.place >= 0 and instance.number in self._away:
            number = instance.number
            self._away.remove(number)
            heappush(self._heap, (self._due[number], number))

    def left(self, t_s: float, instance: int) -> None:
        """Forget an instance."""
        self._due.pop(instance, None)
        self._away.discard(instance)
        self._joined_s.pop(instance, None)
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._lay()

    def _lay(self) -> None:
        self._heap = [(due, number) for number, due in self._due.items() if number not in self._away]
        heapify(self._heap)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._lay()

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, of which turns know nothing."""
