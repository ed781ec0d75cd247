"""First come, first served by ``concurrency`` servers: the station of queueing theory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from glowsim.sim.environment import Environment
from glowsim.sim.serving.engine import Done, Job

__all__ = ["FcfsEngine"]


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

    __slots__ = ("_backlog", "_busy", "_call_at", "_concurrency", "_done", "_environment", "_serving", "_speed")

    def __init__(self, environment: Environment, concurrency: int, done: Done) -> None:
        self._environment = environment
        self._call_at: Callable[[float, Callable[[Job], None], Job], None] = environment.call_at
        self._concurrency = concurrency
        self._done = done
        self._busy = 0
        self._backlog: deque[Job] = deque()
        self._serving: dict[int, tuple[Job, float, float]] = {}
        """Attempt -> (job, when it got its server, when it ends)."""
        self._speed = 1.0

    def start(self, job: Job) -> None:
        """Give the job a server, or a place in the backlog."""
        if self._busy < self._concurrency:
            self._busy += 1
            self._serve(job)
        else:
            self._backlog.append(job)

    def _serve(self, job: Job) -> None:
        now_s = self._environment._now
        end_s = now_s + job.work_s / self._speed
        self._serving[job.attempt] = (job, now_s, end_s)
        self._call_at(end_s, self._end, job)

    def _end(self, job: Job) -> None:
        serving = self._serving.get(job.attempt)
        if serving is None or serving[2] > self._environment._now:
            return  # cancelled meanwhile, or slowed down: another moment was set
        del self._serving[job.attempt]
        self._free()
        self._done(job)

    def _free(self) -> None:
        if self._backlog:
            self._serve(self._backlog.popleft())
        else:
            self._busy -= 1

    def cancel(self, job: Job) -> None:
        """Drop a job from its server or from the backlog."""
        serving = self._serving.pop(job.attempt, None)
        if serving is None:
            self._backlog.remove(job)
            return
        _, begun_s, end_s = serving
        job.progress = (self._environment.now - begun_s) / max(end_s - begun_s, 1e-12)
        self._free()

    def set_speed(self, speed: float) -> None:
        """Stretch or shrink what is left of the jobs being served, and serve later ones at the new speed."""
        now_s = self._environment.now
        for attempt, (job, begun_s, end_s) in list(self._serving.items()):
            new_end_s = now_s + (end_s - now_s) * self._speed / speed
            self._serving[attempt] = (job, begun_s, new_end_s)
            self._call_at(new_end_s, self._end, job)
        self._speed = speed

    def jobs(self) -> list[Job]:
        """Return the jobs inside."""
        return [job for job, _, _ in self._serving.values()] + list(self._backlog)
