"""Results: tables made from a journal, all at once, and the figures drawn from them.

The journal is the only record of a run; everything here is a fold of it, vectorised. `fold` gives six
tables as columns: requests, attempts, instances, samples, decisions, servers. `figures` gives the numbers of a
summary. `load` gives a saved run back as pandas tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Recording
from glowsim.core.price import Price
from glowsim.core.reasons import Code, Constraint, Reason, sentence
from glowsim.core.types import (
    Abandoned,
    Advance,
    Answer,
    Arrived,
    Dispatch,
    Fail,
    Finished,
    FirstToken,
    InstanceChanged,
    Keep,
    Outcome,
    Raise,
    Reject,
    Scale,
    Shadowed,
    State,
)  # fmt: skip
from glowsim.serving_cost import of_attempts, server_table

if TYPE_CHECKING:
    import pandas as pd

    from glowsim.scenario import Scenario

__all__ = [
    "Run",
    "RunError",
    "Tables",
    "costs_usd",
    "digests",
    "figures",
    "figures_by",
    "fold",
    "load",
    "little",
    "samples",
]

Column = npt.NDArray[Any]
Table = dict[str, Column]
_SAMPLES = 600
FAILURES = ("none", "wrong", "hallucination", "format", "refusal", "not judged")
"""What is wrong with an answer, by number; the last stands for `NOT_JUDGED`."""
NOT_JUDGED = 255
ENDINGS = ("open", "answered", "rejected", "failed", "abandoned")
_ANSWERED = {Code.OWN: "own", Code.CACHED: "cached", Code.JOINED: "joined", Code.REPEATED: "repeated"}
TURNED_AWAY = (
    Code.TOO_LARGE, Code.LIMITED, Code.QUEUE_FULL, Code.KEY_REUSED, Code.LIMIT_UNKNOWN, Code.SHED,
    Code.ALL_OPEN, Code.EXHAUSTED, Code.NOT_RETRYABLE, Code.TIMED_OUT, Code.WAITED_TOO_LONG, Code.BROKEN_STREAM,
    Code.NO_TIME_TO_RETRY, Code.APOLOGY,
)  # fmt: skip
"""Why a request was rejected or failed."""


class RunError(GlowsimError):
    """A folder is not a run, or an unfinished one."""


class Tables(NamedTuple):
    """The tables of one replication: name of a column -> its values."""

    requests: Table
    """One row a request: when, for whom, how it ended, tokens and cost."""
    attempts: Table
    """One row an attempt: where it went, how it ended, what it used."""
    instances: Table
    """One row a change of state of an instance."""
    samples: Table
    """The fleet over time, on a grid: agent, open, waiting, in flight, ready, starting, wanted."""
    decisions: Table
    """One row a decision that is not about one request: scaling, alerts, rollouts, shadows."""
    servers: Table
    """One row a model that has a server, with the server's price."""


# --- the fold ------------------------------------------------------------------------------------------


def fold(recording: Recording, scenario: Scenario, failures: Mapping[int, int] | None = None) -> Tables:
    """Return the tables of a journal.

    Parameters
    ----------
    recording
        A journal that was read.
    scenario
        Whose prices and names to use.
    failures
        Request -> what is wrong with the answer that it got, as the simulated world knows; none: nobody does.
    """
    times = recording.times()
    attempts = _attempts(recording, times, scenario)
    requests = _requests(recording, times, attempts, failures or {})
    instances = _instances(recording, scenario)
    decisions = _decisions(recording, times)
    end_s = _end_s(times, scenario)
    levels = samples(requests, attempts, instances, decisions, len(scenario.agents()), end_s)
    return Tables(requests, attempts, instances, levels, decisions, server_table(scenario, end_s))


def _end_s(times: Column, scenario: Scenario) -> float:
    """Return when the run ended: at its last record, or at its duration where more could have arrived."""
    last_s = float(times[-1]) if len(times) else 0.0
    goes_on = any(workload.tasks is None and workload.kind != "trace" for workload in scenario.workload)
    return max(last_s, scenario.duration_s) if goes_on else last_s


def _attempts(recording: Recording, times: Column, scenario: Scenario) -> Table:
    dispatched = recording.table(Dispatch)
    finished = recording.table(Finished)
    began = times[recording.positions(Dispatch)]
    row = finished["attempt"] - 1  # attempts are numbered from 1 in the order of their dispatch
    n = len(dispatched)

    def of_finished(name: str, missing: Any, dtype: Any) -> Column:
        column = np.full(n, missing, dtype=dtype)
        column[row] = finished[name]
        return column

    doubted = np.zeros(n, dtype=bool)
    doubted[recording.table(Keep)["source"] - 1] = True
    first_s = np.full(n, np.nan)
    first_s[row] = began[row] + finished["first_token_s"]
    table: Table = {
        "attempt": dispatched["attempt"].copy(),
        "request_id": dispatched["request_id"].copy(),
        "instance": dispatched["instance"].copy(),
        "model": dispatched["model"].copy(),
        "variant": dispatched["variant"].copy(),
        "reason": dispatched["code"].copy(),
        "t_dispatch_s": began,
        "t_first_token_s": first_s,
        "t_finish_s": of_finished("t_s", np.nan, np.float64),
        "outcome": of_finished("outcome", 255, np.uint8),
        "doubted": doubted,
        "tokens_in": of_finished("tokens_in", 0, np.int32),
        "tokens_cached": of_finished("tokens_cached", 0, np.int32),
        "tokens_out": of_finished("tokens_out", 0, np.int32),
    }
    prices = [model.price for model in scenario.models.values()]
    used = (table[name] for name in ("model", "tokens_in", "tokens_cached", "tokens_out"))
    table["cost_usd"] = costs_usd(prices, *used)
    return table


def costs_usd(
    prices: Sequence[Price], model: Column, tokens_in: Column, tokens_cached: Column, tokens_out: Column
) -> npt.NDArray[np.float64]:
    """Return what many uses cost, one a row, in the bits that `Price.cost_usd` returns for each.

    Parameters
    ----------
    prices
        By the model's number; at least one.
    model
        Numbers of models, shape (n,).
    tokens_in, tokens_cached, tokens_out
        As of `Price.cost_usd`, shape (n,) each.

    >>> one, other = Price(2.0, 0.5, 8.0), Price(1.0, 1.0, 1.0)
    >>> costs_usd([one, other], np.array([0, 1]), np.array([10, 10]), np.array([4, 4]), np.array([3, 3])).tolist()
    [38.0, 13.0]
    """
    price_of_each: Any = Price(*np.array(prices)[model].T)
    cost_usd: npt.NDArray[np.float64] = price_of_each.cost_usd(tokens_in, tokens_cached, tokens_out)
    return cost_usd


def _requests(recording: Recording, times: Column, attempts: Table, failures: Mapping[int, int]) -> Table:
    arrived = recording.table(Arrived)
    order = np.argsort(arrived["request_id"], kind="stable")
    ids = arrived["request_id"][order]
    n = len(ids)

    def rows(request_ids: Column) -> Column:
        return order[np.searchsorted(ids, request_ids)]

    ending = np.zeros(n, dtype=np.uint8)
    how = np.zeros(n, dtype=np.uint8)
    outcome = np.full(n, 255, dtype=np.uint8)
    t_end_s = np.full(n, np.nan)
    source = np.zeros(n, dtype=np.int64)
    for number, kind in enumerate((Answer, Reject, Fail), 1):
        table = recording.table(kind)
        at = rows(table["request_id"])
        ending[at] = number
        how[at] = table["code"]
        t_end_s[at] = times[recording.positions(kind)]
        if kind is Answer:
            source[at] = table["source"]
            sorry = table["code"] == Code.APOLOGY  # a text written beforehand: for the client, a failure
            ending[at[sorry]] = 3
            outcome[at] = np.where(sorry, Outcome.ERROR, Outcome.OK)
        elif kind is Fail:
            outcome[at] = table["outcome"]
    gone = recording.table(Abandoned)
    at = rows(gone["request_id"])
    still = ending[at] == 0
    ending[at[still]] = 4
    t_end_s[at[still]] = gone["t_s"][still]

    mine = rows(attempts["request_id"])
    first_dispatch_s = np.full(n, np.nan)
    first_dispatch_s[mine[::-1]] = attempts["t_dispatch_s"][::-1]
    last = np.full(n, -1, dtype=np.int64)
    last[mine] = np.arange(len(mine))
    answered_by = np.where(source > 0, source - 1, last)
    owned = last >= 0

    def of_last(name: str, missing: Any) -> Column:
        column = np.full(n, missing, dtype=attempts[name].dtype)
        column[owned] = attempts[name][last[owned]]
        return column

    first_token_s = np.full(n, np.nan)
    commits = recording.table(FirstToken)
    first_token_s[mine[commits["attempt"] - 1]] = commits["t_s"]
    tokens_out = np.zeros(n, dtype=np.int32)
    has = answered_by >= 0
    tokens_out[has] = attempts["tokens_out"][answered_by[has]]
    other_model = np.zeros(n, dtype=np.uint8)
    sourced = source > 0
    other_model[sourced] = _on_another_model(attempts)[source[sourced] - 1]
    failure = np.full(n, NOT_JUDGED, dtype=np.uint8)
    if failures:
        judged = np.fromiter(failures.keys(), np.int64, len(failures))
        failure[rows(judged)] = np.fromiter(failures.values(), np.uint8, len(failures))
    return {
        "request_id": arrived["request_id"].copy(),
        "agent": arrived["agent"].copy(),
        "variant": of_last("variant", 0),
        "instance": of_last("instance", -1),
        "priority": arrived["priority"].copy(),
        "user": arrived["user"].copy(),
        "tenant": arrived["tenant"].copy(),
        "region": arrived["region"].copy(),
        "t_arrive_s": arrived["t_s"].copy(),
        "t_dispatch_s": first_dispatch_s,
        "t_first_token_s": first_token_s,
        "t_end_s": t_end_s,
        "wait_s": np.where(np.isnan(first_dispatch_s), t_end_s, first_dispatch_s) - arrived["t_s"],
        "latency_s": t_end_s - arrived["t_s"],
        "ending": ending,
        "how": how,
        "outcome": outcome,
        "failure": failure,
        "other_model": other_model,
        "attempts": np.bincount(mine, minlength=n).astype(np.int16),
        "tokens_in": arrived["tokens_in"].copy(),
        "tokens_out": tokens_out,
        "cost_usd": np.bincount(mine, weights=attempts["cost_usd"], minlength=n),
    }


def _on_another_model(attempts: Table) -> Column:
    """Return whether each attempt ran on another model than its request was first meant for."""
    model = attempts["model"]
    if not len(model) or model.min() == model.max():
        return np.zeros(len(model), dtype=bool)
    order = np.argsort(attempts["request_id"], kind="stable")
    request_id, model = attempts["request_id"][order], model[order]
    moved = attempts["reason"][order] == Code.OTHER_MODEL
    moved[1:] |= (request_id[1:] == request_id[:-1]) & (model[1:] != model[:-1])
    escalated = np.zeros(len(model), dtype=bool)
    escalated[1:] = (request_id[1:] == request_id[:-1]) & attempts["doubted"][order][:-1]
    moved &= ~escalated  # to a better one: nothing is lost
    moves = np.cumsum(moved)
    _, first, which = np.unique(request_id, return_index=True, return_inverse=True)
    before = (moves - moved)[first]
    found = np.empty(len(model), dtype=bool)
    found[order] = moves > before[which]
    return found


def _instances(recording: Recording, scenario: Scenario) -> Table:
    changes = recording.table(InstanceChanged)
    table: Table = {
        name: changes[name].copy() for name in ("t_s", "agent", "instance", "state", "region", "eta_s")
    }
    prices = np.array([agent.instance_usd_per_hour for agent in scenario.agents().values()])
    table["usd_per_hour"] = prices[table["agent"]] if len(table["agent"]) else np.zeros(0)
    return table


def _decisions(recording: Recording, times: Column) -> Table:
    rows: list[tuple[float, int, str, str, float, float, str]] = []

    @lru_cache(maxsize=1000)  # a quiet fleet says the same thing over and over
    def said(code: int, bound: int, a: float, b: float, c: float) -> str:
        return sentence(Reason(Code(code), Constraint(bound), a, b, c))

    def when(kind: type) -> list[float]:
        moments: list[float] = times[recording.positions(kind)].tolist()
        return moments

    for t_s, (agent, _, _, want, *reason) in zip(when(Scale), recording.scales().tolist(), strict=True):
        rows.append((t_s, agent, "scale", "instances", want, math.nan, said(*reason)))
    for t_s, record in zip(when(Raise), recording.loose(Raise), strict=True):
        alert = record.alert
        why = said(*alert.reason)
        rows.append((t_s, alert.agent, "alert", alert.subject, alert.severity, math.nan, why))
    for t_s, record in zip(when(Shadowed), recording.loose(Shadowed), strict=True):
        rows.append((t_s, record.agent, "shadow", record.family, record.live, record.candidate, ""))
    for t_s, (agent, stage, weight, *reason) in zip(
        when(Advance), recording.table(Advance).tolist(), strict=True
    ):
        rows.append((t_s, agent, "rollout", "stage", stage, weight, said(*reason)))
    rows.sort(key=itemgetter(0, 1, 2, 3))
    columns = zip(*rows, strict=True) if rows else [()] * 7
    names = ("t_s", "agent", "kind", "subject", "value", "other", "why")
    forms = (np.float64, np.int32, object, object, np.float64, np.float64, object)
    return {
        name: np.array(column, dtype=form) for name, column, form in zip(names, columns, forms, strict=True)
    }


def samples(
    requests: Table, attempts: Table, instances: Table, decisions: Table, agents: int, end_s: float
) -> Table:
    """Return the state of every agent at moments on a grid: what began by then less what ended by then.

    Parameters
    ----------
    requests, attempts, instances, decisions
        The other tables of the replication.
    agents
        How many there are.
    end_s
        Where the grid, which begins at 0, ends.
    """
    grid = np.linspace(0.0, end_s, _SAMPLES + 1 if agents <= 100 else 101)

    def level(starts: Column, ends: Column) -> Column:
        begun = np.searchsorted(np.sort(starts), grid, side="right")
        return begun - np.searchsorted(np.sort(ends[~np.isnan(ends)]), grid, side="right")

    agent_of_attempt = requests["agent"][_rows_of(requests["request_id"], attempts["request_id"])]
    dispatch_or_end = np.fmin(requests["t_dispatch_s"], requests["t_end_s"])
    columns: dict[str, list[Column]] = {
        name: [] for name in ("t_s", "agent", "open", "waiting", "in_flight", "ready", "starting", "wanted")
    }
    for agent in range(agents):
        mine = requests["agent"] == agent
        tries = agent_of_attempt == agent
        scales = (decisions["agent"] == agent) & (decisions["kind"] == "scale")
        ready, starting = _instance_levels(instances, agent, grid)
        wanted = _held(decisions["t_s"][scales], decisions["value"][scales], grid)
        columns["t_s"].append(grid)
        columns["agent"].append(np.full(len(grid), agent, dtype=np.int32))
        columns["open"].append(level(requests["t_arrive_s"][mine], requests["t_end_s"][mine]))
        columns["waiting"].append(level(requests["t_arrive_s"][mine], dispatch_or_end[mine]))
        columns["in_flight"].append(level(attempts["t_dispatch_s"][tries], attempts["t_finish_s"][tries]))
        columns["ready"].append(ready)
        columns["starting"].append(starting)
        columns["wanted"].append(np.where(np.isnan(wanted), ready + starting, wanted))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _rows_of(ids: Column, wanted: Column) -> Column:
    order = np.argsort(ids, kind="stable")
    rows: Column = order[np.searchsorted(ids[order], wanted)]
    return rows


def _instance_levels(instances: Table, agent: int, grid: Column) -> tuple[Column, Column]:
    """Return how many instances were ready, and starting, at each moment of the grid."""
    mine = instances["agent"] == agent
    t_s, number, state = (instances[name][mine] for name in ("t_s", "instance", "state"))
    by_instance = np.argsort(number, kind="stable")
    before = np.full(len(state), 255, dtype=np.int64)
    same = number[by_instance][1:] == number[by_instance][:-1]
    before[by_instance[1:][same]] = state[by_instance[:-1][same]]
    at = np.searchsorted(t_s, grid, side="right")

    def level(which: State) -> Column:
        change = (state == which).astype(np.int64) - (before == which)
        return np.concatenate([[0], np.cumsum(change)])[at]

    return level(State.READY), level(State.STARTING)


def _held(moments: Column, values: Column, grid: Column) -> Column:
    """Return the last value at or before each moment of the grid, nan before the first."""
    at = np.searchsorted(moments, grid, side="right") - 1
    held: Column = np.where(at >= 0, values[np.maximum(at, 0)] if len(values) else np.nan, np.nan)
    return held


# --- the figures ---------------------------------------------------------------------------------------


def figures(tables: Tables, warmup_s: float = 0.0, agents: Sequence[int] | None = None) -> dict[str, float]:
    """Return the figures of a replication by the names that service levels use; nan where there is none.

    Parameters
    ----------
    tables
        Of one replication.
    warmup_s
        Requests that arrived before it are left out.
    agents
        Only these; default: the whole fleet.
    """
    return _figures(tables, warmup_s, agents, _server_shares(tables, warmup_s))


def figures_by(
    tables: Tables, warmup_s: float, groups: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Return the `figures` of each group of agents; what they have in common is worked out once."""
    shares = _server_shares(tables, warmup_s)
    return {name: _figures(tables, warmup_s, agents, shares) for name, agents in groups.items()}


def _figures(
    tables: Tables, warmup_s: float, agents: Sequence[int] | None, shares: _ServerShares
) -> dict[str, float]:
    requests = tables.requests
    counted = requests["t_arrive_s"] >= warmup_s
    if agents is not None:
        counted &= _among(requests["agent"], agents)
    rows = np.flatnonzero(counted)
    part = {name: column[rows] for name, column in requests.items()}
    launched = len(rows)
    answered = part["ending"] == 1
    completed = int(answered.sum())
    latency = part["latency_s"][answered]
    first = (part["t_first_token_s"] - part["t_arrive_s"])[answered]
    first = first[~np.isnan(first)]
    wait = part["wait_s"][answered]
    token_usd = math.fsum(part["cost_usd"])
    instance_usd = _instance_usd(tables, warmup_s, agents)
    server_usd = shares.usd(agents)
    cost_usd = token_usd + instance_usd + server_usd
    arrivals = part["t_arrive_s"]
    span_s = float(arrivals.max()) - warmup_s if launched else math.nan
    cached = np.isin(part["how"][answered], (Code.CACHED, Code.JOINED, Code.REPEATED))
    stale = answered & (part["how"] == Code.STALE)
    other_model = answered & (part["other_model"] == 1) & ~stale
    turned_away = np.bincount(part["how"][(part["ending"] == 2) | (part["ending"] == 3)], minlength=256)
    found = {
        "launched": launched,
        "completed": completed,
        "success_rate": completed / launched if launched else math.nan,
        "error_rate": float(((part["ending"] == 2) | (part["ending"] == 3)).sum()) / launched
        if launched
        else math.nan,
        "degraded_rate": float((stale | other_model).sum()) / launched if launched else math.nan,
        "request_rate_per_s": launched / span_s if launched and span_s > 0 else math.nan,
        "tokens_in": float(part["tokens_in"][answered].sum()),
        "tokens_out": float(part["tokens_out"][answered].sum()),
        "cost_tokens_usd": token_usd,
        "cost_instances_usd": instance_usd,
        "cost_servers_usd": server_usd,
        "cost_usd": cost_usd,
        "cost_usd_per_task": cost_usd / completed if completed else math.nan,
        "cache_hit_rate": float(cached.mean()) if completed else math.nan,
        "retries": float(np.maximum(part["attempts"].astype(int) - 1, 0).sum()),
        "rejected": float((part["ending"] == 2).sum()),
        "failed": float((part["ending"] == 3).sum()),
        "abandoned": float((part["ending"] == 4).sum()),
        "open": float((part["ending"] == 0).sum()),
        "answered_stale": float(stale.sum()),
        "answered_other_model": float(other_model.sum()),
    }
    judged = part["failure"][answered & (part["failure"] != NOT_JUDGED)]
    found["accuracy"] = float((judged == 0).mean()) if len(judged) else math.nan
    found |= {
        f"{name}_rate": float((judged == number).mean()) if len(judged) else math.nan
        for number, name in enumerate(FAILURES[1:-1], 1)
    }
    found |= {f"ended_{code.name.lower()}": float(turned_away[code]) for code in TURNED_AWAY}
    found |= _spread("latency_s", latency, ("min", "mean", "p50", "p95", "p99", "max"))
    found |= _spread("first_token_s", first, ("p50", "p95", "p99"))
    found |= _spread("wait_s", wait, ("mean", "p95"))
    return found


def _spread(name: str, values: Column, which: Sequence[str]) -> dict[str, float]:
    if not len(values):
        return {f"{name}_{each}": math.nan for each in which}
    shares = {each: int(each[1:]) / 100 for each in which if each[1:].isdigit()}
    quantiles = dict(zip(shares, np.quantile(values, list(shares.values())).tolist(), strict=True))
    return {
        f"{name}_{each}": quantiles[each] if each in shares else float(getattr(values, each)())
        for each in which
    }


def _among(agent: Column, agents: Sequence[int]) -> Column:
    """Return which rows are of some agents."""
    among: Column = agent == agents[0] if len(agents) == 1 else np.isin(agent, list(agents))
    return among


def _instance_usd(tables: Tables, warmup_s: float, agents: Sequence[int] | None) -> float:
    """Return what the instances cost from the warm-up on: from their start to their end, ready or not."""
    table = tables.instances
    mine = slice(None) if agents is None else _among(table["agent"], agents)
    t_s, number, state, usd = (table[name][mine] for name in ("t_s", "instance", "state", "usd_per_hour"))
    if not len(t_s):
        return 0.0
    instances, first = np.unique(number, return_index=True)
    ends_s = np.full(len(instances), float(tables.samples["t_s"][-1]))
    gone = (state == State.GONE) | (state == State.FAILED)
    ends_s[np.searchsorted(instances, number[gone])] = t_s[gone]
    seconds = np.maximum(ends_s - np.maximum(t_s[first], warmup_s), 0.0)
    return math.fsum(seconds / 3600 * usd[first])


class _ServerShares(NamedTuple):
    """What each attempt costs of its model server, in US dollars."""

    agent: Column
    """Of the attempt's request."""
    usd_each: Column
    unused_usd: tuple[float, ...]
    """Of servers that nobody used."""

    def usd(self, agents: Sequence[int] | None) -> float:
        """Return what the model servers cost: all of it, or the share of some agents' requests."""
        if agents is None:
            return math.fsum([*self.usd_each.tolist(), *self.unused_usd])
        return math.fsum(self.usd_each[_among(self.agent, agents)].tolist())


def _server_shares(tables: Tables, warmup_s: float) -> _ServerShares:
    if not len(tables.servers["server"]):
        return _ServerShares(np.zeros(0, dtype=np.int32), np.zeros(0), ())
    requests = tables.requests
    row = _rows_of(requests["request_id"], tables.attempts["request_id"])
    shares, unused = of_attempts(tables, requests["t_arrive_s"][row] >= warmup_s, warmup_s)
    return _ServerShares(requests["agent"][row], shares, tuple(unused.values()))


def little(tables: Tables) -> tuple[float, float]:
    """Return (mean number of open requests, rate times mean time): Little's law says that they are equal.

    The first counts arrivals and ends in the order of the journal; the second joins each request's own
    times. They agree only if every request was opened and closed once, at the right moments.
    """
    requests = tables.requests
    closed = ~np.isnan(requests["t_end_s"])
    starts, ends = np.sort(requests["t_arrive_s"][closed]), np.sort(requests["t_end_s"][closed])
    horizon_s = float(ends[-1]) if len(ends) else 0.0
    if not horizon_s:  # nothing ended, or all of it at the first moment
        return 0.0, 0.0
    moments = np.concatenate([starts, ends])
    order = np.argsort(moments, kind="stable")
    steps = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])[order]
    level = np.cumsum(steps)[:-1]
    mean_open = float(np.dot(level, np.diff(moments[order]))) / horizon_s
    return mean_open, len(ends) / horizon_s * float(requests["latency_s"][closed].mean())


def digests(tables: Tables) -> dict[str, str]:
    """Return, for every column of every table, a digest that is equal for equal values."""
    found = {}
    for name, table in zip(Tables._fields, tables, strict=True):
        for column, values in table.items():
            data = json.dumps(values.tolist()).encode() if values.dtype == object else values.tobytes()
            found[f"{name}.{column}"] = blake2b(data, digest_size=8).hexdigest()
    return found


# --- saved runs ----------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A saved run."""

    folder: Path
    manifest: dict[str, Any]
    summary: dict[str, Any]
    requests: pd.DataFrame
    attempts: pd.DataFrame
    instances: pd.DataFrame
    samples: pd.DataFrame
    decisions: pd.DataFrame
    servers: pd.DataFrame


def load(folder: Path | str) -> Run:
    """Return a saved run, its tables as pandas frames with names instead of numbers.

    Raises
    ------
    RunError
        Not a run, or one that was interrupted.
    """
    import pandas as pd

    folder = Path(folder)
    manifest, summary = read_manifest(folder), json.loads((folder / "summary.json").read_text())
    frames = [pd.read_parquet(folder / f"{name}.parquet") for name in Tables._fields]
    return Run(folder, manifest, summary, *frames)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished run.

    Raises
    ------
    RunError
        Not a run, or one that was interrupted.
    """
    if folder.name.endswith(".partial"):
        raise RunError(f"{folder} is a run that was interrupted: it holds no result; run it again")
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunError(f"{folder} is not a run: it has no manifest.json")
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def arrow_table(name: str, table: Table, replication: int, names: Mapping[str, Sequence[str]]) -> Any:
    """Return a table as Arrow, with a column for the replication and names in place of numbers."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "replication": pa.array(np.full(len(next(iter(table.values()))), replication, np.int32))
    }
    for column, values in table.items():
        words = names.get(column)
        if name == "attempts" and column == "reason":
            words = [code.name.lower() if (code := _code(i)) else "" for i in range(256)]
        if words is None:
            columns[column] = (
                pa.array(values.tolist(), pa.string()) if values.dtype == object else pa.array(values)
            )
        else:
            safe = np.where(values < len(words), values, len(words) - 1).astype(np.int32)
            columns[column] = pa.DictionaryArray.from_arrays(pa.array(safe), pa.array(list(words)))
    return pa.table(columns)


def _code(number: int) -> Code | None:
    return Code(number) if number in Code._value2member_map_ else None


def naming(header: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return column -> the names that stand for its numbers."""
    codes = [code.name.lower() if (code := _code(i)) else "" for i in range(256)]
    return {
        "agent": header["agents"],
        "model": header["models"],
        "region": header["regions"],
        "ending": ENDINGS,
        "failure": FAILURES,
        "how": [_ANSWERED.get(Code(i), name) if name else "" for i, name in enumerate(codes)],
        "state": [state.name.lower() for state in State],
        "outcome": [*(outcome.name.lower() for outcome in Outcome), "none"],
    }
