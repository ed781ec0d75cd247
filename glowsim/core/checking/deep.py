"""The control plane's own books, against the picture drawn from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isfinite
from typing import Any

from glowsim.core import books
from glowsim.core.checking.picture import Agent, Attempt, Opened
from glowsim.core.control_plane import ControlPlane
from glowsim.core.pool import Pool
from glowsim.core.snapshot import unpack
from glowsim.core.types import State

__all__ = ["Deep"]

_Entries = list[dict[str, Any]]


class Deep:
    """Compares; the books are those of `ControlPlane.snapshot`.

    Parameters
    ----------
    violate
        Takes an invariant's number and what is wrong.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate

    def compare(
        self,
        plane: ControlPlane,
        agents: list[Agent],
        opened: Mapping[int, Opened],
        attempts: Mapping[int, Attempt],
        now_s: float,
    ) -> float:
        """Compare everything; return when the control plane wants to be woken."""
        saved = unpack(plane.snapshot()["books"])
        self._requests(saved["open"], opened)
        self._attempts(saved["attempts"], attempts, now_s)
        for agent, pool in zip(agents, plane.pools, strict=True):
            entries = [entry for entry in saved["open"] if entry["agent"] == agent.number]
            waiting = [entry["state"] for entry in entries].count(books.QUEUED)
            self._limits(agent, entries, waiting, len(pool.controllers.queue))
            self._instances(agent, pool, waiting, now_s)
        return self._wake_s(plane, saved["timers"])

    def _requests(self, entries: _Entries, opened: Mapping[int, Opened]) -> None:
        """I1: the same requests are open. Against entries that nobody closes."""
        booked = {entry["request"].request_id for entry in entries}
        for number in sorted(booked ^ opened.keys()):
            self._violate("I1", f"request {number} is open only {_where(number in booked)}")

    def _attempts(self, booked: list[int], attempts: Mapping[int, Attempt], now_s: float) -> None:
        """I3: the same attempts are open, but for leases about to run out. Against attempts that linger."""
        sure = {number for number, each in attempts.items() if each.lease_from_s > now_s}
        for number in sorted((sure - set(booked)) | (set(booked) - attempts.keys())):
            self._violate("I3", f"attempt {number} is open only {_where(number in booked)}")

    def _limits(self, agent: Agent, entries: _Entries, waiting: int, in_queue: int) -> None:
        """I1, I10: who waits is in the queue, and within the limits. Against queues that lose or gain."""
        held = [entry["state"] for entry in entries].count(books.HELD)
        followers = max((len(entry["followers"]) for entry in entries), default=0)
        facts = agent.facts
        if waiting != in_queue:
            self._violate("I1", f"agent {agent.number}: {waiting} wait, and {in_queue} are in the queue")
        for what, count, limit in (
            ("are in the queue", in_queue, facts.queue_limit),
            ("are held", held, facts.hold_limit),
            ("have joined one request", followers, facts.follower_limit),
        ):
            if limit is not None and count > limit:
                self._violate("I10", f"agent {agent.number}: {count} {what}; at most {limit}")

    def _instances(self, agent: Agent, pool: Pool, waiting: int, now_s: float) -> None:
        """I4, I5: slots are taken by attempts, and used. Against leaked slots and breakers stuck open."""
        for number, instance in pool.instances.items():
            replica = agent.instances.get(number)
            low = 0 if replica is None else replica.surely_held(now_s)
            high = 0 if replica is None else len(replica.holding)
            if not low <= instance.in_flight <= high:
                self._violate(
                    "I5", f"instance {number} has {instance.in_flight} in flight by the books, {high} in fact"
                )
            if waiting and instance.state is State.READY and instance.in_flight < instance.cap:
                self._violate("I4", f"agent {agent.number}: {waiting} wait, and instance {number} has room")
            shut = instance.gate_cap <= 0 and instance.gate_until_s == inf and not instance.in_flight
            if shut and not isfinite(pool.spec.probe_every_s):
                self._violate("I4", f"instance {number} is shut, and its breaker will never be asked again")

    def _wake_s(
        self, plane: ControlPlane, lanes: list[tuple[int, float, list[tuple[float, int, int]]]]
    ) -> float:
        """I2: the next wake is the earliest timer. Against timers that nobody is woken for."""
        earliest_s = min((timer[0] for _, _, timers in lanes for timer in timers), default=inf)
        wake_s = plane.next_wake_s()
        if wake_s != earliest_s:
            self._violate("I2", f"the next wake is at {wake_s:g} s, and a timer is due at {earliest_s:g} s")
        return min(wake_s, earliest_s)


def _where(booked: bool) -> str:
    return "in the control plane's books" if booked else "in fact"
