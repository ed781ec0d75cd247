"""What both worlds say to the control plane, and what it says back: plain data, nothing else.

Events are told, commands are given; both are flat named tuples so that a journal can pack them. Seconds,
tokens and US dollars everywhere; ``t_s`` counts from the journal's epoch and never runs back.

Agents, models, regions, instances and variants are small integers whose names stand in the journal's
header. Session, user, tenant, cache and idempotency keys are keyed 64-bit hashes; 0 means "none".

These types grow only by new event types and by optional fields at the end, with the journal's version.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf, nan
from typing import NamedTuple, TypeAlias

from glowsim.core.reasons import Code, Constraint, Reason

__all__ = [
    "Abandoned", "Advance", "Advised", "Alert", "Answer", "Arrived", "Ask", "Cancel", "Change", "ChangeKind",
    "Changed", "Code", "Command", "Constraint", "Dispatch", "Effect", "Event", "Fail", "Finished",
    "FirstToken", "Forget", "InstanceChanged", "Keep", "Observed", "Outcome", "Plan", "Probe", "Probed", "Raise",
    "Reason", "Reject", "Reported", "Request", "Scale", "Severity", "Shadowed", "Signal", "State", "Status",
    "Told", "Usage", "Woke",
]  # fmt: skip


class Outcome(IntEnum):
    """How an attempt ended."""

    OK = 0
    ERROR = 1
    """The instance answered with an error of its own (5xx)."""
    UNREACHABLE = 2
    """No connection."""
    THROTTLED = 3
    """The instance asked for patience (429)."""
    INVALID = 4
    """The model rejects the task itself; no retry mends it (400)."""
    TIMEOUT = 5
    """It ran out of time, by its own clock or ours."""
    CANCELLED = 6
    """It obeyed a `Cancel`."""
    LOST = 7
    """Nobody knows: the driver restarted, or the lease ran out."""


class State(IntEnum):
    """Where an instance is in its life."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    GONE = 3
    FAILED = 4


class Status(IntEnum):
    """What became of an `Ask`."""

    GRANTED = 0
    DENIED = 1
    UNKNOWN = 2


class Effect(IntEnum):
    """What a world did with a command."""

    DONE = 0
    REFUSED = 1
    LATE = 2


class Severity(IntEnum):
    """How loudly an alert speaks."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2


class Signal(IntEnum):
    """What a `Reported` measures."""

    RUNNING = 0
    """Requests that the instance works on."""
    WAITING = 1
    """Requests that wait inside the instance."""
    CACHE_USED = 2
    """The part of its key-value cache that is in use, 0 to 1."""


class ChangeKind(IntEnum):
    """What an operator may order while the fleet runs."""

    PAUSE_SCALING = 0
    RESUME_SCALING = 1
    SET_INSTANCES = 2
    ROLL_BACK = 3
    PAUSE_ROLLOUT = 4
    RESUME_ROLLOUT = 5
    PROMOTE = 6


class Request(NamedTuple):
    """One unit of work at the gateway, as far as the gateway may know it.

    >>> Request(request_id=1, agent=0, tokens_in=900, max_tokens_out=400).priority
    1
    """

    request_id: int
    agent: int
    tokens_in: int
    max_tokens_out: int
    priority: int = 1
    """0 to 9, 0 first."""
    kind: int = 0
    region: int = 0
    stream: bool = False
    deadline_s: float = inf
    """The moment after which the answer is worth nothing, on the journal's clock."""
    session: int = 0
    user: int = 0
    tenant: int = 0
    cache_key: int = 0
    """Equal keys may share an answer; 0: never."""
    idempotency_key: int = 0
    payload: int = 0
    """Hash of the payload; tells a repeat from a reuse of the idempotency key."""


class Usage(NamedTuple):
    """What an attempt consumed, whether or not it succeeded.

    >>> Usage(tokens_in=900, tokens_cached=512, tokens_out=40).first_token_s
    nan
    """

    tokens_in: int = 0
    tokens_cached: int = 0
    """The part of ``tokens_in`` that was billed as cached."""
    tokens_out: int = 0
    first_token_s: float = nan
    """From dispatch to the first token; nan where nothing came."""
    score: float = nan
    """How good a check takes the answer to be, 0 to 1; nan where nothing checks it."""


class Plan(NamedTuple):
    """How a request is to be served: decided from counts, applied to the text by the adapter."""

    model: int
    variant: int
    tokens_in: int
    max_tokens_out: int


class Change(NamedTuple):
    """An operator's order."""

    kind: ChangeKind
    agent: int
    value: float = 0.0
    order_id: int = 0
    """The order in the driver's store, which may hold several changes; 0: it is in none."""


class Alert(NamedTuple):
    """Something that a person should know."""

    agent: int
    subject: str
    severity: Severity
    reason: Reason


# --- events -----------------------------------------------------------------------------------------


class Arrived(NamedTuple):
    """A request reached the gateway."""

    t_s: float
    request: Request


class FirstToken(NamedTuple):
    """A streamed attempt sent its first token to the client: from here on it is committed."""

    t_s: float
    attempt: int


class Finished(NamedTuple):
    """An attempt ended; every `Dispatch` gets exactly one."""

    t_s: float
    attempt: int
    outcome: Outcome
    usage: Usage
    retry_after_s: float = 0.0


class Abandoned(NamedTuple):
    """The client of an open request went away."""

    t_s: float
    request_id: int


class Told(NamedTuple):
    """The outside world's answer to an `Ask`."""

    t_s: float
    ask_id: int
    status: Status
    value: float = 0.0
    expires_s: float = inf


class InstanceChanged(NamedTuple):
    """An instance entered a state; ``eta_s`` is when a starting one will be ready."""

    t_s: float
    agent: int
    instance: int
    state: State
    region: int = 0
    eta_s: float = nan


class Reported(NamedTuple):
    """A measurement of an instance, as old as ``sampled_at_s`` says.

    ``signal`` is a `Signal`. A ``value`` of nan says that there is none: the instance did not tell, or not that.
    ``n`` is how many series it was made from.
    """

    t_s: float
    agent: int
    instance: int
    signal: int
    value: float
    sampled_at_s: float
    n: int = 1


class Probed(NamedTuple):
    """The results of a `Probe`: (instance, healthy) pairs."""

    t_s: float
    agent: int
    results: tuple[tuple[int, bool], ...]


class Observed(NamedTuple):
    """Feedback or a late label, joined by the driver's store with what was decided then.

    ``unit`` is what was assigned (a request, session, user or tenant) and ``propensity`` the probability
    with which it got this variant.
    """

    t_s: float
    request_id: int
    agent: int
    variant: int
    unit: int
    propensity: float
    metric: str
    value: float
    feedback_id: int = 0
    """Its number in the driver's store; 0: it is in none."""
    assigned_s: float | None = None
    """When the request got its variant; None: it was none that a rollout assigned and that was dispatched."""


class Changed(NamedTuple):
    """An operator changed something."""

    t_s: float
    change: Change


class Woke(NamedTuple):
    """Nothing happened but time."""

    t_s: float


# --- commands ---------------------------------------------------------------------------------------


class Dispatch(NamedTuple):
    """Start an attempt on an instance."""

    attempt: int
    request_id: int
    instance: int
    plan: Plan
    reason: Reason


class Cancel(NamedTuple):
    """Hurry an attempt to its end; its `Finished` is still awaited."""

    attempt: int
    reason: Reason


class Answer(NamedTuple):
    """Give a request the content that attempt ``source`` produced; ``keep`` it until `Forget`."""

    request_id: int
    source: int
    reason: Reason
    keep: bool = False


class Keep(NamedTuple):
    """Keep what attempt ``source`` has just produced until `Forget`: its request may yet be answered with it."""

    source: int


class Forget(NamedTuple):
    """The content of attempt ``source`` will not be asked for again."""

    source: int


class Reject(NamedTuple):
    """Turn a request away, undispatched."""

    request_id: int
    retry_after_s: float
    reason: Reason


class Fail(NamedTuple):
    """Tell a client that its request failed, and with which outcome."""

    request_id: int
    outcome: Outcome
    reason: Reason


class Scale(NamedTuple):
    """Have ``want`` instances, draining the ``victims``; repeated, it changes nothing."""

    agent: int
    region: int
    kind: int
    want: int
    victims: tuple[int, ...]
    reason: Reason


class Probe(NamedTuple):
    """Ask every instance of an agent whether it is well."""

    agent: int


class Ask(NamedTuple):
    """Ask the outside world: a shared limit, a lease, a judge. Unanswered, it is told `UNKNOWN`."""

    ask_id: int
    kind: str
    subject: int
    amount: float
    timeout_s: float


class Raise(NamedTuple):
    """Raise an alert."""

    alert: Alert


class Advance(NamedTuple):
    """A rollout moved to a stage; 0 is all baseline."""

    agent: int
    stage: int
    weight: float
    reason: Reason


class Shadowed(NamedTuple):
    """What a live controller and its shadow answered to the same question."""

    agent: int
    family: str
    live: float
    candidate: float


class Advised(NamedTuple):
    """What a controller beside the traffic would have had otherwise: it was asked, and nothing was done about it.

    ``subject`` is the request for a guard (wanted 1: turn it away) and a limiter (wanted: after so many seconds), the
    instance for a breaker (how many attempts to let through at once), nothing for a scaler (how many instances).
    """

    agent: int
    family: str
    subject: int
    present: float
    wanted: float
    reason: Reason | None = None


Event: TypeAlias = (
    Arrived
    | FirstToken
    | Finished
    | Abandoned
    | Told
    | InstanceChanged
    | Reported
    | Probed
    | Observed
    | Changed
    | Woke
)
Command: TypeAlias = (
    Dispatch
    | Cancel
    | Answer
    | Keep
    | Forget
    | Reject
    | Fail
    | Scale
    | Probe
    | Ask
    | Raise
    | Advance
    | Shadowed
    | Advised
)
