"""What a case of the oracle table is: plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from glowsim.validation.measures import Estimates

__all__ = ["Case", "Quantity", "Simulate", "Size"]

Simulate = Callable[[int, int], Estimates]
"""(replication, tasks) -> estimates by name."""


@dataclass(frozen=True)
class Quantity:
    """One number of a case: what theory says, and under which name the simulation estimates it.

    ``printed`` are the published digits that the formula must give; empty where only this project says so.
    ``within`` is how far ``exact`` itself may be off: above 0 where it is an approximation, or was simulated.
    A quantity with ``why_wide`` is held to the interval, not to a half-width, for that reason.
    """

    name: str
    exact: float
    printed: str = ""
    metric: str = ""
    within: float = 0.0
    why_wide: str = ""

    @property
    def as_printed(self) -> bool:
        """Whether the exact value gives the published digits, where there are any.

        >>> Quantity("share lost", 0.12166106, "0.121661").as_printed
        True
        """
        decimals = len(self.printed.partition(".")[2])
        return not self.printed or f"{self.exact:.{decimals}f}" == self.printed


class Size(NamedTuple):
    """How large a simulation is: tasks in each of so many replications."""

    tasks: int
    replications: int


@dataclass(frozen=True)
class Case:
    """A case: its number in the table, what is meant, how it is simulated or why it is not, and its source."""

    number: int
    key: str
    title: str
    definition: str
    how: str
    source: str
    quantities: tuple[Quantity, ...]
    simulate: Simulate | None = None
    quick: Size | None = None
    """For every change; None: the case takes the long campaign."""
    full: Size | None = None
    """For a half-width of 2 %."""

    @property
    def name(self) -> str:
        """The number and the title."""
        return f"{self.number} {self.title}"

    @property
    def simulated(self) -> tuple[Quantity, ...]:
        """The quantities that the simulation estimates."""
        return tuple(each for each in self.quantities if each.metric)
