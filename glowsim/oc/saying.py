"""The characteristics of a policy in words and as JSON: the answer first, then one table."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any, Final

from glowsim.oc.characteristics import KEPT, NOT_KEPT, Budget, Characteristics, Line, Promise, points
from glowsim.oc.improvement import Improvement
from glowsim.oc.policy import USE
from glowsim.oc.remedy import Remedy
from glowsim.oc.rules import Rule
from glowsim.oc.search import Candidate, Search
from glowsim.oc.traffic import Traffic
from glowsim.scenario import format_duration, format_rate
from glowsim.scenario.quantities import DURATION, RATE
from glowsim.stats.intervals import Interval

__all__ = [
    "HEADINGS",
    "advice",
    "answer",
    "as_json",
    "notes_of",
    "percent",
    "promise_text",
    "rate_text",
    "row",
    "text",
    "traffic_text",
]

HEADINGS: Final = (
    "effect", "rolled back, %", "promoted, %", "held, %", "delay, requests", "delay, time", "bad", "harmed", "to full",
)  # fmt: skip
_MARKS: Final = {KEPT: "✓", NOT_KEPT: "✗"}
_ANSWERS: Final = {
    KEPT: "keeps its budget",
    NOT_KEPT: "refused",
    "undecided": "undecided: run more campaigns",
}


def text(found: Characteristics, advised: str | None, campaigns: int) -> str:
    """Return what is printed.

    Parameters
    ----------
    found
        The characteristics.
    advised
        What to do instead, where the budget is not kept.
    campaigns
        Of each effect.
    """
    rows = [HEADINGS, *map(row, found.lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip()
        for each in rows
    ]
    said = [answer(found), *([advised] if advised else []), ""]
    said += [f"{_MARKS.get(each.verdict, '?')} {promise_text(each)}" for each in found.promises]
    foot = (
        f"{campaigns:,} campaigns an effect; intervals of 95 %; delays from the onset: median / p95; bad, harmed: "
        "of the new version until the decision, on average, and of them by the effect alone"
    )
    return "\n".join([*said, "", *table, "", foot, *notes_of(found.rule)])


def schedule_text(rule: Improvement) -> str:
    """Return a schedule in words.

    >>> schedule_text(Improvement((0.05, 0.5, 1.0), (86_400.0, 7200.0)))
    '5 % for 1d, 50 % for 2h, then all'
    """
    stages = zip(rule.weights, rule.holds_s, strict=False)
    return ", ".join(
        [*(f"{percent(weight)} for {format_duration(hold_s)}" for weight, hold_s in stages), "then all"]
    )


def search_text(sought: Search, budget: Budget) -> str:
    """Return what came of the search for a schedule, and what to write for it."""
    tried = f"of {len(sought.tried)} that were simulated"
    if sought.best is None:
        none = "none up to two weeks has the requests for it" if not sought.tried else f"none {tried}"
        return f"no schedule keeps the budget at this traffic: {none}"
    rule, cost = sought.best.rule, sought.best.cost
    written = {
        "use": USE, "salt": "NAME", "strategy": "stages", "weights": [f"{100 * each:g}%" for each in rule.weights[:-1]],
        "holds": [DURATION.write(each) for each in rule.holds_s],
    }  # fmt: skip
    block = ", ".join(f"{key}: {_listed(value)}" for key, value in written.items())
    return (
        f"best schedule, {tried}: {schedule_text(rule)}; cost {cost:.3g} (harmed requests at "
        f"{points(budget.smallest)}, and hours)\n  splitter: {{{block}}}"
    )


def _listed(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def search_json(sought: Search) -> dict[str, Any]:
    """Return the schedules that were simulated and the best one, or null, as plain data."""
    tried = [_candidate(each) for each in sought.tried]
    return {"best": None if sought.best is None else _candidate(sought.best), "tried": tried}


def _candidate(each: Candidate) -> dict[str, Any]:
    return {
        "weights": list(each.rule.weights), "holds_s": list(each.rule.holds_s), "cost": each.cost,
        "verdict": each.found.verdict,
    }  # fmt: skip


def notes_of(rule: Rule) -> tuple[str, ...]:
    """Return what a rule that was read from another tool's configuration takes for what."""
    notes: tuple[str, ...] = getattr(rule, "notes", ())
    return notes


def answer(found: Characteristics) -> str:
    """Return the answer in a line."""
    return f"{found.rule.name} at {traffic_text(found)}: {_ANSWERS[found.verdict]}"


def traffic_text(found: Characteristics) -> str:
    """Return the traffic in words."""
    traffic = found.traffic
    parts = [rate_text(traffic.rate_per_s)]
    parts += [f"{name} at {percent(traffic.base_of(name))}" for name in found.rule.guardrails]
    if traffic.onset_s:
        parts.append(f"worse from {format_duration(traffic.onset_s)} on")
    if traffic.daily:
        parts.append("daily rhythm")
    if traffic.incidents:
        parts.append("incidents that hit both")
    if traffic.label_delay_s:
        parts.append(f"labels after {format_duration(traffic.label_delay_s)}")
    if traffic.tenants:
        parts.append(_tenants(traffic))
    return ", ".join(parts)


def rate_text(per_s: float) -> str:
    """Return a rate for reading, as it is written where that is short.

    >>> rate_text(31 / 86_400), rate_text(0.018254243827), rate_text(1.99435)
    ('31/d', '1.1/min', '1.99/s')
    """
    written = str(RATE.write(per_s))
    return written if len(written) <= 6 else format_rate(per_s)


def _tenants(traffic: Traffic) -> str:
    sizes = f" of unequal size (Zipf {traffic.zipf:g})" if traffic.zipf else ""
    return f"{traffic.tenants:,} tenants{sizes} at correlation {traffic.correlation:g}"


def promise_text(promise: Promise) -> str:
    """Return a part of the budget with what was found.

    >>> promise_text(Promise("it is late", Interval(0.005, 0.0027, 0.0092, 2000), 0.01, True, KEPT))
    'it is late: 0.5 % (0.27 to 0.92), at most 1 %: kept'
    """
    most = "at most" if promise.at_most else "at least"
    return f"{promise.what}: {_with_interval(promise.figure)}, {most} {percent(promise.bound)}: {promise.verdict}"


def row(line: Line) -> tuple[str, ...]:
    """Return the cells of a line, under ``HEADINGS``."""
    return (
        "none" if line.effect == 0.0 else f"+{100 * line.effect:.4g}\N{NO-BREAK SPACE}pt",
        _in_percent(line.rolled_back),
        _in_percent(line.promoted),
        _in_percent(line.held),
        _pair(line.delay_requests, lambda value: f"{value:,.0f}"),
        _pair(line.delay_s, lambda value: format_duration(round(value))),
        f"{line.bad:,.0f}",
        f"{line.harmed:,.0f}",
        _pair(line.full_s, lambda value: format_duration(round(value))),
    )


def _pair(values: tuple[float, float], shown: Any) -> str:
    return "-" if isnan(values[0]) else " / ".join(map(shown, values))


def _with_interval(figure: Interval) -> str:
    return f"{percent(figure.mean)} ({_hundredths(figure.low)} to {_hundredths(figure.high)})"


def _in_percent(figure: Interval) -> str:
    return _with_interval(figure).replace(" %", "")


def percent(share: float) -> str:
    """Return a share for reading.

    >>> percent(0.05), percent(0.00123), percent(0.9987), percent(1.0)
    ('5 %', '0.12 %', '99.9 %', '100 %')
    """
    return f"{_hundredths(share)} %"


def _hundredths(share: float) -> str:
    return f"{100 * share:.{2 if share < 0.01 else 1}f}".rstrip("0").rstrip(".")


def advice(found: Characteristics, remedy: Remedy) -> str:
    """Return why a policy cannot keep its budget at its traffic, in numbers, and what to do instead."""
    smallest = points(found.budget.smallest)
    power = found.promises[2].figure.mean
    sees = ""
    if found.rule.schedule_s == 0.0:
        sees = " gives the new version all the traffic at once: it"
    elif remedy.requests is not None:
        sees = f" sees {_count(remedy.requests)} of the new version before the last gate: it"
    finds = (
        "can detect nothing" if power <= 2.0 * found.budget.false_rollback
        else f"finds {smallest} with probability {power:.2f}, promotes a version that is no worse with probability "
        f"{found.promises[3].figure.mean:.2f} and one worse by {points(found.budget.margin)} with "
        f"{found.promises[1].figure.mean:.3f}"
    )  # fmt: skip
    said = [f"At {rate_text(found.traffic.rate_per_s)} the policy{sees} {finds}."]
    if found.promises[0].verdict == NOT_KEPT:
        rate = percent(found.promises[0].figure.mean)
        said.append(f"It rolls back {rate} of the healthy versions.")
    said += _more(found, remedy, smallest)
    if remedy.pairs is not None:
        said.append(
            f"Or replay {remedy.pairs:,} recorded tasks in pairs (glowsim pairs plan; correlation "
            f"{remedy.pairs_correlation:.2g} assumed)."
        )
    return " ".join(said)


def _more(found: Characteristics, remedy: Remedy, smallest: str) -> list[str]:
    """Return what more traffic, or a longer schedule, would do."""

    def longer(times: int) -> str:
        if remedy.requests is None:  # it judges each interval by itself: a longer schedule is no more traffic
            return ""
        return f", or let the schedule take {format_duration(times * found.rule.schedule_s)}"

    said = []
    if remedy.times_power is not None and remedy.times_power > 1:
        said.append(
            f"To find {smallest}, pool {remedy.times_power:,} such agents{longer(remedy.times_power)}."
        )
    if remedy.times_all is None:
        said.append(f"Not even {remedy.times_most:,} times the traffic makes it keep the whole budget.")
    elif remedy.times_all > (remedy.times_power or 1):
        said.append(
            f"To keep the whole budget, promotion included, pool {remedy.times_all:,} such agents"
            f"{longer(remedy.times_all)}."
        )
    return said


def _count(requests: float) -> str:
    return f"{requests:,.0f} requests" if requests >= 9.5 else f"{requests:.2g} requests"


def as_json(
    found: Characteristics, remedy: Remedy | None, advised: str | None, campaigns: int, seed: int
) -> dict[str, Any]:
    """Return the same as plain data: shares with ``low`` and ``high``, durations in seconds; null for nothing.

    Parameters
    ----------
    found
        The characteristics.
    remedy, advised
        What to do instead, in numbers and in words.
    campaigns, seed
        How they were made.
    """
    traffic = found.traffic
    return {
        "policy": found.rule.name,
        "verdict": found.verdict,
        "answer": answer(found),
        "advice": advised,
        "remedy": None if remedy is None else remedy._asdict(),
        "notes": list(notes_of(found.rule)),
        "campaigns": campaigns,
        "seed": seed,
        "traffic": {
            "rate_per_s": traffic.rate_per_s, "base": dict(traffic.base), "onset_s": traffic.onset_s,
            "daily": traffic.daily, "incidents": traffic.incidents, "label_delay_s": traffic.label_delay_s,
            "tenants": traffic.tenants, "correlation": traffic.correlation, "zipf": traffic.zipf,
        },
        "schedule_s": found.rule.schedule_s,
        "promises": [
            {
                "what": each.what, "figure": _share(each.figure), "bound": each.bound, "at_most": each.at_most,
                "verdict": each.verdict,
            }
            for each in found.promises
        ],
        "effects": [_line(each) for each in found.lines],
    }  # fmt: skip


def _line(line: Line) -> dict[str, Any]:
    return {
        "effect": line.effect,
        "rolled_back": _share(line.rolled_back),
        "promoted": _share(line.promoted),
        "held": _share(line.held),
        "delay_requests": _spread(line.delay_requests),
        "delay_s": _spread(line.delay_s),
        "bad": line.bad,
        "harmed": line.harmed,
        "full_s": _spread(line.full_s),
    }


def _share(figure: Interval) -> dict[str, float]:
    return {"share": figure.mean, "low": figure.low, "high": figure.high}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {
        name: value if isfinite(value) else None for name, value in zip(("p50", "p95"), values, strict=True)
    }
