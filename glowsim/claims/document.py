"""A document's claims as data: figures, how they hang together, which a simulation shows, and which nobody can know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from glowsim.claims.arithmetic import NotArithmetic, evaluate, figures_in
from glowsim.claims.quiet import Parameters
from glowsim.scenario.base import AgentName, Items, Model, Name, Title, findings_error
from glowsim.scenario.metrics import METRICS
from glowsim.scenario.problems import Finding, did_you_mean

__all__ = ["FIGURES", "Claim", "Claims", "Relation", "Shown", "Stated"]

ClaimName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Arithmetic = Annotated[str, Field(min_length=1, max_length=500)]

_OF_THE_JOURNAL: Final = ("tokens_used", "rating")
"""All tokens of all attempts, and the mean mark that users gave."""
FIGURES: Final = (*METRICS, *_OF_THE_JOURNAL)
"""What a simulation is asked for."""
ADDITIVE: Final = ("launched", "completed", "cost_usd", "tokens_in", "tokens_out")
"""Of these a domain has a share."""


class Claim(Model):
    """One figure that the document states."""

    value: float = Field(description="In base units: seconds, tokens, US dollars, shares.")
    unit: str = Field(default="", max_length=40, description="What it is a number of.")
    says: Title = Field(description="The document's own words.")
    where: Title = Field(description="The section that says so.")
    unknowable: Title | None = Field(
        default=None, description="Why neither arithmetic nor a model can tell, if that is so."
    )


class Relation(Model):
    """Two expressions that are equal, or ordered, if the document is right about all the figures in them."""

    name: Title = Field(description="What is compared.")
    left: str = Field(min_length=1, max_length=500, description="Arithmetic over the claims.")
    right: str = Field(min_length=1, max_length=500, description="Arithmetic over the claims.")
    within: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.02, description="How far apart they may be, as a share of the right one: rounding, mostly."
    )
    at_most: bool = Field(
        default=False, description="Whether the left one may be any amount below the right one."
    )
    why: Title = Field(description="Why it must hold, and what it means where it does not.")


class Shown(Model):
    """A claim that a scenario reproduces, or not."""

    claim: ClaimName = Field(description="Which claim.")
    scenario: Title = Field(description="A bundled scenario, or a file.")
    metric: Arithmetic = Field(
        description="A figure of it, or arithmetic over several: tokens_used / launched."
    )
    agent: AgentName | None = Field(default=None, description="The only agent it is of; default: the fleet.")
    domain: Name | None = Field(
        default=None, description="The domain whose share of the figure it is; default: the whole figure."
    )
    less: Items[Title] = Field(
        default=(),
        description="Overrides: the figure is what the scenario with them has above the scenario itself.",
    )
    within: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="How far the simulated figure may be off, as a share of the claim."
    )
    fitted: bool = Field(default=False, description="Whether the scenario was fitted to this very claim.")
    why: Title | None = Field(default=None, description="What makes the difference.")

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with the figure, by the keys of this model."""
        try:
            names = figures_in(self.metric)
        except NotArithmetic as error:
            yield Finding(("metric",), str(error))
            return
        for name in names:
            if name not in FIGURES:
                yield Finding(("metric",), f"unknown metric {name!r}", FIGURES, did_you_mean(name, FIGURES))
            elif self.agent is not None and name in _OF_THE_JOURNAL:
                yield Finding(("agent",), f"{name} is known of the fleet only: leave out 'agent'")
        if self.domain is not None and (self.metric not in ADDITIVE or self.agent is not None):
            yield Finding(
                ("domain",), f"a domain has a share of one of {', '.join(ADDITIVE)}, and of no agent's"
            )


class Stated(Model):
    """A number that the table of policies is computed from."""

    amount: Annotated[str | float, Field(union_mode="left_to_right")] = Field(
        description="A number, or arithmetic over the claims."
    )
    source: Title = Field(description="Who says so.")


class Claims(Model):
    """A whole document."""

    title: Title = Field(description="What the document is called.")
    source: Title = Field(description="Where it is found.")
    claims: dict[ClaimName, Claim] = Field(min_length=1, max_length=1000, description="Its figures.")
    relations: Items[Relation] = Field(default=(), max_length=1000, description="How they hang together.")
    shown: Items[Shown] = Field(default=(), max_length=1000, description="Which are simulated.")
    quiet: dict[ClaimName, Stated] = Field(
        default={},
        description="What decides which policies can matter at this traffic; default: nobody asks.",
    )

    def parameters(self) -> Parameters | None:
        """Return the numbers that the table of policies is computed from, if they are given."""
        if not self.quiet:
            return None
        values = {name: claim.value for name, claim in self.claims.items()}
        return Parameters(**{name: evaluate(str(each.amount), values) for name, each in self.quiet.items()})

    @model_validator(mode="after")
    def _about_the_claims(self) -> Self:
        known, findings = tuple(self.claims), []
        values = {name: claim.value for name, claim in self.claims.items()}
        used: set[str] = set()
        for i, relation in enumerate(self.relations):
            for side in ("left", "right"):
                try:
                    names = figures_in(getattr(relation, side))
                    unknown = [name for name in names if name not in known]
                    if not unknown:
                        evaluate(getattr(relation, side), values)
                except NotArithmetic as error:
                    findings.append(Finding(("relations", i, side), str(error)))
                    continue
                used |= set(names)
                findings += [
                    Finding(
                        ("relations", i, side), f"unknown claim {name!r}", known, did_you_mean(name, known)
                    )
                    for name in unknown
                ]
        for i, shown in enumerate(self.shown):
            used.add(shown.claim)
            if shown.claim not in known:
                said = f"unknown claim {shown.claim!r}"
                findings.append(Finding(("shown", i, "claim"), said, known, did_you_mean(shown.claim, known)))
            findings += [each._replace(path=("shown", i, *each.path)) for each in shown.findings()]
        findings += _quiet(self.quiet, values)
        for name, claim in self.claims.items():
            if name not in used and claim.unknowable is None:
                said = "no relation and no simulation is about it: say how it can be known, or why it is unknowable"
                findings.append(Finding(("claims", name), said))
        if findings:
            raise findings_error(*findings)
        return self


def _quiet(stated: Mapping[str, Stated], values: Mapping[str, float]) -> Iterator[Finding]:
    """Yield what is wrong with the numbers for the table of policies: all or none must be there."""
    known = Parameters._fields
    for name, each in stated.items():
        if name not in known:
            yield Finding(("quiet", name), f"unknown number {name!r}", known, did_you_mean(name, known))
        try:
            evaluate(str(each.amount), values)
        except NotArithmetic as error:
            yield Finding(("quiet", name, "amount"), str(error))
    missing = [name for name in known if name not in stated]
    if stated and missing:
        yield Finding(("quiet",), f"has no {missing[0]!r}: the table of policies needs all of its numbers")
