"""First come, first served by ``concurrency`` servers: the station of queueing theory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappush
from typing import Any, Protocol

from glowsim.sim.environment import NORMAL, Environment

__all__ = ["FcfsEngine", "Timed"]

_WAITING, _CANCELLED, _ENDED = -1.0, -2.0, -3.0


class Timed(Protocol):
    """What the station must know of a job."""

    work_s: float
    begun_s: float
    end_s: float
    progress: float


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

    >>> from glowsim.sim.serving.engine import Job
    >>> environment = Environment()
    >>> ended = []
    >>> engine = FcfsEngine(environment, 1, lambda job: ended.append((job.attempt, environment.now)))
    >>> for attempt in (1, 2):
    ...     engine.start(Job(attempt, attempt, 0, 2.0, 0.0, 900, 40, 0, False))
    >>> environment.run(); ended
    [(1, 2.0), (2, 4.0)]
    """

    __slots__ = (
        "_backlog",
        "_busy",
        "_concurrency",
        "_done",
        "_end_job",
        "_environment",
        "_numbers",
        "_queue",
        "_speed",
    )

    def __init__(self, environment: Environment, concurrency: int, done: Callable[[Any], None]) -> None:
        self._environment = environment
        self._queue: list[Any] = environment._queue
        self._numbers = environment._eid
        self._concurrency = concurrency
        self._done = done
        self._end_job = self._end
        self._busy = 0
        self._backlog: deque[Timed] = deque()
        self._speed = 1.0

    def start(self, job: Timed) -> None:
        """Give the job a server, or a place in the backlog."""
        if self._busy < self._concurrency:
            self._busy += 1
            now_s = job.begun_s = self._environment._now
            end_s = job.end_s = now_s + job.work_s / self._speed
            heappush(self._queue, (end_s, NORMAL, next(self._numbers), self._end_job, job))
        else:
            job.end_s = _WAITING
            self._backlog.append(job)

    def _end(self, job: Timed) -> None:
        if job.end_s != self._environment._now:
            return  # cancelled meanwhile, or slowed down: another moment was set
        job.end_s = _ENDED  # two changes of speed may have set the same moment twice
        self._busy -= 1
        if self._backlog:
            self.start(self._backlog.popleft())
        done = self._done
        done(job)

    def cancel(self, job: Timed) -> None:
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

    def set_speed(self, speed: float, jobs: Sequence[Timed]) -> None:
        """Stretch or shrink what is left of the jobs being served, and serve later ones at the new speed."""
        now_s = self._environment._now
        for job in jobs:
            if job.end_s > now_s:
                job.end_s = now_s + (job.end_s - now_s) * self._speed / speed
                heappush(self._queue, (job.end_s, NORMAL, next(self._numbers), self._end, job))
        self._speed = speed

    def __len__(self) -> int:
        """Return how many jobs are inside."""
        return self._busy + len(self._backlog)
