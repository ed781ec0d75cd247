"""What happened in the first replication: latencies, time line, instances with the decisions, endings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glowsim.core.types import Severity
from glowsim.report import figures
from glowsim.report.binning import over_time
from glowsim.report.blocks import Block, figure, section, table, text
from glowsim.report.faults import label, said
from glowsim.report.numbers import DASH, exact, plain
from glowsim.report.reading import First, Labelled
from glowsim.scenario import Scenario
from glowsim.summary import ENDED

__all__ = ["Traffic"]

Bools = npt.NDArray[np.bool_]

_SLOWER: Final = {"latency_s_p50": 0.5, "latency_s_p95": 0.05, "latency_s_p99": 0.01}
_ENDINGS: Final = {
    "own": "answered by an attempt of its own",
    "cached": "answered from the cache",
    "joined": "answered together with an equal request",
    "repeated": "answered again: repeated under the same key",
    "stale": "answered from the cache, out of date",
    "doubtful": "answered as the first model did, for want of a better answer",
    "rejected": "rejected",
    "failed": "failed",
    "abandoned": "abandoned: the user went away",
    "open": "still open at the end",
}


class Traffic:
    """Makes the sections about one replication's requests and instances.

    Parameters
    ----------
    first
        The first replication's tables.
    scenario
        What was run.
    summary
        For the service levels on latency.
    """

    def __init__(self, first: First, scenario: Scenario, summary: Mapping[str, Any]) -> None:
        self._first = first
        self._scenario = scenario
        self._slos = summary["slos"]
        self._requests = first.requests
        moments_s = first.fleet["t_s"]
        self._end_s = float(moments_s[-1])
        self._counted: Bools = self._requests["t_arrive_s"] >= scenario.warmup_s
        self._answered = _is(self._requests["ending"], "answered")
        faults = tuple((fault.at_s, fault.at_s + fault.lasts_s, label(fault)) for fault in scenario.faults)
        self._back = figures.Backdrop(self._end_s, scenario.warmup_s, faults)

    def latency(self) -> Block:
        """Return the distribution of the latencies of answered requests, service levels marked."""
        latency_s = self._requests["latency_s"][self._counted & self._answered]
        if not len(latency_s):
            return section("latency", "Latency", "No request was answered: there is no latency to show.", [])
        at = {
            percent: plain(float(np.quantile(latency_s, percent / 100)), "duration")
            for percent in (50, 95, 99)
        }
        targets = [
            figures.Target(slo["target"], _SLOWER.get(slo["metric"]))
            for slo in self._slos
            if slo["metric"].startswith("latency_s_") and slo["agent"] is None and slo["bound"] == "max"
        ]
        svg = figures.latency_distribution(latency_s, targets)
        about = (
            f"{len(latency_s):,} answered requests: median {at[50]}, p95 {at[95]}, p99 {at[99]}, "
            f"slowest {plain(float(latency_s.max()), 'duration')}"
        )
        beyond = float((latency_s > figures.body_end_s(latency_s, targets)).mean())
        caption = (
            f"{about}. Left: {plain(beyond, 'fraction')} lie beyond the edge. Right: both axes logarithmic"
        )
        caption += "; service levels are dashed or ◆, and the curve must pass below a ◆." if targets else "."
        return section("latency", "Latency", "First replication.", [figure(svg, about, caption)])

    def time_line(self) -> Block:
        """Return latency, rates, the share of errors and open requests over simulated time."""
        requests, fleet = self._requests, self._first.fleet
        t_dispatch_s = self._first.attempts["t_dispatch_s"]
        last_s = float(np.fmax(requests["t_arrive_s"], requests["t_end_s"]).max(initial=0.0))
        if last_s <= 0:
            return section(
                "time", "Over time", "No requests came in over time: there is nothing to show.", []
            )
        answer_s = np.where(self._answered, requests["t_end_s"], np.nan)
        erred = _is(requests["ending"], "rejected") | _is(requests["ending"], "failed")
        slices = over_time(
            requests["t_arrive_s"], answer_s, requests["latency_s"], erred, t_dispatch_s, last_s,
            min((fault.lasts_s for fault in self._scenario.faults), default=np.inf),
        )  # fmt: skip
        back = self._back._replace(end_s=last_s)
        svg = figures.requests_over_time(slices, fleet["t_s"], fleet["waiting"], fleet["in_flight"], back)
        width = plain(float(slices.edges_s[1]), "duration")
        about = (
            f"At {len(fleet['t_s']):,} moments, at most {fleet['in_flight'].max():,.0f} attempts in flight and "
            f"{fleet['waiting'].max():,.0f} requests waiting; at most "
            f"{plain(float(slices.arrivals_per_s.max()), 'rate')} arrivals and "
            f"{plain(float(slices.attempts_per_s.max()), 'rate')} attempts; "
            f"{len(t_dispatch_s) / len(requests['t_arrive_s']):.2f} attempts a request in all"
        )
        caption = (
            f"{about}. Slices of {width}, latency and errors by time of arrival; a percentile is drawn where a "
            f"slice has enough answers for it.{self._said_behind()}"
        )
        return section("time", "Over time", "First replication.", [figure(svg, about, caption)])

    def _said_behind(self) -> str:
        faults = [said(fault) for fault in self._scenario.faults]
        warm = (
            " Dotted: the end of the warm-up, which the key figures leave out."
            if self._scenario.warmup_s
            else ""
        )
        return warm + (f" Grey: {_few(faults, 4)}." if faults else "")

    def instances(self, most: int = 20) -> Block:
        """Return instances wanted and had over time, and the decisions with their reasons."""
        fleet, decisions = self._first.fleet, self._first.decisions
        kinds = np.array(decisions["kind"], dtype=object)
        blocks = []
        if self._end_s > 0:
            alerts_s, stages_s = (decisions["t_s"][kinds == kind] for kind in ("alert", "rollout"))
            svg = figures.fleet_over_time(
                fleet["t_s"],
                fleet["ready"],
                fleet["starting"],
                fleet["wanted"],
                alerts_s,
                stages_s,
                self._back,
            )
            least, most_ready = (f"{level:,.0f}" for level in (fleet["ready"].min(), fleet["ready"].max()))
            span = least if least == most_ready else f"{least} to {most_ready}"
            about = f"{span} instances ready in the whole fleet"
            blocks.append(figure(svg, about, f"{about}.{self._said_behind()}"))
        blocks += self._alerts(most)
        rows = self._decisions()
        shadows = int((kinds == "shadow").sum())
        if rows:
            shown, more = _most_telling(rows, most)
            columns = ">at|agent|what|*why"
            blocks.append(table(columns, shown, title="Decisions and their reasons", more=more))
        else:
            blocks.append(text("No scaling decision and no rollout step was made."))
        if shadows:
            live, candidate = (decisions[name][kinds == "shadow"] for name in ("value", "other"))
            agreed = plain(float((live == candidate).mean()), "fraction")
            blocks.append(text(f"Shadow: {shadows:,} answers compared, {agreed} equal to the live ones."))
        return section("instances", "Instances and decisions", "First replication.", blocks)

    def _alerts(self, most: int) -> list[Block]:
        """Return the alerts in order of time; where there are too many, the most severe ones."""
        decisions = self._first.decisions
        agents = decisions["agent"]
        raised = [row for row, kind in enumerate(decisions["kind"]) if kind == "alert"]
        if not raised:
            return []
        severity = {row: Severity(int(decisions["value"][row])) for row in raised}
        shown = sorted(sorted(raised, key=lambda row: -severity[row])[:most])
        rows = [
            [
                plain(float(decisions["t_s"][row]), "duration"), severity[row].name.lower(),
                agents.names[agents.codes[row]], decisions["subject"][row], decisions["why"][row] or DASH,
            ]
            for row in shown
        ]  # fmt: skip
        left = len(raised) - len(rows)
        more = f"and {left:,} more, none of them more severe, in decisions.parquet" if left else ""
        return [table(">at|severity|agent|about|*why", rows, title="Alerts", more=more)]

    def _decisions(self) -> list[list[str]]:
        """Return the rollout steps, and the scaling decisions that change the number wanted."""
        decisions = self._first.decisions
        agents = decisions["agent"]
        wanted: dict[str, float] = {}
        rows = []
        for row, kind in enumerate(decisions["kind"]):
            agent = agents.names[agents.codes[row]]
            value, other = float(decisions["value"][row]), float(decisions["other"][row])
            if kind == "scale":
                before, wanted[agent] = wanted.get(agent), value
                what = "" if before == value else f"wants {value:.0f} instances"
            elif kind == "rollout":
                share = f"{exact(other, 'fraction')} of the traffic"
                what = f"rollout: stage {value:.0f}, {share}" if value else "rollout: rolled back"
            else:
                what = ""
            if what:
                at = plain(float(decisions["t_s"][row]), "duration")
                rows.append([at, agent, what, decisions["why"][row] or DASH])
        return rows

    def endings(self) -> Block:
        """Return how the requests ended, by kind and reason."""
        requests = self._requests
        keys = [requests[name] for name in ("ending", "how", "outcome")]
        keys.append(Labelled(requests["other_model"].astype(np.int64), ["", "by another model"]))
        codes = np.column_stack([key.codes[self._counted] for key in keys])
        kinds, counts = np.unique(codes, axis=0, return_counts=True)
        total = int(counts.sum())
        found = [
            ([key.names[code] for key, code in zip(keys, kind, strict=True)], int(count))
            for kind, count in sorted(
                zip(kinds.tolist(), counts.tolist(), strict=True), key=lambda one: -one[1]
            )
        ]
        rows = [[*_ended(*names), f"{n:,}", plain(n / total, "fraction")] for names, n in found]
        if not rows:
            return section("endings", "How requests ended", "No request arrived.", [])
        columns = "ending|*reason|>requests|>share"
        lead = "First replication, requests that arrived after the warm-up."
        return section("endings", "How requests ended", lead, [table(columns, rows)])


def _ended(ending: str, how: str, outcome: str, model: str) -> tuple[str, str]:
    if ending == "answered":
        return _ENDINGS[how], model or DASH
    reason = ENDED.get(how, how.replace("_", " ")) if ending in ("rejected", "failed") else ""
    if how == "apology":
        return _ENDINGS[ending], reason
    last = f"last attempt: {outcome}" if ending == "failed" and outcome not in ("none", "") else ""
    return _ENDINGS[ending], "; ".join(filter(None, (reason, last))) or DASH


def _is(column: Labelled, name: str) -> Bools:
    found: Bools = (
        column.codes == column.names.index(name) if name in column.names else np.zeros(0, dtype=bool)
    )
    return found


def _few(words: Sequence[str], most: int) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _most_telling(rows: list[list[str]], most: int) -> tuple[list[list[str]], str]:
    """Keep rollout steps before scaling, in order of time, and count what is left out."""
    if len(rows) <= most:
        return rows, ""
    ranked = sorted(range(len(rows)), key=lambda at: rows[at][2].startswith("wants"))
    kept = sorted(ranked[:most])
    left = Counter(rows[at][2].split()[0].rstrip(":") for at in ranked[most:])
    words = {"wants": "scaling decisions", "rollout": "rollout steps"}
    said = ", ".join(f"{n:,} {words[kind]}" for kind, n in left.items())
    return [rows[at] for at in kept], f"and {said} more, in decisions.parquet"
