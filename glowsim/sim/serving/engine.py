"""The seam between an instance and how it serves: jobs go in, each comes back once.

An engine is given jobs by `start`, told to drop one by `cancel`, and calls ``done(job)`` when one ends.
It never calls back while it is being called: everything comes later, by the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from glowsim.core.types import Outcome, Usage

__all__ = ["Done", "Engine", "Job"]


class Job:
    """An attempt inside an instance.

    ``work_s`` is how long it would take alone, ``prefill_s`` the part of that before the first token.
    """

    __slots__ = (
        "attempt", "begun_s", "end_s", "first_token_s", "number", "outcome", "prefill_s", "progress",
        "request_id", "stream", "tokens_in", "tokens_out", "work_s",
    )  # fmt: skip

    tokens_cached = 0
    """The part of ``tokens_in`` that a prompt cache held."""
    retry_after_s = 0.0
    """What the other side asked for, where it put the job off."""
    first_token_s: float
    """From dispatch; set when a streaming job begins to stream."""
    progress: float
    """Share of the work done; set when the job is cancelled."""
    begun_s: float
    end_s: float
    """When it got its server and when it ends, where an engine knows that ahead."""

    def __init__(
        self, attempt: int, request_id: int, number: int, work_s: float, prefill_s: float, tokens_in: int,
        tokens_out: int, outcome: Outcome, stream: bool,
    ) -> None:  # fmt: skip
        self.attempt = attempt
        self.request_id = request_id
        self.number = number
        self.work_s = work_s
        self.prefill_s = prefill_s
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.outcome = outcome
        self.stream = stream

    def used_so_far(self) -> Usage:
        """Return what a cancelled job has used: the prompt once it had begun, and its share of the answer."""
        done_s, writing_s = self.progress * self.work_s - self.prefill_s, self.work_s - self.prefill_s
        written = min(max(done_s, 0.0) / max(writing_s, 1e-12), 1.0)
        return Usage(self.tokens_in if self.progress > 0.0 else 0, 0, int(self.tokens_out * written))


Done = Callable[[Job], None]


class Engine(Protocol):
    """How an instance serves its jobs."""

    def start(self, job: Job) -> None:
        """Take a job in."""

    def cancel(self, job: Job) -> None:
        """Drop a job; its progress is set, and ``done`` is not called for it."""

    def set_speed(self, speed: float, jobs: list[Job]) -> None:
        """Work at a share of the usual speed from now on; ``jobs`` are those inside."""

    def __len__(self) -> int:
        """Return how many jobs are inside."""
