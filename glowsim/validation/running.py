"""Runs the cases: replications over processes, an interval for every quantity, a verdict."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple

from glowsim.core.streams import key_of
from glowsim.stats.intervals import Interval, t_interval
from glowsim.validation.case import Case, Quantity, Size
from glowsim.validation.cases import CASES
from glowsim.validation.measures import Estimates

__all__ = [
    "AGREES", "CONFIDENCE", "DISAGREES", "HALF_WIDTH", "TOO_WIDE", "Measured", "Progress", "judge", "measure",
    "measure_all",
]  # fmt: skip

CONFIDENCE: Final = 0.9997
"""Of every interval: of sixty, a fresh set of seeds would have one miss by chance once in fifty times."""
HALF_WIDTH: Final = 0.02
"""What the full campaign must reach, as a share of the exact value."""
AGREES, DISAGREES, TOO_WIDE = "agrees", "disagrees", "too wide"

_MOST_REPLICATIONS: Final = 1000

Progress = Callable[[int, int, str], None]
"""Told how many cases are done, of how many, and the title of the next."""


class Measured(NamedTuple):
    """What the simulation says of one quantity, and what that means."""

    case: Case
    quantity: Quantity
    interval: Interval
    verdict: str

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the exact value."""
        return self.interval.half_width / abs(self.quantity.exact)


def judge(quantity: Quantity, interval: Interval, *, narrow: bool) -> str:
    """Return whether an interval covers the exact value, give or take what that is itself uncertain by.

    Parameters
    ----------
    quantity
        What theory says.
    interval
        Of the simulation.
    narrow
        Whether a half-width above ``HALF_WIDTH`` of the exact value is a failure, too.

    >>> judge(Quantity("wait", 4.0), Interval(4.1, 3.9, 4.3, 10), narrow=False)
    'agrees'
    >>> judge(Quantity("wait", 4.0), Interval(4.1, 3.9, 4.3, 10), narrow=True)
    'too wide'
    """
    if not interval.low - quantity.within <= quantity.exact <= interval.high + quantity.within:
        return DISAGREES
    wide = interval.half_width > HALF_WIDTH * abs(quantity.exact)
    return TOO_WIDE if narrow and wide and not quantity.why_wide else AGREES


def measure(case: Case, size: Size, *, narrow: bool) -> list[Measured]:
    """Run a simulated case here and return what it measures."""
    return _judged(
        case, [_replicate(case.key, number, size.tasks) for number in range(size.replications)], narrow
    )


def measure_all(*, full: bool, jobs: int = 1, progress: Progress | None = None) -> Iterator[Measured]:
    """Run every simulated case and yield what it measures, in the order of the table.

    Parameters
    ----------
    full
        The campaign's sizes, and its half-width; else the quick ones, without the cases that have none.
    jobs
        Processes to spread replications over.
    progress
        Told how far it is.
    """
    sized = [
        (case, size) for case in CASES.values() if (size := case.full if full else case.quick) is not None
    ]
    if jobs == 1:
        for done, (case, size) in enumerate(sized):
            if progress is not None:
                progress(done, len(sized), case.title)
            yield from measure(case, size, narrow=full)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [
            [pool.submit(_replicate, case.key, number, size.tasks) for number in range(size.replications)]
            for case, size in sized
        ]
        for done, ((case, _), replications) in enumerate(zip(sized, futures, strict=True)):
            if progress is not None:
                progress(done, len(sized), case.title)
            yield from _judged(case, [each.result() for each in replications], full)


def _replicate(key: str, number: int, tasks: int) -> Estimates:
    case = CASES[key]
    if case.simulate is None:
        raise ValueError(f"the case {key} is a formula: there is nothing to simulate")
    with _rare_collections():
        return case.simulate(_first(key) + number, tasks)


def _first(key: str) -> int:
    """Return the number of a case's first replication: every case has its own, and so its own random numbers."""
    return key_of("validation", key) % 1_000_000 * _MOST_REPLICATIONS


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Have the garbage collector look rarely: a simulation makes many objects and hardly any cycles."""
    threshold = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)


def _judged(case: Case, estimates: Sequence[Estimates], narrow: bool) -> list[Measured]:
    found = []
    for quantity in case.simulated:
        interval = t_interval([each[quantity.metric] for each in estimates], CONFIDENCE)
        found.append(Measured(case, quantity, interval, judge(quantity, interval, narrow=narrow)))
    return found
