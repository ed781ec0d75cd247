"""What to do instead, in numbers, where a policy cannot keep its budget at its traffic."""

from __future__ import annotations

from math import ceil, log2
from typing import Final, NamedTuple

from glowsim.oc.campaigns import simulate
from glowsim.oc.characteristics import KEPT, NOT_KEPT, Characteristics, Promise, line_of, promises, verdict
from glowsim.oc.rules import Rule
from glowsim.oc.traffic import Traffic

__all__ = ["Remedy", "canary_requests", "remedy"]

_CAMPAIGNS: Final = 150
_OCTAVES: Final = 8
"""How far a remedy is looked for."""
_CORRELATION: Final = 0.5
"""Of the failures of both versions at one task."""
_LEAST: Final = 8.0
"""Bad outcomes of a bad version, expected, below which none is found with a probability near 0.95."""


class Remedy(NamedTuple):
    """What would help.

    Parameters
    ----------
    requests
        Of the new version until the last gate, expected; None where nobody can know.
    times_power
        How many times this traffic, or this schedule's length, finds the smallest effect of the budget; None: it
        does not help.
    times_all
        The same for the whole budget; None: it does not help.
    times_most
        The most that was tried.
    pairs
        Recorded tasks that find the smallest effect, replayed in pairs; None: the rates are out of its range.
    pairs_correlation
        Of both versions' outcomes on one task, assumed.
    """

    requests: float | None
    times_power: int | None
    times_all: int | None
    times_most: int
    pairs: int | None
    pairs_correlation: float


def canary_requests(rule: Rule, traffic: Traffic) -> float | None:
    """Return how many requests the new version gets before the last gate, expected; None where nobody can know."""
    weights, holds_s = getattr(rule, "weights", None), getattr(rule, "holds_s", None)
    if weights is None or holds_s is None:
        return None
    return float(traffic.rate_per_s * sum(w * hold_s for w, hold_s in zip(weights, holds_s, strict=False)))


def remedy(found: Characteristics, seed: int = 0) -> Remedy:
    """Return what would help a policy that does not keep its budget.

    More traffic, or a schedule that is longer by the same factor, gives the same requests: one number answers both.
    It is looked for by simulation, among 1, 2, 3, 4, 6, 8, 12, ... times the traffic.

    Parameters
    ----------
    found
        What was found for the policy.
    seed
        As of ``characterise``.
    """
    rule, traffic, budget = found.rule, found.traffic, found.budget
    effects = sorted({0.0, budget.margin, budget.smallest})
    ladder = _ladder(canary_requests(rule, traffic), traffic.base_of(rule.guardrails[0]) + budget.smallest)
    cases = [(effect, float(times)) for times in ladder for effect in effects]
    ended = simulate(
        rule, traffic, [each[0] for each in cases], _CAMPAIGNS, seed, [each[1] for each in cases]
    )
    lines = {case: line_of(each, traffic) for case, each in zip(cases, ended, strict=True)}
    kept = {times: promises(budget, {effect: lines[effect, times] for effect in effects}) for times in ladder}
    pairs, correlation = _pairs(found)
    return Remedy(
        canary_requests(rule, traffic),
        next((times for times, (_, _, finds, _) in kept.items() if finds.verdict == KEPT), None),
        next((times for times, each in kept.items() if _good(*each)), None),
        ladder[-1],
        pairs,
        correlation,
    )


def _good(back: Promise, margin: Promise, finds: Promise, promotes: Promise) -> bool:
    """Return whether a budget is kept; of what is near its bound, few campaigns only say that it may be."""
    return verdict((back, margin)) != NOT_KEPT and verdict((finds, promotes)) == KEPT


def _ladder(requests: float | None, bad_share: float) -> list[int]:
    """Return how many times the traffic is tried: from where anything can be found, by half octaves."""
    least = 0 if not requests else max(0, ceil(log2(_LEAST / (requests * bad_share))))
    return [
        times
        for step in range(least, least + _OCTAVES)
        for times in (2**step, 3 * 2**step // 2)
        if step or times < 2
    ]


def _pairs(found: Characteristics) -> tuple[int | None, float]:
    """Return how many pairs would do, and the correlation that is assumed for that."""
    from glowsim.pairs.planning import largest_correlation, pairs_needed

    base, budget = found.traffic.base_of(found.rule.guardrails[0]), found.budget
    if not 0.0 < base < 1.0 - budget.smallest:
        return None, _CORRELATION
    correlation = min(_CORRELATION, largest_correlation(base, budget.smallest))
    pairs = pairs_needed(
        base_error=base, effect=budget.smallest, correlation=correlation, alpha=budget.false_rollback,
        power=budget.power,
    )  # fmt: skip
    return pairs, correlation
