"""One replica of an agent, as the gateway knows it, and the list of those that may get work."""

from __future__ import annotations

from math import inf

from glowsim.core.types import State

__all__ = ["UNLIMITED", "Eligible", "Instance"]

_READY = State.READY
UNLIMITED = (1 << 30) - 1
"""The cap of a closed breaker: no instance has more in flight. Up to here Python compares integers fast."""


class Instance:
    """What the gateway knows of an instance; controllers read it and never write to it.

    >>> Instance(3, region=0, slots=8).load
    0.0
    """

    __slots__ = (
        "cap", "gate_cap", "gate_until_s", "in_flight", "number", "place", "region", "slots", "state",
    )  # fmt: skip

    def __init__(self, number: int, region: int, slots: int) -> None:
        self.number = number
        self.region = region
        self.slots = slots
        self.gate_cap = UNLIMITED
        self.gate_until_s = inf
        """When to ask the breaker again, or inf."""
        self.cap = slots
        """The smaller of ``slots`` and what the breaker allows."""
        self.in_flight = 0
        self.state = State.STARTING
        self.place = -1
        """Its place in the list of the eligible, or -1."""

    @property
    def load(self) -> float:
        """Work in flight as a share of the slots."""
        return self.in_flight / self.slots

    def set_gate(self, cap: int, until_s: float) -> None:
        """Take on a breaker's gate."""
        self.gate_cap = cap
        self.gate_until_s = until_s
        self.cap = min(self.slots, cap)


class Eligible(list[Instance]):
    """The instances that are ready and below their cap; adding and removing cost the same at any size.

    The order is that of a swap-remove list: arbitrary, but the same for the same history.

    >>> eligible = Eligible(); a, b = Instance(0, 0, 1), Instance(1, 0, 1)
    >>> eligible.add(a); eligible.add(b); eligible.discard(a); [i.number for i in eligible]
    [1]
    """

    __slots__ = ("instances",)

    def __init__(self, instances: dict[int, Instance] | None = None) -> None:
        super().__init__()
        self.instances = {} if instances is None else instances
        """Every instance of the pool by its number, whether or not it may get work."""

    def add(self, instance: Instance) -> None:
        """Add an instance that is not in the list."""
        instance.place = len(self)
        self.append(instance)

    def discard(self, instance: Instance) -> None:
        """Take an instance off the list, if it is there."""
        place = instance.place
        if place < 0:
            return
        last = self.pop()
        if last is not instance:
            self[place] = last
            last.place = place
        instance.place = -1

    def refresh(self, instance: Instance) -> None:
        """Have the instance in the list exactly if it may get work."""
        wanted = instance.state is _READY and instance.in_flight < instance.cap
        if wanted and instance.place < 0:
            self.add(instance)
        elif not wanted and instance.place >= 0:
            self.discard(instance)
