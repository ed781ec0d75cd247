"""What the pools of one control plane share: open requests, open attempts, timers, questions asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glowsim.core.timers import Timers
from glowsim.core.types import Plan, Request, State, Usage

if TYPE_CHECKING:
    from glowsim.core.instance import Instance
    from glowsim.core.pool import Pool

__all__ = [
    "ASK", "BACKING_OFF", "BACKOFF", "Books", "CLOSED", "FIRST_TOKEN", "GATE", "HELD", "IN_FLIGHT", "JOINED",
    "LEASE", "Open", "PROBE", "QUEUED", "SCALER", "SPLITTER", "TIMEOUT",
]  # fmt: skip

# Where an open request stands.
HELD, QUEUED, IN_FLIGHT, BACKING_OFF, JOINED, CLOSED = range(6)
# Kinds of timers, in the order in which they fire when due at the same moment.
LEASE, ASK, GATE, BACKOFF, FIRST_TOKEN, TIMEOUT, SPLITTER, SCALER, PROBE = range(9)


class Open:
    """A request that is not answered yet, or whose last attempt still holds a slot.

    Filled in by the pool that opens it: every request passes there, and a constructor costs as much again.
    """

    __slots__ = (
        "arrived_s", "assigned_s", "attempt", "attempts", "cache_key", "committed", "deadline_s", "followers",
        "instance", "late", "leader", "plan", "pool", "request", "request_id", "rung", "since_s", "spare", "state",
        "used", "variant",
    )  # fmt: skip

    request: Request
    request_id: int
    pool: Pool
    arrived_s: float
    assigned_s: float | None
    """When the splitter gave it its variant; None: it has its leader's, or none yet."""
    deadline_s: float
    variant: int
    plan: Plan
    state: int
    attempts: int
    attempt: int
    instance: Instance | None
    since_s: float
    """When it was queued or dispatched last."""
    cache_key: int
    committed: bool
    used: Usage | None
    late: bool
    """Whether its attempt was cancelled for taking too long, which is the instance's failure."""
    rung: int
    """How many steps of the fallback ladder it has gone down."""
    spare: int
    """The attempt whose answer it gets if a better one does not come; 0: none."""
    followers: list[Open] | None
    leader: Open | None

    def snapshot(self) -> dict[str, Any]:
        """Return what cannot be rebuilt from elsewhere, as plain values."""
        return {
            "request": self.request,
            "agent": self.request.agent,
            "arrived_s": self.arrived_s,
            "assigned_s": self.assigned_s,
            "deadline_s": self.deadline_s,
            "variant": self.variant,
            "plan": self.plan,
            "state": self.state,
            "attempts": self.attempts,
            "attempt": self.attempt,
            "instance": None if (last := self.instance) is None else (last.number, last.state >= State.GONE),
            "since_s": self.since_s,
            "cache_key": self.cache_key,
            "committed": self.committed,
            "used": self.used,
            "late": self.late,
            "rung": self.rung,
            "spare": self.spare,
            "followers": [follower.request_id for follower in self.followers or ()],
        }


class Books:
    """The shared state of the pools; every entry in it is bounded by the open work."""

    def __init__(self) -> None:
        self.open: dict[int, Open] = {}
        self.attempts: dict[int, Open] = {}
        self.expired: set[int] = set()
        """Attempts whose lease ran out before their `Finished` came."""
        self.last_attempt = 0
        self.asked: dict[int, Pool] = {}
        self.last_ask = 0
        self.timers = Timers(
            {
                LEASE: self.attempts.__contains__,
                ASK: self.asked.__contains__,
                BACKOFF: self._backs_off,
                FIRST_TOKEN: self._awaits_first_token,
                TIMEOUT: self.open.__contains__,
            }
        )

    def _backs_off(self, number: int) -> bool:
        opened = self.open.get(number)
        return opened is not None and opened.state == BACKING_OFF

    def _awaits_first_token(self, attempt: int) -> bool:
        opened = self.attempts.get(attempt)
        return opened is not None and not opened.committed
