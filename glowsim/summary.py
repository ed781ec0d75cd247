"""The summary at the end of a run, for a terminal: figures with dots, latencies in a row, levels with ticks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from glowsim.scenario import format_duration

__all__ = ["ENDED", "PARTS", "render", "shown"]

ENDED: Final = {
    "too_large": "too large",
    "limited": "over a limit",
    "queue_full": "queue full",
    "key_reused": "idempotency key of another payload",
    "limit_unknown": "no word from a shared limit",
    "shed": "shed for a more important one",
    "all_open": "every breaker open",
    "exhausted": "attempts exhausted",
    "not_retryable": "not retryable",
    "timed_out": "timed out",
    "waited_too_long": "waited too long",
    "broken_stream": "stream broken",
    "no_time_to_retry": "no time to retry",
    "apology": "apology in place of an answer",
}
"""Why a request was rejected or failed -> the words for it."""

PARTS: Final = {
    "fresh_input": "input tokens",
    "cache_read": "input tokens read from a prompt cache",
    "cache_write": "input tokens written to a prompt cache",
    "output": "output tokens",
    "reasoning": "reasoning tokens",
    "retries": "tokens of attempts that led to no answer",
    "busy": "instances at work",
    "idle": "instances idle",
    "servers": "model servers",
}
"""Part of the bill -> the words for it."""

_MARKS = {"met": "✓ met", "not met": "✗ not met", "undecided": "? undecided"}


def shown(value: float | None, unit: str) -> str:
    """Return a figure with its unit, rounded for reading.

    A share near 1 keeps two digits of its distance from it.

    >>> shown(1.85432, "duration"), shown(0.9987, "fraction"), shown(None, "count"), shown(0.00052, "money")
    ('1.854 s', '99.87 %', '-', '$0.00052')
    >>> shown(0.999989, "fraction"), shown(1.0, "fraction")
    ('99.9989 %', '100 %')
    """
    if value is None:
        return "-"
    match unit:
        case "duration":
            return (
                f"{value * 1000:.3g} ms"
                if value < 1.0
                else f"{value:.4g} s"
                if value < 600
                else format_duration(round(value))
            )
        case "fraction":
            digits = 4 if not 0.0 < value < 1.0 else max(4, 1 - math.floor(math.log10(1.0 - value)))
            return f"{value * 100:.{digits}g} %"
        case "rate":
            return f"{value:.4g}/s"
        case "money":
            return f"${value:,.2f}" if value >= 1.0 else f"${value:.2g}"
        case _:
            return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def render(summary: dict[str, Any], folder: Path, wall_s: float) -> str:
    """Return the summary of a run as lines for a terminal."""
    metrics = summary["metrics"]

    def figure(label: str, metric: str, unit: str, note: str = "") -> str:
        found = metrics[metric]
        text = shown(found["value"], unit)
        if found["low"] is not None and found["low"] != found["high"]:
            text += f"   [{shown(max(found['low'], 0.0), unit)}, {shown(found['high'], unit)}]"
        return f"  {label + ' ':.<22} {text}{note}"

    def row(label: str, name: str, which: tuple[str, ...]) -> str:
        parts = [
            f"{each.replace('p50', 'median')} {shown(metrics[f'{name}_{each}']['value'], 'duration')}"
            for each in which
        ]
        return f"  {label + ' ':.<22} " + "   ".join(parts)

    count, measured = summary["replications"], summary.get("measured")
    lines = [
        "",
        f"{summary['scenario']}",
        f"{summary['question']}",
        "",
        *([] if measured is None else [f"  measured at {measured['target']}, --api {measured['api']}"]),
        f"  {count} replication{'s' if count > 1 else ''}, seed {summary['seed']}"
        + (", nothing random" if summary["deterministic"] else "; means with 95 % intervals"),
        "",
        figure("launched", "launched", "count"),
        figure("completed", "completed", "count"),
        figure("success rate", "success_rate", "fraction"),
        figure("request rate", "request_rate_per_s", "rate"),
        row("latency", "latency_s", ("min", "p50", "p95", "p99", "max")),
    ]
    if metrics["first_token_s_p50"]["value"] is not None:
        lines.append(row("first token", "first_token_s", ("p50", "p95", "p99")))
    lines += [
        figure("tokens in", "tokens_in", "count"),
        figure("tokens out", "tokens_out", "count"),
        figure("cost", "cost_usd", "money"),
        figure("cost per task", "cost_usd_per_task", "money"),
        figure("cache hits", "cache_hit_rate", "fraction"),
        figure("retries", "retries", "count"),
    ]
    if metrics["accuracy"]["value"] is not None:
        lines.append(figure("accuracy", "accuracy", "fraction"))
    for label, listed in (("cost by part", _parts(summary)), ("turned away", _ended(metrics))):
        if listed:
            lines.append(f"  {label + ' ':.<22} {'   '.join(listed)}")
    if metrics["degraded_rate"]["value"]:
        stale, other = (
            shown(metrics[f"answered_{how}"]["value"], "count") for how in ("stale", "other_model")
        )
        lines.append(
            figure("degraded", "degraded_rate", "fraction", f"   ({stale} stale, {other} by another model)")
        )
    lines += [
        f"  {f'{name} ':.<22} {did['load']}: {shown(did['offered_per_s'], 'rate')} of calls, "
        f"{shown(did['sustainable_per_s'], 'rate')} sustainable"
        for name, did in summary["servers"].items()
        if did.get("load", "keeps up") != "keeps up"
    ]
    lines += [f"  outside its preset ... {each}" for each in summary["warnings"]]
    if measured is not None:
        lines += _sending(measured)
    lines.append("")
    if summary["slos"]:
        lines.append("service levels")
        width = max(len(slo["name"]) for slo in summary["slos"])
        for slo in summary["slos"]:
            unit = slo["unit"]
            interval = "" if slo["low"] is None or slo["high"] is None else (
                f" [{shown(slo['low'], unit)}, {shown(slo['high'], unit)}]"
            )  # fmt: skip
            sign = "<=" if slo["bound"] == "max" else ">="
            lines.append(
                f"  {_MARKS[slo['verdict']]:12} {slo['name']:{width}}  {shown(slo['value'], unit)}{interval}"
                f"  wanted {sign} {shown(slo['target'], unit)}"
            )
            if slo["verdict"] == "undecided":
                lines.append(f"  {'':12} {slo['why']}")
        lines += ["", f"verdict: {summary['verdict']}"]
    else:
        lines.append("no service levels are stated, so there is no verdict to give")
    missed = [each for each in summary["expectations"] if not each["held"]]
    for each in missed:
        lines.append(
            f"expected {each['metric']} between {shown(each['low'], each['unit'])} and "
            f"{shown(each['high'], each['unit'])}; it is {shown(each['value'], each['unit'])}"
        )
    lines += [f"report:  {folder / 'report.html'}", f"took {wall_s:.1f} s", ""]
    return "\n".join(lines)


def _sending(measured: Mapping[str, Any]) -> list[str]:
    """Return how the requests of a measured run were sent, and what spoils or limits what it says."""
    late = measured["lateness_s"]
    lines = []
    if late is not None:
        spread = "   ".join(
            f"{each.replace('p50', 'median')} {shown(s, 'duration')}" for each, s in late.items()
        )
        lines.append(f"  {'sent late by ':.<22} {spread}")
    lines.append(f"  {'in flight ':.<22} at most {measured['peak_in_flight']:,}")
    went_wrong = [f"{words} {n:,}" for words, n in measured["errors"].items()]
    if went_wrong:
        lines.append(f"  {'went wrong ':.<22} {'   '.join(went_wrong)}")
    lines += [f"  note: {each}" for each in measured["notes"]]
    return lines + [f"  WARNING: {each}" for each in measured["warnings"]]


def _parts(summary: Mapping[str, Any]) -> list[str]:
    """Return the parts of the bill, the largest first."""
    parts = summary.get("cost_parts_usd", {})
    return [
        f"{PARTS[part]} {shown(usd, 'money')}"
        for part, usd in sorted(parts.items(), key=lambda one: -one[1])
        if usd
    ]


def _ended(metrics: Mapping[str, Any]) -> list[str]:
    """Return why requests were rejected or failed, with how many, the most frequent first."""
    counts = {words: metrics[f"ended_{reason}"]["value"] for reason, words in ENDED.items()}
    return [
        f"{words} {shown(n, 'count')}" for words, n in sorted(counts.items(), key=lambda one: -one[1]) if n
    ]
