"""What a journal says became of every command."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, get_args

import numpy as np

from glowsim.core.journal import Effected, Recording
from glowsim.core.types import Command, Effect

__all__ = ["Told", "effects"]

_KINDS: tuple[type, ...] = get_args(Command)


class Told(NamedTuple):
    """How many commands had which effect.

    >>> told = Told(5, done=3, refused=1, late=0, never={"Dispatch": 1}, again=0, refused_of={"Ask": 1})
    >>> told.once, str(told)
    (False, '5 commands: 3 done, 1 refused (1 Ask), 0 late, 1 never told (1 Dispatch)')
    """

    commands: int
    done: int
    refused: int
    late: int
    never: dict[str, int]
    """Kind of command, or "of before" the first segment that is there -> how many of which nothing was told."""
    again: int
    """Effects told of commands that had theirs already, or that were never given."""
    refused_of: dict[str, int]
    """Kind of command -> how many were refused."""

    @property
    def once(self) -> bool:
        """Whether every command had its effect, once: invariant I14."""
        return not self.never and not self.again

    def __str__(self) -> str:
        refused = f" ({_counted(self.refused_of)})" if self.refused_of else ""
        never = f" ({_counted(self.never)})" if self.never else ""
        again = f", {self.again:,} told of a command that had its effect, or never was" if self.again else ""
        return (
            f"{self.commands:,} commands: {self.done:,} done, {self.refused:,} refused{refused}, {self.late:,} late, "
            f"{sum(self.never.values()):,} never told{never}{again}"
        )


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())


def effects(recording: Recording) -> Told:
    """Return what became of the commands of a journal, and of those of before on which it had to be told yet.

    Parameters
    ----------
    recording
        A journal that was read.
    """
    places = [recording.positions(kind) for kind in _KINDS]
    kinds = np.repeat(np.arange(len(_KINDS)), [len(each) for each in places])[
        np.argsort(np.concatenate(places))
    ]
    count, begin = len(kinds), recording.header.get("commands", 0)
    waiting = set(recording.header.get("untold", ()))
    told = np.zeros(count, dtype=np.int64)
    status = np.full(count, Effect.DONE)
    of_none = 0
    for number, n, how in recording.table(Effected)[["first", "n", "status"]].tolist():
        of_before = range(number, min(number + n, begin))
        of_none += len(set(of_before) - waiting)
        waiting.difference_update(of_before)
        first, end = number - begin, number + n - begin
        of_none += max(end - count, 0) - max(first - count, 0)
        here = slice(max(first, 0), max(end, 0))
        told[here] += 1
        if how != Effect.DONE:
            status[here] = how
    of_known = status[told > 0]
    done, refused, late = (
        int(np.count_nonzero(of_known == each)) for each in (Effect.DONE, Effect.REFUSED, Effect.LATE)
    )
    of_earlier = {"of before": len(waiting)} if waiting else {}
    return Told(
        count, done, refused, late,
        never=_by_kind(kinds[told == 0]) | of_earlier,
        again=of_none + int(np.sum(np.maximum(told - 1, 0))),
        refused_of=_by_kind(kinds[(told > 0) & (status == Effect.REFUSED)]),
    )  # fmt: skip


def _by_kind(kinds: np.ndarray) -> dict[str, int]:
    return {_KINDS[kind].__name__: n for kind, n in sorted(Counter(kinds.tolist()).items())}
