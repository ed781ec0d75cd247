"""Who waits, and who is let in."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from glowsim.core.checking.picture import ROUNDING_S, Agent

__all__ = ["Waits"]


class Waits:
    """Looks at an agent once an event's commands are complete.

    Parameters
    ----------
    violate
        Takes an invariant's number and what is wrong.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate

    def settled(self, agent: Agent, now_s: float) -> None:
        """Check who still waits."""
        self._not_in_vain(agent, now_s)
        self._within_queue(agent)

    def _not_in_vain(self, agent: Agent, now_s: float) -> None:
        """I4: nothing waits while an instance has room. Against leaked slots, stuck breakers, lost joiners."""
        facts = agent.facts
        if not agent.waiting or facts.hold_limit:  # who waits for a limiter has no use for room
            agent.waiting_since_s = inf
            return
        agent.waiting_since_s = min(agent.waiting_since_s, now_s)
        if not agent.free:
            return
        replica, since_s = next(iter(agent.free.items()))
        idle_s = now_s - max(since_s, agent.waiting_since_s)
        if not facts.gate_s or idle_s > facts.gate_s + ROUNDING_S:
            message = f"{agent.waiting} wait, and instance {replica.number} has had room for {idle_s:g} s"
            self._violate("I4", f"agent {agent.number}: {message}")

    def _within_queue(self, agent: Agent) -> None:
        """I10: no more wait than may. Against queues that grow without end."""
        limit = agent.facts.queue_limit
        if limit is not None and agent.waiting > limit + agent.facts.hold_limit:
            self._violate("I10", f"agent {agent.number}: {agent.waiting} wait in a queue for {limit}")

    def let_in(self, agent: Agent, now_s: float) -> None:
        """I10: ``burst`` come in at once and ``rate_per_s`` in the long run. Against limiters that overspend.

        The bucket is full again at ``bucket_s``, which each request moves by 1 / rate and which lies at most
        burst / rate ahead.
        """
        rate_per_s = agent.facts.rate_per_s
        if rate_per_s is None:
            return
        full_s = max(agent.bucket_s, now_s) + 1.0 / rate_per_s
        over_s = full_s - now_s - agent.facts.burst / rate_per_s
        if over_s > 2.0 * ROUNDING_S:  # one for the limiter's own rounding
            self._violate(
                "I10", f"agent {agent.number} let a request in {over_s:g} s too early for its limit"
            )
        else:
            agent.bucket_s = full_s
