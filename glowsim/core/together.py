"""Several limiters as one, and several breakers as one.

Both are what their family's protocol asks for, so a pool cannot tell them from a single one, and each part
may be wrapped by a shadow or a fallback of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, cast

from glowsim.core.errors import ControllerError
from glowsim.core.instance import UNLIMITED
from glowsim.core.protocols import HOLD, Asker, Breaker, Gate, Limiter
from glowsim.core.snapshot import pack, unpack
from glowsim.core.types import Ask, Outcome, Request, Told, Usage

__all__ = ["Breakers", "Limiters"]

_NOTHING = Usage()
_OPEN_TO_ALL = (UNLIMITED, inf)


class _Several:
    """State of several controllers as one: a list, in their order."""

    def __init__(self, parts: Sequence[Any]) -> None:
        if not parts:
            raise ValueError("parts: give at least one")
        self._parts = tuple(parts)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What it is made of, in the order in which they are asked."""
        return self._parts

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every part, as plain JSON data."""
        return {"parts": [part.snapshot() for part in self._parts]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        for part, state in zip(self._parts, saved["parts"], strict=True):
            part.restore(state)


class Limiters(_Several):
    """Decides that a request comes in if every one of several limiters admits it.

    One that refuses costs the request nothing anywhere: whatever the others reserved is given back, by
    ``withdraw(t_s, request)`` where a limiter has it (one that counts a request whatever became of it) and
    by settling no usage elsewhere. The wait is the longest of all refusals', after which every one of them
    would admit.

    One that asks the outside world is asked last, and only if the others admit, since what it was granted
    cannot be given back. It may hold the request, which then has no reservation anywhere until it is told.

    Parameters
    ----------
    parts
        The limiters, in the order in which they are asked; at most one that asks the outside world.

    Raises
    ------
    ValueError
        There is none, or two of them ask.

    Notes
    -----
    Known weakness: a refusal by one costs an admission by the others and its withdrawal, so put first what
    refuses most.

    >>> class Places:
    ...     def __init__(self, free): self.free = free
    ...     def admit(self, t_s, request):
    ...         if not self.free: return 9.0
    ...         self.free -= 1
    ...         return 0.0
    ...     def settle(self, t_s, request, usage): self.free += 1
    >>> some, none = Places(5), Places(0)
    >>> Limiters([some, none]).admit(0.0, Request(1, 0, 900, 100)), some.free
    (9.0, 5)
    """

    def __init__(self, parts: Sequence[Limiter]) -> None:
        asking = [one for one in parts if hasattr(one, "to_ask")]
        if len(asking) > 1:
            raise ValueError(
                f"parts: {len(asking)} of them ask the outside world; one may, so merge them into one limit there"
            )
        super().__init__(sorted(parts, key=lambda one: hasattr(one, "to_ask")))
        self._admits = [one.admit for one in self._parts]
        self._numbered = tuple(enumerate(self._admits))
        self._settles = [one.settle for one in self._parts]
        self._withdraws = [getattr(one, "withdraw", _settle_nothing(one)) for one in self._parts]
        self._sure = len(parts) - len(asking)
        """How many there are that do not ask."""
        if asking:
            self._asker = cast(Asker, asking[0])
            self.to_ask = self._to_ask
            self.told = self._told

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, the seconds after which all would, or `HOLD` to keep it waiting."""
        for at, admit in self._numbered:
            wait_s = admit(t_s, request)
            if wait_s != 0.0:
                return self._refuse(t_s, request, at, wait_s)
        return 0.0

    def _refuse(self, t_s: float, request: Request, at: int, wait_s: float) -> float:
        """Give back what the limiters before ``at`` reserved, and ask the rest how long to wait for them."""
        if not (wait_s > 0.0 or (wait_s == HOLD and at == self._sure)):
            raise ControllerError(
                f"limiter {at} of {len(self._parts)} answered {wait_s}: give 0 or seconds to wait, "
                "and HOLD only if it asks the outside world"
            )
        for withdraw in self._withdraws[:at]:
            withdraw(t_s, request)
        for i in range(at + 1, self._sure):
            other_s = self._admits[i](t_s, request)
            if other_s == 0.0:
                self._withdraws[i](t_s, request)
            elif other_s > wait_s:
                wait_s = other_s
        return wait_s

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Replace the reservation of an admitted request by what it used, in every limiter."""
        for settle in self._settles:
            settle(t_s, request, usage)

    def _to_ask(self, t_s: float, ask_id: int) -> Ask | None:
        return self._asker.to_ask(t_s, ask_id)

    def _told(self, t_s: float, told: Told) -> None:
        self._asker.told(t_s, told)


def _settle_nothing(limiter: Limiter) -> Callable[[float, Request], None]:
    settle = limiter.settle
    return lambda t_s, request: settle(t_s, request, _NOTHING)


class Breakers(_Several):
    """Decides that an instance may have the work that every one of several breakers allows it.

    Every breaker hears of every outcome. The gate is the smallest cap among theirs, and is asked again at
    the earliest moment among theirs; then those wake that are due. Where one says that a request which no
    instance may take fails at once, it does. What some of them follow of instances
    (`Follower`) reaches those, and what none follows is not there.

    Parameters
    ----------
    parts
        The breakers.

    Raises
    ------
    ValueError
        There is none.
    """

    def __init__(self, parts: Sequence[Breaker]) -> None:
        super().__init__(parts)
        fails = any(getattr(one, "when_all_open", "wait") == "fail" for one in parts)
        self.when_all_open = "fail" if fails else "wait"
        self._records = tuple(enumerate(one.record for one in self._parts))
        self._gates: dict[int, list[tuple[int, float]]] = {}
        """Instance -> (cap, until_s) of every breaker; one that all leave open for good is absent."""
        for name in ("joined", "left", "ended"):
            hears = [getattr(one, name) for one in self._parts if hasattr(one, name)]
            if hears:
                setattr(self, name, hears[0] if len(hears) == 1 else _to_all(hears))
        if any(hasattr(one, "probed") for one in self._parts):
            self.probed = self._probed

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended, and after how long; return the new gate if it changed."""
        changed: dict[int, Gate] | None = None
        for at, record in self._records:
            gate = record(t_s, instance, outcome, duration_s)
            if gate is not None:
                changed = {} if changed is None else changed
                changed[at] = gate
        return None if changed is None else self._gate(instance, changed)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Wake the breakers that are due; return the gate, which holds until the next one is due."""
        known = self._gates.get(instance)
        if known is None:
            return None
        due = [until_s <= t_s for _, until_s in known]
        for i, is_due in enumerate(due):
            if is_due:
                known[i] = (known[i][0], inf)
        return self._gate(
            instance,
            {
                at: gate
                for at, part in enumerate(self._parts)
                if due[at] and (gate := part.wake(t_s, instance))
            },
        )

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._gates.pop(instance, None)
        for part in self._parts:
            part.forget(instance)

    def _probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        outcome = Outcome.OK if healthy else Outcome.UNREACHABLE
        changed: dict[int, Gate] = {}
        for at, part in enumerate(self._parts):
            gate = (
                part.probed(t_s, instance, healthy)
                if hasattr(part, "probed")
                else part.record(t_s, instance, outcome, 0.0)
            )
            if gate is not None:
                changed[at] = gate
        return self._gate(instance, changed) if changed else None

    def _gate(self, instance: int, changed: dict[int, Gate]) -> Gate:
        """Return the gate of all, after those of some places have changed."""
        now = list(self._gates.get(instance) or [_OPEN_TO_ALL] * len(self._parts))
        for at, gate in changed.items():
            now[at] = (gate.cap, gate.until_s)
        if now == [_OPEN_TO_ALL] * len(now):
            self._gates.pop(instance, None)
        else:
            self._gates[instance] = now
        return Gate(min(cap for cap, _ in now), min(until_s for _, until_s in now))

    def snapshot(self) -> dict[str, Any]:
        """Return the state of every breaker, and the gates, as plain JSON data."""
        return {**super().snapshot(), "gates": pack(self._gates)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._gates = unpack(saved["gates"])


def _to_all(hears: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def hear(*what: Any) -> None:
        for each in hears:
            each(*what)

    return hear
