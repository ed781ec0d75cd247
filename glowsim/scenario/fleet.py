"""The fleet: models with their prices, agents with their instances, and what goes wrong."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from glowsim.core.price import Price
from glowsim.scenario.base import AgentName, ChosenBy, Model, Name, Queueing, findings_error
from glowsim.scenario.controllers import Controllers
from glowsim.scenario.laws import Constant, LawOfTime, TimeService, TokenService
from glowsim.scenario.problems import Finding
from glowsim.scenario.quantities import (
    Duration,
    PositiveDuration,
    PositiveNumber,
    PricePerHour,
    PricePerToken,
    Share,
)
from glowsim.scenario.servers import StepsService

__all__ = [
    "HOME",
    "Agent",
    "BrownOut",
    "Crash",
    "Errors",
    "Failures",
    "Fault",
    "Garbage",
    "Hang",
    "Late",
    "Prices",
    "Refuse",
    "RegionLoss",
    "ServerDown",
    "ServerSlow",
    "Silence",
    "Slow",
    "SlowStart",
    "Throttle",
    "Tools",
    "Variant",
    "member_names",
]

Service = Annotated[TimeService | TokenService | StepsService, ChosenBy("law")]
"""How long an instance takes for a request, or what it does with it."""

HOME = "home"
"""The region of a scenario that names none."""

Count = Annotated[int, Field(ge=1, le=100_000)]
_SLOTS_PER_SERVER = {"central": 1, "instance": 8}
_AT_ONCE = Constant[Duration].model_validate("0s")


class Prices(Model):
    """What a model's tokens cost, in US dollars per token."""

    input_usd_per_token: PricePerToken = Field(alias="input", description="Price of input tokens.")
    cached_input_usd_per_token: PricePerToken = Field(
        alias="cached_input",
        description="Price of cached input tokens; by default that of input.",
        default_factory=lambda earlier: earlier.get("input_usd_per_token", 0.0),
    )
    output_usd_per_token: PricePerToken = Field(alias="output", description="Price of output tokens.")
    server: Name | None = Field(
        default=None, description="One of the servers: where agents that work in steps send their calls."
    )

    @property
    def price(self) -> Price:
        """What they cost, to reckon with."""
        return Price(self.input_usd_per_token, self.cached_input_usd_per_token, self.output_usd_per_token)


class Failures(Model):
    """What fails without any fault: ``invalid`` is drawn once a request, ``error`` once an attempt."""

    invalid: Share = Field(
        default=0.0, description="Share of tasks that the model rejects; no retry mends it."
    )
    error: Share = Field(default=0.0, description="Share of attempts that fail; a retry may succeed.")


class Variant(Model):
    """How a version under test differs from the baseline."""

    slowdown: PositiveNumber = Field(default=1.0, description="Factor on the time of service.")
    error: Share | None = Field(
        default=None, description="Share of failing attempts; default: the baseline's."
    )


class Agent(Model):
    """A named deployment, or ``count`` equal ones, each with a pool of instances."""

    name: AgentName = Field(alias="agent", description="Its name; with a count, the start of the names.")
    count: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="How many equal agents.")
    domain: Name | None = Field(default=None, description="What it works on.")
    model: Name = Field(description="One of the models above.")
    region: Name = Field(default_factory=lambda: HOME, description="One of the regions; default: the first.")
    instances: Count = Field(description="Instances at the start.")
    concurrency: Count = Field(description="Requests that an instance serves at once.")
    queue: Queueing = Field(
        default="central", description="Wait at the gateway, or in an instance's backlog."
    )
    slots: Count = Field(
        default_factory=lambda earlier: earlier.get("concurrency", 1) * _SLOTS_PER_SERVER[earlier["queue"]],
        description="The gateway's cap on an instance's open requests; default: concurrency, or 8 times it "
        "with a queue at the instance.",
    )
    startup_s: LawOfTime = Field(
        default=_AT_ONCE, alias="startup", description="Time until an instance is ready."
    )
    instance_usd_per_hour: PricePerHour = Field(
        default=0.0, alias="instance_price", description="Price of an instance."
    )
    timeout_s: PositiveDuration = Field(
        default=30.0, alias="timeout", description="Longest time for a request."
    )
    first_token_timeout_s: PositiveDuration | None = Field(
        default=None,
        alias="first_token_timeout",
        description="Longest time to the first token; default: none.",
    )
    idle_timeout_s: PositiveDuration | None = Field(
        default=None,
        alias="idle_timeout",
        description="Longest silence of an instance: before an answer, or within a streamed one; default: none.",
    )
    health_check_s: PositiveDuration | None = Field(
        default=None,
        alias="health_check",
        description="How often instances are probed; default: never.",
    )
    cancellable: bool = Field(
        default=True,
        description="Whether an instance stops working on what is cancelled, or works on for nobody.",
    )
    service: Service = Field(description="How long a request takes, or what is done with it.")
    failures: Failures = Field(default_factory=Failures, description="What fails without a fault.")
    variants: dict[Name, Variant] = Field(
        default={}, description="Versions for rollouts, relative to the baseline."
    )
    controllers: Controllers = Field(
        default_factory=Controllers, description="Replaces the scenario's, family by family."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.slots < self.concurrency:
            message = f"must be at least the concurrency ({self.concurrency}), or servers stay idle"
            raise findings_error(Finding(("slots",), message))
        if self.controllers.fleetwide():
            message = "a limiter with scope 'fleet' is every agent's: move it to the scenario's controllers"
            raise findings_error(Finding(("controllers", "limiter"), message))
        return self

    def names(self) -> tuple[str, ...]:
        """Return the names of the agents that this entry stands for: itself, or ``name-001`` and on."""
        return member_names(self.name, self.count)


def member_names(name: str, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` equal agents.

    >>> member_names("tax", 1), member_names("tax", 3)
    (('tax',), ('tax-001', 'tax-002', 'tax-003'))
    """
    width = max(3, len(str(count)))
    return (name,) if count == 1 else tuple(f"{name}-{i:0{width}}" for i in range(1, count + 1))


class _AnyFault(Model):
    """What all faults share: whom they hit, and when."""

    agent: AgentName = Field(description="An agent, or the name of a group.")
    at_s: Duration = Field(alias="at", description="When it begins.")
    lasts_s: PositiveDuration = Field(alias="lasts", description="How long it lasts.")


class Crash(_AnyFault):
    """Instances die at once, and their work with them; they come back when the fault ends."""

    kind: Literal["crash"]
    instances: Count = Field(default=1, description="How many instances.")


class Slow(_AnyFault):
    """A gray failure: instances serve ``factor`` times slower."""

    kind: Literal["slow"]
    instances: Count = Field(default=1, description="How many instances.")
    factor: PositiveNumber = Field(description="Factor on the time of service.")


class Errors(_AnyFault):
    """A share of the attempts fails."""

    kind: Literal["errors"]
    error: Share = Field(description="Share of attempts that fail.")


class BrownOut(_AnyFault):
    """Every instance serves ``factor`` times slower, fresh ones too."""

    kind: Literal["brown_out"]
    factor: PositiveNumber = Field(description="Factor on the time of service.")


class Refuse(_AnyFault):
    """Instances refuse connections; probes of them fail."""

    kind: Literal["refuse"]
    instances: Count = Field(default=1, description="How many instances.")
    after_s: Duration = Field(default=0.0, alias="after", description="Time until the gateway hears.")


class Hang(_AnyFault):
    """Instances take requests and never answer; probes of them fail."""

    kind: Literal["hang"]
    instances: Count = Field(default=1, description="How many instances.")


class Throttle(_AnyFault):
    """A share of the attempts is told at once to come again later (429)."""

    kind: Literal["throttle"]
    share: Share = Field(default=1.0, description="Share of attempts.")
    retry_after_s: Duration = Field(
        default=0.0, alias="retry_after", description="What they are told to wait; 0: nothing is said."
    )


class Garbage(_AnyFault):
    """Instances answer quickly and wrongly."""

    kind: Literal["garbage"]
    instances: Count = Field(default=1, description="How many instances.")
    after_s: Duration = Field(default=0.05, alias="after", description="How quickly.")
    noticed: Share = Field(
        default=0.0, description="Share that the adapter's check of the answer turns into errors."
    )


class SlowStart(_AnyFault):
    """Instances that begin to start meanwhile take ``factor`` times as long."""

    kind: Literal["slow_start"]
    factor: PositiveNumber = Field(description="Factor on the time until an instance is ready.")


class Tools(_AnyFault):
    """The tools of agents that work in steps fail, or are slow."""

    kind: Literal["tools"]
    fails: Share = Field(
        default=0.0, description="Share of uses that fail, on top of those that fail anyway."
    )
    factor: PositiveNumber = Field(default=1.0, description="Factor on the time of a use.")


class _ServerFault(Model):
    """What faults of model servers share: which server, and when."""

    server: Name = Field(description="One of the servers.")
    at_s: Duration = Field(alias="at", description="When it begins.")
    lasts_s: PositiveDuration = Field(alias="lasts", description="How long it lasts.")
    replicas: Count = Field(default=1, description="How many replicas, the first ones; a hosted API has one.")


class ServerSlow(_ServerFault):
    """Replicas of a model server work ``factor`` times slower."""

    kind: Literal["server_slow"]
    factor: PositiveNumber = Field(description="Factor on the time of its steps.")


class ServerDown(_ServerFault):
    """Replicas of a model server are gone, and the calls on them fail; where none is left, all calls fail."""

    kind: Literal["server_down"]


class RegionLoss(Model):
    """A region is gone: its instances die with their work and its model servers are down, until the fault ends."""

    kind: Literal["region_loss"]
    region: Name = Field(description="One of the regions.")
    at_s: Duration = Field(alias="at", description="When it begins.")
    lasts_s: PositiveDuration = Field(alias="lasts", description="How long it lasts.")


class Late(_AnyFault):
    """Metrics come late: the results of probes reach the gateway so much later than they were taken."""

    kind: Literal["late"]
    by_s: PositiveDuration = Field(alias="by", description="How much later.")


class Silence(_AnyFault):
    """Metrics are lost: no result of a probe reaches the gateway."""

    kind: Literal["silence"]


Fault = Annotated[
    Crash
    | Slow
    | BrownOut
    | Errors
    | Refuse
    | Hang
    | Throttle
    | Garbage
    | SlowStart
    | Tools
    | ServerSlow
    | ServerDown
    | RegionLoss
    | Late
    | Silence,
    ChosenBy("kind"),
]
"""Something that goes wrong at a stated time."""
