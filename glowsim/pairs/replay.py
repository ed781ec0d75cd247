"""Recorded tasks through both variants, until they tell, the money is spent or the tasks are through.

Three things make the verdict one that may be stopped at any pair. The order of the tasks is drawn beforehand, and
pairs are weighed in that order, whichever answers came first: or a variant that fails fast would look worse than a
baseline that fails by a timeout. Which side of a pair is asked first is drawn too. And no outcome is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import fsum
from typing import NamedTuple

from glowsim.core.types import Outcome
from glowsim.load.sending import interrupting
from glowsim.pairs.asking import Answer, Asker, Side, asking
from glowsim.pairs.judges import Judge
from glowsim.pairs.kept import Line, Results
from glowsim.pairs.ordering import SIDES, in_order, sides_of
from glowsim.pairs.prices import Pricing
from glowsim.pairs.problems import PairsError
from glowsim.pairs.tasks import Recorded, Task
from glowsim.pairs.verdict import Pair, Rules, Watcher

__all__ = ["How", "Replayed", "replay"]

Tell = Callable[[int, int, float], None]
"""(pairs answered, pairs in all, US dollars spent)."""


class How(NamedTuple):
    """How tasks are replayed."""

    timeout_s: float = 60.0
    """For a whole answer."""
    concurrency: int = 4
    """Pairs open at once, each with one call."""
    max_cost_usd: float | None = None
    """No pair is begun that could go beyond, if no call costs more than the dearest so far."""
    seed: int = 1
    """Of the order of tasks, and of sides within a pair."""


class Replayed(NamedTuple):
    """A replay that has ended."""

    watcher: Watcher
    lines: tuple[Line, ...]
    ended_by: str
    """``verdict``, ``futility``, ``cost``, ``interrupted``, ``labels`` (some answers wait for one) or ``end``."""
    asked: int
    """Calls made now; the others were kept from before."""


async def replay(
    recorded: Recorded, sides: Mapping[Side, str | None], judge: Judge, results: Results, rules: Rules, how: How,
    price: Pricing | None = None, tell: Tell | None = None,
) -> Replayed:  # fmt: skip
    """Send recorded tasks to both sides until the verdict, the cost limit or the end; SIGINT ends it early.

    Parameters
    ----------
    recorded
        The tasks.
    sides
        Baseline and variant -> their keys.
    judge
        Says whether an answer is right.
    results
        Where answers are kept; those that it holds are not asked again.
    rules
        What is promised.
    how
        Timeouts, limits, seed.
    price
        Of a call; None: costs are not known.
    tell
        Told how far it is, after every pair.

    Raises
    ------
    PairsError
        A side cannot be asked at all, or the limit of the cost cannot be kept. What was answered is kept.
    """
    run = _Run(recorded, {side.name: side for side in sides}, judge, results, rules, how, price, tell)
    if run.to_ask and not run.watcher.ended:
        async with asking(sides, how.timeout_s) as askers:
            with interrupting(run.stop):
                await run.ask_all(askers)
    return run.replayed()


class _Run:
    def __init__(
        self, recorded: Recorded, sides: Mapping[str, Side], judge: Judge, results: Results, rules: Rules, how: How,
        price: Pricing | None, tell: Tell | None,
    ) -> None:  # fmt: skip
        self._recorded, self._sides, self._judge, self._results = recorded, sides, judge, results
        self._how, self._price, self._tell = how, price, tell
        self._order = in_order(recorded.tasks, how.seed)
        names = [task.name for task in recorded.tasks]
        strange = [line.task for line in results.lines if names[line.row : line.row + 1] != [line.task]]
        if strange:
            raise PairsError(
                f"the results have an answer to {strange[0]!r} that no such row asks for: name another file"
            )
        self._known = {(line.row, line.side): line for line in results.lines}
        self.watcher = Watcher(rules, len(self._order))
        self._bill = _Bill(results.lines, how.max_cost_usd)
        self._stopped_by = ""
        self._asked = 0
        self._weigh()
        self.to_ask = [
            row
            for rows in self._order
            for row in rows
            if any((row, side) not in self._known for side in SIDES)
        ]
        self._done = len(recorded.tasks) - len(self.to_ask)

    def stop(self) -> None:
        """Begin no further pair; those that are open are finished."""
        self._stopped_by = self._stopped_by or "interrupted"

    async def ask_all(self, askers: Mapping[str, Asker]) -> None:
        rows = iter(self.to_ask)
        if self._how.max_cost_usd is not None:
            # The first pair is alone: what it costs says what others may.
            while self._bill.dearest_usd is None and not self._over():
                row = next(rows, None)
                if row is None:
                    return
                await self._pair(row, askers)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._how.concurrency):
                    group.create_task(self._work(rows, askers))
        except ExceptionGroup as several:
            own = several.subgroup(PairsError)
            if own is None:
                raise
            raise own.exceptions[0] from several

    async def _work(self, rows: Iterator[int], askers: Mapping[str, Asker]) -> None:
        while not self._over():
            row = next(rows, None)
            if row is None:
                return
            await self._pair(row, askers)

    def _over(self) -> bool:
        if not self._stopped_by and not self.watcher.ended and not self._bill.affords_pair():
            self._stopped_by = "cost"
        return bool(self._stopped_by) or self.watcher.ended

    async def _pair(self, row: int, askers: Mapping[str, Asker]) -> None:
        sides = [side for side in sides_of(row, self._how.seed) if (row, side) not in self._known]
        self._bill.open += len(sides)
        for side in sides:
            task = self._recorded.tasks[row]
            answer = await askers[side].ask(task)
            self._asked += 1
            line = self._line(row, side, task, answer)
            self._results.add(line)
            self._known[row, side] = line
            self._bill.open -= 1
            self._bill.add(line)
        self._done += 1
        self._weigh()
        if self._tell is not None:
            self._tell(self._done, len(self._recorded.tasks), self._bill.usd)

    def _line(self, row: int, side: str, task: Task, answer: Answer) -> Line:
        good, usage = answer.outcome is Outcome.OK, answer.usage
        cost_usd = None
        if self._price is not None and usage is not None:
            cost_usd = self._price(self._sides[side].model or task.model or "", usage)
        tokens_in, tokens_cached, tokens_out = (None, None, None) if usage is None else usage[:3]
        correct = self._judge(task.name, task.expected, answer.text) if good else 0.0
        return Line(
            row, task.name, side, answer.outcome.name.lower(), correct, answer.text, round(answer.latency_s, 6),
            tokens_in, tokens_cached, tokens_out, cost_usd, answer.said,
        )  # fmt: skip

    def _weigh(self) -> None:
        """Weigh the tasks that are complete, in the order drawn beforehand, up to the first that is not."""
        while not self.watcher.ended and len(self.watcher.pairs) < len(self._order):
            rows = self._order[len(self.watcher.pairs)]
            baseline, variant = self._share(rows, "baseline"), self._share(rows, "variant")
            if baseline is None or variant is None:
                return
            self.watcher.tell(Pair(self._recorded.tasks[rows[0]].name, baseline, variant))

    def _share(self, rows: Sequence[int], side: str) -> float | None:
        """Return the share of a task's repeats that a side did right; None: some of it is not known."""
        found = []
        for row in rows:
            line = self._known.get((row, side))
            correct = None if line is None else self._correct(line)
            if correct is None:
                return None
            found.append(correct)
        return fsum(found) / len(found)

    def _correct(self, line: Line) -> float | None:
        if line.correct is not None or line.outcome != "ok":
            return line.correct
        return self._judge(line.task, self._recorded.tasks[line.row].expected, line.answer)

    def replayed(self) -> Replayed:
        ended_by = self._stopped_by or "end"
        if self.watcher.ended:
            ended_by = "futility" if self.watcher.futile else "verdict"
        elif ended_by == "end" and len(self.watcher.pairs) < len(self._order):
            ended_by = "labels"
        lines = tuple(line._replace(correct=self._correct(line)) for line in self._results.lines)
        return Replayed(self.watcher, lines, ended_by, self._asked)


class _Bill:
    """What was spent, what open calls may cost, and whether another pair can be afforded.

    A call whose usage is not known, such as one that ran out of time, counts as much as the dearest so far.
    """

    def __init__(self, lines: Sequence[Line], max_usd: float | None) -> None:
        self._max_usd = max_usd
        self._known_usd = 0.0
        self._unknown = 0
        self.open = 0
        """Calls that are begun, or about to be."""
        self.dearest_usd: float | None = None
        for line in lines:
            self.add(line)

    @property
    def usd(self) -> float:
        return self._known_usd + self._unknown * (self.dearest_usd or 0.0)

    def add(self, line: Line) -> None:
        if line.cost_usd is not None:
            self._known_usd += line.cost_usd
            self.dearest_usd = max(self.dearest_usd or 0.0, line.cost_usd)
            return
        self._unknown += 1
        if self._max_usd is not None and line.outcome == "ok":
            raise PairsError(
                f"--max-cost: the {line.side} does not say what its answers used, so no limit can be kept: leave it out"
            )

    def affords_pair(self) -> bool:
        if self._max_usd is None:
            return True
        calls = self.open + len(SIDES)
        return self.usd + calls * (self.dearest_usd or 0.0) <= self._max_usd
