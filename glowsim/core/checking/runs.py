"""Invariants that need a whole run: it repeats, replays, survives a restart, wakes in time, adds up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import fsum, isclose
from typing import TypeGuard, cast

from glowsim.core.checking.facts import Violation
from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Effected, Recording, first_difference
from glowsim.core.price import Price
from glowsim.core.types import Arrived, Command, Dispatch, Event, Finished

__all__ = ["is_event", "ledger", "repeats", "replays", "restores", "wakes"]


def repeats(one: Recording, other: Recording) -> list[Violation]:
    """I8: the same seed gives the same records. Against hash order, own randomness, shared state.

    Run the two under different hash seeds to see hash order.
    """
    for number, (mine, theirs) in enumerate(zip(one.records(), other.records(), strict=False)):
        if repr(mine) != repr(theirs):
            return [
                Violation("I8", _time(one, number), number, f"one run has {mine!r}, the other {theirs!r}")
            ]
    if len(one) != len(other):
        message = f"one run has {len(one)} records, the other {len(other)}"
        return [Violation("I8", _time(one, -1), min(len(one), len(other)), message)]
    return []


def replays(recording: Recording, make_plane: Callable[[], ControlPlane]) -> list[Violation]:
    """I9: a fresh control plane answers the recorded events alike. Against clocks and own randomness."""
    return _same(recording, make_plane(), "I9", "a replay")


def restores(recording: Recording, make_plane: Callable[[], ControlPlane], at: int) -> list[Violation]:
    """I13: going on from a snapshot equals never having stopped. Against state that a snapshot forgets.

    Parameters
    ----------
    recording
        A journal that was read.
    make_plane
        Returns a fresh control plane, as the journal's was.
    at
        Before which record to stop: the snapshot is taken before the first event from there on.
    """
    before = len([record for record in islice(recording.records(), at) if is_event(record)])
    plane = cast(ControlPlane, _Restarting(make_plane, before))
    return _same(recording, plane, "I13", f"going on from a snapshot at record {at}")


class _Restarting:
    """A control plane that goes through JSON into a fresh one after so many events."""

    def __init__(self, make_plane: Callable[[], ControlPlane], events: int) -> None:
        self._make_plane = make_plane
        self._plane = make_plane()
        self._left = events

    def handle(self, event: Event) -> Sequence[Command]:
        if self._left == 0:
            saved = json.loads(json.dumps(self._plane.snapshot()))
            self._plane = self._make_plane()
            self._plane.restore(saved)
        self._left -= 1
        return self._plane.handle(event)


def _same(recording: Recording, plane: ControlPlane, invariant: str, what: str) -> list[Violation]:
    difference = first_difference(recording, plane)
    if difference is None:
        return []
    events = (number for number, record in enumerate(recording.records()) if is_event(record))
    number = next(islice(events, difference.number, None))
    if difference.state:
        message = (
            f"{what} comes to another state than the next segment begins with, after {difference.event!r}"
        )
        return [Violation(invariant, difference.event.t_s, number, message)]
    message = f"{what} answers {difference.event!r} with {difference.replayed}, not {difference.recorded}"
    return [Violation(invariant, difference.event.t_s, number, message)]


def wakes(
    recording: Recording, make_plane: Callable[[], ControlPlane], late_s: float = 0.0
) -> list[Violation]:
    """I2: the world lets no timer pass by. Against drivers that wake the control plane late or never.

    Parameters
    ----------
    recording
        A journal that was read.
    make_plane
        Returns a fresh control plane, as the journal's was.
    late_s
        How late a wake may be: 0 in a simulation, in a live world what its loop takes at most.
    """
    plane = make_plane()
    violations = []
    for number, record in enumerate(recording.records()):
        if not is_event(record):
            continue
        event = record
        due_s = plane.next_wake_s()
        if event.t_s > due_s + late_s:
            message = f"a timer due at {due_s:g} s was passed by until {event.t_s:g} s"
            violations.append(Violation("I2", event.t_s, number, message))
        plane.handle(event)
    return violations


def ledger(
    recording: Recording, prices: Mapping[int, Price], billed_usd: Mapping[int, float]
) -> list[Violation]:
    """I7: a ledger equals the sum of usage times price. Against usage that is lost, doubled or mispriced.

    Parameters
    ----------
    recording
        A journal that was read.
    prices
        By the model's number.
    billed_usd
        What the ledger says that the tokens of each agent's attempts cost, by the agent's number.
    """
    agents: dict[int, int] = {}
    running: dict[int, tuple[int, int]] = {}
    costs: dict[int, list[float]] = {agent: [] for agent in billed_usd}
    for record in recording.records():
        match record:
            case Arrived(_, request):
                agents[request.request_id] = request.agent
            case Dispatch(attempt, request_id, _, plan):
                running[attempt] = (agents[request_id], plan.model)
            case Finished(_, attempt, _, (tokens_in, tokens_cached, tokens_out, *_)):
                agent, model = running.pop(attempt)
                price = prices[model]
                parts = (tokens_in - tokens_cached, tokens_cached, tokens_out)
                costs.setdefault(agent, []).extend(n * each for n, each in zip(parts, price, strict=True))
    violations = []
    for agent, parts_usd in sorted(costs.items()):
        sum_usd, said_usd = fsum(parts_usd), billed_usd.get(agent, 0.0)
        if not isclose(sum_usd, said_usd, rel_tol=1e-9, abs_tol=1e-12):
            message = f"agent {agent} is billed {said_usd!r} USD; its usage times price is {sum_usd!r} USD"
            violations.append(Violation("I7", _time(recording, -1), -1, message))
    return violations


def is_event(record: Event | Command | Effected) -> TypeGuard[Event]:
    """Return whether a record is an event."""
    return hasattr(record, "t_s") and not isinstance(record, Effected)


def _time(recording: Recording, number: int) -> float:
    return float(recording.times()[number])
