"""What every agent did, a row a minute: folded from events and commands as they pass, added up in the store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from glowsim.core.types import Abandoned, Answer, Arrived, Command, Dispatch, Event, Fail, Finished, Reject
from glowsim.live.store.histogram import Histogram

__all__ = ["KEPT_MINUTES", "Rollups", "history"]

KEPT_MINUTES = 90 * 24 * 60
_COUNTS = ("answered", "failed", "rejected", "abandoned")


class _Row:
    __slots__ = ("cost_usd", "counts", "latency")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.cost_usd = 0.0
        self.latency = Histogram()


class Rollups:
    """Counts what has not been written yet; `taken` hands it over.

    Parameters
    ----------
    agents
        Their names, by number.
    cost_usd
        Returns what an attempt cost, from its model's number and its usage.
    clock
        Seconds since 1970.

    >>> from glowsim.core.types import Code, Reason, Request
    >>> rollups = Rollups(["tax"], lambda model, usage: 0.0, clock=lambda: 90.0)
    >>> rollups.saw(Arrived(1.0, Request(7, 0, 9, 9)), ())
    >>> rollups.saw(Abandoned(1.5, 7), ())
    >>> [(key, row.counts["abandoned"]) for key, row in rollups.taken().items()]
    [(('tax', 1), 1)]
    """

    def __init__(
        self, agents: Sequence[str], cost_usd: Callable[[int, Any], float], clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self._agents = agents
        self._cost_usd = cost_usd
        self._clock = clock
        self._open: dict[int, tuple[float, int]] = {}
        """Request -> (when it arrived, its agent)."""
        self._attempts: dict[int, tuple[int, int]] = {}
        """Attempt -> (its agent, its model)."""
        self._rows: dict[tuple[str, int], _Row] = {}

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Count an event and what was answered to it."""
        if type(event) is Arrived:
            self._open[event.request.request_id] = (event.t_s, event.request.agent)
        elif type(event) is Finished:
            began = self._attempts.pop(event.attempt, None)
            if began is not None:  # else it was begun by a daemon that is gone
                agent, model = began
                self._row(agent).cost_usd += self._cost_usd(model, event.usage)
        for command in commands:
            match command:
                case Dispatch(attempt, request_id, _, plan):
                    self._attempts[attempt] = (self._open[request_id][1], plan.model)
                case Answer(request_id):
                    self._end(event.t_s, request_id, "answered")
                case Fail(request_id):
                    self._end(event.t_s, request_id, "failed")
                case Reject(request_id):
                    self._end(event.t_s, request_id, "rejected")
        if type(event) is Abandoned:
            self._end(event.t_s, event.request_id, "abandoned")

    def _end(self, t_s: float, request_id: int, how: str) -> None:
        arrived = self._open.pop(request_id, None)
        if arrived is None:
            return  # it had ended before its client left, or arrived at a daemon that is gone
        arrived_s, agent = arrived
        row = self._row(agent)
        row.counts[how] += 1
        if how == "answered":
            row.latency.add(t_s - arrived_s)

    def _row(self, agent: int) -> _Row:
        key = (self._agents[agent], int(self._clock() // 60.0))
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        return row

    def taken(self) -> dict[tuple[str, int], _Row]:
        """Return (agent, minute since 1970) -> what was counted since the last call."""
        rows, self._rows = self._rows, {}
        return rows

    def writing(self) -> Callable[[sqlite3.Connection], None] | None:
        """Return the work that adds what was counted to the store; None where nothing was."""
        rows = self.taken()
        if not rows:
            return None
        oldest = int(self._clock() // 60.0) - KEPT_MINUTES

        def write(database: sqlite3.Connection) -> None:
            for (agent, minute), row in rows.items():
                key, latency = (agent, minute), row.latency
                there = database.execute(
                    "SELECT latency FROM rollups WHERE agent = ? AND minute = ?", key
                ).fetchone()
                if there is not None:
                    latency = Histogram.from_bytes(there[0])
                    latency.merge(row.latency)
                database.execute(
                    "INSERT INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, minute) DO UPDATE SET "
                    "answered = answered + excluded.answered, failed = failed + excluded.failed, "
                    "rejected = rejected + excluded.rejected, abandoned = abandoned + excluded.abandoned, "
                    "cost_usd = cost_usd + excluded.cost_usd, latency = excluded.latency",
                    (*key, *row.counts.values(), row.cost_usd, latency.to_bytes()),
                )
            database.execute("DELETE FROM rollups WHERE minute < ?", (oldest,))

        return write


def history(agent: str, since_minute: int) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """Return the work that reads an agent's minutes, the oldest first; latencies in seconds, within 1 %."""

    def read(database: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = database.execute(
            "SELECT minute, answered, failed, rejected, abandoned, cost_usd, latency FROM rollups "
            "WHERE agent = ? AND minute >= ? ORDER BY minute",
            (agent, since_minute),
        )
        found = []
        for minute, *counts, cost_usd, packed in rows:
            latency = Histogram.from_bytes(packed)
            found.append(
                {
                    "begins_unix_s": minute * 60,
                    **dict(zip(_COUNTS, counts, strict=True)),
                    "cost_usd": cost_usd,
                    "latency_s_mean": latency.total / latency.n if latency.n else None,
                    "latency_s_p50": latency.quantile(0.50),
                    "latency_s_p95": latency.quantile(0.95),
                    "latency_s_p99": latency.quantile(0.99),
                }
            )
        return found

    return read
