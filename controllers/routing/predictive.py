"""The strong model for what it is worth most for, decided before anything is asked."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from math import log1p
from typing import Annotated

from controllers.routing.allowance import Allowance
from controllers.routing.models import numbers
from glowsim.core.errors import ControllerError
from glowsim.core.parameters import Bound, Count, Fraction
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream, uniform_at
from glowsim.core.types import Plan, Request

__all__ = ["Predictive"]

Worth = Annotated[float, Bound()]
"""Any number, below zero too."""


class Predictive(Stateful):
    """Decides that the share of the requests that gain most from the strong model goes there, the rest to the cheap.

    The score of a request is gains[kind] + gain_per_log_token * ln(1 + tokens_in). It goes to the strong model where
    it is among the highest ``strong_share`` of the last ``window`` scores, so the share is kept whatever the scores
    are and however the mix of requests moves; among equal scores lots are drawn. With n scores remembered, k of them
    lower, and a lot u, it is among the highest where (k + u) / (n + 1) >= 1 - strong_share: exact even for n = 0.

    Parameters
    ----------
    stream
        Where the lots come from.
    models
        Names of the models, in the order of their numbers.
    cheap
        Name of the model for most requests.
    strong
        Name of the model for those that gain most.
    strong_share
        Share of the requests for the strong model, 0 to 1.
    gains
        By number of the kind of task, how much more the strong model is worth: the difference of the two accuracies,
        say. Empty: all kinds alike.
    gain_per_log_token
        How much more for each unit of the logarithm of the input's length.
    window
        Scores that are remembered, at least 1.
    burst
        Calls beyond the share that there may be at most: of n requests no more than ``strong_share * n + burst`` go
        to the strong model. None: the share holds on average.

    Raises
    ------
    ValueError
        A model that there is not, or the same one twice.
    ControllerError
        A request is of a kind that ``gains`` has no number for.

    Notes
    -----
    Source: Ong et al., "RouteLLM: learning to route LLMs with preference data", arXiv 2406.18665, 2024: a threshold
    on a score, calibrated to a share of calls. Departures: the score is a table and a slope, not a learnt model, and
    the threshold is calibrated all the time, on what came.

    Known weakness: within a kind it cannot tell easy from hard; only an answer shows that.

    >>> router = Predictive(Stream(1), ["large", "small"], cheap="small", strong="large", strong_share=0.5,
    ...     gains=(0.1, 0.4))
    >>> asked = [Request(number, 0, 900, 100, kind=number % 2) for number in range(1, 1001)]
    >>> strong = [each.kind for each in asked if router.plan(0.0, each, Plan(0, 0, 900, 100)).model == 0]
    >>> len(strong), strong.count(1)
    (498, 498)
    """

    state = ("_stream", "_key", "_allowance", "_recent")

    def __init__(
        self,
        stream: Stream,
        models: Sequence[str],
        *,
        cheap: str,
        strong: str,
        strong_share: Fraction = 0.5,
        gains: tuple[Worth, ...] = (),
        gain_per_log_token: Worth = 0.0,
        window: Count = 1000,
        burst: Count | None = None,
    ) -> None:
        self._cheap, self._strong = numbers(models, cheap, strong)
        self._stream = stream
        self._strong_share = strong_share
        self._gains = gains
        self._gain_per_log_token = gain_per_log_token
        self._window = window
        self._capped = burst is not None
        self._allowance = Allowance(strong_share, burst or 1)
        self._key = 0
        """What the lots are drawn from; 0 until the first."""
        self._recent: deque[tuple[float, float]] = deque()
        """The last (score, lot) pairs as they came."""
        self._sorted: list[tuple[float, float]] = []

    def plan(self, t_s: float, request: Request, plan: Plan) -> Plan:
        """Return the plan with the model that the request is worth."""
        score = self._score(request)
        if not self._key:
            self._key = 1 + self._stream.below(1 << 53)
        mine = (score, uniform_at(self._key, request.request_id))
        lot = uniform_at(self._key, request.request_id, 1)
        rank = (bisect_left(self._sorted, mine) + lot) / (len(self._sorted) + 1)
        strong = rank >= 1.0 - self._strong_share
        self._remember(mine)
        self._allowance.earn()
        if strong and self._capped:
            strong = self._allowance.spend()
        return plan._replace(model=self._strong if strong else self._cheap)

    def _score(self, request: Request) -> float:
        score = self._gain_per_log_token * log1p(request.tokens_in)
        if not self._gains:
            return score
        if request.kind >= len(self._gains):
            raise ControllerError(
                f"request {request.request_id} is of kind {request.kind}, and gains has numbers for "
                f"{len(self._gains)} kinds: give one for each"
            )
        return score + self._gains[request.kind]

    def _remember(self, mine: tuple[float, float]) -> None:
        self._recent.append(mine)
        insort(self._sorted, mine)
        if len(self._recent) > self._window:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def restore(self, saved: dict[str, object]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._sorted = sorted(self._recent)
