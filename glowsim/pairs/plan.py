"""What a replay will take, in words and as JSON: from rates, or from a scenario."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.pairs.planning import discordance, non_inferior_pairs, pairs_needed, sequential
from glowsim.pairs.simulating import Simulated
from glowsim.pairs.verdict import Rules
from glowsim.scenario.quantities import format_duration
from glowsim.stats.intervals import wilson

__all__ = ["Price", "planned", "simulated", "simulated_text", "text"]

_POWERS: Final = (0.8, 0.9, 0.95)
_CAMPAIGNS: Final = 1000
_MOST_SIMULATED: Final = 4000
"""Pairs of a simulated campaign: beyond, the sequential replay is not simulated, and it is said."""
_LONGER: Final = 2.5
"""Sequential replays are simulated up to so many times the tasks that one look needs."""


class Price(NamedTuple):
    """What a replay takes; None: not known."""

    usd_per_task: float | None = None
    """Of a task with one variant."""
    latency_s: float | None = None
    """Of a call."""
    concurrency: int = 4
    rate_per_s: float | None = None
    """At which tasks come that can be recorded."""


def planned(
    base_error: float, effect: float, correlation: float, rules: Rules, price: Price
) -> dict[str, Any]:
    """Return how many tasks find an effect, and show that an equal variant is not worse, by power.

    Parameters
    ----------
    base_error, effect, correlation
        See `glowsim.pairs.planning.pairs_needed`.
    rules
        What is promised.
    price
        What a task takes.

    Raises
    ------
    ValueError
        A number is out of its bounds.
    """
    once = {power: pairs_needed(base_error, effect, correlation, rules.alpha, power) for power in _POWERS}
    passes = {
        power: non_inferior_pairs(base_error, rules.margin, correlation, rules.promote_alpha, power)
        for power in _POWERS
    }
    said: dict[str, Any] = {
        "base_error": base_error, "effect": effect, "correlation": correlation,
        "rules": {key: value for key, value in rules._asdict().items() if key != "futility"},
    }  # fmt: skip
    for key, verdict, tasks, true_effect in (("worse", 1, once, effect), ("not_worse", 2, passes, 0.0)):
        most = math.ceil(_LONGER * max(tasks.values()))
        looked = None
        if most <= _MOST_SIMULATED:
            differ = discordance(base_error, true_effect, correlation)
            looked = sequential(most, differ, rules, campaigns=_CAMPAIGNS)
        said[key] = []
        for power, count in tasks.items():
            at_most = None if looked is None else looked.tasks_for(verdict, power)
            mean = (
                None if looked is None or at_most is None else float(np.minimum(looked.ended, at_most).mean())
            )
            row = {"power": power, "tasks_once": count, "tasks_at_most": at_most, "tasks_mean": mean}
            said[key].append({**row, **_takes(count if at_most is None else at_most, mean, price)})
    return said


def _takes(most: int, mean: float | None, price: Price) -> dict[str, float | None]:
    """Return what a replay of at most so many tasks takes: every task is sent twice."""
    usd = None if price.usd_per_task is None else 2 * price.usd_per_task
    seconds = None if price.latency_s is None else 2 * price.latency_s / price.concurrency
    return {
        "cost_usd_at_most": None if usd is None else usd * most,
        "cost_usd_mean": None if usd is None or mean is None else usd * mean,
        "time_s_at_most": None if seconds is None else seconds * most,
        "recorded_in_s": None if not price.rate_per_s else most / price.rate_per_s,
    }


def text(said: dict[str, Any]) -> str:
    """Return a plan for a person, answer first."""
    first = said["worse"][0]
    most = first["tasks_at_most"] or first["tasks_once"]
    rules = said["rules"]
    found = f"{most:,} recorded tasks find {_points(said['effect'])} on {said['base_error']:.3g} failures"
    blamed = f"a variant that is not worse is blamed with probability {rules['alpha']:.3g} at most"
    lines = [
        f"{found} with probability {first['power']:.2g}{_cost_of(first)}",
        f"  correlation of failures {said['correlation']:g}; {blamed}",
        *_table(f"to find {_points(said['effect'])} more failures", said["worse"]),
        *_table(f"to pass an equal one as not worse by {_points(rules['margin'])}", said["not_worse"]),
        "  at once: looked at when all are through; at most, mean: looked at after every pair (simulated)",
    ]
    return "\n".join(lines)


def _cost_of(row: dict[str, Any]) -> str:
    parts = [] if row["cost_usd_at_most"] is None else [f"${row['cost_usd_at_most']:,.4g} at most"]
    parts += [] if row["time_s_at_most"] is None else [f"{format_duration(row['time_s_at_most'])} at most"]
    parts += [] if row["recorded_in_s"] is None else [f"recorded in {format_duration(row['recorded_in_s'])}"]
    return f": {', '.join(parts)}" if parts else ""


def _table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    columns = {
        "power": [f"{row['power']:.0%}" for row in rows],
        "at once": [f"{row['tasks_once']:,}" for row in rows],
        "at most": [_shown(row["tasks_at_most"], "{:,}") for row in rows],
        "mean": [_shown(row["tasks_mean"], "{:,.0f}") for row in rows],
        "cost at most": [_shown(row["cost_usd_at_most"], "${:,.4g}") for row in rows],
        "cost, mean": [_shown(row["cost_usd_mean"], "${:,.4g}") for row in rows],
    }
    wide = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    lines = ["  ".join(name.rjust(wide[name]) for name in columns)]
    lines += ["  ".join(columns[name][at].rjust(wide[name]) for name in columns) for at in range(len(rows))]
    return [f"  {title}:", *(f"    {line}" for line in lines)]


def _shown(value: float | None, how: str) -> str:
    return "-" if value is None else how.format(value)


def _points(share: float) -> str:
    number = f"{100 * share:.3g}"
    return f"{number} point{'s' * (number != '1')}"


def simulated(found: Simulated, rules: Rules) -> dict[str, Any]:
    """Return what replays of a scenario's tasks come to, as JSON."""
    campaigns, number = found.campaigns, len(found.campaigns.ended)
    effect = found.variant_error - found.baseline_error
    needed: dict[str, int | None] = {}
    for power in _POWERS:
        try:
            needed[f"{power:g}"] = pairs_needed(
                found.baseline_error, effect, max(found.correlation, 0.0), rules.alpha, power
            )
        except ValueError:
            needed[f"{power:g}"] = None  # no effect to be found, or none within a million tasks
    ends = {"worse": 1, "not_worse": 2, "undecided": 0}
    return {
        "tasks": found.tasks,
        "baseline_error": found.baseline_error,
        "variant_error": found.variant_error,
        "correlation": None if math.isnan(found.correlation) else found.correlation,
        "campaigns": number,
        **{
            name: dict(zip(("share", "low", "high"), wilson(int((campaigns.verdicts == code).sum()), number)[:3],
                           strict=True))
            for name, code in ends.items()
        },
        "tasks_median": float(np.median(campaigns.ended)),
        "cost_usd_median": float(np.median(found.costs_usd)),
        "cost_usd_of_all": found.cost_usd,
        "tasks_needed_at_once": needed,
        "rules": {key: value for key, value in rules._asdict().items() if key != "futility"},
    }  # fmt: skip


def simulated_text(said: dict[str, Any], agent: str, tried: str) -> str:
    """Return what replays of a scenario's tasks come to, for a person, answer first."""
    likeliest = max(("worse", "not_worse", "undecided"), key=lambda name: said[name]["share"])
    verdict = {
        "worse": "the variant is worse", "not_worse": f"it is not worse by {_points(said['rules']['margin'])}",
        "undecided": "undecided",
    }  # fmt: skip
    needed = {
        power: "none can" if tasks is None else f"{tasks:,}"
        for power, tasks in said["tasks_needed_at_once"].items()
    }
    likely = said[likeliest]
    chance = f"probability {likely['share']:.3g} ({likely['low']:.3g} to {likely['high']:.3g})"
    correlation = "none" if said["correlation"] is None else f"{said['correlation']:.2f}"
    median = f"{said['tasks_median']:,.0f} tasks and ${said['cost_usd_median']:,.4g}"
    lines = [
        f"{verdict[likeliest]}: so ends a replay of {agent}'s {said['tasks']:,} tasks against {tried} with {chance}",
        *(f"  {verdict[name]}: {said[name]['share']:.3g}" for name in verdict if name != likeliest),
        f"  in truth: {said['baseline_error']:.2%} and {said['variant_error']:.2%} failures, correlation {correlation}",
        f"  it ends after {median} (medians); all of them cost ${said['cost_usd_of_all']:,.4g}",
        f"  tasks that find it if looked at once, by power: {', '.join(f'{p}: {n}' for p, n in needed.items())}",
    ]
    return "\n".join(lines)
