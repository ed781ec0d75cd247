"""An instance that works through tasks: up to ``concurrency`` at a time, the rest in order of arrival.

Its own speed matters to its tools alone; its model calls take the time that the model's servers take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from glowsim.core.errors import WorldError
from glowsim.core.streams import mix
from glowsim.sim.environment import Environment
from glowsim.sim.servers import Callee
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.engine import Done
from glowsim.sim.steps import Failed, Script, Task, TaskJob, script

__all__ = ["TaskEngine"]


class _Branch:
    """A script under way, and the one that waits for it."""

    __slots__ = ("engine", "job", "parent", "results", "script", "waits_for")

    def __init__(self, engine: TaskEngine, job: TaskJob, script: Script, parent: _Branch | None) -> None:
        self.engine = engine
        self.job = job
        self.script = script
        self.parent = parent
        self.waits_for = 0
        self.results = 0


class TaskEngine:
    """Works through jobs in steps.

    Parameters
    ----------
    environment
        The simulated time.
    concurrency
        Jobs worked on at once, at least 1.
    task
        Their steps.
    servers
        Model -> what serves it.
    done
        Called with every job that ends.
    first_token
        Called with a streaming job when the first token of its answer is out.
    tools
        Says (share of uses of tools that fail because of faults, factor on their time) now.
    """

    __slots__ = (
        "_backlog", "_busy", "_concurrency", "_done", "_environment", "_first_token", "_servers", "_speed", "_task",
        "_tools",
    )  # fmt: skip

    def __init__(
        self, environment: Environment, concurrency: int, task: Task, servers: Mapping[int, Callee],
        done: Callable[[Any], None], first_token: Done, tools: Callable[[], tuple[float, float]],
    ) -> None:  # fmt: skip
        self._environment = environment
        self._concurrency = concurrency
        self._task = task
        self._servers = servers
        self._done = done
        self._first_token = first_token
        self._tools = tools
        self._busy = 0
        self._backlog: deque[TaskJob] = deque()
        self._speed = 1.0

    def start(self, job: Any) -> None:
        """Begin the job, or put it into the backlog."""
        if self._busy == self._concurrency:
            self._backlog.append(job)
            return
        self._busy += 1
        job.tools = self._tools
        text_key = job.inner.text_key or mix(job.request_id)
        job.root = _Branch(self, job, script(self._task, job, text_key), None)
        self.go_on(job.root, None)

    def go_on(self, branch: _Branch, result: Call | int | None) -> None:
        """Have a script do its next step, given what came of the last: a call, or the tokens of branches."""
        try:
            step = branch.script.send(result)
        except StopIteration as stop:
            self._ended(branch, stop.value)
            return
        except Failed:
            self._end(branch.job)
            return
        if type(step) is Call:
            job = branch.job
            step.owner = branch
            try:
                server = self._servers[job.model]
            except KeyError:
                raise WorldError(
                    f"request {job.request_id} is to be answered by the scenario's model number {job.model}, which has "
                    "no server to call: give it one, or keep the planner and the ladder from choosing it"
                ) from None
            job.open[step] = server
            server.start(step)
        elif type(step) is tuple:
            branch.waits_for, branch.results = len(step), 0
            for each in step:
                if branch.job.root is not None:  # an earlier branch may have failed at once
                    self.go_on(_Branch(self, branch.job, each, branch), None)
        else:
            due_s = self._environment._now + step / self._speed
            self._environment.call_at(due_s, self._waited, branch)

    def _waited(self, branch: _Branch) -> None:
        if branch.job.root is not None:
            self.go_on(branch, None)

    def streams(self, branch: _Branch) -> None:
        """Hear that the answer of a streaming job has begun."""
        self._first_token(branch.job)

    def _ended(self, branch: _Branch, tokens: int) -> None:
        parent = branch.parent
        if parent is None:
            branch.job.context += tokens
            self._end(branch.job)
            return
        parent.results += tokens
        parent.waits_for -= 1
        if not parent.waits_for:
            self.go_on(parent, parent.results)

    def _end(self, job: TaskJob) -> None:
        self._stop(job)
        self._done(job)

    def _stop(self, job: TaskJob) -> None:
        """Free the job's place; drop what it still had under way, and count what that used."""
        job.root = None
        self._busy -= 1
        if job.open:
            for call, server in job.open.items():
                server.cancel(call)
                job.tokens_in += call.tokens_in
                job.tokens_cached += call.tokens_cached
                job.tokens_out += call.written
            job.open.clear()
        if self._backlog:
            self.start(self._backlog.popleft())

    def cancel(self, job: Any) -> None:
        """Drop a job, from its place or from the backlog."""
        if job.root is not None:
            self._stop(job)
        else:
            self._backlog.remove(job)

    def set_speed(self, speed: float, jobs: list[Any]) -> None:
        """Have later uses of tools take ``1 / speed`` of their time."""
        self._speed = speed

    def __len__(self) -> int:
        """Return how many jobs are inside."""
        return self._busy + len(self._backlog)
