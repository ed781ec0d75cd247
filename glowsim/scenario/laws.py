"""Laws of random quantities (durations, tokens, plain numbers) and laws of service.

A law is generic in the quantity: ``LawOfTime`` takes durations, ``LawOfTokens`` tokens, ``LawOfNumber`` plain
numbers. Attributes are in base units. A constant is written bare: ``think: 3s``.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from glowsim.scenario.base import ChosenBy, Items, Model, findings_error
from glowsim.scenario.problems import Finding
from glowsim.scenario.quantities import (
    Duration,
    Number,
    PositiveNumber,
    Share,
    TimePerToken,
    TokenCount,
)

__all__ = [
    "Constant",
    "Exponential",
    "Gamma",
    "Law",
    "LawOfNumber",
    "LawOfTime",
    "LawOfTokens",
    "Lognormal",
    "Quantiles",
    "TimeService",
    "TokenService",
    "Uniform",
    "mean",
]

Q = TypeVar("Q", bound=float)


class _Named(Model, Generic[Q]):
    """Gives a law of one quantity a readable name in the JSON Schema: ``ExponentialDuration``."""

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        within = getattr(params[0], "__metadata__", (None,))[0]
        words = within.quantity.name.split()[1:] if within else [str(params[0])]
        return cls.__name__ + "".join(word.capitalize() for word in words)


class Law(_Named[Q], Generic[Q]):
    """The distribution of a quantity; ``minimum`` and ``maximum`` clip what is drawn (no re-drawing)."""

    minimum: Q | None = Field(default=None, alias="min", description="A draw below this becomes this.")
    maximum: Q | None = Field(default=None, alias="max", description="A draw above this becomes this.")

    @model_validator(mode="after")
    def _clips_in_order(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise findings_error(Finding(("max",), "must be above 'min'"))
        return self


class Constant(_Named[Q], Generic[Q]):
    """Always the same value; written bare (``20s``) or as ``{law: constant, value: 20s}``."""

    law: Literal["constant"] = "constant"
    value: Q

    @model_validator(mode="wrap")
    @classmethod
    def _bare(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return handler(value if isinstance(value, dict | Constant) else {"value": value})

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self)["value"]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(core_schema)
        mapping = handler.resolve_ref_schema(found)
        return {"title": cls.__name__, "anyOf": [mapping["properties"]["value"], mapping]}


class Exponential(Law[Q], Generic[Q]):
    """The exponential distribution with this mean; its coefficient of variation is 1."""

    law: Literal["exponential"]
    mean: Q = Field(description="The mean, before clipping.")


class Lognormal(Law[Q], Generic[Q]):
    """exp of a normal variable; the mean is ``median * exp(sigma**2 / 2)``."""

    law: Literal["lognormal"]
    median: Q = Field(description="The median.")
    sigma: Annotated[Number, Field(description="Standard deviation of the logarithm.")]


class Gamma(Law[Q], Generic[Q]):
    """The gamma distribution with this mean; its shape is ``1 / cv**2``."""

    law: Literal["gamma"]
    mean: Q = Field(description="The mean, before clipping.")
    cv: PositiveNumber = Field(description="Coefficient of variation: standard deviation / mean.")


class Uniform(Law[Q], Generic[Q]):
    """Every value between ``low`` and ``high`` is equally likely."""

    law: Literal["uniform"]
    low: Q
    high: Q

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise findings_error(Finding(("high",), "must be at least 'low'"))
        return self


class Quantiles(Law[Q], Generic[Q]):
    """The distribution whose quantile function runs straight through the points (p, x)."""

    law: Literal["quantiles"]
    p: Items[Share] = Field(description="Probabilities, increasing from 0 to 1.", min_length=2)
    x: Items[Q] = Field(description="The value at each probability, never decreasing.", min_length=2)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if len(self.x) != len(self.p):
            raise findings_error(Finding(("x",), f"must have {len(self.p)} values, one for each of 'p'"))
        if self.p[0] != 0 or self.p[-1] != 1 or any(a >= b for a, b in pairwise(self.p)):
            raise findings_error(Finding(("p",), "must increase from 0 to 1"))
        if any(a > b for a, b in pairwise(self.x)):
            raise findings_error(Finding(("x",), "must never decrease"))
        return self


_CHOICE = ChosenBy("law", bare="constant")

LawOfTime = Annotated[
    Constant[Duration]
    | Exponential[Duration]
    | Lognormal[Duration]
    | Gamma[Duration]
    | Uniform[Duration]
    | Quantiles[Duration],
    _CHOICE,
]
"""A law of durations, in seconds."""
LawOfTokens = Annotated[
    Constant[TokenCount]
    | Exponential[TokenCount]
    | Lognormal[TokenCount]
    | Gamma[TokenCount]
    | Uniform[TokenCount]
    | Quantiles[TokenCount],
    _CHOICE,
]
"""A law of token counts; draws are rounded by whoever draws."""
LawOfNumber = Annotated[
    Constant[Number]
    | Exponential[Number]
    | Lognormal[Number]
    | Gamma[Number]
    | Uniform[Number]
    | Quantiles[Number],
    _CHOICE,
]
"""A law of plain numbers."""

AnyLaw = Constant[Q] | Exponential[Q] | Lognormal[Q] | Gamma[Q] | Uniform[Q] | Quantiles[Q]


def mean(law: AnyLaw[Q]) -> float:
    """Return the mean of a law before clipping, in base units.

    >>> mean(Uniform[Duration].model_validate({"law": "uniform", "low": "1s", "high": "3s"}))
    2.0
    """
    match law:
        case Constant():
            return float(law.value)
        case Exponential() | Gamma():
            return float(law.mean)
        case Lognormal():
            return law.median * math.exp(law.sigma**2 / 2)
        case Uniform():
            return (law.low + law.high) / 2
        case Quantiles():
            pieces = zip(pairwise(law.p), pairwise(law.x), strict=True)
            return math.fsum((q - p) * (x + y) / 2 for (p, q), (x, y) in pieces)


class TimeService(Model):
    """First come, first served by ``concurrency`` servers; every request takes a time drawn from one law."""

    law: Literal["time"]
    time_s: LawOfTime = Field(alias="time", description="How long an instance works on a request.")


class TokenService(Model):
    """Time from tokens: ``(base + input x tokens in + output x tokens out) x slowdown x noise``.

    Each further request in service on the instance makes all of them slower by the share ``slowdown``.
    """

    law: Literal["tokens"]
    base_s: Duration = Field(alias="base", description="Time of a request without its tokens.")
    input_s_per_token: TimePerToken = Field(alias="input", description="Time per input token.")
    output_s_per_token: TimePerToken = Field(alias="output", description="Time per output token.")
    slowdown: Share = Field(
        default=0.0, description="Each further request in service slows all by this share."
    )
    noise: LawOfNumber | None = Field(default=None, description="A random factor with mean 1.")

    @model_validator(mode="after")
    def _fair_noise(self) -> Self:
        if self.noise is None:
            return self
        if not isinstance(self.noise, Constant) and (self.noise.minimum, self.noise.maximum) != (None, None):
            raise findings_error(Finding(("noise",), "must not be clipped: that would move its mean from 1"))
        found = mean(self.noise)
        if not math.isclose(found, 1, abs_tol=0.01):
            raise findings_error(Finding(("noise",), f"must have mean 1, has {found:.4g}"))
        return self
