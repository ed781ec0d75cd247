"""The summary at the end of a run, for a terminal: figures with dots, latencies in a row, levels with ticks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glowsim.scenario import format_duration

__all__ = ["render", "shown"]

_MARKS = {"met": "✓ met", "not met": "✗ not met", "undecided": "? undecided"}


def shown(value: float | None, unit: str) -> str:
    """Return a figure with its unit, rounded for reading.

    >>> shown(1.85432, "duration"), shown(0.9987, "fraction"), shown(None, "count"), shown(0.00052, "money")
    ('1.854 s', '99.87 %', '-', '$0.00052')
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
            return f"{value * 100:.4g} %"
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
            text += f"   [{shown(found['low'], unit)}, {shown(found['high'], unit)}]"
        return f"  {label + ' ':.<22} {text}{note}"

    def row(label: str, name: str, which: tuple[str, ...]) -> str:
        parts = [
            f"{each.replace('p50', 'median')} {shown(metrics[f'{name}_{each}']['value'], 'duration')}"
            for each in which
        ]
        return f"  {label + ' ':.<22} " + "   ".join(parts)

    count = summary["replications"]
    lines = [
        "",
        f"{summary['scenario']}",
        f"{summary['question']}",
        "",
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
        "",
    ]
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
