"""The highest of what was called for lately."""

from __future__ import annotations

from collections import deque
from math import inf

from glowsim.core.snapshot import Stateful

__all__ = ["Highest"]


class Highest(Stateful):
    """The largest of the whole numbers told within the last ``window_s``, the newest included.

    It keeps only numbers that may still become the largest: they fall, so there are never more of them than
    different numbers were told.

    >>> highest = Highest(60.0)
    >>> [highest.add(t_s, n) for t_s, n in ((0.0, 5), (30.0, 2), (59.0, 3), (60.0, 1), (119.0, 1))]
    [5, 5, 5, 3, 1]
    """

    state = ("_falling",)

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._falling: deque[tuple[float, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._falling)

    def add(self, t_s: float, n: int) -> int:
        """Take in a number; return the largest of the window."""
        falling = self._falling
        while falling and falling[0][0] + self._window_s <= t_s:
            falling.popleft()
        while falling and falling[-1][1] <= n:
            falling.pop()
        falling.append((t_s, n))
        return falling[0][1]

    def falls_s(self) -> float:
        """Return when the largest leaves the window, if a smaller one follows it; or inf."""
        return self._falling[0][0] + self._window_s if len(self._falling) > 1 else inf
