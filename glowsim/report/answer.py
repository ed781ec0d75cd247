"""The answer and its figures: verdict, service levels, key figures, expectations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from glowsim.report.blocks import MARKS, Block, section, side_by_side, table, tiles
from glowsim.report.numbers import DASH, NO_SPREAD, Rounded, exact, plain, rounded
from glowsim.scenario import METRICS

__all__ = ["NAMES", "agents", "expectations", "headline", "key_figures", "level_sentences", "service_levels"]

Slo = Mapping[str, Any]

NAMES: Final = {
    "latency_s_min": "latency, minimum",
    "latency_s_mean": "latency, mean",
    "latency_s_p50": "latency, median",
    "latency_s_p95": "latency, p95",
    "latency_s_p99": "latency, p99",
    "latency_s_max": "latency, maximum",
    "first_token_s_p50": "first token, median",
    "first_token_s_p95": "first token, p95",
    "first_token_s_p99": "first token, p99",
    "wait_s_mean": "wait for an instance, mean",
    "wait_s_p95": "wait for an instance, p95",
    "success_rate": "success rate",
    "error_rate": "error rate",
    "degraded_rate": "answers stale or by another model",
    "accuracy": "right answers, of those judged",
    "wrong_rate": "wrong answers",
    "hallucination_rate": "hallucinations",
    "format_rate": "answers in the wrong form",
    "refusal_rate": "refusals",
    "request_rate_per_s": "request rate",
    "cost_usd": "cost",
    "cost_tokens_usd": "cost of tokens",
    "cost_instances_usd": "cost of instances",
    "cost_servers_usd": "cost of model servers",
    "cost_usd_per_task": "cost per completed task",
    "cache_hit_rate": "cache hits",
    "launched": "launched",
    "completed": "completed",
    "rejected": "rejected",
    "failed": "failed",
    "abandoned": "abandoned",
    "open": "still open at the end",
    "retries": "retries",
    "tokens_in": "input tokens, answered",
    "tokens_out": "output tokens, answered",
}
"""Figure of a summary -> what a report calls it."""

_UNITS: Final = METRICS | {
    "cost_tokens_usd": "money", "cost_instances_usd": "money", "cost_servers_usd": "money", "rejected": "count",
    "failed": "count", "abandoned": "count", "open": "count", "retries": "count",
}  # fmt: skip
_GROUPS: Final = {
    "Requests": (
        "launched", "completed", "success_rate", "error_rate", "degraded_rate", "request_rate_per_s", "rejected",
        "failed", "abandoned", "open", "retries", "cache_hit_rate",
    ),
    "Quality of answers": ("accuracy", "wrong_rate", "hallucination_rate", "format_rate", "refusal_rate"),
    "Latency of answered requests": (
        "latency_s_min", "latency_s_mean", "latency_s_p50", "latency_s_p95", "latency_s_p99", "latency_s_max",
    ),
    "First token and waiting": (
        "first_token_s_p50", "first_token_s_p95", "first_token_s_p99", "wait_s_mean", "wait_s_p95",
    ),
    "Tokens and cost": (
        "tokens_in", "tokens_out", "cost_usd", "cost_tokens_usd", "cost_instances_usd", "cost_servers_usd",
        "cost_usd_per_task",
    ),
}  # fmt: skip
_TILES: Final = (
    "launched", "success_rate", "request_rate_per_s", "latency_s_p50", "latency_s_p95", "latency_s_p99",
    "cost_usd", "cost_usd_per_task",
)  # fmt: skip


def headline(summary: Mapping[str, Any]) -> str:
    """Return the verdict as one sentence.

    >>> slos = [{"verdict": "met"}, {"verdict": "undecided"}]
    >>> headline({"slos": slos, "replications": 5, "deterministic": False})
    'Of 2 service levels 1 is undecided and 1 is met.'
    """
    slos = summary["slos"]
    if not slos:
        return "The scenario names no service level, so there is nothing to decide: these are the figures."
    counts = {word: sum(slo["verdict"] == word for slo in slos) for word in ("not met", "undecided", "met")}
    there = {word: n for word, n in counts.items() if n}
    if len(slos) == 1:
        said = f"The service level is {next(iter(there))}."
    elif len(there) == 1:
        said = f"All {len(slos)} service levels are {next(iter(there))}."
    else:
        *first, last = [f"{n} {'is' if n == 1 else 'are'} {word}" for word, n in there.items()]
        said = f"Of {len(slos)} service levels {', '.join(first)} and {last}."
    if summary["replications"] == 1 and not summary["deterministic"]:
        said += " One run alone decides nothing: its neighbours may have come out differently."
    return said


def level_sentences(slos: Sequence[Slo]) -> list[Block]:
    """Return a sentence a service level, those not met first: figure, interval, target and why."""
    order = ("not met", "undecided", "met")
    return [
        {"mark": MARKS[slo["verdict"]], "word": slo["verdict"], "name": slo["name"], "text": _sentence(slo)}
        for slo in sorted(slos, key=lambda slo: order.index(slo["verdict"]))
    ]


def _sentence(slo: Slo) -> str:
    shown = _rounded(slo)
    whose = f" of {slo['agent']}" if slo["agent"] else ""
    within = {DASH: "", NO_SPREAD: " without spread"}.get(shown.span, f" (95 % interval {shown.span})")
    wanted = f"{'at most' if slo['bound'] == 'max' else 'at least'} {exact(slo['target'], slo['unit'])}"
    if slo["value"] is None:
        return f"{NAMES[slo['metric']]}{whose} has no value, wanted {wanted}: {_why(slo)}."
    return f"{NAMES[slo['metric']]}{whose} is {shown.value}{within}, wanted {wanted}: {_why(slo)}."


def service_levels(summary: Mapping[str, Any]) -> Block:
    """Return the section of the service levels: target, value, interval, verdict and why."""
    slos = summary["slos"]
    rows = []
    for slo in slos:
        shown = _rounded(slo)
        measured = NAMES[slo["metric"]] + (f", {slo['agent']}" if slo["agent"] else "")
        rows.append([slo["name"], measured, _target(slo), shown.value, shown.span, slo["verdict"], _why(slo)])
    columns = "*service level|*measured|>target|>value|>95 % interval|?verdict|*why"
    lead = (
        "A level is met or not met only if the whole 95 % interval over replications lies on one side of its "
        "target; otherwise the run does not decide it."
    )
    return section(
        "levels",
        "Service levels",
        lead if slos else "The scenario names none.",
        [table(columns, rows)] if slos else [],
    )


def _rounded(slo: Slo) -> Rounded:
    return rounded(slo["value"], slo["low"], slo["high"], slo["unit"], [slo["target"]])


def _target(slo: Slo) -> str:
    return f"{'≤' if slo['bound'] == 'max' else '≥'} {exact(slo['target'], slo['unit'])}"


def _why(slo: Slo) -> str:
    if slo["low"] is None or slo["high"] is None:
        return str(slo["why"])
    what = "the exact value" if slo["low"] == slo["high"] else "the whole interval"
    above = "above" if slo["bound"] == "max" else "below"
    match slo["verdict"]:
        case "met":
            return f"{what} is within the target"
        case "not met":
            return f"{what} lies {above} the target"
        case _:
            return "the target lies inside the interval"


def key_figures(summary: Mapping[str, Any]) -> Block:
    """Return the section of the key figures, with intervals over replications."""
    metrics = summary["metrics"]
    n = summary["replications"]
    if summary["deterministic"]:
        lead = "Nothing in the scenario is random: every figure is exact."
    elif n == 1:
        lead = "One replication: figures without intervals. Run at least 2 to see how far they may be off."
    else:
        lead = f"Means over {n} replications, each with its 95 % interval (Student t)."
    seen = {metric: _metric(metrics[metric], _UNITS[metric]) for metric in metrics if metric in NAMES}
    first = tiles(
        [
            (NAMES[metric], seen[metric].value, _detail(seen[metric].span))
            for metric in _TILES
            if metric in seen
        ]
    )
    shown = 2 if n > 1 or summary["deterministic"] else 1
    groups = [
        table(
            "|".join(("figure", ">value", ">95 % interval")[: shown + 1]),
            [[NAMES[metric], *seen[metric][:shown]] for metric in group if metric in seen],
            title=title,
        )
        for title, group in _GROUPS.items()
        if any(metrics[metric]["value"] is not None for metric in group if metric in metrics)
    ]
    return section("figures", "Key figures", lead, [first, side_by_side(groups)])


def _metric(metric: Mapping[str, Any], unit: str) -> Rounded:
    return rounded(metric["value"], metric["low"], metric["high"], unit)


def _detail(span: str) -> str:
    return "" if span == DASH else span


def expectations(summary: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the section of the expectations, where the scenario has any."""
    rows = []
    for each in summary["expectations"]:
        unit, value = each["unit"], each["value"]
        metric = summary["metrics"][each["metric"]]
        shown = rounded(value, metric["low"], metric["high"], unit, [each["low"], each["high"]])
        band = f"{exact(each['low'], unit)} to {exact(each['high'], unit)}"
        word = "no value" if value is None else "held" if each["held"] else "not held"
        rows.append([NAMES[each["metric"]], band, shown.value, word, each["source"] or DASH])
    if rows:
        columns = "*measured|>expected|>value|?verdict|*source"
        lead = "Bands that somebody stated before the run, and whether the mean falls into them."
        yield section("expectations", "Expectations", lead, [table(columns, rows)])


def agents(summary: Mapping[str, Any], most: int = 20) -> Iterator[Block]:
    """Yield the table of the agents, the dearest first, where there are several."""
    rows = sorted(summary["agents"].items(), key=lambda item: (-item[1]["cost_usd"], item[0]))
    if len(rows) < 2:
        return
    cells = [
        [
            name, each["domain"] or DASH, each["model"], plain(each["launched"], "count"),
            plain(each["success_rate"], "fraction"), plain(each["latency_s_p50"], "duration"),
            plain(each["latency_s_p95"], "duration"), plain(each["latency_s_p99"], "duration"),
            plain(each["cost_usd"], "money"), plain(each["cost_usd_per_task"], "money"),
        ]
        for name, each in rows[:most]
    ]  # fmt: skip
    rest = f"and {len(rows) - most} more, in summary.json" if len(rows) > most else ""
    columns = "agent|domain|model|>launched|>success|>median|>p95|>p99|>cost|>per task"
    yield table(columns, cells, title="By agent, the dearest first", more=rest)
