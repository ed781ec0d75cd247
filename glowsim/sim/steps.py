"""What an agent does with a request: model calls and tools, in turn, in loops, side by side.

A task's steps are plain data; `script` is one attempt walking through them. Every draw is a function of
(seed, step, request, attempt, visit), so two policies meet the same task whatever else happens meanwhile.

The context grows: a call's prompt is the agent's own instructions, what came with the request, and all that
was written or looked up since. Branches that run side by side each begin with the context so far, and what
they wrote is joined in order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

from glowsim.core.streams import mix
from glowsim.core.types import Outcome, Plan, Usage
from glowsim.sim.service import Truth
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.engine import Job

__all__ = [
    "Client",
    "Loop",
    "ModelCall",
    "Script",
    "Step",
    "Task",
    "TaskJob",
    "Together",
    "ToolCall",
    "script",
]

Draw = Callable[[float], float] | float
"""A law as a function of one uniform number, or the number that it always gives."""
_OK = Outcome.OK
_TO_UNIT = 2.0**-53
_CALLS, _LUCK, _RESULT = 1 << 24, 2 << 24, 3 << 24
"""Above the numbers of all steps: other things that are drawn for one."""


@dataclass(frozen=True)
class ModelCall:
    """A call of the agent's model; what it writes joins the context."""

    number: int
    """Of the step in its task: names its draws."""
    tokens_out: Draw | None
    """Tokens that it writes; None: the request's answer."""


@dataclass(frozen=True)
class ToolCall:
    """A tool that takes a time of its own and may fail; its result joins the context."""

    number: int
    time_s: Draw
    tokens: Draw
    """Of its result."""
    fails: float
    """Share of its calls that fail, after the same time."""
    tries: int
    """Calls before it is given up."""
    needed: bool
    """Whether the task fails with it; otherwise the agent goes on with the error in its context."""


@dataclass(frozen=True)
class Loop:
    """Steps that are done, and done again with a probability."""

    number: int
    steps: tuple[Step, ...]
    again: float
    most: int
    """Rounds at most."""


@dataclass(frozen=True)
class Together:
    """Branches that run side by side; the next step waits for all."""

    number: int
    branches: tuple[tuple[Step, ...], ...]


Step: TypeAlias = ModelCall | ToolCall | Loop | Together


@dataclass(frozen=True)
class Client:
    """How an agent's own client of the model deals with a call that fails."""

    tries: int = 3
    wait_s: float = 0.5
    """Before the second try; doubled for each further one, and never below what the server asked for."""


@dataclass(frozen=True)
class Task:
    """All steps of an agent's requests."""

    steps: tuple[Step, ...]
    system_key: int
    """Of the instructions that every prompt of the agent begins with."""
    system_tokens: int
    client: Client = Client()

    @property
    def answering(self) -> Step | None:
        """The step whose tokens are the answer, where the last one is a model call."""
        return self.steps[-1] if isinstance(self.steps[-1], ModelCall) else None


def _as_usual() -> tuple[float, float]:
    return 0.0, 1.0


class TaskJob(Job):
    """An attempt on an instance that works in steps."""

    __slots__ = (
        "context", "error", "inner", "luck", "model", "most_tokens_out", "open", "retry_after_s", "root",
        "tokens_cached", "tools", "visits",
    )  # fmt: skip

    def __init__(
        self, attempt: int, request_id: int, number: int, plan: Plan, truth: Truth, luck: int, outcome: Outcome,
        stream: bool,
    ) -> None:  # fmt: skip
        super().__init__(attempt, request_id, number, 0.0, 0.0, 0, 0, outcome, stream)
        self.model = plan.model
        self.most_tokens_out = plan.max_tokens_out
        self.context = plan.tokens_in
        """Tokens of the request and of all that followed, without the agent's instructions."""
        self.inner = truth
        self.luck = luck
        """Well mixed: names every draw of this attempt."""
        self.visits: dict[int, int] = {}
        """Step -> the latest of its visits, from 0."""
        self.open: dict[Call, Any] = {}
        """Calls under way -> where they are."""
        self.root: Any = None
        """Its script, while it has a place."""
        self.tokens_cached = 0
        self.retry_after_s = 0.0
        self.tools: Callable[[], tuple[float, float]] = _as_usual
        """Says (share of uses of tools that fail because of faults, factor on their time) now."""
        self.error = outcome
        """How the attempt is to end, drawn ahead; its first model call brings it to light."""

    def used_so_far(self) -> Usage:
        """Return what its calls have used."""
        return Usage(self.tokens_in, self.tokens_cached, self.tokens_out)

    def draw(self, step: int) -> float:
        """Return the next uniform number of a step."""
        visits = self.visits
        visit = visits[step] = visits.get(step, -1) + 1
        return (mix(self.luck ^ (step << 32 | visit)) >> 11) * _TO_UNIT

    def drawn(self, law: Draw, step: int) -> float:
        """Return a step's next value of a law."""
        return law if isinstance(law, float) else law(self.draw(step))

    def name(self, step: int) -> int:
        """Return the number of a step's next call, by which its server draws: unlike that of any other call."""
        step += _CALLS
        visits = self.visits
        visit = visits[step] = visits.get(step, -1) + 1
        return mix(self.luck ^ (step << 32 | visit))

    def pass_by(self, step: int) -> None:
        """Leave out a number of a step that nothing hangs on; those that follow stay what they are."""
        self.visits[step] = self.visits.get(step, -1) + 1


Script = Generator[Any, Any, Any]
"""Yields calls to be made, seconds to be waited, and tuples of scripts to be run side by side; returns the tokens
that joined the context. It ends early, with the job's outcome set, where the task fails."""


class Failed(Exception):
    """The task has failed; the job says how."""


def script(task: Task, job: TaskJob, text_key: int) -> Script:
    """Return an attempt's way through its task.

    Parameters
    ----------
    task
        The steps.
    job
        The attempt; its tokens and outcome are kept up to date.
    text_key
        Of the text that the context is, beyond the agent's instructions.
    """
    return _walk(task, task.steps, job, text_key, job.context)


def _walk(task: Task, steps: tuple[Step, ...], job: TaskJob, text_key: int, context: int) -> Script:
    begun = context
    for step in steps:
        match step:
            case ModelCall():
                tokens = job.inner.tokens_out
                if step.tokens_out is not None:
                    tokens = round(job.drawn(step.tokens_out, step.number))
                if tokens > job.most_tokens_out:
                    tokens = job.most_tokens_out
                if tokens < 1:
                    tokens = 1
                call = _call(task, step, job, text_key, context, tokens)
                yield call
                if call.outcome is not _OK:
                    call = yield from _again(task, step, job, text_key, context, call)
                job.tokens_in += call.tokens_in
                job.tokens_cached += call.tokens_cached
                job.tokens_out += call.written
                if job.error is not _OK:
                    raise Failed
                context += call.written
            case ToolCall():
                for _ in range(step.tries):
                    fails, factor = job.tools()
                    yield job.drawn(step.time_s, step.number) * factor
                    fails = 1.0 - (1.0 - step.fails) * (1.0 - fails)
                    if not fails:
                        job.pass_by(_LUCK + step.number)
                        break
                    if job.draw(_LUCK + step.number) >= fails:
                        break
                else:
                    if step.needed:
                        job.outcome = Outcome.ERROR
                        raise Failed
                context += max(round(job.drawn(step.tokens, _RESULT + step.number)), 0)
            case Loop():
                for _ in range(step.most):
                    context += yield from _walk(task, step.steps, job, text_key, context)
                    if job.draw(step.number) >= step.again:
                        break
            case Together():
                context += yield tuple(
                    _walk(task, branch, job, mix(text_key ^ (step.number << 16 | i)), context)
                    for i, branch in enumerate(step.branches)
                )
    return context - begun


def _call(task: Task, step: ModelCall, job: TaskJob, text_key: int, context: int, tokens_out: int) -> Call:
    # an empty prompt has the token that begins it
    return Call(
        job.name(step.number), task.system_tokens + context or 1, tokens_out, task.system_key, task.system_tokens,
        text_key, stream=job.stream and step is task.answering,
    )  # fmt: skip


def _again(task: Task, step: ModelCall, job: TaskJob, text_key: int, context: int, call: Call) -> Script:
    """Call again while a call has failed; return the one that did not. One that fails is not billed."""
    client = task.client
    for tries in range(1, client.tries):
        if call.outcome is Outcome.INVALID:
            break
        yield max(client.wait_s * 2.0 ** (tries - 1), call.retry_after_s)
        call = _call(task, step, job, text_key, context, call.tokens_out)
        yield call
        if call.outcome is _OK:
            return call
    job.outcome, job.retry_after_s = call.outcome, call.retry_after_s
    raise Failed
