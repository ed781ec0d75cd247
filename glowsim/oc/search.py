"""Looks for a schedule that keeps a budget at a traffic, with the least harm and the least time to full traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import log, sqrt
from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtri

from glowsim.core.errors import GlowsimError
from glowsim.oc.characteristics import KEPT, NOT_KEPT, Budget, Characteristics, characterise
from glowsim.oc.improvement import HARM, Improvement
from glowsim.oc.rules import Rule
from glowsim.oc.traffic import Traffic

__all__ = ["Candidate", "Search", "search"]

_FIRST: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_HOLDS_H: Final = (1, 2, 4, 8, 12, 24, 48, 96, 168, 336)
_THEN: Final = ((), (0.5,), (0.25, 0.5), (0.1, 0.25, 0.5))
_STEPS_H: Final = (1, 2, 6)
_SIMULATED: Final = 10
"""Schedules that are simulated at most."""
_CAMPAIGNS: Final = 400


class Candidate(NamedTuple):
    """A schedule that was simulated.

    Parameters
    ----------
    rule
        The policy with the schedule.
    cost
        Requests harmed by the smallest effect of the budget, on average, and as many more for each hour until full
        traffic as an hour is worth.
    found
        Its characteristics, from few campaigns unless it was chosen.
    """

    rule: Improvement
    cost: float
    found: Characteristics

    @property
    def keeps(self) -> bool:
        """Whether no part of the budget is broken."""
        return self.found.verdict != NOT_KEPT


class Search(NamedTuple):
    """What was found: the best schedule, or None where none keeps the budget, and all that were simulated."""

    best: Candidate | None
    tried: tuple[Candidate, ...]


def search(
    rule: Rule,
    traffic: Traffic,
    budget: Budget,
    hour_worth: float = 1.0,
    campaigns: int = 2000,
    seed: int = 0,
) -> Search:
    """Return the schedule that costs least of those that keep a budget.

    Schedules are ranked by a formula, and simulated in that order with common seeds, so that few have to be. The one
    that is returned was simulated again with all the campaigns.

    Parameters
    ----------
    rule
        Our own policy: all but its schedule is kept.
    traffic
        What comes in.
    budget
        What must be kept.
    hour_worth
        Harmed requests that an hour until full traffic is worth, 0 or more.
    campaigns, seed
        As of ``characterise``.

    Raises
    ------
    GlowsimError
        The policy is another tool's.
    """
    if not isinstance(rule, Improvement):
        raise GlowsimError(f"{rule.name}: a schedule is looked for only for our own rollout")
    ranked = sorted(
        (estimate, place, each)
        for place, each in enumerate(_schedules(rule))
        if (estimate := _estimate(each, traffic, budget, hour_worth)) is not None
    )
    tried = []
    for _, _, each in ranked[:_SIMULATED]:
        found = characterise(each, traffic, budget, campaigns=_CAMPAIGNS, seed=seed)
        tried.append(Candidate(each, _cost(found, hour_worth), found))
    for candidate in sorted((each for each in tried if each.keeps), key=lambda each: each.cost):
        found = characterise(candidate.rule, traffic, budget, campaigns=campaigns, seed=seed + 1)
        if found.verdict == KEPT:
            return Search(Candidate(candidate.rule, _cost(found, hour_worth), found), tuple(tried))
    return Search(None, tuple(tried))


def _schedules(rule: Improvement) -> Iterator[Improvement]:
    for first in _FIRST:
        for hold_h in _HOLDS_H:
            for then in _THEN:
                more = tuple(weight for weight in then if weight > first)
                if more != then:  # the same as a shorter one
                    continue
                for step_h in _STEPS_H if more else _STEPS_H[:1]:
                    yield replace(
                        rule,
                        name=f"{rule.name}, another schedule",
                        weights=(first, *more, 1.0),
                        holds_s=(3600.0 * hold_h, *[3600.0 * step_h] * len(more)),
                    )


def _cost(found: Characteristics, hour_worth: float) -> float:
    return found.line(found.budget.smallest).harmed + hour_worth * found.rule.schedule_s / 3600.0


def _estimate(rule: Improvement, traffic: Traffic, budget: Budget, hour_worth: float) -> float | None:
    """Return about what a schedule costs; None where it cannot keep the budget by far.

    An equal version is promoted with probability Phi(margin / se - z). A bad one is found when the evidence, which
    grows with every bad outcome by a divergence of Kullback and Leibler, is enough.
    """
    base = traffic.base_of(rule.guardrails[0])
    informed = seen = harmed = evidence = 0.0
    enough = log(2.0 * len(HARM) * len(rule.guardrails) / (rule.alpha or budget.false_rollback))
    for weight, hold_s in zip(rule.weights, rule.holds_s, strict=False):
        requests = traffic.rate_per_s * hold_s
        informed += requests * weight * (1.0 - weight)
        seen += requests * weight
        gained = requests * _growth(rule, weight, base, base + budget.smallest)
        part = 1.0 if evidence + gained <= enough else max(0.0, (enough - evidence) / gained)
        harmed += part * requests * weight * budget.smallest
        evidence += gained
    if informed <= 0.0 or seen < rule.minimum or evidence < enough:
        return None
    se = sqrt(base * (1.0 - base) / informed) if base else 0.0
    z = float(ndtri(1.0 - rule.promote_alpha / rule.gates))
    if se and rule.margin / se - z < float(ndtri(budget.promotion)):
        return None
    return harmed + hour_worth * rule.schedule_s / 3600.0


def _growth(rule: Improvement, weight: float, base: float, worse: float) -> float:
    """Return what a request adds to the evidence, expected, by the harm that fits best."""
    odds = rule.risk_ratio * weight / (1.0 - weight)
    log_null = np.log((1.0 + odds) / (1.0 + odds * HARM))
    each = (1.0 - weight) * base * log_null + weight * worse * (log_null + np.log(HARM))
    return float(each.max())
