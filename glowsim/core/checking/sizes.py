"""How many instances an agent is to have, and who goes."""

from __future__ import annotations

from collections.abc import Callable

from glowsim.core.checking.picture import ROUNDING_S, Agent, Replica
from glowsim.core.reasons import Code, Constraint
from glowsim.core.types import Scale, State

__all__ = ["Sizes"]


class Sizes:
    """Looks at every `Scale`, before it is carried out.

    Parameters
    ----------
    violate
        Takes an invariant's number and what is wrong.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate

    def scaled(
        self, agent: Agent, command: Scale, now_s: float, before_s: float, event: int, leaving: int = 0
    ) -> None:
        """Check a command.

        Parameters
        ----------
        agent, command
            Who is scaled, and how.
        now_s, before_s
            When this event happened, and the one before it.
        event
            The number of this one.
        leaving
            How many instances it says are going: perhaps they were still there when this was decided.
        """
        self._within_limits(agent, command)
        self._cooled_down(agent, command, now_s, before_s, leaving)
        self._with_least_to_lose(agent, command, now_s, event)

    def _within_limits(self, agent: Agent, command: Scale) -> None:
        """I11: a scaler stays within its limits; an operator may leave them. Against runaway fleets."""
        if command.reason.code == Code.OPERATOR:
            return
        low, high = agent.facts.min_instances, agent.facts.max_instances
        if low is not None and command.want < low:
            self._violate("I11", f"agent {agent.number} is to have {command.want} instances; at least {low}")
        if high is not None and command.want > high:
            self._violate("I11", f"agent {agent.number} is to have {command.want} instances; at most {high}")

    def _cooled_down(self, agent: Agent, command: Scale, now_s: float, before_s: float, leaving: int) -> None:
        """I11: changes for load keep their distance, the first and the last instance apart. Against flapping."""
        if command.reason.code not in (Code.LOAD_HIGH, Code.LOAD_LOW):
            return
        reason = command.reason
        if reason.code == Code.LOAD_LOW and reason.bound == Constraint.STEP and not reason.c:
            agent.changed_s = before_s  # on its way to none, a step at a time
            return
        most = len(agent.staying)
        waits_s = {self._cooldown_s(agent, command.want, have) for have in range(most - leaving, most + 1)}
        since_s, least_s = now_s - agent.changed_s, min(waits_s)
        if since_s < least_s - ROUNDING_S:
            self._violate(
                "I11", f"agent {agent.number} is scaled {since_s:g} s after the last time, not {least_s:g} s"
            )
        agent.changed_s = before_s

    @staticmethod
    def _cooldown_s(agent: Agent, want: int, have: int) -> float:
        """Return what keeps a change from the one before it; from none and to none, nothing does."""
        facts = agent.facts
        cooldown_s = facts.cooldown_up_s if want > have else facts.cooldown_down_s
        return 0.0 if cooldown_s is None or have <= 0 or want == 0 else cooldown_s

    def _with_least_to_lose(self, agent: Agent, command: Scale, now_s: float, event: int) -> None:
        """I11: those go who are there and have the least work. Against drains that hurt more than needed."""
        spared = {each.number: each for each in agent.staying}
        going = [spared.pop(number, None) for number in command.victims]
        if None in going:
            number = command.victims[going.index(None)]
            self._violate("I11", f"instance {number} of agent {agent.number} is sent away; it is not there")
        ready = [each for each in spared.values() if each.state is State.READY]
        if agent.facts.gate_s or not ready:
            return  # a breaker's word on who is worth keeping cannot be seen
        least = min(ready, key=lambda each: each.perhaps_held(event))
        for victim in going:
            if victim is not None and victim.surely_held(now_s) > least.perhaps_held(event):
                self._violate(
                    "I11", f"instance {victim.number} is sent away; {least.number} has less to lose"
                )

    def stayed(self, replica: Replica) -> None:
        """I14: who was sent away has gone. Against a driver that drains somebody else."""
        if replica.sent_away and not replica.left and replica.refused is False:
            self._violate(
                "I14", f"instance {replica.number} was to drain, and the world never said that it did"
            )
