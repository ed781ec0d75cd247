"""What another policy would have done with a journal's events, up to where it first does something else.

Two control planes hear the same events: one with the policy that was recorded, one with the other. Each is woken for
its own timers when they are due, as a driver would have. As long as both command the same at the same moments, the
other policy would have met the same events. After the first difference it would have met others: no journal holds them.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, get_args

from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Effected, Recording
from glowsim.core.types import Arrived, Command, Event, Raise, Reason, Shadowed, Woke

__all__ = ["Difference", "Otherwise", "otherwise"]

_COMMANDS: tuple[type, ...] = get_args(Command)
_NOTES = (Raise, Shadowed)
"""Commands that change nothing in the world: alerts, and what shadows said."""


class Difference(NamedTuple):
    """The first moment at which two policies command something else."""

    t_s: float
    event: Event | None
    """The event that they answered differently; None: a timer of one of them, due before the next event."""
    recorded: tuple[Command, ...]
    """What the recorded policy commanded at that moment."""
    otherwise: tuple[Command, ...]
    """What the other one would have."""


class Otherwise(NamedTuple):
    """How far another policy agrees with a journal."""

    until_s: float
    """The last moment at which both are known to agree."""
    whole_s: float
    """The time of the journal's last event."""
    events: int
    """Events answered alike, before the difference."""
    of_events: int
    requests: int
    """Requests that arrived among those events."""
    of_requests: int
    commands: int
    """Commands that were the same, alerts and shadows' answers aside."""
    other_reasons: int
    """Of those, how many for another reason."""
    alerts: tuple[int, int]
    """How many alerts were raised meanwhile: recorded, otherwise."""
    difference: Difference | None


class _Moments:
    """A control plane that is woken for its timers."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._now_s = -inf

    def hear(self, event: Event) -> dict[float, tuple[Command, ...]]:
        """Return moment -> what is commanded then, of all moments since the last event and up to this one."""
        moments: dict[float, tuple[Command, ...]] = {}
        while (due_s := max(self._plane.next_wake_s(), self._now_s)) <= event[0]:
            self._now_s = due_s
            moments[due_s] = tuple(self._plane.handle(Woke(due_s)))
        self._now_s = t_s = event[0]
        moments[t_s] = (*moments.get(t_s, ()), *self._plane.handle(event))
        return moments


def otherwise(recording: Recording, recorded: ControlPlane, other: ControlPlane) -> Otherwise:
    """Return how far another policy agrees with a journal, and where it first does not.

    Commands are compared but for their reasons; alerts and what shadows said change nothing in the world and are no
    difference.

    Parameters
    ----------
    recording
        A journal that the recorded policy replays to equal commands.
    recorded
        A fresh control plane with the policy that was recorded.
    other
        A fresh control plane with the other policy, for the same fleet.
    """
    one, another = _Moments(recorded), _Moments(other)
    events = requests = commands = other_reasons = 0
    alerts = [0, 0]
    until_s, whole_s, of_events, of_requests = 0.0, 0.0, 0, 0
    difference: Difference | None = None
    for record in recording.records():
        if isinstance(record, (*_COMMANDS, Effected)):
            continue
        event: Event = record  # type: ignore[assignment]  # what is no command and no effect
        whole_s = event[0]
        of_events += 1
        of_requests += isinstance(event, Arrived)
        if difference is not None:
            continue
        said, would = one.hear(event), another.hear(event)
        for t_s in sorted({*said, *would}):
            before, after = said.get(t_s, ()), would.get(t_s, ())
            acts, others = _acts(before), _acts(after)
            if [_deed(each) for each in acts] != [_deed(each) for each in others]:
                difference = Difference(t_s, event if t_s == event[0] else None, before, after)
                break
            until_s = t_s
            commands += len(acts)
            other_reasons += sum(repr(a) != repr(b) for a, b in zip(acts, others, strict=True) if a != b)
            alerts[0] += sum(isinstance(each, Raise) for each in before)
            alerts[1] += sum(isinstance(each, Raise) for each in after)
        else:
            until_s = event[0]
            events += 1
            requests += isinstance(event, Arrived)
    return Otherwise(
        until_s, whole_s, events, of_events, requests, of_requests, commands, other_reasons, (alerts[0], alerts[1]),
        difference,
    )  # fmt: skip


def _acts(commands: tuple[Command, ...]) -> list[Command]:
    return [each for each in commands if not isinstance(each, _NOTES)]


def _deed(command: Command) -> tuple[object, ...]:
    """Return a command without its reason."""
    return (type(command), *(part for part in command if not isinstance(part, Reason)))
