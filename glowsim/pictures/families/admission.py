"""A token bucket: what it turns away, and what the others gain."""

from __future__ import annotations

import numpy as np

from glowsim.pictures.load import BURST_S, CENTRES_S, arrivals, during, per_second, quantile, run, share
from glowsim.pictures.panels import Line, Panel
from glowsim.pictures.picture import Facts, Picture, arriving, said, share_of

__all__ = ["admission"]


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
        facts["answered", label] = share_of(answered[inside])
        facts["p95", label] = float(np.quantile(requests["latency_s"][answered & inside], 0.95))
        after = during(when, (BURST_S[1], BURST_S[1] + 120.0)) & answered
        facts["p95 after", label] = float(np.quantile(requests["latency_s"][after], 0.95))
    panels = (
        arriving(ran["token bucket"]),
        Panel("With a token bucket of 15/s and 30 at once (requests/s)", counts),
        Panel("p95 latency of what is answered (s)", curves, None, 1.2),
        Panel("Answered (%)", good, 108.0, 1.2),
    )
    says = (
        "Sixteen requests at a time are served, a second each; the bucket lets 15 a second in, and 30 at once. "
        f"With it and without, {said(facts, 'answered', ' %')} of the requests of the burst are answered, 95 % of "
        f"these within {said(facts, 'p95', ' s')}, and 95 % of those of the two minutes after it within "
        f"{said(facts, 'p95 after', ' s')}. The bucket answers fewer, and turns the others away at once."
    )
    alternative = (
        "Requests admitted and rejected by a token bucket, and latency and success with and without it"
    )
    return Picture(panels, None, alternative, says, facts)
