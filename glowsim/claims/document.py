"""A document's claims as data: figures, how they hang together, which a simulation shows, and which nobody can know."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from glowsim.claims.arithmetic import NotArithmetic, evaluate, figures_in
from glowsim.scenario.base import Items, Model, Title, findings_error
from glowsim.scenario.metrics import METRICS
from glowsim.scenario.problems import Finding, did_you_mean

__all__ = ["Claim", "Claims", "Relation", "Shown"]

ClaimName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


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
    metric: Title = Field(description="The figure of its summary.")
    within: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="How far the simulated figure may be off, as a share of the claim."
    )
    fitted: bool = Field(default=False, description="Whether the scenario was fitted to this very claim.")


class Claims(Model):
    """A whole document."""

    title: Title = Field(description="What the document is called.")
    source: Title = Field(description="Where it is found.")
    claims: dict[ClaimName, Claim] = Field(min_length=1, max_length=1000, description="Its figures.")
    relations: Items[Relation] = Field(default=(), max_length=1000, description="How they hang together.")
    shown: Items[Shown] = Field(default=(), max_length=1000, description="Which are simulated.")

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
            if shown.metric not in METRICS:
                metrics = tuple(METRICS)
                said = f"unknown metric {shown.metric!r}"
                findings.append(
                    Finding(("shown", i, "metric"), said, metrics, did_you_mean(shown.metric, metrics))
                )
        for name, claim in self.claims.items():
            if name not in used and claim.unknowable is None:
                said = "no relation and no simulation is about it: say how it can be known, or why it is unknowable"
                findings.append(Finding(("claims", name), said))
        if findings:
            raise findings_error(*findings)
        return self
