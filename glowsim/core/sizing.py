"""How many instances an agent has: what the scaler is shown, when it is asked, and what is made of its answer."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from glowsim.core.books import SCALER
from glowsim.core.errors import ControllerError
from glowsim.core.protocols import Load
from glowsim.core.types import Code, Command, Reason, Scale, State

if TYPE_CHECKING:
    from glowsim.core.pool import Pool

__all__ = ["Sizing"]

Out = list[Command]
_new = tuple.__new__
_STARTING, _READY = State.STARTING, State.READY


class Sizing:
    """The size of one pool.

    The work in the system over time is the integral of its number. With n there now, it is n t minus the
    moments at which they came, plus those at which others left; so every coming and going is one addition.
    """

    __slots__ = (
        "_concurrency", "_due_s", "_paused", "_pool", "_scaler", "_since_s", "_slots", "asleep", "entered_s",
        "in_system",
    )  # fmt: skip

    _PLAIN = ("in_system", "entered_s", "asleep", "_since_s", "_due_s", "_paused")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._scaler = pool.controllers.scaler
        self._slots, self._concurrency = pool.spec.slots, pool.spec.concurrency
        self.in_system = 0
        """Requests that are queued or in flight, and attempts that outlive their requests."""
        self.entered_s = 0.0
        """Moments at which they came less moments at which others left, since the last look."""
        self.asleep = True
        """Whether the next arrival is news to the scaler."""
        self._since_s = 0.0
        self._due_s = inf
        self._paused = False

    def start(self, t_s: float) -> None:
        """Begin to measure."""
        self._since_s = t_s

    def load(self, t_s: float) -> Load:
        """Return what a scaler is shown."""
        pool = self._pool
        ready = starting = draining = 0
        for instance in pool.instances.values():
            state = instance.state
            if state is _READY:
                ready += 1
            elif state is _STARTING:
                starting += 1
            else:
                draining += 1
        span_s = t_s - self._since_s
        in_system = self.in_system
        mean = max(in_system * t_s - self.entered_s, 0.0) / span_s if span_s > 0.0 else float(in_system)
        waiting = pool.waiting
        return _new(
            Load,
            (in_system - waiting, waiting, mean, ready, starting, draining, self._slots, self._concurrency),
        )

    def due(self, t_s: float, out: Out) -> None:
        """Ask the scaler, unless it has been asked since this timer was set."""
        if t_s >= self._due_s:
            self.look(t_s, out)

    def look(self, t_s: float, out: Out) -> None:
        """Ask the scaler how many instances to have."""
        if self._scaler is None:
            self.asleep = False
            return
        load = self.load(t_s)
        want, reason, look_s = self._scaler.decide(t_s, load)
        self._since_s, self.entered_s = t_s, self.in_system * t_s
        # With nothing in the system, an arrival is news that the scaler has not seen, whenever it next looks.
        self.asleep = self.in_system == 0
        self._due_s = inf
        if look_s < inf:
            if not look_s > t_s:
                raise ControllerError(f"the scaler wants to look again at {look_s} s, but it is {t_s} s")
            self._due_s = look_s
            self._pool.books.timers.at(look_s, SCALER, self._pool.spec.agent)
        if want != load[3] + load[4] and not self._paused:
            self.scale(t_s, want, reason, out)

    def scale(self, t_s: float, want: int, reason: Reason, out: Out) -> None:
        """Have ``want`` instances, and choose who goes if that is fewer."""
        if want < 0:
            raise ControllerError(f"the scaler wants {want} instances: give 0 or more")
        pool = self._pool
        staying = [
            each for each in pool.instances.values() if each.state is _READY or each.state is _STARTING
        ]
        if want == len(staying):
            return
        victims: tuple[int, ...] = ()
        if want < len(staying):
            # Starting ones have nothing to lose, then those with the least work, then the newest.
            staying.sort(key=lambda each: (each.state is not _STARTING, each.in_flight, -each.number))
            going = staying[: len(staying) - want]
            victims = tuple(instance.number for instance in going)
            for instance in going:
                instance.state = State.DRAINING
                pool.leave(t_s, instance)
        out.append(Scale(pool.spec.agent, pool.spec.region, 0, want, victims, reason))

    @property
    def paused(self) -> bool:
        """Whether an operator has it hold the size."""
        return self._paused

    def pause(self) -> None:
        """Obey an operator: the scaler goes on deciding, and nothing is done about it."""
        self._paused = True

    def resume(self, t_s: float, out: Out) -> None:
        """Obey an operator: do as the scaler says again, from now on."""
        self._paused = False
        if self._pool.started:
            self.look(t_s, out)

    def set_instances(self, t_s: float, want: int, out: Out) -> None:
        """Obey an operator."""
        self.scale(t_s, want, Reason(Code.OPERATOR, a=want), out)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that affects decisions."""
        return {name: getattr(self, name) for name in self._PLAIN}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        for name, value in saved.items():
            setattr(self, name, value)
