"""Which improvement to try first, and how: suggestions ranked by value, risk and evidence."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Ranked", "Suggestion", "rank"]

Strategy: TypeAlias = Literal["immediate", "gradual", "canary"]


class Suggestion(NamedTuple):
    """An improvement that somebody or something proposes, as one variant of an agent."""

    name: str
    variant: str
    value_usd_per_day: float
    """What it is expected to bring at full traffic; below 0 where it costs."""
    error_usd_per_day: float
    """Standard error of that: the evidence. Infinite where there is none."""
    harm_chance: float = 0.0
    """Probability that it does harm instead, 0 to 1."""
    harm_usd_per_day: float = 0.0
    """What it then costs at full traffic, 0 or more."""
    critical: bool = False
    """It mends something that is broken now."""


class Ranked(NamedTuple):
    """A suggestion with what it is worth and how to roll it out."""

    suggestion: Suggestion
    worth_usd_per_day: float
    """Not more than this may safely be promised; below 0 it is not worth trying yet."""
    strategy: Strategy
    """The strategy of `ImprovementRollout` that is recommended."""


def rank(
    suggestions: Iterable[Suggestion], *, confidence: float = 0.95, high_risk: float = 0.1
) -> list[Ranked]:
    """Return suggestions by what they are worth, the best first; equal ones by name.

    The worth is the lower confidence bound of the value less the expected harm::

        worth = value - z * error - harm_chance * harm

    with z the one-sided normal quantile at ``confidence``. So much value on little evidence does not come first.
    The strategy is ``canary`` where the expected harm is more than ``high_risk`` of the expected value; else
    ``immediate`` for a critical fix; else ``gradual``.

    Args:
        suggestions: in any order.
        confidence: of the lower bound, 0.5 to below 1; at 0.5 the error does not count.
        high_risk: part of the expected value above which expected harm is a high risk, 0 or more.

    Raises:
        ValueError: a number is not in its bounds; it names the suggestion.

    >>> sure = Suggestion("shorter prompt", "v2", value_usd_per_day=40, error_usd_per_day=5)
    >>> bold = Suggestion("other model", "v3", 90, 20, harm_chance=0.2, harm_usd_per_day=150)
    >>> fix = Suggestion("mend the parser", "v4", 60, 10, critical=True)
    >>> [(each.suggestion.variant, round(each.worth_usd_per_day), each.strategy) for each in rank([sure, bold, fix])]
    [('v4', 44, 'immediate'), ('v2', 32, 'gradual'), ('v3', 27, 'canary')]
    """
    if not 0.5 <= confidence < 1.0:
        raise ValueError(f"confidence: give 0.5 to below 1, such as 0.95, not {confidence}")
    if not high_risk >= 0.0:
        raise ValueError(f"high_risk: give 0 or more, such as 0.1, not {high_risk}")
    z = NormalDist().inv_cdf(confidence)
    ranked = [_ranked(each, z, high_risk) for each in suggestions]
    return sorted(ranked, key=lambda each: (-each.worth_usd_per_day, each.suggestion.name))


def _ranked(each: Suggestion, z: float, high_risk: float) -> Ranked:
    if not 0.0 <= each.harm_chance <= 1.0:
        raise ValueError(f"{each.name}: harm_chance is a probability, 0 to 1, not {each.harm_chance}")
    if not each.error_usd_per_day >= 0.0 or not each.harm_usd_per_day >= 0.0 or isnan(each.value_usd_per_day):
        raise ValueError(
            f"{each.name}: the value must be a number, and error_usd_per_day and harm_usd_per_day 0 or more; "
            "write an infinite error where there is no evidence"
        )
    harm = each.harm_chance * each.harm_usd_per_day
    doubt = z * each.error_usd_per_day if z > 0.0 else 0.0
    risky = harm > high_risk * max(0.0, each.value_usd_per_day)
    strategy: Strategy = "canary" if risky else "immediate" if each.critical else "gradual"
    return Ranked(each, each.value_usd_per_day - doubt - harm, strategy)
