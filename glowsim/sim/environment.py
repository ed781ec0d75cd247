"""SimPy's environment, with callbacks at moments and an inlined run loop.

``call_at`` puts (time, priority, number, function, argument) on SimPy's own heap: no event object, no
process. Ordinary SimPy events and processes live on the same heap and keep SimPy's order, so rare actors,
such as a fault script, are written as SimPy processes.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

import simpy
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import NORMAL

__all__ = ["NORMAL", "Environment"]


_LAST = 1 << 30
"""A priority after all others at the same moment."""


class _Reached(Exception):
    """The moment up to which to run has come."""


class Environment(simpy.Environment):
    """A SimPy environment that also calls plain functions at moments.

    >>> environment = Environment()
    >>> environment.call_at(2.0, print, "two")
    >>> environment.call_at(1.0, print, "one")
    >>> environment.run()
    one
    two
    >>> environment.now
    2.0
    """

    _queue: list[Any]
    _eid: count[int]
    _now: float

    def __init__(self, initial_time: float = 0.0) -> None:
        super().__init__(initial_time)
        self._number = self._eid.__next__

    def call_at(self, t_s: float, function: Callable[[Any], Any], argument: Any) -> None:
        """Call ``function(argument)`` at ``t_s``, which must not lie in the past."""
        heappush(self._queue, (t_s, NORMAL, self._number(), function, argument))

    def step(self) -> None:
        """Take the next entry off the heap and carry it out."""
        try:
            entry = heappop(self._queue)
        except IndexError:
            raise EmptySchedule from None
        self._carry_out(entry)

    def _carry_out(self, entry: Any) -> None:
        self._now = entry[0]
        if len(entry) == 5:
            entry[3](entry[4])
            return
        event = entry[3]
        callbacks, event.callbacks = event.callbacks, None
        for callback in callbacks:
            callback(event)
        if not event._ok and not hasattr(event, "_defused"):
            raise event._value

    def run_until(self, t_s: float = inf) -> bool:
        """Carry out everything up to and including ``t_s``; return False if a callback raised `StopSimulation`."""
        queue, pop = self._queue, heappop
        if t_s < inf:
            heappush(queue, (t_s, _LAST, self._number(), self._reached, None))
        try:
            while True:  # not `while queue`: Python 3.11 never specialises a loop that jumps back that way
                try:
                    entry = pop(queue)
                except IndexError:
                    return True
                try:
                    self._now, _, _, function, argument = entry
                except ValueError:  # an event of SimPy's own, one shorter
                    self._carry_out(entry)
                    continue
                function(argument)
        except _Reached:
            return True
        except StopSimulation:
            return False

    @staticmethod
    def _reached(_: None) -> None:
        raise _Reached

    def run(self, until: Any = None) -> Any:
        """Run as SimPy does; without ``until``, to the end of the schedule and faster."""
        if until is None:
            self.run_until()
            return None
        return super().run(until)
