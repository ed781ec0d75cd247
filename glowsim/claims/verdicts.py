"""What holds of a document's claims: reproduced, consistent, inconsistent with which others, or unknowable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from glowsim.claims.arithmetic import evaluate, figures_in
from glowsim.claims.document import Claims, Relation, Shown

__all__ = ["CONSISTENT", "INCONSISTENT", "NOT_REPRODUCED", "REPRODUCED", "UNKNOWABLE", "Checked", "Judged", "Simulated",
           "check", "judge"]  # fmt: skip

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CONSISTENT, INCONSISTENT, UNKNOWABLE = "consistent", "inconsistent", "unknowable"


class Checked(NamedTuple):
    """A relation with the values of its sides."""

    relation: Relation
    left: float
    right: float
    figures: tuple[str, ...]

    @property
    def off(self) -> float:
        """How far apart the sides are, as a share of the right one."""
        return (self.left - self.right) / abs(self.right) if self.right else self.left - self.right

    @property
    def holds(self) -> bool:
        """Whether that is little enough."""
        return (self.off if self.relation.at_most else abs(self.off)) <= self.relation.within


class Simulated(NamedTuple):
    """A claim beside what a simulation gave."""

    shown: Shown
    claimed: float
    value: float
    low: float
    high: float
    """The interval over the replications."""

    @property
    def off(self) -> float:
        """How far the simulated value is from the claimed one, as a share of it."""
        return (self.value - self.claimed) / abs(self.claimed) if self.claimed else self.value

    @property
    def holds(self) -> bool:
        """Whether that is little enough."""
        return abs(self.off) <= self.shown.within


class Judged(NamedTuple):
    """A claim and what is known of it."""

    name: str
    verdict: str
    against: tuple[str, ...]
    """The other claims in the relations that do not hold."""
    holds: tuple[str, ...]
    """Names of the relations that do."""
    fails: tuple[str, ...]
    """And of those that do not."""


def check(document: Claims) -> list[Checked]:
    """Return every relation with its values."""
    values = {name: claim.value for name, claim in document.claims.items()}
    return [
        Checked(
            relation,
            evaluate(relation.left, values),
            evaluate(relation.right, values),
            tuple(dict.fromkeys((*figures_in(relation.left), *figures_in(relation.right)))),
        )
        for relation in document.relations
    ]


def judge(document: Claims, simulated: Mapping[str, Simulated]) -> list[Judged]:
    """Return a verdict for every claim, in their order.

    A claim in a relation that does not hold is inconsistent, whatever a simulation gives: the document cannot be
    right about all of them. One that the document itself leaves unknowable stays so. Otherwise a simulated one is
    reproduced or not; one with relations that all hold is consistent; the rest is unknowable.

    Parameters
    ----------
    document
        The claims.
    simulated
        Claim -> what was simulated for it.
    """
    checked = check(document)
    judged = []
    for name in document.claims:
        mine = [each for each in checked if name in each.figures]
        broken = [each for each in mine if not each.holds]
        against = tuple(dict.fromkeys(other for each in broken for other in each.figures if other != name))
        if broken:
            verdict = INCONSISTENT
        elif document.claims[name].unknowable is not None:
            verdict = UNKNOWABLE
        elif name in simulated:
            verdict = REPRODUCED if simulated[name].holds else NOT_REPRODUCED
        else:
            verdict = CONSISTENT if mine else UNKNOWABLE
        judged.append(
            Judged(
                name,
                verdict,
                against,
                tuple(each.relation.name for each in mine if each.holds),
                tuple(each.relation.name for each in broken),
            )
        )
    return judged
