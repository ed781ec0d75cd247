"""What the pairs say: the variant is worse, it is not worse by the margin, or they cannot tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from glowsim.pairs.intervals import tango
from glowsim.pairs.mcnemar import exact_p, mid_p
from glowsim.pairs.sequential import PairedEvidence, interval_at_any_time
from glowsim.stats.intervals import Interval

__all__ = [
    "EXIT_CODES",
    "Found",
    "Pair",
    "Rules",
    "Verdict",
    "Watcher",
    "by_task",
    "judge_once",
    "judge_sequentially",
]

_LOOK_EVERY: Final = 10
"""Tasks between two looks at whether the rest could still tell: that look costs a millisecond."""
_DRAWS: Final = 1000


class Verdict(StrEnum):
    """What was decided."""

    WORSE = "worse"
    NOT_WORSE = "not worse"
    UNDECIDED = "undecided"


EXIT_CODES: Final = {Verdict.NOT_WORSE: 0, Verdict.WORSE: 1, Verdict.UNDECIDED: 3}


class Pair(NamedTuple):
    """One task as both variants did it: shares of it done right, 0 to 1, over its repeats.

    >>> Pair("t1", baseline=1.0, variant=0.0).difference
    1.0
    """

    task: str
    baseline: float
    variant: float

    @property
    def difference(self) -> float:
        """The variant's share of failures minus the baseline's: above 0, the task is lost."""
        return round(self.baseline - self.variant, 12)  # sums of equal scores may differ in a last digit


class Rules(NamedTuple):
    """What is promised: all are chances, or shares of the tasks, 0 to 1.

    >>> Rules().margin
    0.03
    """

    alpha: float = 0.01
    """Chance of calling a variant worse that is not."""
    margin: float = 0.03
    """What the variant may add to the share of failures and still pass."""
    promote_alpha: float = 0.025
    """Chance of passing a variant that adds the margin or more."""
    futility: float = 0.02
    """A replay ends once the chance that the rest of its tasks decides is below this; 0: it goes on."""


class Found(NamedTuple):
    """What pairs come to."""

    verdict: Verdict
    lost: tuple[str, ...]
    """Tasks at which the variant did worse, in the order of the pairs."""
    won: tuple[str, ...]
    """Tasks at which the baseline did."""
    tasks: int
    """Tasks that the verdict rests on."""
    difference: Interval
    """In the share of failures, variant minus baseline, at 95 %: as it was looked at, once or after every pair."""
    exact_p: float
    """One-sided, for "worse"; it holds for a number of tasks that was fixed beforehand."""
    mid_p: float
    e_worse: float | None
    """Evidence that it is worse; None where one look was taken."""
    e_not_worse: float | None
    """Evidence that it is not worse by the margin."""
    futile: bool = False
    """Whether it ended because the rest could hardly decide."""


class Watcher:
    """Told task after task, in an order that was fixed beforehand, decides when there is nothing more to learn.

    Parameters
    ----------
    rules
        What is promised.
    tasks
        How many there are at most.

    >>> watcher = Watcher(Rules(), tasks=100)
    >>> for number in range(12):
    ...     if watcher.tell(Pair(f"t{number}", 1.0, 0.0)):
    ...         break
    >>> watcher.verdict, len(watcher.pairs)
    (<Verdict.WORSE: 'worse'>, 9)
    """

    def __init__(self, rules: Rules, tasks: int) -> None:
        self.rules = rules
        self.pairs: list[Pair] = []
        self.verdict = Verdict.UNDECIDED
        self.futile = False
        self._tasks = tasks
        self._worse = PairedEvidence("not worse")
        self._passes = PairedEvidence("worse", rules.margin)
        self._bars = (-math.log(rules.alpha), -math.log(rules.promote_alpha))
        self._generator = np.random.default_rng(tasks)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.futile or self.verdict is not Verdict.UNDECIDED

    @property
    def evidence(self) -> tuple[float, float]:
        """(that it is worse, that it is not worse by the margin)."""
        return self._worse.e, self._passes.e

    def tell(self, pair: Pair) -> bool:
        """Take in the next task; return whether that ends it. Not to be asked after the end."""
        self._worse.tell(pair.difference)
        self._passes.tell(pair.difference)
        self.pairs.append(pair)
        if self._worse.log_e >= self._bars[0]:
            self.verdict = Verdict.WORSE
        elif self._passes.log_e >= self._bars[1]:
            self.verdict = Verdict.NOT_WORSE
        elif self.rules.futility and len(self.pairs) % _LOOK_EVERY == 0 and len(self.pairs) < self._tasks:
            self.futile = self.chance_to_decide() < self.rules.futility
        return self.ended

    def chance_to_decide(self) -> float:
        """Return the chance that the evidence suffices, either way, when all the remaining tasks are in.

        Drawn with a fixed seed: the rest is like what was seen, by a Dirichlet posterior with half a pair of every
        kind. Looks in between can only add to it.
        """
        seen = np.array([pair.difference for pair in self.pairs])
        values, counts = np.unique(np.append(seen, [-1.0, 0.0, 1.0]), return_counts=True)
        prior = np.where(np.isin(values, (-1.0, 0.0, 1.0)), 0.5, 0.0)
        posterior = counts - np.isin(values, (-1.0, 0.0, 1.0)) + prior
        chances = self._generator.dirichlet(posterior, size=_DRAWS)
        rest = self._generator.multinomial(self._tasks - len(self.pairs), chances)
        decided = np.zeros(_DRAWS, dtype=bool)
        for evidence, bar in zip((self._worse, self._passes), self._bars, strict=True):
            decided |= evidence.after(rest @ evidence.gains(values)) >= bar
        return float(np.mean(decided))

    def found(self) -> Found:
        """Return what the tasks told so far come to."""
        interval = interval_at_any_time([pair.difference for pair in self.pairs])
        return _found(self.pairs, self.verdict, interval, *self.evidence, futile=self.futile)


def judge_sequentially(pairs: Iterable[Pair], rules: Rules, tasks: int) -> Found:
    """Return what pairs say that were looked at one after the other, until they decided.

    >>> judge_sequentially([Pair("a", 1.0, 0.0), Pair("b", 1.0, 1.0)], Rules(futility=0.0), 2).verdict
    <Verdict.UNDECIDED: 'undecided'>
    """
    watcher = Watcher(rules, tasks)
    for pair in pairs:
        if watcher.tell(pair):
            break
    return watcher.found()


def judge_once(pairs: Sequence[Pair], rules: Rules) -> Found:
    """Return what pairs say that are looked at once, their number being fixed before any of them was seen.

    Sharper than looking after every pair, and void if somebody looked before. Worse: McNemar's exact test over tasks,
    one that was repeated being lost where the variant's share is the lower one. Not worse: the upper end of Tango's
    interval is below the margin; of the interval that holds at any time where tasks were repeated or have scores, for
    it needs no law of theirs. Where a variant is both worse and within the margin, it is not worse by the margin.

    >>> pairs = [Pair(str(number), 1.0, float(number >= 9)) for number in range(200)]
    >>> judge_once(pairs, Rules()).verdict
    <Verdict.WORSE: 'worse'>

    Raises
    ------
    ValueError
        There is no pair.
    """
    found = _found(pairs, Verdict.UNDECIDED, _interval(pairs, 0.95), None, None)
    verdict = Verdict.UNDECIDED
    if _interval(pairs, 1.0 - 2.0 * rules.promote_alpha).high < rules.margin:
        verdict = Verdict.NOT_WORSE
    elif found.exact_p <= rules.alpha:
        verdict = Verdict.WORSE
    return found._replace(verdict=verdict)


def _found(
    pairs: Sequence[Pair], verdict: Verdict, difference: Interval, e_worse: float | None, e_not_worse: float | None, *,
    futile: bool = False,
) -> Found:  # fmt: skip
    lost = tuple(pair.task for pair in pairs if pair.difference > 0.0)
    won = tuple(pair.task for pair in pairs if pair.difference < 0.0)
    return Found(
        verdict, lost, won, len(pairs), difference, exact_p(len(lost), len(won)),
        mid_p(len(lost), len(won)), e_worse, e_not_worse, futile,
    )  # fmt: skip


def _interval(pairs: Sequence[Pair], confidence: float) -> Interval:
    differences = [pair.difference for pair in pairs]
    if set(differences) <= {-1.0, 0.0, 1.0}:
        return tango(differences.count(1.0), differences.count(-1.0), len(pairs), confidence)
    return interval_at_any_time(differences, confidence)


def by_task(rows: Iterable[tuple[str, float, float]]) -> Iterator[Pair]:
    """Yield a pair for every task, in the order in which tasks first stand: its repeats are averaged.

    >>> list(by_task([("a", 1.0, 0.0), ("b", 1.0, 1.0), ("a", 1.0, 1.0)]))
    [Pair(task='a', baseline=1.0, variant=0.5), Pair(task='b', baseline=1.0, variant=1.0)]
    """
    gathered: dict[str, list[tuple[float, float]]] = {}
    for task, baseline, variant in rows:
        gathered.setdefault(task, []).append((baseline, variant))
    for task, repeats in gathered.items():
        n = len(repeats)
        yield Pair(task, math.fsum(b for b, _ in repeats) / n, math.fsum(v for _, v in repeats) / n)
