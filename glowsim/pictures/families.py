"""What each family does with the standard load: one to three policies side by side, drawn and put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.core.reasons import Code
from glowsim.pictures.load import (
    BURST_S,
    CENTRES_S,
    DURATION_S,
    RAMP_S,
    STEP_S,
    Floats,
    arrivals,
    during,
    per_second,
    quantile,
    run,
    share,
)
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.results import Tables

__all__ = ["PICTURES", "Picture"]


Facts = dict[tuple[str, str], float]
"""(What was measured, for whom) -> the figure."""


class Picture(NamedTuple):
    """A family under the standard load."""

    panels: tuple[Panel, ...]
    shaded: Shaded | None
    alternative: str
    """What the picture is of, for those who cannot see it."""
    says: str
    """What it shows, in a sentence or two with the figures of this very run."""
    facts: Facts
    """The figures that the sentence hangs on."""


def _load(tables: Tables, title: str = "Arrivals (requests/s)") -> Panel:
    return Panel(
        title, [Line("_load", CENTRES_S, per_second(tables.requests["t_arrive_s"]), 0, True)], height=0.7
    )


def _share_of(flags: Any) -> float:
    return float(np.mean(flags)) if len(flags) else 0.0


def _said(facts: Facts, what: str, unit: str = "") -> str:
    """Return the figures of all policies in their order, shares in percent: ``1 %, 2 % and 13 %``."""
    percent = unit == " %"
    values = [100 * value if percent else value for (name, _), value in facts.items() if name == what]
    words = [f"{value:.{0 if percent or value >= 9.5 else 1}f}{unit}" for value in values]
    return f"{', '.join(words[:-1])} and {words[-1]}"


# --- scaling --------------------------------------------------------------------------------------------

_LATE_S: Final = 1.0


def scaling() -> Picture:
    """Return instances wanted and had, and the share of late requests, under three scalers."""
    agent = {
        "instances": 2, "concurrency": 4, "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    policies: dict[str, dict[str, Any]] = {
        "agent_scaler": {"use": "agent_scaler"},
        "agent_scaler, cooldown_up 15s": {"use": "agent_scaler", "cooldown_up": "15s"},
        "hpa": {"use": "hpa"},
    }
    ran = {label: run(agent, [arrivals(4.0)], {"scaler": settings}) for label, settings in policies.items()}
    late = {label: tables.requests["wait_s"] > _LATE_S for label, tables in ran.items()}
    when = {label: tables.requests["t_arrive_s"] for label, tables in ran.items()}
    panels = [_load(ran["agent_scaler"])]
    for number, (label, tables) in enumerate(ran.items()):
        lines = [_steps("ready", tables, number, filled=True), _steps("wanted", tables, None)]
        panels.append(Panel(f"Instances: {label}", lines, 11.5))
    curves = [
        Line(label, CENTRES_S, 100 * share(when[label], late[label]), number)
        for number, label in enumerate(ran)
    ]
    panels.append(Panel(f"Requests that waited over {_LATE_S:g} s (%)", curves, 108.0, 1.2))
    facts = {
        (phase, label): _share_of(late[label][during(when[label], span)])
        for phase, span in (("ramp", RAMP_S), ("step", STEP_S), ("burst", BURST_S))
        for label in ran
    }
    says = (
        "Under agent_scaler with its defaults (a cooldown of five minutes each way), with 15 s on the way up, and "
        f"under hpa, {_said(facts, 'ramp', ' %')} of the requests on the ramp wait over a second, "
        f"{_said(facts, 'step', ' %')} in the step, and {_said(facts, 'burst', ' %')} in the burst, which is nearly "
        "over when the first new instance is ready."
    )
    alternative = "Instances wanted and ready, and the share of late requests, under three scalers"
    return Picture(tuple(panels), None, alternative, says, facts)


def _steps(name: str, tables: Tables, look: int | None, *, filled: bool = False) -> Line:
    """Return a level of the samples as a curve with a point at each change only."""
    t_s, values = tables.samples["t_s"], tables.samples[name]
    kept = np.flatnonzero(np.diff(values, prepend=np.nan, append=np.nan))[:-1]
    kept = np.unique([0, *kept, len(values) - 1])
    return Line(name, t_s[kept], values[kept], look, filled, "post")


# --- balancing ------------------------------------------------------------------------------------------


def balancing() -> Picture:
    """Return the load of each instance and the p99 latency while one of six serves five times slower."""
    agent = {
        "instances": 6, "concurrency": 4, "queue": "instance", "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "600ms"}},
    }  # fmt: skip
    fault = {"kind": "slow", "at": "20m", "lasts": "6m", "instances": 1, "factor": 5}
    policies = {
        "round robin": "round_robin",
        "power of two": "power_of_two",
        "least connections": "least_connections",
    }
    ran = {
        label: run(agent, [arrivals(4.0)], {"balancer": {"use": use}}, [fault])
        for label, use in policies.items()
    }
    panels, curves = [_load(ran["round robin"])], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        loads = _in_flight(tables)
        others = [Line("_", CENTRES_S, each, None) for each in loads[1:-1]]
        others.append(Line("each of the others", CENTRES_S, loads[-1], None))
        lines = [*others, Line("the slow one", CENTRES_S, loads[0], number)]
        panels.append(Panel(f"Requests in flight on an instance: {label}", lines, 34.0))
        requests = tables.requests
        curves.append(
            Line(label, CENTRES_S, quantile(requests["t_arrive_s"], requests["latency_s"], 0.99), number)
        )
        hit = during(requests["t_arrive_s"], STEP_S)
        facts["p99", label] = float(np.quantile(requests["latency_s"][hit], 0.99))
        facts["slow", label] = float(loads[0][during(CENTRES_S, STEP_S)].mean())
    panels.append(Panel("p99 latency (s)", curves, None, 1.2))
    says = (
        "Under round robin, the power of two choices and least connections, the instance that serves five times slower "
        f"during the step has {_said(facts, 'slow')} requests in flight on average, and the p99 of all requests is "
        f"{_said(facts, 'p99', ' s')}: whoever looks at the work in flight sees the slow one fill up. In the burst, "
        "with all instances equally fast, the choice matters less."
    )
    alternative = (
        "Requests in flight on each of six instances, one of them slow, and the p99 latency, by policy"
    )
    return Picture(
        tuple(panels), Shaded("one instance serves five times slower", (STEP_S,)), alternative, says, facts
    )


def _in_flight(tables: Tables) -> list[Floats]:
    """Return the requests in flight on each instance, by number, in the middle of each bin."""
    attempts = tables.attempts

    def level(number: int) -> Floats:
        mine = attempts["instance"] == number
        begun, ended = (np.sort(attempts[name][mine]) for name in ("t_dispatch_s", "t_finish_s"))
        return np.searchsorted(begun, CENTRES_S).astype(float) - np.searchsorted(ended, CENTRES_S)

    return [level(int(number)) for number in np.unique(attempts["instance"])]


# --- queueing -------------------------------------------------------------------------------------------


def queueing() -> Picture:
    """Return how long requests of three priorities wait, by queue."""
    agent = {
        "instances": 4, "concurrency": 4, "timeout": "10m",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    shares = (0.2, 0.5, 0.3)
    workload = [arrivals(3.7 * part, priority=priority) for priority, part in enumerate(shares)]
    policies: dict[str, dict[str, Any]] = {
        "first in, first out": {"use": "fifo"},
        "priorities that age, 20 s a step": {"use": "priority", "ageing": "20s"},
        "strict priorities": {"use": "priority", "ageing": None},
    }
    ran = {label: run(agent, workload, {"queue": settings}) for label, settings in policies.items()}
    waits: dict[str, list[Line]] = {}
    facts: Facts = {}
    for label, tables in ran.items():
        waits[label] = []
        for priority in range(len(shares)):
            mine = tables.requests["priority"] == priority
            arrived, wait_s = tables.requests["t_arrive_s"][mine], tables.requests["wait_s"][mine]
            curve = quantile(arrived, wait_s, 0.95)
            waits[label].append(Line(f"priority {priority}", CENTRES_S, curve, priority))
            facts[f"priority {priority}", label] = float(np.quantile(wait_s[during(arrived, BURST_S)], 0.95))
    top = 1.1 * max(float(np.nanmax(line.values)) for lines in waits.values() for line in lines)
    panels = [_load(next(iter(ran.values())))]
    panels += [Panel(f"p95 wait (s): {label}", lines, top) for label, lines in waits.items()]
    says = (
        "In the burst, under first in first out, priorities that age and strict priorities, 95 % of the most urgent "
        f"requests wait up to {_said(facts, 'priority 0', ' s')}, of the next "
        f"{_said(facts, 'priority 1', ' s')}, and of the least urgent {_said(facts, 'priority 2', ' s')}. "
        "No order makes the queue shorter: what some gain others lose."
    )
    alternative = "The 95th percentile of the wait of three priorities under three queues"
    return Picture(tuple(panels), None, alternative, says, facts)


# --- admission ------------------------------------------------------------------------------------------


def admission() -> Picture:
    """Return what a token bucket admits and rejects, and the latency with and without it."""
    agent = {
        "instances": 4, "concurrency": 4, "timeout": "30s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    limit = {"limiter": {"use": "token_bucket", "rate": "15/s", "burst": 30}}
    ran = {
        label: run(agent, [arrivals(3.7)], controllers)
        for label, controllers in (("token bucket", limit), ("no limit", {}))
    }
    limited = ran["token bucket"].requests
    arrived = limited["t_arrive_s"]
    rejected = limited["ending"] == 2
    counts = [
        Line("admitted", CENTRES_S, per_second(arrived[~rejected]), 0, True),
        Line("rejected", CENTRES_S, per_second(arrived[rejected]), 1),
    ]
    curves, good = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        answered = requests["ending"] == 1
        when = requests["t_arrive_s"]
        curves.append(
            Line(label, CENTRES_S, quantile(when[answered], requests["latency_s"][answered], 0.95), number)
        )
        good.append(Line(label, CENTRES_S, 100 * share(when, answered), number))
        inside = during(when, BURST_S)
        facts["answered", label] = _share_of(answered[inside])
        facts["p95", label] = float(np.quantile(requests["latency_s"][answered & inside], 0.95))
        after = during(when, (BURST_S[1], BURST_S[1] + 120.0)) & answered
        facts["p95 after", label] = float(np.quantile(requests["latency_s"][after], 0.95))
    panels = (
        _load(ran["token bucket"]),
        Panel("With a token bucket of 15/s and 30 at once (requests/s)", counts),
        Panel("p95 latency of what is answered (s)", curves, None, 1.2),
        Panel("Answered (%)", good, 108.0, 1.2),
    )
    says = (
        "Sixteen requests at a time are served, a second each; the bucket lets 15 a second in, and 30 at once. "
        f"With it and without, {_said(facts, 'answered', ' %')} of the requests of the burst are answered, 95 % of "
        f"these within {_said(facts, 'p95', ' s')}, and 95 % of those of the two minutes after it within "
        f"{_said(facts, 'p95 after', ' s')}. The bucket answers fewer, and turns the others away at once."
    )
    alternative = (
        "Requests admitted and rejected by a token bucket, and latency and success with and without it"
    )
    return Picture(panels, None, alternative, says, facts)


# --- caching --------------------------------------------------------------------------------------------


def caching() -> Picture:
    """Return the hit rate of caches over time while other prompts become popular at the step."""
    agent = {
        "instances": 10, "concurrency": 8, "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "500ms"}},
    }  # fmt: skip
    popular = {"cacheable": {"share": 0.9, "keys": 3000, "zipf": 0.9}}
    shift_s = STEP_S[0]
    workload = [arrivals(4.0, (0.0, shift_s), **popular), arrivals(4.0, (shift_s, DURATION_S), **popular)]
    policies: dict[str, dict[str, Any]] = {
        "LFU, ageing": {"use": "lfu"},
        "LFU, not ageing": {"use": "lfu", "ageing": "none"},
        "LRU": {"use": "lru"},
    }
    ran = {
        label: run(agent, workload, {"cache": {**settings, "entries": 300}})
        for label, settings in policies.items()
    }
    curves, calls = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        when = requests["t_arrive_s"]
        hit = np.isin(requests["how"], (Code.CACHED, Code.JOINED)) & (requests["ending"] == 1)
        curves.append(Line(label, CENTRES_S, 100 * share(when, hit), number))
        calls.append(Line(label, CENTRES_S, per_second(tables.attempts["t_dispatch_s"]), number))
        before, after = (shift_s - 240.0, shift_s), (shift_s, shift_s + 120.0)
        for name, span in (("before", before), ("after", after), ("later", (STEP_S[1], DURATION_S))):
            facts[name, label] = _share_of(hit[during(when, span)])
    panels = (
        _load(ran["LRU"]),
        Panel("Hit rate (%)", curves, 100.0, 1.6),
        Panel("Calls let through (requests/s)", calls, None, 1.4),
    )
    says = (
        "Of 3,000 prompts each cache keeps 300 answers. LFU with ageing, LFU without and LRU answer "
        f"{_said(facts, 'before', ' %')} of the requests in the four minutes before the step. Then other prompts "
        f"become popular: it is {_said(facts, 'after', ' %')} in the first two minutes, and after the step "
        f"{_said(facts, 'later', ' %')}. LFU that does not age holds on to what nobody asks for any more."
    )
    alternative = "The hit rate of three caches over time, and the calls that they let through"
    return Picture(
        panels, Shaded("other prompts are popular", ((shift_s, DURATION_S),)), alternative, says, facts
    )


# --- resilience -----------------------------------------------------------------------------------------


def resilience() -> Picture:
    """Return attempts and successes through an outage with and without a budget for retries."""
    agent = {
        "instances": 4, "concurrency": 4, "timeout": "10s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    brown_out, outage = (RAMP_S[1], RAMP_S[1] + 120.0), (STEP_S[0] + 60.0, STEP_S[0] + 180.0)
    faults = [
        {"kind": "errors", "at": f"{begin_s:g}s", "lasts": f"{end_s - begin_s:g}s", "error": error}
        for (begin_s, end_s), error in ((brown_out, 0.3), (outage, 1.0))
    ]
    policies: dict[str, dict[str, Any]] = {
        "retries within a budget": {"retrier": {"use": "backoff", "attempts": 5}},
        "retries without a budget": {"retrier": {"use": "backoff", "attempts": 5, "budget_ratio": None}},
        "no retries": {},
    }
    ran = {label: run(agent, [arrivals(3.7)], controllers, faults) for label, controllers in policies.items()}
    tries, good = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        when, answered = requests["t_arrive_s"], requests["ending"] == 1
        tries.append(Line(label, CENTRES_S, per_second(tables.attempts["t_dispatch_s"]), number))
        good.append(Line(label, CENTRES_S, 100 * share(when, answered), number))
        attempted_s = tables.attempts["t_dispatch_s"]
        for name, span in (("brown-out", brown_out), ("outage", outage)):
            facts[f"{name} attempts", label] = float(
                during(attempted_s, span).sum() / during(when, span).sum()
            )
            facts[f"{name} answered", label] = _share_of(answered[during(when, span)])
    panels = (
        _load(next(iter(ran.values()))),
        Panel("Attempts (per second)", tries, None, 1.5),
        Panel("Answered (%)", good, 108.0, 1.5),
    )
    says = (
        "While 30 % of the attempts fail, retries within a budget, without one, and none at all answer "
        f"{_said(facts, 'brown-out answered', ' %')} of the requests. While all fail they answer next to nobody, and "
        f"make {_said(facts, 'outage attempts')} attempts a request: the budget costs answers in a small failure and "
        "keeps a large one from becoming a storm."
    )
    alternative = (
        "Attempts and successes through an outage, with a budget for retries, without one, without retries"
    )
    return Picture(
        panels,
        Shaded("30 % of the attempts fail, later all of them", (brown_out, outage)),
        alternative,
        says,
        facts,
    )


PICTURES: Final[Mapping[str, Callable[[], Picture]]] = {
    "admission": admission,
    "caching": caching,
    "queueing": queueing,
    "balancing": balancing,
    "resilience": resilience,
    "scaling": scaling,
}
"""Folder of a family under ``controllers`` -> its picture, in the order of a request's way."""
