"""Why a command was given: a code, the constraint that bound it, and up to three numbers.

The control plane never formats text; the sentence is made when somebody reads it (`sentence`).
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import Final, NamedTuple

__all__ = ["GUARDRAILS", "Code", "Constraint", "Reason", "sentence"]


class Code(IntEnum):
    """What led to a command."""

    ARRIVED = 1
    QUEUED = 2
    RETRIED = 3
    PROMOTED = 4
    OWN = 10
    CACHED = 11
    JOINED = 12
    REPEATED = 13
    TOO_LARGE = 20
    LIMITED = 21
    QUEUE_FULL = 22
    KEY_REUSED = 23
    LIMIT_UNKNOWN = 24
    SHED = 25
    ALL_OPEN = 27
    EXHAUSTED = 30
    NOT_RETRYABLE = 31
    TIMED_OUT = 32
    WAITED_TOO_LONG = 33
    BROKEN_STREAM = 34
    NO_TIME_TO_RETRY = 35
    FIRST_TOKEN_LATE = 40
    CLIENT_GONE = 41
    LOAD_HIGH = 50
    LOAD_LOW = 51
    HELD = 52
    OPERATOR = 53
    PAUSED = 54
    RESUMED = 55
    TOO_FEW = 56
    SAMPLE_RATIO = 57
    NON_INFERIOR = 58
    INCONCLUSIVE = 59
    STAGE_DONE = 60
    EVIDENCE_OF_HARM = 61
    STARTED = 62
    OTHER_MODEL = 64
    STALE = 65
    APOLOGY = 66
    DOUBTFUL = 67
    ESCALATED = 68
    DRIFT_UP = 70
    DRIFT_DOWN = 71
    DRIFT_SHAPE = 74
    CONTROLLER_FAILED = 72
    FALLBACK = 73
    BURNING = 80
    RECOVERED = 81
    VARIANT_BETTER = 90
    BASELINE_BETTER = 91
    NO_WINNER = 92
    SPLIT_BROKEN = 93
    EXPLORED = 94


class Constraint(IntEnum):
    """What kept a decision from being another one."""

    NONE = 0
    MINIMUM = 1
    MAXIMUM = 2
    COOLDOWN = 3
    STEP = 4
    BUDGET = 5
    DEADLINE = 6
    PAUSED = 7


class Reason(NamedTuple):
    """A code, what bound it, and up to three numbers whose meaning the code fixes.

    >>> Reason(Code.LOAD_HIGH, Constraint.MAXIMUM, 0.93, 0.8, 12).code.name
    'LOAD_HIGH'
    """

    code: Code
    bound: Constraint = Constraint.NONE
    a: float = 0.0
    b: float = 0.0
    c: float = 0.0


GUARDRAILS: Final = ("errors", "latency", "cost", "quality", "complaints")
"""What a rollout watches; the third number of `EVIDENCE_OF_HARM` is a place in here."""

_SENTENCES: dict[Code, str] = {
    Code.ARRIVED: "dispatched on arrival",
    Code.QUEUED: "dispatched after {a:.3g} s in the queue",
    Code.RETRIED: "attempt {a:.0f}",
    Code.PROMOTED: "took over from a leader that did not answer",
    Code.OWN: "answered by its own attempt",
    Code.CACHED: "answered from the cache",
    Code.JOINED: "answered with the request it had joined",
    Code.REPEATED: "repeats a request already answered",
    Code.TOO_LARGE: "{a:.0f} tokens, more than the {b:.0f} allowed",
    Code.LIMITED: "over its limit",
    Code.QUEUE_FULL: "the queue holds its {a:.0f} already",
    Code.KEY_REUSED: "the idempotency key belongs to another payload",
    Code.LIMIT_UNKNOWN: "no word from the shared limit in time",
    Code.SHED: "gave its place in a full queue to a more important one after {a:.3g} s",
    Code.ALL_OPEN: "every instance's breaker is open",
    Code.EXHAUSTED: "failed after {a:.0f} attempts",
    Code.NOT_RETRYABLE: "failed in a way that no retry mends",
    Code.TIMED_OUT: "no answer within {a:.3g} s",
    Code.WAITED_TOO_LONG: "not dispatched within {a:.3g} s",
    Code.BROKEN_STREAM: "the stream broke after its first token",
    Code.NO_TIME_TO_RETRY: "the next attempt could only start after the deadline",
    Code.FIRST_TOKEN_LATE: "no first token within {a:.3g} s",
    Code.CLIENT_GONE: "the client went away",
    Code.LOAD_HIGH: "load {a:.2f} over {b:.2f}; {c:.0f} wanted",
    Code.LOAD_LOW: "load {a:.2f} under {b:.2f}; {c:.0f} wanted",
    Code.HELD: "load {a:.2f}; held at {c:.0f}",
    Code.OPERATOR: "ordered by an operator",
    Code.PAUSED: "paused by an operator in stage {a:.0f}",
    Code.RESUMED: "resumed by an operator in stage {a:.0f}",
    Code.TOO_FEW: "stage {a:.0f} goes on: {b:.0f} canary outcomes, {c:.0f} wanted",
    Code.SAMPLE_RATIO: "held in stage {a:.0f}: the split is not the ordered one (evidence {b:.3g}, {c:.3g} is enough)",
    Code.NON_INFERIOR: "promoted: worse by at most {a:.4g}, less than the margin {b:.4g}, of {c:.0f} canary outcomes",
    Code.INCONCLUSIVE: "not promoted: worse by up to {a:.4g}, margin {b:.4g}, after {c:.0f} canary outcomes",
    Code.STAGE_DONE: "stage {a:.0f} done: {b:.0f} canary outcomes, evidence of harm {c:.3g}",
    Code.EVIDENCE_OF_HARM: "evidence of harm in {guardrail}: {a:.3g} reached {b:.3g}",
    Code.STARTED: "the rollout started",
    Code.OTHER_MODEL: "tried on model {a:.0f} instead",
    Code.STALE: "answered from the cache, out of date",
    Code.APOLOGY: "answered with an apology",
    Code.ESCALATED: "asked of model {a:.0f}, as the answer of model {b:.0f} scored {c:.2f}",
    Code.DOUBTFUL: "answered as the first model did, for want of a better answer",
    Code.DRIFT_UP: "moved up from {b:.4g} to {c:.4g}: by chance once in 10^{a:.1f} values",
    Code.DRIFT_DOWN: "moved down from {b:.4g} to {c:.4g}: by chance once in 10^{a:.1f} values",
    Code.DRIFT_SHAPE: "another distribution, mean {b:.4g} before and {c:.4g} now: by chance once in 10^{a:.1f} values",
    Code.CONTROLLER_FAILED: "a controller raised an error; its fallback decided",
    Code.FALLBACK: "the stated fallback",
    Code.BURNING: "burning {a:.3g} times the error budget, {b:.3g} times of late; alert at {c:.3g}",
    Code.RECOVERED: "burning {a:.3g} times the error budget of late, below {b:.3g}",
    Code.VARIANT_BETTER: "the variant won: it differs by {a:.4g}, p = {b:.3g}, {c:.0f} outcomes",
    Code.BASELINE_BETTER: "the baseline won: the variant differs by {a:.4g}, p = {b:.3g}, {c:.0f} outcomes",
    Code.NO_WINNER: "nobody won: the variant differs by {a:.4g}, p = {b:.3g}, {c:.0f} outcomes",
    Code.SPLIT_BROKEN: "nobody won: the split was not the ordered one (log evidence {a:.3g}, {b:.3g} is enough)",
    Code.EXPLORED: "{a:.3g} of the traffic off the baseline; best so far: variant {b:.0f}, with {c:.4g}",
}

_BOUNDS: dict[Constraint, str] = {
    Constraint.NONE: "",
    Constraint.MINIMUM: ", bound by the minimum",
    Constraint.MAXIMUM: ", bound by the maximum",
    Constraint.COOLDOWN: ", bound by the cooldown",
    Constraint.STEP: ", bound by the step size",
    Constraint.BUDGET: ", bound by the budget",
    Constraint.DEADLINE: ", bound by the deadline",
    Constraint.PAUSED: ", scaling is paused",
}


def sentence(reason: Reason) -> str:
    """Return what a reason says, in words.

    >>> sentence(Reason(Code.LOAD_HIGH, Constraint.MAXIMUM, 0.934, 0.8, 12))
    'load 0.93 over 0.80; 12 wanted, bound by the maximum'
    >>> sentence(Reason(Code.LOAD_HIGH, a=inf, b=0.8, c=1))
    'work waits and no instance is there; 1 wanted'
    >>> sentence(Reason(Code.EVIDENCE_OF_HARM, Constraint.NONE, 131.0, 100.0, 1))
    'evidence of harm in latency: 131 reached 100'
    """
    if reason.code == Code.LOAD_HIGH and reason.a == inf:
        text = f"work waits and no instance is there; {reason.c:.0f} wanted"
    else:
        guardrail = GUARDRAILS[int(reason.c)] if 0 <= reason.c < len(GUARDRAILS) else "outcomes"
        text = _SENTENCES[Code(reason.code)].format(a=reason.a, b=reason.b, c=reason.c, guardrail=guardrail)
    return text + _BOUNDS[Constraint(reason.bound)]
