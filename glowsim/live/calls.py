"""What passes between the driver, the instances that serve and the clients that ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, Protocol, TypeAlias

from glowsim.core.errors import GlowsimError
from glowsim.core.reasons import Code, Reason, sentence
from glowsim.core.types import Ask, Outcome, Plan, Request, Status, Usage

__all__ = [
    "Answered", "Asker", "Call", "Checked", "Closed", "Failed", "InstanceError", "InvalidTask", "Rejected", "Reply",
    "Scaler", "Serve", "Served", "Throttled", "Word",
]  # fmt: skip


@dataclass(slots=True)
class Call:
    """One attempt, as the instance that serves it sees it.

    >>> Call(7, 0, Request(1, 0, 900, 100), Plan(0, 0, 900, 100), "hello").usage.tokens_out
    0
    """

    attempt: int
    instance: int
    request: Request
    plan: Plan
    """How the request is to be served; it overrules what the request asks for."""
    task: Any
    """The content; the control plane never sees it."""
    tries: int = 0
    """Attempts of the same request before this one."""
    usage: Usage = field(default=Usage())
    """What was used so far: kept up to date by the instance, read when the attempt ends without a `Reply`."""
    passed_on: Mapping[str, str] = field(default_factory=dict)
    """Headers that go with it to an instance behind HTTP: the trace context."""
    finish_reasons: list[str] | None = None
    """Where the instance notes why its model stopped; None: nobody wants to know."""


class Reply(NamedTuple):
    """What an instance gives back.

    >>> Reply("forty-two", Usage(tokens_in=9, tokens_out=2)).content
    'forty-two'
    """

    content: Any
    usage: Usage


Serve: TypeAlias = Callable[[Call], Awaitable[Reply] | AsyncIterator[str]]
"""An instance: returns a `Reply`, or streams pieces of text while it keeps ``call.usage`` up to date.

An empty piece says no more than that it is at work.
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """An instance that can also be asked whether it is well; one that cannot is left out of every probe.

    >>> async def echo(call):
    ...     return Reply(call.task, Usage())
    >>> async def well():
    ...     return True
    >>> callable(Checked(echo, well))
    True
    """

    serve: Serve
    healthy: Callable[[], Awaitable[bool]]
    """Says whether it is well; an exception means that it is not."""

    def __call__(self, call: Call) -> Awaitable[Reply] | AsyncIterator[str]:
        """Serve."""
        return self.serve(call)


class Scaler(Protocol):
    """Starts and stops the instances of one agent."""

    async def start(self, instance: int) -> Serve:
        """Return when the instance is ready to serve; an exception means that it failed."""

    async def stop(self, instance: int) -> None:
        """Return when an instance that has no work any more is gone."""


class Word(NamedTuple):
    """The outside world's answer to an `Ask`.

    >>> Word(Status.GRANTED, 10.0).lasts_s
    inf
    """

    status: Status
    value: float = 0.0
    lasts_s: float = inf


Asker: TypeAlias = Callable[[Ask], Awaitable[Word]]
"""Carries a question of the control plane to the outside world."""


class Served(NamedTuple):
    """What feedback on a request that was dispatched will need to know.

    >>> Served(7, 0, 1, 42, 0.05, 99, 1.5, 1.5).propensity
    0.05
    """

    request_id: int
    agent: int
    variant: int
    unit: int
    """What the rollout assigned; without one the user, or the request itself where there is none."""
    propensity: float
    """With what probability it got this variant when it was assigned."""
    tenant: int
    t_s: float
    assigned_s: float | None
    """When the rollout assigned it; None: none did."""


class Answered(NamedTuple):
    """What a client gets for its request.

    >>> Answered(1, "yes", Usage(), Code.CACHED, 3).how.name
    'CACHED'
    """

    request_id: int
    content: Any
    usage: Usage
    """Of the attempt that produced the content, which may have been for an earlier request."""
    how: Code
    """``OWN``, ``CACHED``, ``JOINED`` or ``REPEATED``."""
    source: int
    """The attempt that produced the content."""


class InstanceError(GlowsimError):
    """An instance could not do what it was asked (5xx); another try may succeed."""


class InvalidTask(InstanceError):
    """The instance turned the task itself down (400); no retry mends it."""


class Throttled(InstanceError):
    """The instance asks for patience (429).

    >>> Throttled(2.5).retry_after_s
    2.5
    """

    def __init__(self, retry_after_s: float = 0.0) -> None:
        super().__init__(f"the instance asks to wait {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class Rejected(GlowsimError):
    """A request was turned away before any work was spent on it.

    >>> str(Rejected(1, 5.0, Reason(Code.LIMITED)))
    'request 1 was rejected: over its limit'
    """

    def __init__(self, request_id: int, retry_after_s: float, reason: Reason) -> None:
        super().__init__(f"request {request_id} was rejected: {sentence(reason)}")
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.reason = reason


class Failed(GlowsimError):
    """A request failed, whatever was tried.

    >>> str(Failed(1, Outcome.ERROR, Reason(Code.EXHAUSTED, a=3)))
    'request 1 ended with ERROR: failed after 3 attempts'
    """

    def __init__(
        self, request_id: int, outcome: Outcome, reason: Reason, cause: BaseException | None = None
    ) -> None:
        super().__init__(f"request {request_id} ended with {outcome.name}: {sentence(reason)}")
        self.request_id = request_id
        self.outcome = outcome
        self.reason = reason
        self.cause = cause
        """What its last attempt raised, where that ended it."""


class Closed(GlowsimError):
    """The driver takes no requests any more, or ended one because it is closing."""
