"""What a controller must be able to do, one protocol a family.

Common to all of them: a controller is told, it does not look. It has no clock (``t_s`` is given), does no
I/O, and draws only from the stream that it was handed. It decides first and changes its state after, so
that one that raises has changed nothing. Whatever affects its decisions is in its `snapshot`.

Its parameters are its keyword-only constructor arguments, annotated with `glowsim.core.parameters`; what is
handed in by the builder (a `Stream`, the agent's number) comes before the star.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from glowsim.core.types import (
    Advance,
    Alert,
    Ask,
    ChangeKind,
    Observed,
    Outcome,
    Plan,
    Reason,
    Reported,
    Request,
    Told,
    Usage,
)

if TYPE_CHECKING:
    from glowsim.core.instance import Instance

__all__ = [
    "HOLD", "Asker", "Balancer", "Breaker", "Cache", "Controller", "Detector", "Escalating", "Follower", "Gate",
    "Guard", "Ladder", "Limiter", "Load", "Planner", "Queue", "Resort", "Retrier", "Rung", "Scaler", "Splitter",
    "Stale", "Stored", "Wanted", "Withdrawing",
]  # fmt: skip

HOLD = -1.0
"""A limiter's answer: keep the request until the world has told."""


class Controller(Protocol):
    """What every controller shares: its state can be saved and taken on again (see `Stateful`)."""

    def snapshot(self) -> dict[str, Any]:
        """Return everything that affects decisions, as plain JSON data."""

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""


class Guard(Controller, Protocol):
    """Decides whether a request may come in at all, before anything is spent on it."""

    def check(self, t_s: float, request: Request) -> Reason | None:
        """Return why to reject the request, or None to let it in."""


class Limiter(Controller, Protocol):
    """Decides whether a request is within its limits, reserving what it will use."""

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, seconds after which to try again to reject, or `HOLD` to keep it waiting."""

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Replace the reservation of an admitted request by what it used in the end."""


class Withdrawing(Protocol):
    """A limiter that tells a request which never came in from one that used nothing."""

    def withdraw(self, t_s: float, request: Request) -> None:
        """Give back all that `admit` took; without this method the request is settled with no usage."""


class Asker(Protocol):
    """A controller that also asks the outside world, such as a limiter that spends a leased grant."""

    def to_ask(self, t_s: float, ask_id: int) -> Ask | None:
        """Return what to ask now, if anything; called after every decision of this controller."""

    def told(self, t_s: float, told: Told) -> None:
        """Take in the answer; `Status.UNKNOWN` means that none came in time, so the fallback holds."""


class Spending(NamedTuple):
    """What a budget has spent: by limiters that have a method ``spending(t_s)``."""

    of: str
    """What is counted: ``usd`` or ``tokens``."""
    per: str
    """Whose it is: every one's of ``per`` is a budget of its own."""
    limit: float
    every_s: float
    spent: tuple[tuple[int, float], ...]
    """(key, what is spent or reserved in the window that ends now) of every key that is known."""


class Splitter(Controller, Protocol):
    """Decides which variant a request gets: rollouts and experiments.

    Attributes that it may have: ``first_weight``, the share of the traffic that is on a variant as it begins;
    ``unit``, what is assigned (``request``, ``session``, ``user`` or ``tenant``), a request if it does not say;
    ``needs_cost``, whether it is told what requests cost.
    """

    def assign(self, t_s: float, request: Request) -> int:
        """Return the variant, 0 for the baseline; the same unit gets the same answer at the same weight."""

    def propensity(self, assigned_s: float, variant: int) -> float:
        """Return the probability with which a request that was assigned at that moment got this variant."""

    def finished(
        self, t_s: float, assigned_s: float, variant: int, request: Request, ok: bool, latency_s: float,
        cost_usd: float,
    ) -> Advance | None:  # fmt: skip
        """Take in a request's one outcome, after its retries; return a change of stage, if any.

        The cost is nan unless it is needed.
        """

    def observed(self, t_s: float, observed: Observed) -> Advance | None:
        """Take in a late label; return a change of stage, if any."""

    def wake(self, t_s: float) -> Advance | None:
        """Take in that time has come to `wake_s`; return a change of stage, if any."""

    def wake_s(self) -> float:
        """Return when to be woken next, or inf.

        Asked at the first arrival, after `wake`, after a change of stage, and after the first `assign` that
        follows any of these; then it lies in the future, but at the first arrival it may have passed, and
        `wake` follows at once.
        """

    def ordered(self, t_s: float, kind: ChangeKind) -> Advance | None:
        """Obey an operator: roll back, pause, resume, promote; None if there is nothing to change."""


class Stored(NamedTuple):
    """What a cache did with an answer: kept it or not, and which sources it let go for it."""

    kept: bool
    evicted: tuple[int, ...]


class Cache(Controller, Protocol):
    """Decides which answers are kept and for how long; it holds sources, never contents."""

    def get(self, t_s: float, key: int) -> int:
        """Return the source (an attempt's number) of a fresh answer, or 0.

        It lets go of nothing: an answer that has gone stale stays until a `put` reports it evicted.
        """

    def put(self, t_s: float, key: int, source: int, usage: Usage) -> Stored:
        """Take in an answer that could be kept; return what became of it.

        Every source that was kept is evicted once: one that this answer replaces under its key, too.
        """


class Stale(Protocol):
    """What a cache may also be asked; one that has no such method has nothing to give."""

    def stale(self, t_s: float, key: int) -> int:
        """Return the source of an answer that is still held, be it no longer fresh, or 0; changes nothing."""


class Planner(Controller, Protocol):
    """Decides how a request is served: model, token limits, prompt; from counts alone."""

    def plan(self, t_s: float, request: Request, plan: Plan) -> Plan:
        """Return the plan, given the agent's plain one for the request's variant."""


class Escalating(Protocol):
    """What a planner may also do: have an answer that does not convince given again."""

    def escalate(self, t_s: float, request: Request, plan: Plan, score: float) -> Plan | None:
        """Return the plan of another attempt in place of this answer, or None: it is good enough.

        ``score`` is the answer's, nan if it has none. If the other attempt fails, the request gets this answer.
        """


class Queue(Controller, Protocol):
    """Decides the order in which waiting requests are dispatched."""

    def push(self, t_s: float, request: Request) -> int:
        """Take in a request; return 0, or the number of the one that there is no room for.

        That is this request's, which is then not in the queue, or a waiting one's whose place it takes.
        """

    def pop(self, t_s: float) -> int:
        """Return and remove the next request's number; only called when not empty."""

    def remove(self, t_s: float, request: Request) -> None:
        """Let go of a waiting request that timed out or was abandoned."""

    def __len__(self) -> int:
        """Return how many wait."""


class Balancer(Controller, Protocol):
    """Decides which instance serves a request."""

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return one of ``allowed``: ready, below their cap, at least one, in no particular order."""

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement of an instance, as old as it says."""


class Follower(Protocol):
    """What balancers and breakers may also hear of; a method that is not there is not called and costs nothing."""

    def joined(self, t_s: float, instance: Instance) -> None:
        """Hear that an instance is ready."""

    def left(self, t_s: float, instance: int) -> None:
        """Hear that an instance drains, has failed or is gone; perhaps more than once."""

    def moved(self, instance: Instance) -> None:
        """Hear that its work in flight, or whether it may get work (``place >= 0``), has changed: balancers only."""

    def ended(self, t_s: float, instance: Instance, outcome: Outcome, duration_s: float) -> None:
        """Hear how an attempt on it ended, that many seconds after its dispatch."""

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        """Take in the result of a probe, and return the new gate if it changed: breakers only.

        Without this method, a probe is recorded as an attempt that was OK or UNREACHABLE after no time.
        """


class Gate(NamedTuple):
    """How much a breaker lets through to an instance, and when to ask it again."""

    cap: int
    """Attempts allowed in flight: 0 when open, a few when half-open, `UNLIMITED` when closed."""
    until_s: float


class Breaker(Controller, Protocol):
    """Decides how much work an instance may have, from how its attempts end."""

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended, and after how long; return the new gate if it changed."""

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Take in that the gate's moment has come; return the new gate if it changed."""

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""


class Retrier(Controller, Protocol):
    """Decides whether and when a failed attempt is followed by another."""

    def after(
        self, t_s: float, request: Request, attempts: int, outcome: Outcome, retry_after_s: float
    ) -> float:
        """Return seconds to wait before the next attempt, or inf to give up."""

    def succeeded(self, t_s: float, request: Request) -> None:
        """Take in that a request was answered: budgets refill by successes."""


class Resort(IntEnum):
    """What a request may get in place of a failure."""

    MODEL = 0
    """Another attempt, with another model."""
    STALE = 1
    """An answer that the cache still holds though its time is over."""
    APOLOGY = 2
    """A text that was written beforehand."""


class Rung(NamedTuple):
    """A step of a ladder; ``model`` is for `Resort.MODEL`."""

    kind: Resort
    model: int = 0


class Ladder(Controller, Protocol):
    """Decides what a request gets that would fail, or be turned away, otherwise."""

    def instead(self, t_s: float, request: Request, rung: int, outcome: Outcome) -> Rung | None:
        """Return the step after ``rung`` others were tried, or None: it fails.

        A step that cannot be taken (no free instance, no answer kept) is passed over.
        """


class Load(NamedTuple):
    """What a scaler is shown of its agent."""

    in_flight: int
    queued: int
    mean_in_system: float
    """In flight and queued, averaged over time since the last look."""
    ready: int
    starting: int
    draining: int
    slots: int
    """The gateway's cap on an instance's work in flight."""
    concurrency: int
    """What an instance serves at once: utilisation is measured against it."""


class Wanted(NamedTuple):
    """How many instances to have, why, and when to look again (inf: not by time)."""

    instances: int
    reason: Reason
    look_s: float


class Scaler(Controller, Protocol):
    """Decides how many instances an agent has."""

    def decide(self, t_s: float, load: Load) -> Wanted:
        """Return how many to have; called when due, and on an arrival where it last saw nothing in the system."""


class Detector(Controller, Protocol):
    """Decides whether a metric has moved.

    One that compares a number with a threshold shows it as its attribute ``statistic``.
    """

    metric: str
    """``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd``, or the name of an `Observed` metric."""

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
