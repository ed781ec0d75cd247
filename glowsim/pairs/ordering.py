"""In which order tasks are sent and weighed, and which side is asked first: drawn before anything is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glowsim.core.streams import key_of, uniform_at
from glowsim.pairs.tasks import Task

__all__ = ["SIDES", "in_order", "sides_of"]

SIDES: Final = ("baseline", "variant")


def in_order(tasks: Sequence[Task], seed: int) -> list[list[int]]:
    """Return the rows of each task, tasks in random order and repeats together.

    >>> rows = in_order([Task(name, {}, None, None) for name in ("a", "b", "a")], seed=1)
    >>> sorted(rows)
    [[0, 2], [1]]
    """
    rows: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        rows.setdefault(task.name, []).append(row)
    key = key_of("pairs", "order", seed)
    return sorted(rows.values(), key=lambda repeats: uniform_at(key, repeats[0]))


def sides_of(row: int, seed: int) -> tuple[str, str]:
    """Return which side is asked first, and which second."""
    first = uniform_at(key_of("pairs", "sides", seed), row) < 0.5
    return SIDES if first else (SIDES[1], SIDES[0])
