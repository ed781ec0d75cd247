"""Which controllers decide, family by family, as a scenario and the daemon's configuration write them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from glowsim.scenario.base import Items, Model, findings_error
from glowsim.scenario.problems import Finding

__all__ = ["SEVERAL", "Controller", "Controllers", "Limit"]

T = TypeVar("T")


class Controller(Model):
    """The choice of a controller; every other key is one of its parameters, in YAML spelling.

    ``glowsim.registry.find`` gives the class and ``glowsim.registry.check`` its arguments.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    use: str = Field(description="A built-in, a plug-in's name, or module:Class with --allow-plugins.")
    shadow: Self | None = Field(
        default=None, description="A candidate that is asked the same and decides nothing."
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters as written: ``{"cooldown": "5m"}``."""
        return dict(self.model_extra or {})


class Limit(Controller):
    """The choice of a limiter, and whether every agent has one of its own or all of them share it."""

    scope: Literal["agent", "fleet"] = Field(
        default="agent",
        description="One for each agent, or one for the fleet, whatever else an agent chooses.",
    )

    @model_validator(mode="after")
    def _same_scope(self) -> Self:
        if self.shadow is not None and self.shadow.scope != self.scope:
            message = f"must be {self.scope!r}, the scope of the limiter that it shadows"
            raise findings_error(Finding(("shadow", "scope"), message))
        return self


def _form(value: Any) -> str:
    return "form=list" if isinstance(value, list | tuple) else "form=one"


OneOrMore = Annotated[
    Annotated[T, Tag("form=one")] | Annotated[Items[T], Field(min_length=1), Tag("form=list")],
    Discriminator(_form),
]
"""One controller, or a list of them that decide together."""

SEVERAL: Final = ("limiter", "breaker")
"""The families in which a list of controllers may decide together."""


class Controllers(Model):
    """One controller a family, or a list where several decide together; detectors are a list.

    A family that is left out has none, or the default.
    """

    guard: Controller | None = Field(default=None, description="Refuses requests.")
    limiter: OneOrMore[Limit] | None = Field(
        default=None, description="Limits rates and budgets; of a list, all must admit."
    )
    splitter: Controller | None = Field(default=None, description="Splits traffic between variants.")
    cache: Controller | None = Field(default=None, description="Answers from memory.")
    planner: Controller | None = Field(default=None, description="Decides tokens, prompts and the model.")
    queue: Controller | None = Field(default=None, description="Orders what waits.")
    balancer: Controller | None = Field(default=None, description="Chooses the instance.")
    breaker: OneOrMore[Controller] | None = Field(
        default=None, description="Stops calls to what fails; of a list, all must let through."
    )
    retrier: Controller | None = Field(default=None, description="Decides whether and when to try again.")
    ladder: Controller | None = Field(
        default=None, description="Decides what a request gets that would fail otherwise."
    )
    scaler: Controller | None = Field(default=None, description="Decides how many instances there are.")
    detector: Items[Controller] = Field(default=(), description="Watch metrics and raise alerts.")

    def chosen(self) -> dict[str, tuple[Controller, ...]]:
        """Return family -> controllers, families without any left out.

        >>> Controllers.model_validate({"balancer": {"use": "round_robin"}}).chosen().keys()
        dict_keys(['balancer'])
        """
        found = {
            family: one if isinstance(one := getattr(self, family), tuple) else (one,)
            for family in type(self).model_fields
        }
        return {family: ones for family, ones in found.items() if ones and ones[0] is not None}

    def fleetwide(self) -> tuple[Limit, ...]:
        """Return the limiters that all agents share."""
        return tuple(
            limit
            for limit in self.chosen().get("limiter", ())
            if isinstance(limit, Limit) and limit.scope == "fleet"
        )

    def replaced_by(self, own: Controllers) -> dict[str, tuple[Controller, ...]]:
        """Return family -> controllers of an agent with ``own`` ones, family by family.

        A limit of the fleet holds for every agent, so an agent's own limiters come after those.

        >>> fleet = {"use": "budget", "scope": "fleet"}
        >>> all_agents = Controllers.model_validate({"limiter": [fleet, {"use": "gcra"}]})
        >>> own = Controllers.model_validate({"limiter": {"use": "leased"}})
        >>> [limit.use for limit in all_agents.replaced_by(own)["limiter"]]
        ['budget', 'leased']
        """
        chosen = self.chosen() | own.chosen()
        if own.limiter is not None:
            chosen["limiter"] = (*self.fleetwide(), *chosen["limiter"])
        return chosen
