"""What the first replication cost: the parts of its bill, and tokens and instances by model and domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.core.types import Outcome, State
from glowsim.ledger import Ledger, ledger
from glowsim.report.answer import agents
from glowsim.report.blocks import Block, section, table
from glowsim.report.numbers import DASH, plain
from glowsim.report.reading import First
from glowsim.scenario import Scenario
from glowsim.serving_cost import server_table
from glowsim.summary import PARTS

__all__ = ["bill", "breakdown", "cost", "parts"]

Group = dict[str, float]
Table = dict[str, Any]

_SHORT: Final = {
    "fresh_input": "input", "cache_read": "cache read", "cache_write": "cache write", "output": "output",
    "reasoning": "reasoning", "retries": "retries", "busy": "at work", "idle": "idle",
    "servers": "model servers",
}  # fmt: skip
_TOKENS: Final = ("tokens_in", "tokens_cached", "tokens_out")


class _Numbered(NamedTuple):
    """The columns that the ledger asks of a run's tables, with numbers in place of names."""

    requests: Table
    attempts: Table
    instances: Table
    samples: Table
    servers: Table


def bill(first: First, scenario: Scenario) -> Ledger:
    """Return what the first replication cost after the warm-up, in disjoint parts.

    Parameters
    ----------
    first
        The first replication.
    scenario
        For prices, domains and the warm-up.
    """
    agents, endings = list(scenario.agents()), ("open", "answered")
    outcomes, states = ([each.name.lower() for each in kind] for kind in (Outcome, State))
    orders = {
        "agent": agents, "model": list(scenario.models), "ending": endings, "outcome": outcomes, "state": states,
    }  # fmt: skip

    def numbered(table: Table) -> Table:
        return table | {name: table[name].numbers(order) for name, order in orders.items() if name in table}

    tables: Any = _Numbered(
        numbered(first.requests),
        numbered(first.attempts),
        numbered(first.instances),
        first.fleet,
        server_table(scenario, float(first.fleet["t_s"][-1])),
    )
    return ledger(tables, scenario, scenario.warmup_s)


def parts(account: Ledger, most: int = 10) -> list[Block]:
    """Return the bill by part, the largest first, then each domain's and each agent's, where there are several.

    Parameters
    ----------
    account
        The bill, taken apart.
    most
        Domains and agents to show, the dearest ones.
    """
    total_usd = account.total_usd
    paid = [part for part, usd in sorted(account.totals_usd.items(), key=lambda one: -one[1]) if usd]
    if not paid:
        return []
    rows = [
        [PARTS[part], plain(usd := account.totals_usd[part], "money"), plain(usd / total_usd, "fraction")]
        for part in paid
    ]
    together = [["the bill", plain(total_usd, "money"), "100 %"]]
    blocks = [table("part|>cost|>share", rows + together, title="By part")]
    for key in ("domain", "agent"):
        of = {name: {part: row[part] for part in paid} for name, row in account.by(key).items()}
        if len(of) > 1:
            blocks.append(_of_each(key, of, paid, most))
    return blocks


def _of_each(key: str, of: Mapping[str, Group], paid: Sequence[str], most: int) -> Block:
    totals_usd = {name: math.fsum(row.values()) for name, row in of.items()}
    dearest = sorted(of, key=lambda name: (-totals_usd[name], name))
    rows = [
        [name or DASH, *(plain(of[name][part], "money") for part in paid), plain(totals_usd[name], "money")]
        for name in dearest[:most]
    ]
    columns = "|".join([key, *(f">{_SHORT[part]}" for part in paid), ">together"])
    title = f"Parts by {key}, the dearest first"
    return table(columns, rows, title=title, more=_rest(len(dearest) - most))


def breakdown(first: First, scenario: Scenario, summary: Mapping[str, Any]) -> dict[tuple[str, str], Group]:
    """Return (model, domain) -> tokens and US dollars, for requests that arrived after the warm-up.

    Tokens are those of all attempts, failed ones included: they are billed too. An instance's cost goes to
    its agent's own model.

    Parameters
    ----------
    first
        The first replication.
    scenario
        For each agent's domain and model.
    summary
        For each agent's cost of tokens and instances together.
    """
    entries = scenario.agents()
    requests, attempts = first.requests, first.attempts
    order = np.argsort(requests["request_id"], kind="stable")
    mine = order[np.searchsorted(requests["request_id"][order], attempts["request_id"])]
    counted = requests["t_arrive_s"][mine] >= scenario.warmup_s
    whose, models = requests["agent"], attempts["model"]
    n_models = len(models.names)
    keys = (whose.codes[mine] * n_models + models.codes)[counted]
    sums = {
        name: np.bincount(keys, attempts[name][counted], minlength=len(whose.names) * n_models)
        for name in (*_TOKENS, "cost_usd")
    }
    found: dict[tuple[str, str], Group] = {}

    def group(model: str, domain: str | None) -> Group:
        empty = dict.fromkeys((*_TOKENS, "tokens_usd", "instances_usd"), 0.0)
        return found.setdefault((model, domain or DASH), empty)

    token_usd = dict.fromkeys(entries, 0.0)
    for at, agent in enumerate(whose.names):
        for number, model in enumerate(models.names):
            key = at * n_models + number
            if sums["tokens_in"][key] or sums["tokens_out"][key]:
                into = group(model, entries[agent].domain)
                for name in _TOKENS:
                    into[name] += float(sums[name][key])
                into["tokens_usd"] += float(sums["cost_usd"][key])
                token_usd[agent] += float(sums["cost_usd"][key])
    for agent, entry in entries.items():
        total_usd = summary["agents"][agent]["cost_usd"]
        group(entry.model, entry.domain)["instances_usd"] += max(total_usd - token_usd[agent], 0.0)
    return found


def cost(first: First, scenario: Scenario, summary: Mapping[str, Any]) -> Block:
    """Return the section of the cost: by part, by model and domain, and by agent where there are several."""
    account = bill(first, scenario)
    groups = breakdown(first, scenario, summary)
    total_usd = math.fsum(map(_usd, groups.values()))
    rows = [
        [
            model, domain, *(plain(each[name], "count") for name in _TOKENS),
            plain(each["tokens_usd"], "money"), plain(each["instances_usd"], "money"),
            plain(_usd(each), "money"),
            plain(_usd(each) / total_usd, "fraction") if total_usd else DASH,
        ]
        for (model, domain), each in sorted(groups.items(), key=lambda item: (-_usd(item[1]), item[0]))
    ]  # fmt: skip
    machines = "instances and servers" if scenario.servers else "instances"
    columns = (
        f"model|domain|>input tokens|>of them cached|>output tokens|>tokens|>{machines}|>together|>share"
    )
    lead = (
        "First replication, requests that arrived after the warm-up. All attempts are billed, failed ones "
        "too; an instance counts for its agent's model from its start to its end."
    )
    by_model = table(columns, rows[:20], title="By model and domain", more=_rest(len(rows) - 20))
    return section("cost", "Cost", lead + _largest(account), [*parts(account), by_model, *agents(summary)])


def _largest(account: Ledger) -> str:
    part, usd = max(account.totals_usd.items(), key=lambda one: one[1])
    if not usd:
        return ""
    share = plain(usd / account.total_usd, "fraction")
    return (
        f" The parts are disjoint and add up to the bill, {plain(account.total_usd, 'money')}; the largest, "
        f"{share} of it: {PARTS[part]}."
    )


def _usd(group: Group) -> float:
    return group["tokens_usd"] + group["instances_usd"]


def _rest(n: int) -> str:
    return f"and {n} more" if n > 0 else ""
