"""Which controllers decide, family by family, as a scenario and the daemon's configuration write them."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field

from glowsim.scenario.base import Items, Model

__all__ = ["Controller", "Controllers"]


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


class Controllers(Model):
    """One controller a family; detectors are a list. A family that is left out has none, or the default."""

    guard: Controller | None = Field(default=None, description="Refuses requests.")
    limiter: Controller | None = Field(default=None, description="Limits rates and budgets.")
    splitter: Controller | None = Field(default=None, description="Splits traffic between variants.")
    cache: Controller | None = Field(default=None, description="Answers from memory.")
    planner: Controller | None = Field(default=None, description="Decides tokens, prompts and the model.")
    queue: Controller | None = Field(default=None, description="Orders what waits.")
    balancer: Controller | None = Field(default=None, description="Chooses the instance.")
    breaker: Controller | None = Field(default=None, description="Stops calls to what fails.")
    retrier: Controller | None = Field(default=None, description="Decides whether and when to try again.")
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
