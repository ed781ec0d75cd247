"""The checker's own picture of a fleet, drawn from events and commands alone.

A journal does not say whether a request that got no command waits in the queue, is held by a limiter or has
joined another; nor at which moment a late timer was due. So the picture keeps bounds: what surely waits,
what surely holds a slot, what may still hold one. Every check takes the bound that accuses nobody wrongly.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from glowsim.core.checking.facts import Facts
from glowsim.core.types import Command, Request, State

__all__ = ["ROUNDING_S", "Agent", "Attempt", "Opened", "Replica"]

ROUNDING_S = 1e-6
"""Moments that are computed in two ways may differ by so much."""

_SESSIONS = 10_000


class Replica:
    """One life of an instance."""

    __slots__ = ("agent", "freed_at", "holding", "left", "number", "refused", "sent_away", "state")

    def __init__(self, agent: Agent, number: int) -> None:
        self.agent = agent
        self.number = number
        self.state = State.STARTING
        self.holding: dict[int, Attempt] = {}
        """Attempts that may hold a slot of it."""
        self.freed_at = -1
        """The event that ended its last attempt: timers that fired before it found the slot taken."""
        self.sent_away = False
        """Whether a `Scale` named it as a victim."""
        self.left = False
        """Whether the world has said that it drains, failed or is gone."""
        self.refused: bool | None = None
        """Whether the world would not send it away; None: it has not said yet."""

    @property
    def may_work(self) -> bool:
        """Whether it may be given work, if it has room."""
        return self.state is State.READY and not self.sent_away

    def surely_held(self, t_s: float) -> int:
        """Return how many slots are taken, even if every lease that can have run out by now has."""
        return len([each for each in self.holding.values() if each.lease_from_s > t_s])

    def perhaps_held(self, event: int) -> int:
        """Return how many slots may have been taken at some moment of handling this event."""
        return len(self.holding) + (self.freed_at == event)


class Opened:
    """An open request."""

    __slots__ = ("agent", "attempts", "committed", "deadline_s", "end", "group", "parked", "request", "tries")

    def __init__(self, agent: Agent, request: Request, t_s: float) -> None:
        self.agent = agent
        self.request = request
        self.deadline_s = min(t_s + agent.facts.timeout_s, request.deadline_s)
        self.attempts: dict[int, Attempt] = {}
        """Its attempts that have not been finished."""
        self.tries = 0
        self.committed = False
        self.end: type[Command] | None = None
        self.parked = False
        """Whether it arrived and got neither an end nor an attempt yet: queued, held or joined."""
        self.group = agent.group_of(request)


class Attempt:
    """An attempt that has not been finished."""

    __slots__ = ("lease_from_s", "lease_to_s", "number", "opened", "plan_tokens_in", "replica")

    def __init__(self, number: int, opened: Opened | None, replica: Replica | None, tokens_in: int) -> None:
        self.number = number
        self.opened = opened
        self.replica = replica
        self.plan_tokens_in = tokens_in
        self.lease_from_s = inf
        """Once cancelled, the earliest moment at which its lease can run out: its timer may have been late."""
        self.lease_to_s = inf
        """Once cancelled, the latest."""


class Agent:
    """One agent's counters."""

    __slots__ = (
        "_groups",
        "bucket_s",
        "changed_s",
        "facts",
        "free",
        "headless",
        "homes",
        "instances",
        "mixed",
        "number",
        "queued",
        "waiting_since_s",
    )  # fmt: skip

    def __init__(self, number: int, facts: Facts) -> None:
        self.number = number
        self.facts = facts
        self.instances: dict[int, Replica] = {}
        self.free: dict[Replica, float] = {}
        """Those that surely have room, with the moment since when nothing has happened to them; oldest first."""
        self.queued = 0
        """Parked requests without keys: they can have joined nobody."""
        self.headless = 0
        """Keys whose requests are all parked: one of them surely leads the others and waits."""
        self.mixed = False
        """Whether a request came with both keys: then who leads whom cannot be told."""
        self.waiting_since_s = inf
        self.changed_s = -inf
        """When the scaler last changed the size for load, at the earliest."""
        self.bucket_s = -inf
        """When the bucket of what may come in is full again."""
        self.homes: OrderedDict[int, tuple[Replica, ...]] = OrderedDict()
        """Session -> where it was first and last."""
        self._groups: dict[tuple[bool, int], list[int]] = {}

    @property
    def waiting(self) -> int:
        """How many requests surely wait, in the queue or for a limiter."""
        return self.queued if self.mixed else self.queued + self.headless

    @property
    def staying(self) -> list[Replica]:
        """The instances that are starting or ready and have not been sent away."""
        there = (State.STARTING, State.READY)
        return [each for each in self.instances.values() if each.state in there and not each.sent_away]

    def group_of(self, request: Request) -> tuple[bool, int] | None:
        """Return the key by which a request may have joined another, if any."""
        cached = bool(request.cache_key) and self.facts.caches
        if request.idempotency_key:
            self.mixed = self.mixed or cached
            return (True, request.idempotency_key)
        return (False, request.cache_key) if cached else None

    def park(self, opened: Opened) -> None:
        """Count a request that got no command."""
        opened.parked = True
        if opened.group is None:
            self.queued += 1
        else:
            self._count(opened.group, 1, 0)

    def start(self, opened: Opened) -> None:
        """Count a request that got its first attempt."""
        self._unpark(opened)
        if opened.group is not None:
            self._count(opened.group, 0, 1)

    def close(self, opened: Opened) -> None:
        """Count a request no longer."""
        self._unpark(opened)
        if opened.group is not None and opened.tries:
            self._count(opened.group, 0, -1)

    def refresh(self, replica: Replica, t_s: float) -> None:
        """Take in that something happened to an instance."""
        self.free.pop(replica, None)
        if replica.may_work and len(replica.holding) < self.facts.slots:
            self.free[replica] = t_s

    def settle_in(self, session: int, replica: Replica) -> tuple[Replica, ...]:
        """Take in where a session goes; return where it may be at home, of those that are still there.

        That is where it was first, for a balancer that sends it back, and where it was last, for one that
        lets it settle.
        """
        before = tuple(each for each in self.homes.pop(session, ()) if each.may_work)
        self.homes[session] = (*before[:1], replica)
        if len(self.homes) > _SESSIONS:
            self.homes.popitem(last=False)
        return before

    def _unpark(self, opened: Opened) -> None:
        if not opened.parked:
            return
        opened.parked = False
        if opened.group is None:
            self.queued -= 1
        else:
            self._count(opened.group, -1, 0)

    def _count(self, key: tuple[bool, int], parked: int, active: int) -> None:
        group = self._groups.setdefault(key, [0, 0])
        before = group[0] > 0 and not group[1]
        group[0] += parked
        group[1] += active
        self.headless += (group[0] > 0 and not group[1]) - before
        if group == [0, 0]:
            del self._groups[key]
