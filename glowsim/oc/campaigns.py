"""Runs a rule against a traffic: many campaigns at once, look by look, until each is decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import GlowsimError
from glowsim.oc.rules import CANARY, Bools, Floats, Ints, Known, Rows, Rule, Status
from glowsim.oc.traffic import Draws, Traffic, looks

__all__ = ["Campaigns", "horizon_looks", "simulate"]

_PATIENCE: Final = 1.5
"""Times its schedule a rollout may take before it is given up as held."""
_MOST_LOOKS: Final = 100_000
_ROWS: Final = 12_000
"""Campaigns side by side: enough that numpy's calls cost little, few enough for the cache."""


class Campaigns(NamedTuple):
    """How the campaigns of one effect ended; arrays of shape (campaigns,).

    Parameters
    ----------
    effect
        Added to the share of bad outcomes of the new version.
    status
        A ``Status`` each, never ``RUNNING``.
    end_s
        When it was decided, in seconds since the rollout began.
    requests
        Of the new version until then, from the onset of the effect.
    bad
        Bad outcomes of the new version until then, from the rollout's begin.
    """

    effect: float
    status: npt.NDArray[np.int8]
    end_s: Floats
    requests: Ints
    bad: Ints

    def ended(self, status: Status) -> Bools:
        """Return which ended so."""
        which: Bools = self.status == status
        return which


class _Running(Rows):
    """What is counted of campaigns that are not over."""

    def __init__(self, campaigns: int) -> None:
        self.row = np.arange(campaigns)
        self.over = np.zeros(campaigns, np.bool_)
        self.requests = np.zeros(campaigns, np.int64)
        self.bad = np.zeros(campaigns, np.int64)


def horizon_looks(rule: Rule, traffic: Traffic) -> int:
    """Return after how many looks a campaign that is not decided counts as held; raise ``GlowsimError`` if too many."""
    found = looks(_PATIENCE * rule.schedule_s + lag_s(rule, traffic), rule.look_s) + 10
    if found > _MOST_LOOKS:
        raise GlowsimError(
            f"{rule.name}: a rollout of {found:,} looks is too long to simulate; take longer looks: at most "
            f"{_MOST_LOOKS:,} of them"
        )
    return found


def lag_s(rule: Rule, traffic: Traffic) -> float:
    """Return how many seconds after a bucket's end its outcomes are shown to the rule."""
    return max(rule.maturity_s, traffic.label_delay_s)


def simulate(
    rule: Rule, traffic: Traffic, effects: Sequence[float], campaigns: int, seed: int = 0,
    times: Sequence[float] | None = None,
) -> list[Campaigns]:  # fmt: skip
    """Run campaigns of each effect, and return how they ended, effect by effect.

    Parameters
    ----------
    rule
        The policy.
    traffic
        What comes in.
    effects
        What the new version adds to the share of bad outcomes of the rule's first guardrail; 0: it is no worse.
    campaigns
        How many of each, at least 1.
    seed
        Equal seeds give equal campaigns.
    times
        For each effect, how many times the traffic it meets; None: once.
    """
    effect = np.repeat(np.asarray(effects, np.float64), campaigns)
    rate = np.repeat(np.asarray(times or [1.0] * len(effects), np.float64), campaigns)
    deep = looks(lag_s(rule, traffic), rule.look_s) + 1 + 2 * traffic.tenants
    size = max(20, min(_ROWS, 6_000_000 // deep))
    parts = [slice(begin, begin + size) for begin in range(0, len(effect), size)]
    seeds = np.random.SeedSequence(seed).spawn(len(parts))
    found = [
        _run(rule, traffic, effect[part], rate[part], np.random.Generator(np.random.SFC64(each)))
        for part, each in zip(parts, seeds, strict=True)
    ]
    status, end_s, requests, bad = (np.concatenate(each) for each in zip(*found, strict=True))
    return [
        Campaigns(
            float(effects[i]),
            *(each[i * campaigns : (i + 1) * campaigns] for each in (status, end_s, requests, bad)),
        )
        for i in range(len(effects))
    ]


def _run(
    rule: Rule, traffic: Traffic, effect: Floats, times: Floats, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], Floats, Ints, Ints]:
    rows = len(effect)
    status = np.full(rows, Status.HELD, np.int8)
    end_s = np.empty(rows)
    requests, bad = np.zeros((2, rows), np.int64)
    course, draws, running = rule.start(rows), Draws(traffic, rule, effect, times, rng), _Running(rows)
    lag = looks(lag_s(rule, traffic), rule.look_s)
    onset = looks(traffic.onset_s, rule.look_s)
    waiting: deque[Known] = deque()
    last = horizon_looks(rule, traffic)

    def end(which: Bools, look: int) -> None:
        row = running.row[which]
        status[row] = np.where(course.status[which] == Status.RUNNING, Status.HELD, course.status[which])
        end_s[row] = look * rule.look_s
        requests[row], bad[row] = running.requests[which], running.bad[which]
        running.over |= which

    end(course.status != Status.RUNNING, 0)
    for look in range(1, last + 1):
        if running.over.mean() > 0.1:
            going = ~running.over
            for each in (course, draws, running):
                each.keep(going)
            waiting = deque(Known(k.requests[:, going], k.bad[..., going]) for k in waiting)
        if not len(running.row):
            return status, end_s, requests, bad
        bucket = draws.bucket(look - 1, course.weight)
        if look > onset:
            running.requests += bucket.requests[CANARY]
        running.bad += bucket.bad[0, CANARY]
        waiting.append(bucket)
        known = waiting.popleft() if len(waiting) > lag else None
        if draws.sticky:
            course.effective = draws.effective()
        course.take(look, draws.units(bucket), known)
        fresh = (course.status != Status.RUNNING) & ~running.over
        if fresh.any():
            end(fresh, look)
    end(~running.over, last)
    return status, end_s, requests, bad
