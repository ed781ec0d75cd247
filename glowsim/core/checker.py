"""The invariants, checked by counting along: over a journal, or beside a world while it runs.

The checker is told what a journal holds, record by record, and keeps its own counters; it never asks the
control plane, but for `Checker.deep`, which compares the two pictures. What timers did is seen only with the
next event, so a check holds its breath until the commands of an event are complete.

Invariants that need a whole run are functions: `replays` (I9), `restores` (I13), `repeats` (I8), `ledger`
(I7), `wakes` (I2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any, cast

from glowsim.core.checking.contents import Contents
from glowsim.core.checking.deep import Deep
from glowsim.core.checking.effects import Effects
from glowsim.core.checking.facts import Facts, Violation
from glowsim.core.checking.picture import Agent, Attempt, Opened, Replica
from glowsim.core.checking.runs import is_event, ledger, repeats, replays, restores, wakes
from glowsim.core.checking.sizes import Sizes
from glowsim.core.checking.waits import Waits
from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Effected, Recording
from glowsim.core.reasons import Code
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Cancel,
    Command,
    Dispatch,
    Event,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Outcome,
    Reject,
    Request,
    Scale,
    State,
)  # fmt: skip

__all__ = [
    "Checker", "Facts", "Violation", "check", "ledger", "repeats", "replays", "restores", "wakes",
]  # fmt: skip

_MOST = 100
_DEADLINE, _LEASE = 0, 1


class Checker:
    """Keeps its own counters over events, commands and effects, and lists what should not be.

    Each record costs O(log n) of the open work at most, O(1) but for the moments that it waits for.

    Parameters
    ----------
    facts
        What a journal does not say, of every agent by its number.
    late_s
        How late a world may be with a timer, seen only by `deep`: 0 in a simulation.

    >>> from glowsim.core.types import Usage
    >>> checker = Checker([Facts(slots=1, timeout_s=30.0, cancel_grace_s=5.0, follower_limit=10)])
    >>> checker.event(Finished(1.0, 7, Outcome.OK, Usage()))
    >>> print(checker.violations[0])
    I14 at 1 s, record 0: attempt 7 finished, but it is not open: never dispatched, or finished before
    """

    def __init__(self, facts: Sequence[Facts], late_s: float = 0.0) -> None:
        self.violations: list[Violation] = []
        """The first ones."""
        self.further = 0
        """How many more there were."""
        self._agents = [Agent(number, each) for number, each in enumerate(facts)]
        self._late_s = late_s
        self._now_s = self._before_s = -inf
        self._wake_s = inf
        self._record = self._events = -1
        self._event: Event | None = None
        self._opened: dict[int, Opened] = {}
        self._attempts: dict[int, Attempt] = {}
        self._due: list[tuple[float, int, int]] = []
        self._touched: dict[Agent, None] = {}
        self._closed: list[Opened] = []
        self._ended: Attempt | None = None
        """The attempt that this event finished."""
        self._waits = Waits(self._violate)
        self._contents = Contents(self._violate)
        self._effects = Effects(self._violate, self._contents.lost)
        self._sizes = Sizes(self._violate)
        self._deep = Deep(self._violate)
        self._sees: dict[type, Callable[[Any], None]] = {
            Arrived: self._arrived, Finished: self._finished, InstanceChanged: self._instance_changed,
        }  # fmt: skip
        self._concludes: dict[type, Callable[[Any], None]] = {
            Arrived: self._taken_in, Finished: self._followed_up, FirstToken: self._committed,
            Abandoned: self._abandoned, InstanceChanged: self._instance_left,
        }  # fmt: skip
        self._obeys: dict[type, Callable[[Any], None]] = {
            Dispatch: self._dispatch, Cancel: self._cancel, Answer: self._answer, Reject: self._reject,
            Fail: self._close, Keep: self._keep, Forget: self._contents.forgotten, Scale: self._scale,
        }  # fmt: skip

    # --- what it is told ----------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """Take in an event; its commands follow."""
        self._conclude()
        self._record += 1
        self._events += 1
        self._flow(event[0])
        self._event = event
        see = self._sees.get(type(event))
        if see is not None:
            see(event)

    def command(self, command: Command, number: int) -> None:
        """Take in a command that answered the event, and its number in the journal."""
        self._record += 1
        obey = self._obeys.get(type(command))
        if obey is not None:
            obey(command)
        self._effects.given(number)

    def effect(self, effected: Effected) -> None:
        """Take in what became of a row of commands."""
        self._record += 1
        self._effects.told(effected)

    def deep(self, plane: ControlPlane) -> None:
        """Compare the control plane's own books with this picture, once an event's commands are complete."""
        self._conclude()
        self._wake_s = self._deep.compare(plane, self._agents, self._opened, self._attempts, self._now_s)

    def end(self, t_s: float) -> None:
        """Take in that the journal ends; ``t_s`` is up to when it tells."""
        self._conclude()
        self._now_s = max(self._now_s, t_s)
        for number, opened in self._opened.items():
            if opened.deadline_s < t_s:
                self._overdue(number, opened)
        for attempt in self._attempts.values():
            self._never_finished(attempt, t_s)
        self._effects.ended()
        for agent in self._agents:
            for replica in agent.instances.values():
                self._sizes.stayed(replica)

    def _agent(self, number: int) -> Agent:
        if not 0 <= number < len(self._agents):
            raise ValueError(
                f"the journal tells of agent {number}, the facts of {len(self._agents)} agents: "
                "give those of every agent, by its number"
            )
        return self._agents[number]

    def _violate(self, invariant: str, message: str) -> None:
        if len(self.violations) < _MOST:
            self.violations.append(Violation(invariant, self._now_s, self._record, message))
        else:
            self.further += 1

    # --- I2: time -------------------------------------------------------------------------------------

    def _flow(self, t_s: float) -> None:
        """I2: time never runs back, nor past a timer that was promised. Against a driver's stale clocks."""
        if not t_s >= self._now_s:
            self._violate("I2", f"time ran back from {self._now_s:g} s to {t_s:g} s")
            t_s = self._now_s
        if t_s > self._wake_s + self._late_s:
            self._violate("I2", f"a timer due at {self._wake_s:g} s was passed by until {t_s:g} s")
        self._wake_s = inf
        self._before_s, self._now_s = self._now_s, t_s

    # --- I1: requests ---------------------------------------------------------------------------------

    def _arrived(self, event: Arrived) -> None:
        """I1: a request arrives once. Against identifiers that are used again."""
        request = event.request
        if request.request_id in self._opened:
            self._violate("I1", f"request {request.request_id} arrived again while it was open")
            return
        agent = self._agent(request.agent)
        opened = self._opened[request.request_id] = Opened(agent, request, event.t_s)
        heappush(self._due, (opened.deadline_s, _DEADLINE, request.request_id))
        self._touched[agent] = None

    def _taken_in(self, event: Arrived) -> None:
        opened = self._opened.get(event.request.request_id)
        if opened is not None and not opened.tries and not opened.parked:
            opened.agent.park(opened)
        if opened is not None or not self._turned_away(event.request):
            self._waits.let_in(self._agents[event.request.agent], self._now_s)

    def _turned_away(self, request: Request) -> bool:
        return any(each.request is request and each.end is Reject for each in self._closed)

    def _close(self, command: Answer | Reject | Fail) -> None:
        """I1: an open request ends once. Against double answers and answers to those who were turned away."""
        opened = self._opened.pop(command.request_id, None)
        how = type(command).__name__.lower()
        if opened is None:
            self._violate("I1", f"{how} of request {command.request_id}, which is not open")
            return
        self._let_go(opened, type(command))

    def _let_go(self, opened: Opened, end: type[Command] | None) -> None:
        opened.end = end
        opened.agent.close(opened)
        self._closed.append(opened)
        self._touched[opened.agent] = None

    def _answer(self, command: Answer) -> None:
        opened = self._opened.get(command.request_id)
        fresh = 0 if self._ended is None else self._ended.number
        self._contents.answered(command, fresh, None if opened is None else opened.agent.facts)
        self._close(command)

    def _keep(self, command: Keep) -> None:
        attempt = self._ended
        opened = None if attempt is None else attempt.opened
        request_id = 0 if opened is None else opened.request.request_id
        self._contents.kept(command, 0 if attempt is None else attempt.number, request_id)
        self._effects.kept(command.source)

    def _reject(self, command: Reject) -> None:
        """I1: who was dispatched is not rejected. Against a client who pays twice for one request."""
        opened = self._opened.get(command.request_id)
        if opened is not None and opened.tries:
            self._violate("I1", f"request {command.request_id} is rejected after {opened.tries} attempts")
        self._close(command)

    def _abandoned(self, event: Abandoned) -> None:
        opened = self._opened.pop(event.request_id, None)
        if opened is not None:  # otherwise it was answered while its client was leaving
            self._let_go(opened, None)

    def _followed_up(self, event: Finished) -> None:
        """I1: an attempt that succeeded answers its request at once, or is kept. Against answers that get lost."""
        attempt = self._ended
        if attempt is not None and self._contents.holds(attempt.number):
            return
        if attempt is None or event.outcome != Outcome.OK or attempt.lease_from_s <= self._now_s:
            return
        opened = attempt.opened
        if opened is not None and self._opened.get(opened.request.request_id) is opened:
            self._violate(
                "I1", f"attempt {attempt.number} succeeded and request {opened.request.request_id} is open"
            )

    def _overdue(self, number: int, opened: Opened) -> None:
        """I1: nothing stays open beyond its deadline. Against lost timers, joiners and requests."""
        self._violate("I1", f"request {number} is open beyond its deadline, {opened.deadline_s:g} s")

    # --- I3, I5, I6, I12: dispatches --------------------------------------------------------------------

    def _dispatch(self, command: Dispatch) -> None:
        number, request_id = command.attempt, command.request_id
        opened = self._opened.get(request_id)
        if number in self._attempts:
            self._violate("I3", f"attempt {number} is dispatched again while it is open")
        attempt = self._attempts[number] = Attempt(number, opened, None, command.plan.tokens_in)
        if opened is None:
            self._violate("I1", f"attempt {number} is for request {request_id}, which is not open")
            return
        agent = opened.agent
        replica = agent.instances.get(command.instance)
        self._one_at_a_time(opened)
        self._not_after_first_token(opened)
        self._to_whom_may_work(number, command.instance, replica)
        if not opened.tries:
            agent.start(opened)
        if replica is not None:
            self._keeps_home(opened, replica)
            attempt.replica = replica
            replica.holding[number] = attempt
            self._within_slots(replica)
            agent.refresh(replica, self._now_s)
        opened.tries += 1
        opened.attempts[number] = attempt
        self._touched[agent] = None

    def _one_at_a_time(self, opened: Opened) -> None:
        """I3: one open attempt a request, hedges apart. Against retries that race what they replace."""
        alive = [each.number for each in opened.attempts.values() if each.lease_from_s > self._now_s]
        if len(alive) > opened.agent.facts.hedges:
            self._violate("I3", f"request {opened.request.request_id} has attempts {alive} open already")

    def _not_after_first_token(self, opened: Opened) -> None:
        """I3: who streamed is not tried again. Against answers that begin twice."""
        if opened.committed:
            self._violate(
                "I3", f"request {opened.request.request_id} is tried again after its first token was sent"
            )

    def _to_whom_may_work(self, attempt: int, number: int, replica: Replica | None) -> None:
        """I6: only a ready instance gets work. Against dispatches to who drains, starts or is gone."""
        if replica is None:
            self._violate("I6", f"attempt {attempt} goes to instance {number}, which is not there")
        elif not replica.may_work:
            state = "draining" if replica.sent_away else State(replica.state).name.lower()
            self._violate("I6", f"attempt {attempt} goes to instance {number}, which is {state}")

    def _within_slots(self, replica: Replica) -> None:
        """I5: in flight <= slots. Against slots that are given twice."""
        slots = replica.agent.facts.slots
        if len(replica.holding) > slots:
            held = replica.surely_held(self._now_s)
            if held > slots:
                self._violate("I5", f"instance {replica.number} has {held} attempts in {slots} slots")

    def _keeps_home(self, opened: Opened, replica: Replica) -> None:
        """I12: a session stays where it was while there is room. Against caches that grow cold."""
        facts, session = opened.agent.facts, opened.request.session
        if not facts.affinity or not session or facts.gate_s:  # a closed breaker cannot be seen
            return
        homes = opened.agent.settle_in(session, replica)
        full = [each for each in homes if each.perhaps_held(self._events) >= facts.slots]
        if homes and not full and replica not in homes and not opened.tries:  # another try goes elsewhere
            self._violate(
                "I12", f"session {session} goes to instance {replica.number}; {homes[-1].number} had room"
            )

    # --- attempts end -----------------------------------------------------------------------------------

    def _finished(self, event: Finished) -> None:
        """I14: every dispatch is finished once. Against ends that are told twice, or made up."""
        number = event.attempt
        attempt = self._ended = self._attempts.pop(number, None)
        if attempt is None:
            self._violate(
                "I14", f"attempt {number} finished, but it is not open: never dispatched, or finished before"
            )
            return
        if event.outcome == Outcome.CANCELLED and attempt.lease_to_s == inf:
            self._violate("I14", f"attempt {number} obeyed a cancel that nobody gave")
        self._used(event, attempt)
        if attempt.opened is not None:
            attempt.opened.attempts.pop(number, None)
            self._touched[attempt.opened.agent] = None
        replica = attempt.replica
        if replica is not None and replica.holding.pop(number, None) is not None:
            replica.freed_at = self._events
            replica.agent.refresh(replica, self._now_s)

    def _used(self, event: Finished, attempt: Attempt) -> None:
        """I7: what succeeded says what it used. Against bills with holes."""
        tokens_in, tokens_cached, tokens_out, *_ = event.usage
        if not 0 <= tokens_cached <= tokens_in or tokens_out < 0:
            self._violate("I7", f"attempt {event.attempt} used {event.usage}, which cannot be")
        metered = attempt.opened is None or attempt.opened.agent.facts.metered
        if metered and event.outcome == Outcome.OK and attempt.plan_tokens_in and not tokens_in + tokens_out:
            self._violate("I7", f"attempt {event.attempt} succeeded and used nothing")

    def _cancel(self, command: Cancel) -> None:
        """I14: an open attempt is cancelled once. Against cancels that meet nobody."""
        number = command.attempt
        attempt = self._attempts.get(number)
        if attempt is None:
            if self._ended is None or self._ended.number != number:
                self._violate("I14", f"attempt {number} is cancelled, and it is not open")
        elif attempt.lease_to_s < inf:
            self._violate("I14", f"attempt {number} is cancelled twice")
        elif attempt.opened is not None:
            grace_s = attempt.opened.agent.facts.cancel_grace_s
            attempt.lease_from_s = self._cancelled_from_s(command, attempt.opened) + grace_s
            attempt.lease_to_s = self._now_s + grace_s
            heappush(self._due, (attempt.lease_to_s, _LEASE, number))

    def _cancelled_from_s(self, command: Cancel, opened: Opened) -> float:
        """Return since when a cancel can have been given: by a timer, at any moment since the last event."""
        if command.reason.code == Code.CLIENT_GONE:
            return self._now_s
        if command.reason.code == Code.TIMED_OUT:
            return min(opened.deadline_s, self._now_s)
        return self._before_s

    def _lease_over(self, number: int) -> None:
        attempt = self._attempts.get(number)
        if attempt is None or attempt.replica is None:
            return
        attempt.lease_from_s = -inf
        replica = attempt.replica
        if replica.holding.pop(number, None) is not None:
            replica.agent.refresh(replica, self._now_s)
            self._touched[replica.agent] = None

    def _never_finished(self, attempt: Attempt, t_s: float) -> None:
        """I14: a cancelled attempt is finished. Against dispatches and ends that a driver drops."""
        if attempt.lease_to_s < t_s:
            self._violate("I14", f"attempt {attempt.number} was cancelled and never finished")

    def _leaves_nothing(self, opened: Opened) -> None:
        """I3: a request that has ended leaves no attempt running. Against work that nobody waits for."""
        for attempt in opened.attempts.values():
            if attempt.lease_to_s == inf:
                self._violate(
                    "I3",
                    f"request {opened.request.request_id} has ended and attempt {attempt.number} goes on",
                )

    def _committed(self, event: FirstToken) -> None:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None and attempt.opened is not None:
            attempt.opened.committed = True

    # --- instances, I11 ---------------------------------------------------------------------------------

    def _instance_changed(self, event: InstanceChanged) -> None:
        agent = self._agent(event.agent)
        replica = agent.instances.get(event.instance)
        if replica is None and event.state < State.GONE:
            replica = agent.instances[event.instance] = Replica(agent, event.instance)
        if replica is not None and event.state == State.READY and replica.state is not State.DRAINING:
            replica.state = State.READY
            agent.refresh(replica, self._now_s)
        self._touched[agent] = None

    def _instance_left(self, event: InstanceChanged) -> None:
        """Take in that it may not work any more; until now, a timer that was due may still have used it."""
        agent = self._agents[event.agent]
        replica = agent.instances.get(event.instance)
        if replica is None or event.state < State.DRAINING:
            return
        replica.state, replica.left = State(event.state), True
        agent.refresh(replica, self._now_s)
        if event.state >= State.GONE:
            del agent.instances[event.instance]

    def _scale(self, command: Scale) -> None:
        agent = self._agents[command.agent]
        event = self._event  # a timer may have decided before an instance left, or its leaving did
        gone = (
            isinstance(event, InstanceChanged) and event.agent == command.agent and event.state > State.READY
        )
        self._sizes.scaled(agent, command, self._now_s, self._before_s, self._events, int(gone))
        victims = [agent.instances[each] for each in command.victims if each in agent.instances]
        for victim in victims:
            victim.sent_away = True
            agent.refresh(victim, self._now_s)
        if victims:
            self._effects.sent_away(victims)

    # --- once an event's commands are complete ---------------------------------------------------

    def _conclude(self) -> None:
        event, self._event = self._event, None
        if event is None:
            return
        conclude = self._concludes.get(type(event))
        if conclude is not None:
            conclude(event)
        for opened in self._closed:
            self._leaves_nothing(opened)
            self._contents.ended(opened.request.request_id)
        while self._due and self._due[0][0] <= self._now_s:
            _, kind, number = heappop(self._due)
            if kind == _LEASE:
                self._lease_over(number)
            elif number in self._opened and self._opened[number].deadline_s <= self._now_s:
                self._overdue(number, self._opened[number])
        for agent in self._touched:
            self._waits.settled(agent, self._now_s)
        self._closed.clear()
        self._contents.concluded()
        self._touched.clear()
        self._ended = None


def check(recording: Recording, facts: Sequence[Facts]) -> list[Violation]:
    """Return what does not hold of a journal (I1 to I7, I10 to I12, I14), in order; an empty list is good.

    A torn journal's last commands may lack their effects: they are reported as such.

    Parameters
    ----------
    recording
        A journal that was read.
    facts
        What it does not say, of every agent by its number.
    """
    checker = Checker(facts)
    commands, last_s = 0, -inf
    for record in recording.records():
        if isinstance(record, Effected):
            checker.effect(record)
            last_s = max(last_s, record.t_s)
        elif is_event(record):
            checker.event(record)
            last_s = max(last_s, record.t_s)
        else:
            checker.command(cast(Command, record), commands)
            commands += 1
    checker.end(last_s)
    return checker.violations
