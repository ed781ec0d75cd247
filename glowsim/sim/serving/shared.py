"""Limited processor sharing: up to ``concurrency`` jobs at once, each slower the more there are.

The shape of a model replica in one number: with n jobs inside, each runs at 1 / (1 + slowdown (n - 1)) of
the speed it has alone. A clock V of work done per job advances at that rate; a job that needs ``work_s``
ends when V has advanced by so much. Arrivals and ends change only the rate, so nothing is rescheduled but
the next end. How busy the instance is matters all the way through a job, not only when it is admitted.

Checked against the birth-death chain with rate min(n, B) / (1 + slowdown (min(n, B) - 1)).
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import inf

from glowsim.sim.environment import Environment
from glowsim.sim.serving.engine import Done, Job

__all__ = ["SharedEngine"]

_HAIR = 1e-9
"""Relative rounding of the work clock within a busy period."""


class SharedEngine:
    """Serves jobs together, each slowed by the others.

    Parameters
    ----------
    environment
        The simulated time.
    concurrency
        Jobs served at once, at least 1; the rest wait in order of arrival.
    slowdown
        By how much each further job slows every job, as a share of the time alone; 0 or more.
    done
        Called with every job that ends.
    first_token
        Called with a streaming job when its prefill is done.

    >>> environment = Environment()
    >>> ended = []
    >>> done = lambda job: ended.append((job.attempt, environment.now))
    >>> engine = SharedEngine(environment, 2, 1.0, done, done)
    >>> for attempt in (1, 2):
    ...     engine.start(Job(attempt, attempt, 0, 2.0, 0.0, 900, 40, 0, False))
    >>> environment.run(); ended
    [(1, 4.0), (2, 4.0)]
    """

    __slots__ = (
        "_backlog", "_concurrency", "_done", "_due_s", "_environment", "_first_token", "_heap", "_inside", "_last_s",
        "_number", "_rate", "_slowdown", "_speed", "_started_at", "_untold", "_work",
    )  # fmt: skip

    def __init__(
        self, environment: Environment, concurrency: int, slowdown: float, done: Done, first_token: Done
    ) -> None:
        self._environment = environment
        self._concurrency = concurrency
        self._slowdown = slowdown
        self._done = done
        self._first_token = first_token
        self._heap: list[tuple[float, int, Job, bool]] = []
        """(work at which it happens, number, job, whether it is the end)."""
        self._inside: dict[int, Job] = {}
        self._started_at: dict[int, float] = {}
        self._backlog: deque[Job] = deque()
        self._untold: dict[int, Job] = {}
        """Those that have ended at this moment, until it is told."""
        self._work = 0.0
        self._last_s = 0.0
        self._rate = 1.0
        self._speed = 1.0
        self._due_s = inf
        self._number = 0

    def start(self, job: Job) -> None:
        """Take a job in; it waits while ``concurrency`` others are served."""
        self._advance()
        if len(self._inside) < self._concurrency:
            self._admit(job)
            self._plan()
        else:
            self._backlog.append(job)

    def _advance(self) -> None:
        now_s = self._environment._now
        self._work += (now_s - self._last_s) * self._rate
        self._last_s = now_s

    def _admit(self, job: Job) -> None:
        inside = self._inside
        if not inside:
            self._work = 0.0  # a fresh busy period: nothing to round against
        inside[job.attempt] = job
        work = self._work
        self._number += 1
        self._started_at[job.attempt] = work
        heappush(self._heap, (work + job.work_s, self._number, job, True))
        if job.stream:
            heappush(self._heap, (work + job.prefill_s, -self._number, job, False))

    def _plan(self) -> None:
        """Set the rate by how many are inside, and have the next moment called at, unless an earlier one is."""
        self._rate = self._speed / (1.0 + self._slowdown * (len(self._inside) - 1)) if self._inside else 1.0
        if not self._heap:
            return
        due_s = self._last_s + max(self._heap[0][0] - self._work, 0.0) / self._rate
        if due_s < self._due_s:
            self._due_s = due_s
            self._environment.call_at(due_s, self._tick, due_s)

    def _tick(self, due_s: float) -> None:
        if due_s != self._due_s:
            return  # an earlier moment was set meanwhile, and it planned anew
        self._due_s = inf
        self._advance()
        heap, inside = self._heap, self._inside
        ended: list[Job] = []
        streaming: list[Job] = []
        now_s, work, rate = self._last_s, self._work, self._rate
        reached = work * (1.0 + _HAIR)
        # What lies nearer than time can tell apart is reached too, or the clock would stand still before it.
        while heap and (heap[0][0] <= reached or now_s + (heap[0][0] - work) / rate <= now_s):
            _, _, job, is_end = heappop(heap)
            if is_end:
                del inside[job.attempt], self._started_at[job.attempt]
                self._untold[job.attempt] = job
                ended.append(job)
            else:
                streaming.append(job)
        while self._backlog and len(inside) < self._concurrency:
            self._admit(self._backlog.popleft())
        self._plan()
        for job in streaming:
            self._first_token(job)
        for job in ended:
            if self._untold.pop(job.attempt, None) is not None:
                self._done(job)

    def cancel(self, job: Job) -> None:
        """Drop a job, served or waiting."""
        if self._untold.pop(job.attempt, None) is not None:
            job.progress = 1.0
            return  # it ended at this very moment, and another's end came first
        if job.attempt not in self._inside:
            self._backlog.remove(job)
            return
        self._advance()
        started_at = self._started_at.pop(job.attempt)
        del self._inside[job.attempt]
        job.progress = min((self._work - started_at) / max(job.work_s, 1e-12), 1.0)
        self._heap = [entry for entry in self._heap if entry[2] is not job]
        heapify(self._heap)
        while self._backlog and len(self._inside) < self._concurrency:
            self._admit(self._backlog.popleft())
        self._plan()

    def set_speed(self, speed: float, jobs: list[Job]) -> None:
        """Work at another speed from now on."""
        self._advance()
        self._speed = speed
        self._plan()

    def __len__(self) -> int:
        """Return how many jobs are inside."""
        return len(self._inside) + len(self._backlog)
