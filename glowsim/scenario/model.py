"""The scenario: a whole experiment as frozen, plain data."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glowsim.scenario.base import AgentName, Items, Model, Name, OneOf, Title, findings_error
from glowsim.scenario.checks import cross_checks
from glowsim.scenario.controllers import Controller, Controllers
from glowsim.scenario.fleet import HOME, Agent, Fault, Prices
from glowsim.scenario.live import Live
from glowsim.scenario.metrics import METRICS, quantity_of
from glowsim.scenario.problems import Finding
from glowsim.scenario.quality import Quality
from glowsim.scenario.quantities import FRACTION, Duration, PositiveDuration, QuantityError, Within
from glowsim.scenario.regions import Latency, RegionalService, Residency
from glowsim.scenario.servers import Server
from glowsim.scenario.workload import ALL, Workload

__all__ = ["CROSS_CHECKED", "Expectation", "Origin", "Scenario", "Slo", "digest"]

CROSS_CHECKED = "cross-checked"
"""Validation context of a caller that runs ``cross_checks`` itself, on the data as it was written."""

Metric = Annotated[str, OneOf(tuple(METRICS))]
MetricValue = Annotated[float, WithJsonSchema({"type": ["string", "number"]})]


class _Judged(Model):
    """A metric and bounds written in its unit: ``2s`` for a latency, ``99%`` for a rate of success."""

    metric: Metric = Field(description="What is measured.")

    @field_validator("minimum", "maximum", "low", "high", mode="before", check_fields=False)
    @classmethod
    def _in_the_metrics_unit(cls, value: Any, info: ValidationInfo) -> Any:
        metric = info.data.get("metric")
        if metric is None:
            return 0.0
        quantity = quantity_of(metric)
        try:
            return (
                None
                if value is None
                else Within(quantity, 0, 1 if quantity is FRACTION else 1e12).check(value)
            )
        except QuantityError as error:
            raise PydanticCustomError("quantity", "{message}", {"message": str(error)}) from None

    @field_serializer("minimum", "maximum", "low", "high", mode="plain", check_fields=False)
    def _write(self, value: float | None) -> Any:
        return None if value is None else quantity_of(self.metric).write(value)


class Slo(_Judged):
    """A service level: a metric stays at or below ``maximum``, or at or above ``minimum``."""

    name: Title = Field(description="What reports call it.")
    maximum: MetricValue | None = Field(default=None, alias="max", description="Met at or below this.")
    minimum: MetricValue | None = Field(default=None, alias="min", description="Met at or above this.")
    agent: AgentName | None = Field(default=None, description="An agent or group; default: the whole fleet.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.maximum is None) == (self.minimum is None):
            found = "neither" if self.maximum is None else "both"
            raise findings_error(Finding((), f"must have either 'max' or 'min', has {found}"))
        return self


class Expectation(_Judged):
    """A band in which a metric must fall; the project's tests check it."""

    low: MetricValue = Field(description="Smallest value expected.")
    high: MetricValue = Field(description="Largest value expected.")
    source: str | None = Field(default=None, description="Where the band comes from.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise findings_error(Finding(("high",), "must be at least 'low'"))
        return self


class Origin(Model):
    """Where a part of the scenario comes from."""

    origin: Literal["measured", "published", "fitted", "assumed"] = Field(description="How it is known.")
    source: str = Field(min_length=1, description="Who says so: a paper, a file, a fit, a reason.")


class Scenario(Model):
    """A fleet, its workload, its controllers, and the question that running them answers.

    ``Scenario.model_validate`` takes plain data in YAML spelling; ``glowsim.scenario.load`` reads a file and
    checks the controllers too.
    """

    title: Title = Field(description="One line.")
    question: Title = Field(description="What running it answers.")
    description: str = Field(default="", max_length=20_000, description="Longer text.")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(description="Seed of all random streams.")
    duration_s: PositiveDuration = Field(alias="duration", description="Arrivals stop then.")
    drain_s: Duration = Field(
        default=300.0, alias="drain", description="How long open requests may take to finish after that."
    )
    warmup_s: Duration = Field(
        default=0.0, alias="warmup", description="Requests that arrive before it are left out of the figures."
    )
    replications: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Independent runs; default: chosen by the runner."
    )
    models: dict[Name, Prices] = Field(min_length=1, description="Model -> prices of its tokens.")
    servers: dict[Name, Server] = Field(
        default={}, description="What serves the models that agents in steps call."
    )
    regions: Items[Name] = Field(default=(HOME,), min_length=1, description="Where instances may stand.")
    latency: Latency = Field(
        default={},
        description="Region -> other region -> round trip between them, each pair once; default: none.",
    )
    residency: Residency = Field(
        default={},
        description="Users' region -> the only regions in which they may be served; default: anywhere.",
    )
    fleet: Items[Agent] = Field(min_length=1, max_length=1000, description="The agents.")
    services: dict[AgentName, RegionalService] = Field(
        default={}, description="Services with an agent a region; workloads name them like agents."
    )
    workload: Items[Workload] = Field(min_length=1, max_length=1000, description="Where requests come from.")
    faults: Items[Fault] = Field(default=(), description="What goes wrong, and when.")
    controllers: Controllers = Field(default_factory=Controllers, description="Who decides, for every agent.")
    quality: Quality | None = Field(
        default=None, description="How good answers are, and what users say; default: nobody asks."
    )
    live: Live = Field(
        default_factory=Live, description="Where agents are when they are real; a simulation passes over it."
    )
    slos: Items[Slo] = Field(default=(), description="The service levels that the verdict is about.")
    expectations: Items[Expectation] = Field(default=(), description="What the tests check.")
    origins: dict[str, Origin] = Field(
        default={}, description="Dotted path of a part of the scenario -> where it comes from."
    )

    @model_validator(mode="before")
    @classmethod
    def _first_region(cls, data: Any) -> Any:
        match data:
            case {"fleet": list(fleet), "regions": [str(first), *_]}:
                filled = [{"region": first, **agent} if isinstance(agent, dict) else agent for agent in fleet]
                return {**data, "fleet": filled}
            case _:
                return data

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if info.context == CROSS_CHECKED:
            return self
        if findings := cross_checks(self.dump()):
            raise findings_error(*findings)
        return self

    def dump(self) -> dict[str, Any]:
        """Return plain data in YAML spelling that validates to an equal scenario; defaults are included."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")

    def agents(self) -> dict[str, Agent]:
        """Return every agent's name -> its entry in the fleet, in order."""
        return {name: agent for agent in self.fleet for name in agent.names()}

    def members(self, name: str) -> tuple[str, ...]:
        """Return the agents that a name means: itself, those of its group, or all of the fleet.

        Raises:
            KeyError: no agent or group has this name.
        """
        if name == ALL:
            return tuple(self.agents())
        for agent in self.fleet:
            if name == agent.name:
                return agent.names()
            if name in agent.names():
                return (name,)
        raise KeyError(name)

    def shares(self, workload: Workload) -> dict[str, float]:
        """Return agent, or service -> its share of a workload's requests; the shares add up to one."""
        weights = {
            member: weight
            for name, weight in workload.agents.items()
            for member in ((name,) if name in self.services else self.members(name))
        }
        total = math.fsum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def controllers_of(self, agent: Agent) -> dict[str, tuple[Controller, ...]]:
        """Return family -> an agent's controllers: the scenario's, replaced by its own but for the fleet's."""
        return self.controllers.replaced_by(agent.controllers)


def digest(scenario: Scenario) -> str:
    """Return 32 hexadecimal digits that are equal for equal scenarios, on every machine and version.

    The live side is left out: who serves and where changes no decision.
    """
    decides = {key: value for key, value in scenario.dump().items() if key != "live"}
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()
