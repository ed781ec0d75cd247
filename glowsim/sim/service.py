"""How much work an attempt is, and whether it succeeds: what only the simulator knows.

The truth about a request is drawn ahead, by its ordinal: how heavy it is, how long its answer will be, and
the luck that decides whether it fails. Another attempt gets its luck from (request, attempt), so truth
never depends on the order in which things happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from glowsim.core.streams import uniform_at
from glowsim.core.types import Plan
from glowsim.sim.laws import Array, Constant, Law

__all__ = ["Service", "TimeService", "TokenService", "Truth", "Variant"]


class Truth(NamedTuple):
    """What will be true of a request, whatever is decided about it."""

    weight: float
    """The value of the service's own law: a time, or a factor of it."""
    tokens_out: int
    luck_invalid: float
    luck_error: float
    text_key: int = 0
    """Of the text that its prompt continues; 0: it is nobody else's."""


class Variant(NamedTuple):
    """How a variant differs from the baseline."""

    slowdown: float
    """Factor on the time of service."""
    error: float
    """Share of its attempts that fail."""


class Service(Protocol):
    """Turns a request's truth and plan into work."""

    @property
    def law(self) -> Law:
        """The law of a request's weight."""

    def work(self, plan: Plan, truth: Truth, weight: float) -> tuple[float, float, int]:
        """Return (seconds alone, of that before the first token, tokens of the answer)."""


@dataclass(frozen=True)
class TimeService:
    """Work is a time drawn from a law, whatever the tokens."""

    law: Law

    def work(self, plan: Plan, truth: Truth, weight: float) -> tuple[float, float, int]:
        """Return the drawn time; the first token comes with the last."""
        tokens, most = truth[1], plan[3]
        return weight, weight, tokens if tokens < most else most


@dataclass(frozen=True)
class TokenService:
    """Work follows the tokens: a base, a time for each token read and for each token written.

    Parameters
    ----------
    base_s
        Seconds before anything is read.
    input_s, output_s
        Seconds for each token of the prompt and of the answer, alone on the instance.
    law
        Law of a factor on all of it, mean 1.

    >>> TokenService(0.25, 0.001, 0.01).work(Plan(0, 0, 1000, 500), Truth(1.0, 50, 0.5, 0.5), 1.0)
    (1.75, 1.25, 50)
    """

    base_s: float
    input_s: float
    output_s: float
    law: Law = field(default=Constant(1.0))

    def work(self, plan: Plan, truth: Truth, weight: float) -> tuple[float, float, int]:
        """Return the work of reading the planned prompt and writing the answer, cut at the planned limit."""
        tokens = truth.tokens_out
        if tokens > plan.max_tokens_out:
            tokens = plan.max_tokens_out
        prefill_s = (self.base_s + self.input_s * plan.tokens_in) * weight
        return prefill_s + self.output_s * tokens * weight, prefill_s, tokens


def weight_again(service: Service, key: int, request_id: int, attempt: int) -> float:
    """Return the weight that belongs to a later attempt of a request."""
    draw: Array = service.law.ppf(np.array([uniform_at(key, request_id, attempt)]))
    return float(draw[0])
