"""What a generator of load has seen of each request, in rows; and the tables of a run that are made from them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glowsim import results
from glowsim.core.reasons import Code
from glowsim.core.types import Request
from glowsim.results import ENDINGS, NOT_JUDGED, Table, Tables, costs_usd
from glowsim.scenario import Scenario

__all__ = ["NONE", "Records", "tables"]

NONE: Final = 255
"""The outcome of a request that was not answered and did not fail, and of an attempt that is still open."""
_CHUNK: Final = 1 << 14
"""Rows that are made room for at a time."""
_ROW: Final = np.dtype(
    [
        ("request_id", np.int64), ("agent", np.int32), ("priority", np.uint8), ("user", np.uint64),
        ("tenant", np.uint64), ("region", np.int16), ("tokens_in", np.int32), ("t_arrive_s", np.float64),
        ("t_sent_s", np.float64), ("t_first_token_s", np.float64), ("t_end_s", np.float64), ("ending", np.uint8),
        ("how", np.uint8), ("outcome", np.uint8), ("used_in", np.int32), ("used_cached", np.int32),
        ("used_out", np.int32),
    ]
)  # fmt: skip
_NOT_BILLED: Final = (Code.CACHED, Code.JOINED, Code.REPEATED, Code.STALE, Code.APOLOGY)
"""Where an answer came from when nobody worked for it anew: whoever asked first has paid."""


class Records:
    """Rows of requests in the order of their arrival; a row is opened at once and filled in later."""

    def __init__(self) -> None:
        self._chunks: list[npt.NDArray[Any]] = []
        self._count = 0

    def opened(self, t_s: float, request: Request) -> int:
        """Note a request that was due at ``t_s``; return its row."""
        row, nan = self._count, np.nan
        if row % _CHUNK == 0:
            self._chunks.append(np.zeros(_CHUNK, dtype=_ROW))
        self._chunks[-1][row % _CHUNK] = (
            request.request_id, request.agent, request.priority, request.user, request.tenant, request.region,
            request.tokens_in, t_s, nan, nan, nan, 0, 0, NONE, 0, 0, 0,
        )  # fmt: skip
        self._count = row + 1
        return row

    def note(self, row: int, **known: Any) -> None:
        """Fill in columns of a row."""
        chunk, at = self._chunks[row // _CHUNK], row % _CHUNK
        for name, value in known.items():
            chunk[name][at] = value

    @property
    def rows(self) -> npt.NDArray[Any]:
        """A copy of all rows so far."""
        return np.concatenate([np.zeros(0, dtype=_ROW), *self._chunks])[: self._count]


def tables(rows: npt.NDArray[Any], scenario: Scenario, end_s: float) -> Tables:
    """Return the tables of a run as far as a client can know them.

    An attempt is what the client sent, once for a request. There are no instances, no decisions and no model
    servers: only the target knows its own. Waiting, in the samples, is what the client had not sent yet.

    Parameters
    ----------
    rows
        As `Records` holds them.
    scenario
        For the prices.
    end_s
        When the run ended.
    """
    requests, attempts = _requests(rows), _attempts(rows, scenario)
    requests["cost_usd"] = np.zeros(len(rows))
    requests["cost_usd"][~np.isnan(rows["t_sent_s"])] = attempts["cost_usd"]
    instances = _empty(
        t_s=np.float64, agent=np.int32, instance=np.int32, state=np.uint8, region=np.int16, eta_s=np.float64,
        usd_per_hour=np.float64,
    )  # fmt: skip
    decisions = _empty(
        t_s=np.float64,
        agent=np.int32,
        kind=object,
        subject=object,
        value=np.float64,
        other=np.float64,
        why=object,
    )
    servers = _empty(server=np.int32, model=np.uint16, usd_per_hour=np.float64, until_s=np.float64)
    levels = results.samples(requests, attempts, instances, decisions, len(scenario.agents()), end_s)
    return Tables(requests, attempts, instances, levels, decisions, servers)


def _empty(**columns: Any) -> Table:
    return {name: np.empty(0, dtype=kind) for name, kind in columns.items()}


def _requests(rows: npt.NDArray[Any]) -> Table:
    n = len(rows)
    ended = (rows["ending"] == ENDINGS.index("answered")) | (rows["ending"] == ENDINGS.index("failed"))
    kept = ("request_id", "agent", "priority", "user", "tenant", "region", "ending", "how", "tokens_in")
    return {name: rows[name].copy() for name in kept} | {
        "variant": np.zeros(n, dtype=np.int16),
        "instance": np.full(n, -1, dtype=np.int32),
        "t_arrive_s": rows["t_arrive_s"].copy(),
        "t_dispatch_s": rows["t_sent_s"].copy(),
        "t_first_token_s": rows["t_first_token_s"].copy(),
        "t_end_s": rows["t_end_s"].copy(),
        "wait_s": np.full(n, np.nan),  # only the target knows how long its queue was
        "latency_s": rows["t_end_s"] - rows["t_arrive_s"],
        "outcome": np.where(ended, rows["outcome"], NONE).astype(np.uint8),
        "failure": np.full(n, NOT_JUDGED, dtype=np.uint8),
        "other_model": np.zeros(n, dtype=np.uint8),
        "attempts": (~np.isnan(rows["t_sent_s"])).astype(np.int16),
        "tokens_out": np.where(rows["ending"] == ENDINGS.index("answered"), rows["used_out"], 0).astype(
            np.int32
        ),
    }


def _attempts(rows: npt.NDArray[Any], scenario: Scenario) -> Table:
    sent = rows[~np.isnan(rows["t_sent_s"])]
    n, models = len(sent), list(scenario.models)
    model_of = np.array([models.index(agent.model) for agent in scenario.agents().values()], dtype=np.int16)
    billed = np.where(np.isin(sent["how"], _NOT_BILLED), 0, 1)
    tokens_in, cached, tokens_out = (
        (sent[name] * billed).astype(np.int32) for name in ("used_in", "used_cached", "used_out")
    )
    model = model_of[sent["agent"]]
    prices = [each.price for each in scenario.models.values()]
    return {
        "attempt": np.arange(1, n + 1, dtype=np.int64),
        "request_id": sent["request_id"].copy(),
        "instance": np.full(n, -1, dtype=np.int32),
        "model": model,
        "variant": np.zeros(n, dtype=np.int16),
        "reason": np.full(n, Code.ARRIVED, dtype=np.uint8),
        "t_dispatch_s": sent["t_sent_s"].copy(),
        "t_first_token_s": sent["t_first_token_s"].copy(),
        "t_finish_s": sent["t_end_s"].copy(),
        "outcome": sent["outcome"].copy(),
        "doubted": np.zeros(n, dtype=bool),
        "tokens_in": tokens_in,
        "tokens_cached": cached,
        "tokens_out": tokens_out,
        "cost_usd": costs_usd(prices, model, tokens_in, cached, tokens_out),
    }
