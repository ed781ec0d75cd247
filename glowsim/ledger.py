"""The cost ledger: what a run cost, in disjoint parts, by agent, domain and tenant.

The parts add up to the bill. Tokens are added up as whole numbers and priced at the end, and an instance's
idle time is its whole time less what its attempts took, so no part is rounded away.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.journal import Recording
from glowsim.core.types import Outcome, State
from glowsim.results import Table, Tables, fold
from glowsim.serving_cost import of_attempts

if TYPE_CHECKING:
    import pandas as pd

    from glowsim.scenario import Scenario

__all__ = ["PARTS", "Ledger", "ledger"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TOKENS: Final = ("fresh_input", "cache_read", "cache_write", "output", "reasoning")
PARTS: Final = (*_TOKENS, "retries", "busy", "idle", "servers")
"""The parts of a bill, in the order of the table's columns."""
_NOBODY: Final = 0
"""The tenant of idle time, and of requests without one."""


class Ledger(NamedTuple):
    """A bill, taken apart."""

    rows: list[dict[str, Any]]
    """One for each (agent, domain, tenant) that used something, with US dollars for each part."""
    totals_usd: dict[str, float]
    """Part -> US dollars."""

    @property
    def total_usd(self) -> float:
        """The bill."""
        return fsum(self.totals_usd.values())

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table of pandas."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=["agent", "domain", "tenant", *PARTS])

    def by(self, key: str) -> dict[Any, dict[str, float]]:
        """Return agent, domain or tenant -> the parts, in the order of the rows."""
        grouped: dict[Any, list[dict[str, Any]]] = {}
        for row in self.rows:
            grouped.setdefault(row[key], []).append(row)
        return {
            name: {part: fsum(row[part] for row in rows) for part in PARTS} for name, rows in grouped.items()
        }


def ledger(run: Recording | Tables, scenario: Scenario, warmup_s: float = 0.0) -> Ledger:
    """Return what a replication cost, in US dollars.

    The parts are disjoint:

    ``fresh_input``, ``cache_read``, ``cache_write``, ``output``, ``reasoning``
        Tokens of the attempts that led to an answer. Writing to the cache is billed as input and reasoning
        as output; both are 0 where the attempts' table has no ``tokens_cache_write`` (a part of
        ``tokens_in``) and no ``tokens_reasoning`` (a part of ``tokens_out``).
    ``retries``
        All tokens of the other attempts: failed ones, and those that came too late for their request.
    ``busy``
        Time of instances with at least one attempt on them, shared equally by those that run together.
    ``idle``
        The rest of their time from the start to the end of each, starting and draining included; it is
        nobody's, so its tenant is 0.
    ``servers``
        Replicas of the model servers, by the tokens that they read and wrote for each.

    Parameters
    ----------
    run
        A journal, or the tables folded from it.
    scenario
        For the prices, and the agents' domains.
    warmup_s
        Requests that arrived before it, and instances' time until then, are left out.

    Notes
    -----
    A cached answer costs nothing here: whoever asked first has paid for it.
    """
    tables = fold(run, scenario) if isinstance(run, Recording) else run
    attempts = _joined(tables)
    sums: dict[tuple[int, int], dict[str, list[float]]] = {}
    for agent, tenant, part, usd in (
        *_of_tokens(attempts, scenario, warmup_s),
        *_of_instances(tables, attempts, warmup_s),
        *_of_servers(tables, attempts, scenario, warmup_s),
    ):
        row = sums.setdefault((agent, tenant), {name: [] for name in PARTS})
        row[part].append(usd)
    names = list(scenario.agents().items())
    rows = [
        {"agent": names[agent][0], "domain": names[agent][1].domain or "", "tenant": tenant}
        | {part: fsum(usd) for part, usd in parts.items()}
        for (agent, tenant), parts in sorted(sums.items())
    ]
    return Ledger(rows, {part: fsum(usd for parts in sums.values() for usd in parts[part]) for part in PARTS})


_Entry = tuple[int, int, str, float]
"""Agent, tenant, part, US dollars."""


def _joined(tables: Tables) -> dict[str, Any]:
    """Return the attempts with what the ledger asks of their requests."""
    requests, attempts = tables.requests, tables.attempts
    order = np.argsort(requests["request_id"], kind="stable")
    mine = order[np.searchsorted(requests["request_id"][order], attempts["request_id"])]
    answered = requests["ending"][mine] == 1
    in_time = attempts["t_finish_s"] == requests["t_end_s"][mine]
    return {
        **attempts,
        "agent": requests["agent"][mine].astype(np.int64),
        "tenant": requests["tenant"][mine],
        "t_arrive_s": requests["t_arrive_s"][mine],
        "led": (attempts["outcome"] == Outcome.OK) & answered & in_time,
    }


def _of_tokens(attempts: Table, scenario: Scenario, warmup_s: float) -> Iterator[_Entry]:
    """Yield the price of tokens by agent, tenant and part: whole tokens first, money last."""
    counted = attempts["t_arrive_s"] >= warmup_s
    tenants, tenant_at = np.unique(attempts["tenant"][counted], return_inverse=True)
    shape = (len(scenario.agents()), len(tenants), len(scenario.models), 2)
    at = (attempts["agent"][counted], tenant_at, attempts["model"][counted], attempts["led"][counted])
    groups, which = np.unique(np.ravel_multi_index(at, shape) if len(tenants) else [], return_inverse=True)
    tokens = {
        part: np.bincount(which, values[counted], minlength=len(groups)).tolist()
        for part, values in _tokens(attempts).items()
    }
    models = list(scenario.models.values())
    for i, group in enumerate(groups.tolist()):
        agent, tenant, model, led = map(int, np.unravel_index(group, shape))
        fresh_usd, cached_usd, output_usd = models[model].price
        for part, usd in zip(
            _TOKENS, (fresh_usd, cached_usd, fresh_usd, output_usd, output_usd), strict=True
        ):
            yield agent, int(tenants[tenant]), part if led else "retries", tokens[part][i] * usd


def _tokens(attempts: Table) -> dict[str, Ints]:
    nothing = np.zeros(len(attempts["tokens_in"]), dtype=np.int64)
    write = attempts.get("tokens_cache_write", nothing)
    reasoning = attempts.get("tokens_reasoning", nothing)
    read = attempts["tokens_cached"]
    return {
        "fresh_input": attempts["tokens_in"] - read - write,
        "cache_read": read,
        "cache_write": write,
        "output": attempts["tokens_out"] - reasoning,
        "reasoning": reasoning,
    }


def _of_instances(tables: Tables, attempts: Table, warmup_s: float) -> Iterator[_Entry]:
    """Yield the price of instances' time: busy by agent and tenant, idle by agent."""
    changes = tables.instances
    numbers, first = np.unique(changes["instance"], return_index=True)
    if not len(numbers):
        return
    agent = changes["agent"][first].astype(np.int64)
    usd_per_s = changes["usd_per_hour"][first] / 3600.0
    until_s = np.full(len(numbers), float(tables.samples["t_s"][-1]))
    gone = changes["state"] >= State.GONE
    until_s[np.searchsorted(numbers, changes["instance"][gone])] = changes["t_s"][gone]
    from_s = np.maximum(changes["t_s"][first], warmup_s)
    until_s = np.maximum(until_s, from_s)

    on = np.searchsorted(numbers, attempts["instance"])
    starts_s = attempts["t_dispatch_s"].clip(from_s[on], until_s[on])
    ends_s = np.where(np.isnan(attempts["t_finish_s"]), until_s[on], attempts["t_finish_s"])
    busy_s = _shares_s(on, starts_s, ends_s.clip(from_s[on], until_s[on]))
    busy_usd = busy_s * usd_per_s[on]
    tenants, tenant = np.unique(attempts["tenant"], return_inverse=True)
    groups, which = np.unique(agent[on] * len(tenants) + tenant, return_inverse=True)
    paid = np.unique(agent[usd_per_s > 0.0]).tolist()
    for group, usd in zip(groups.tolist(), np.bincount(which, busy_usd).tolist(), strict=True):
        if group // len(tenants) in paid:
            yield group // len(tenants), int(tenants[group % len(tenants)]), "busy", usd
    idle_s = until_s - from_s - np.bincount(on, busy_s, minlength=len(numbers))
    idle_usd = np.bincount(agent, np.maximum(idle_s, 0.0) * usd_per_s)
    for number in paid:
        yield number, _NOBODY, "idle", float(idle_usd[number])


def _of_servers(tables: Tables, attempts: Table, scenario: Scenario, warmup_s: float) -> Iterator[_Entry]:
    """Yield the price of model servers' time by agent and tenant; of an unused one to an agent of its model."""
    if not len(tables.servers["server"]):
        return
    shares, unused = of_attempts(tables, attempts["t_arrive_s"] >= warmup_s, warmup_s)
    used = np.flatnonzero(shares)
    tenants, tenant = np.unique(attempts["tenant"][used], return_inverse=True)
    groups, which = np.unique(attempts["agent"][used] * max(len(tenants), 1) + tenant, return_inverse=True)
    for group, usd in zip(groups.tolist(), np.bincount(which, shares[used]).tolist(), strict=True):
        yield group // len(tenants), int(tenants[group % len(tenants)]), "servers", usd
    models, agents = list(scenario.models), list(scenario.agents().values())
    for model, usd in unused.items():
        asks = [number for number, agent in enumerate(agents) if agent.model == models[model]]
        yield asks[0] if asks else 0, _NOBODY, "servers", usd


def _shares_s(on: Ints, starts_s: Floats, ends_s: Floats) -> Floats:
    """Return each interval's share of the time that they cover, where those on the same instance share equally.

    >>> starts_s, ends_s = np.array([0.0, 2.0, 9.0, 2.0]), np.array([4.0, 6.0, 10.0, 3.0])
    >>> _shares_s(np.array([0, 0, 0, 7]), starts_s, ends_s).tolist()
    [3.0, 3.0, 1.0, 1.0]
    """
    n = len(starts_s)
    moments = np.concatenate([starts_s, ends_s])
    order = np.lexsort((moments, np.concatenate([on, on])))
    running = np.cumsum(np.where(order < n, 1, -1))[:-1]  # 0 from one instance to the next
    gaps_s = np.diff(moments[order])
    each_s = np.divide(gaps_s, running, out=np.zeros_like(gaps_s), where=running > 0)
    passed_s = np.empty(2 * n)
    passed_s[order] = np.concatenate([[0.0], np.cumsum(each_s)])[: 2 * n]
    shares: Floats = passed_s[n:] - passed_s[:n]
    return shares
