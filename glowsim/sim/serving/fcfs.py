"""First come, first served by ``concurrency`` servers: the station of queueing theory."""

from __future__ import annotations

from collections import deque
from heapq import heappush
from typing import Any

from glowsim.sim.environment import NORMAL, Environment
from glowsim.sim.serving.engine import Done, Job

__all__ = ["FcfsEngine"]

_WAITING, _CANCELLED = -1.0, -2.0


class FcfsEngine:
    """Serves up to ``concurrency`` jobs at once, each for its own time, the rest in order of arrival.

    Parameters
    ----------
    environment
        The simulated time.
    concurrency
        Jobs served at once, at least 1.
    done
        Called with every job that ends.

    >>> environment = Environment()
    >>> ended = []
    >>> engine = FcfsEngine(environment, 1, lambda job: ended.append((job.attempt, environment.now)))
    >>> for attempt in (1, 2):
    ...     engine.start(Job(attempt, attempt, 0, 2.0, 0.0, 900, 40, 0, False))
    >>> environment.run(); ended
    [(1, 2.0), (2, 4.0)]
    """

    __slots__ = ("_backlog", "_busy", "_concurrency", "_done", "_environment", "_number", "_queue", "_speed")

    def __init__(self, environment: Environment, concurrency: int, done: Done) -> None:
        self._environment = environment
        self._queue: list[Any] = environment._queue
        self._number = environment._number
        self._concurrency = concurrency
        self._done = done
        self._busy = 0
        self._backlog: deque[Job] = deque()
        self._speed = 1.0

    def start(self, job: Job) -> None:
        """Give the job a server, or a place in the backlog."""
        if self._busy < self._concurrency:
            self._busy += 1
            now_s = self._environment._now
            job.begun_s = now_s
            job.end_s = end_s = now_s + job.work_s / self._speed
            heappush(self._queue, (end_s, NORMAL, self._number(), self._end, job))
        else:
            job.end_s = _WAITING
            self._backlog.append(job)

    def _end(self, job: Job) -> None:
        if job.end_s != self._environment._now:
            return  # cancelled meanwhile, or slowed down: another moment was set
        self._busy -= 1
        if self._backlog:
            self.start(self._backlog.popleft())
        self._done(job)

    def cancel(self, job: Job) -> None:
        """Drop a job from its server or from the backlog; its progress is set."""
        if job.end_s == _WAITING:
            job.progress = 0.0
            self._backlog.remove(job)
            return
        job.progress = (self._environment._now - job.begun_s) / max(job.end_s - job.begun_s, 1e-12)
        job.end_s = _CANCELLED
        self._busy -= 1
        if self._backlog:
            self.start(self._backlog.popleft())

    def set_speed(self, speed: float, jobs: list[Job]) -> None:
        """Stretch or shrink what is left of the jobs being served, and serve later ones at the new speed."""
        now_s = self._environment._now
        for job in jobs:
            if job.end_s > now_s:
                job.end_s = now_s + (job.end_s - now_s) * self._speed / speed
                heappush(self._queue, (job.end_s, NORMAL, self._number(), self._end, job))
        self._speed = speed

    def __len__(self) -> int:
        """Return how many jobs are inside."""
        return self._busy + len(self._backlog)
