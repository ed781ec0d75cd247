"""How many units a variant really has: a few large ones count as few."""

from __future__ import annotations

from math import fsum, sqrt
from typing import Final

from glowsim.core.snapshot import Stateful

__all__ = ["Units"]

_CELLS: Final = 1 << 10
_MARKS: Final = 1 << 15


class Units(Stateful):
    """Counts the requests of every unit, by arm, and says how many units that amounts to.

    A unit is given by a well-mixed hash, of which the lowest 25 bits are used. Memory is bounded: units share 1,024
    cells, so that up to about 1,000 effective units are told apart, and fewer than there are is the safe side. Which
    units are new is kept in 32,768 cells; a unit whose cell is taken is not counted as new, whatever its arm.

    >>> from glowsim.core.streams import mix
    >>> units = Units()
    >>> for unit, requests in ((11, 10), (12, 10), (13, 80)):
    ...     for _ in range(requests):
    ...         units.count(mix(unit), 0)
    >>> round(units.effective(0), 2), units.take_new()
    (1.52, (3, 0))
    """

    state = ("_cells", "_marks", "_new")

    def __init__(self) -> None:
        self._cells = [[0] * _CELLS, [0] * _CELLS]
        self._marks: set[int] = set()
        self._new = [0, 0]

    def count(self, hashed: int, arm: int) -> None:
        """Take in a request of the unit of this hash in an arm, 0 or 1."""
        self._cells[arm][hashed & (_CELLS - 1)] += 1
        mark = (hashed >> 10) & (_MARKS - 1)
        if mark not in self._marks:
            self._marks.add(mark)
            self._new[arm] += 1

    def effective(self, arm: int) -> float:
        """Return (sum of n)^2 / sum of n^2 over the requests n of an arm's units; 0 without any."""
        cells = self._cells[arm]
        requests = fsum(cells)
        return requests**2 / fsum(n * n for n in cells) if requests else 0.0

    def fewness(self) -> float:
        """Return the square root of 1 / units of one arm + 1 / units of the other; 0 where one has none."""
        mine, theirs = self.effective(1), self.effective(0)
        return sqrt(1.0 / mine + 1.0 / theirs) if mine and theirs else 0.0

    def take_new(self) -> tuple[int, int]:
        """Return how many units each arm got that were new since `forget`, and count from 0 again."""
        new = (self._new[0], self._new[1])
        self._new = [0, 0]
        return new

    def forget(self) -> None:
        """Begin anew: with a stage, other units make up the arms."""
        self._marks.clear()
        self._cells = [[0] * _CELLS, [0] * _CELLS]
