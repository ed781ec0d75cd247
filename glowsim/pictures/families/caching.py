"""Three caches while other prompts become popular."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowsim.core.reasons import Code
from glowsim.pictures.load import CENTRES_S, DURATION_S, STEP_S, arrivals, during, per_second, run, share
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import Facts, Picture, arriving, said, share_of

__all__ = ["caching"]


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
            facts[name, label] = share_of(hit[during(when, span)])
    panels = (
        arriving(ran["LRU"]),
        Panel("Hit rate (%)", curves, 100.0, 1.6),
        Panel("Calls let through (requests/s)", calls, None, 1.4),
    )
    says = (
        "Of 3,000 prompts each cache keeps 300 answers. LFU with ageing, LFU without and LRU answer "
        f"{said(facts, 'before', ' %')} of the requests in the four minutes before the step. Then other prompts "
        f"become popular: it is {said(facts, 'after', ' %')} in the first two minutes, and after the step "
        f"{said(facts, 'later', ' %')}. LFU that does not age holds on to what nobody asks for any more."
    )
    alternative = "The hit rate of three caches over time, and the calls that they let through"
    return Picture(
        panels, Shaded("other prompts are popular", ((shift_s, DURATION_S),)), alternative, says, facts
    )
