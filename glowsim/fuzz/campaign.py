"""Many seeds: generate, judge, and shrink what fails."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from glowsim.fuzz.generate import scenario_data
from glowsim.fuzz.judge import Failure, judge
from glowsim.fuzz.shrink import shrink

__all__ = ["Found", "campaign", "write"]


class Found(NamedTuple):
    """A seed whose scenario fails."""

    seed: int
    failure: Failure
    """Of the shrunk scenario."""
    scenario: dict[str, Any]
    """The shrunk scenario, as written."""

    @property
    def again(self) -> str:
        """The command that finds it again, with the same version of glowsim."""
        return f"glowsim fuzz --first {self.seed} --seeds 1"


def campaign(first: int, seeds: int, jobs: int = 1) -> Iterator[tuple[int, Found | None]]:
    """Yield each seed, in order, with what was found.

    Parameters
    ----------
    first, seeds
        The first seed and how many.
    jobs
        Processes to spread them over.

    >>> [(seed, found is None) for seed, found in campaign(first=3, seeds=2)]
    [(3, True), (4, True)]
    """
    numbers = range(first, first + seeds)
    if jobs == 1:
        yield from zip(numbers, map(_trial, numbers), strict=True)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, seeds), mp_context=context) as pool:
        yield from zip(numbers, pool.map(_trial, numbers, chunksize=4), strict=True)


def _trial(seed: int) -> Found | None:
    data = scenario_data(seed)
    failure = judge(data)
    if failure is None:
        return None
    small = shrink(data, lambda smaller: _kind(judge(smaller)) == failure.kind)
    return Found(seed, judge(small) or failure, small)


def _kind(failure: Failure | None) -> str | None:
    return None if failure is None else failure.kind


def write(found: Found, folder: Path) -> Path:
    """Write the shrunk scenario to ``fuzz-SEED.yaml`` in a folder, with what fails as its first lines."""
    path = folder / f"fuzz-{found.seed}.yaml"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {found.again}\n# {found.failure.kind}: {' '.join(found.failure.message.split())}\n")
        YAML().dump(found.scenario, file)
    return path
