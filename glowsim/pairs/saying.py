"""Verdicts in words, answer first, and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from glowsim.pairs.evaluating import Row
from glowsim.pairs.intervals import shift
from glowsim.pairs.kept import Line
from glowsim.pairs.ordering import SIDES
from glowsim.pairs.tasks import Recorded
from glowsim.pairs.verdict import Found, Rules, Verdict

if TYPE_CHECKING:
    from glowsim.pairs.replay import Replayed  # which needs aiohttp: results made elsewhere do not

__all__ = ["of_replay", "of_rows", "text"]

_MOST_NAMES: Final = 20
_ENDED: Final = {
    "verdict": "it ended there: further tasks would cost and not change the verdict",
    "futility": "it ended there: the tasks that remain would hardly have decided",
    "cost": "it ended at --max-cost: give the same command with a higher one to go on",
    "interrupted": "it was interrupted: give the same command to go on",
    "labels": "some answers wait for a label: add theirs to the labels, and give the same command again",
    "end": "all recorded tasks are through",
}


def of_replay(replayed: Replayed, recorded: Recorded, tasks: int) -> dict[str, Any]:
    """Return what a replay came to, as JSON.

    Parameters
    ----------
    replayed
        The replay.
    recorded
        What it replayed.
    tasks
        Different ones among them.
    """
    lines = replayed.lines
    costs = [line.cost_usd for line in lines]
    return {
        **_found(replayed.watcher.found(), replayed.watcher.rules, tasks),
        "ended_by": replayed.ended_by,
        "calls": len(lines),
        "calls_now": replayed.asked,
        "cost_usd": math.fsum(cost for cost in costs if cost is not None),
        "calls_of_unknown_cost": costs.count(None),
        **{side: _side([line for line in lines if line.side == side]) for side in SIDES},
        **_shifts(lines),
        "waiting_for_labels": sum(line.correct is None for line in lines),
        "columns_passed_over": dict(recorded.passed_over),
    }


def of_rows(found: Found, rules: Rules, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what results made elsewhere come to, as JSON."""
    priced = [(row.baseline_cost_usd, row.variant_cost_usd) for row in rows]
    both = [(a, b) for a, b in priced if a is not None and b is not None]
    known = [cost for pair in priced for cost in pair if cost is not None]
    return {
        **_found(found, rules, len({row.task for row in rows})),
        "cost_usd": math.fsum(known) if known else None,
        "calls_of_unknown_cost": 2 * len(rows) - len(known),
        "cost_shift_usd": _shift([a for a, _ in both], [b for _, b in both]),
    }


def text(said: dict[str, Any]) -> str:
    """Return what a replay, or results made elsewhere, came to: for a person, answer first."""
    return "\n".join([_answer(said), *_details(said)])


# --- as JSON ------------------------------------------------------------------------------------------------


def _found(found: Found, rules: Rules, tasks: int) -> dict[str, Any]:
    low, high = found.difference.low, found.difference.high
    return {
        "verdict": str(found.verdict),
        "tasks": found.tasks,
        "tasks_in_all": tasks,
        "lost": list(found.lost),
        "won": list(found.won),
        "difference": {"mean": _finite(found.difference.mean), "low": low, "high": high},
        "looks": "every pair" if found.e_worse is not None else "once",
        "e_worse": _finite(found.e_worse),
        "e_not_worse": _finite(found.e_not_worse),
        "exact_p": found.exact_p,
        "mid_p": found.mid_p,
        "rules": rules._asdict(),
    }


def _side(lines: Sequence[Line]) -> dict[str, Any]:
    costs = [line.cost_usd for line in lines if line.cost_usd is not None]
    labelled = [line.correct for line in lines if line.correct is not None]
    return {
        "calls": len(lines),
        "right": math.fsum(labelled),
        "outcomes": dict(Counter(line.outcome for line in lines).most_common()),
        "failures": dict(Counter(line.said for line in lines if line.said).most_common(5)),
        "cost_usd": math.fsum(costs),
    }


def _shifts(lines: Sequence[Line]) -> dict[str, Any]:
    by_row: dict[int, dict[str, Line]] = {}
    for line in lines:
        by_row.setdefault(line.row, {})[line.side] = line
    whole = [pair for pair in by_row.values() if len(pair) == len(SIDES)]
    priced = [pair for pair in whole if all(line.cost_usd is not None for line in pair.values())]
    times, costs = ([[pair[side].latency_s for pair in whole] for side in SIDES],
                    [[pair[side].cost_usd or 0.0 for pair in priced] for side in SIDES])  # fmt: skip
    return {"latency_shift_s": _shift(*times), "cost_shift_usd": _shift(*costs)}


def _shift(baseline: list[float], variant: list[float]) -> dict[str, Any] | None:
    """Return the paired difference of a quantity; None: fewer than two pairs have it."""
    if len(baseline) < 2:
        return None
    mean, p_value = shift(baseline, variant)
    return {
        "baseline": math.fsum(baseline) / len(baseline), "variant": math.fsum(variant) / len(variant),
        "mean": mean.mean, "low": mean.low, "high": mean.high, "p_value": p_value, "pairs": mean.n,
    }  # fmt: skip


def _finite(number: float | None) -> float | None:
    """Return a number that JSON has: evidence beyond any float is said as the largest one."""
    if number is None or math.isnan(number):
        return None
    return min(number, 1e308)


# --- in words -----------------------------------------------------------------------------------------------


def _answer(said: dict[str, Any]) -> str:
    points = f"{100 * said['rules']['margin']:.3g}"
    margin = f"{points} point{'s' * (points != '1')}"
    counts = f"{len(said['lost'])} against {len(said['won'])}"
    of = f"of {said['tasks']} tasks"
    if said["verdict"] == Verdict.WORSE:
        why = f"p = {said['exact_p']:.2g}" if said["e_worse"] is None else f"e = {said['e_worse']:.3g}"
        return f"the variant is worse: {counts} {of}, {why}"
    if said["verdict"] == Verdict.NOT_WORSE:
        high = f"at most {_points(said['difference']['high'])} more failures"
        why = high if said["e_not_worse"] is None else f"e = {said['e_not_worse']:.3g}"
        return f"the variant is not worse by {margin}: {counts} {of}, {why}"
    return f"undecided whether the variant is worse, or not worse by {margin}: {counts} {of}"


def _details(said: dict[str, Any]) -> list[str]:
    difference, rules = said["difference"], said["rules"]
    lines = []
    if difference["mean"] is not None:
        lines.append(
            f"  share of failures: {_points(difference['mean'])} "
            f"({_points(difference['low'])} to {_points(difference['high'])}, 95 %, looked at {said['looks']})"
        )
    if said["e_worse"] is not None:
        lines.append(
            f"  evidence: worse e = {said['e_worse']:.3g} (of {1 / rules['alpha']:.4g}), "
            f"not worse e = {said['e_not_worse']:.3g} (of {1 / rules['promote_alpha']:.4g})"
        )
    else:
        lines.append(f"  McNemar, one-sided: p = {said['exact_p']:.3g} exact, {said['mid_p']:.3g} mid-p")
    lines += [
        f"  {what}: {_names(said[key])}" for what, key in (("lost", "lost"), ("won", "won")) if said[key]
    ]
    for side in SIDES:
        if side in said:
            lines.append(_of_side(side, said[side]))
    for what, key, unit in (("latency", "latency_shift_s", " s"), ("cost a call", "cost_shift_usd", " USD")):
        if said.get(key):
            lines.append(_of_shift(what, said[key], unit))
    lines += _of_cost(said)
    if "ended_by" in said:
        lines.append(f"  {said['tasks']} of {said['tasks_in_all']} tasks: {_ENDED[said['ended_by']]}")
    if said.get("columns_passed_over"):
        over = ", ".join(f"{name} ({count})" for name, count in said["columns_passed_over"].items())
        lines.append(f"  columns passed over: {over}")
    return lines


def _of_side(side: str, said: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in said["outcomes"].items())
    failures = "".join(f"; {count} x {what}" for what, count in said["failures"].items())
    doubt = (
        ""
        if "ok" in said["outcomes"] or not said["calls"]
        else ": none was answered; is it set up as it should be?"
    )
    return f"  {side}: {said['right']:g} of {said['calls']} right ({outcomes}{failures}){doubt}"


def _of_shift(what: str, said: dict[str, Any], unit: str) -> str:
    return (
        f"  {what}: {said['variant']:.3g}{unit} against {said['baseline']:.3g}{unit}, difference {said['mean']:+.3g} "
        f"({said['low']:+.3g} to {said['high']:+.3g}; Wilcoxon p = {said['p_value']:.2g})"
    )


def _of_cost(said: dict[str, Any]) -> list[str]:
    unknown = said["calls_of_unknown_cost"]
    if said["cost_usd"] is None or unknown == said.get("calls"):
        return ["  cost of the replay: not known" + ("" if "calls" not in said else " (give --prices)")]
    more = f", and {unknown} calls of which it is not known" if unknown else ""
    return [f"  cost of the replay: ${said['cost_usd']:,.4g}{more}"]


def _points(share: float) -> str:
    return f"{100 * share:+.2f} points"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(name if name.isprintable() else repr(name) for name in names[:_MOST_NAMES]) + more
