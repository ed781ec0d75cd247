"""How a controller states the bounds of its parameters, so that a scenario can be checked before it runs.

A controller's parameters are its keyword-only constructor arguments. Each is annotated with a type from
here (or ``Annotated[type, Bound(...)]``); the scenario's own model of the controller is made from the
signature. The unit is the last word of the name: ``cooldown_s`` is written ``cooldown: 5m`` in YAML.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

__all__ = ["Bound", "Count", "Fraction", "Positive", "PositiveSeconds", "Seconds"]


class Bound(NamedTuple):
    """Closed bounds of a number; ``above`` makes the lower one open.

    >>> Bound(0.0, 1.0)
    Bound(low=0.0, high=1.0, above=False)
    """

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False


Fraction = Annotated[float, Bound(0.0, 1.0)]
"""A share, 0 to 1; YAML also takes a percentage."""
Positive = Annotated[float, Bound(0.0, above=True)]
"""A number above zero."""
Seconds = Annotated[float, Bound(0.0)]
"""A duration in seconds, zero allowed."""
PositiveSeconds = Annotated[float, Bound(0.0, above=True)]
"""A duration in seconds above zero."""
Count = Annotated[int, Bound(1)]
"""A whole number, at least one."""
