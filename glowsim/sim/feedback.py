"""What users say about answers: late, rarely, and rather when they are unhappy."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Final, NamedTuple

from glowsim.core.errors import WorldError
from glowsim.core.streams import Ahead, uniform_at, uniforms_at
from glowsim.sim.quality import Failure, normal_at

__all__ = ["Channel", "Feedback", "Users"]

_WHETHER, _WHAT, _WHEN = range(3)


class Feedback(NamedTuple):
    """Something that a user will say: becomes an `Observed` event ``delay_s`` after the answer.

    >>> Feedback(3600.0, "rating", 5.0).metric
    'rating'
    """

    delay_s: float
    metric: str
    value: float


@dataclass(frozen=True)
class Channel:
    """One way in which users speak: ratings, corrections, complaints.

    Of the answers with a failure f the share ``shares[f]`` is spoken of; a share that differs by failure is the
    bias, for what is heard is not a fair sample. The delay is lognormal.

    Parameters
    ----------
    metric
        What it is called in `Observed` events.
    shares
        Chance of being heard, by `Failure` (none, wrong, hallucination, format, refusal), each 0 to 1.
    if_correct, otherwise
        Values and their weights, above 0 in total.
    median_s, sigma
        Median of the delay in seconds, above 0, and standard deviation of its logarithm, 0 or more.

    Raises
    ------
    WorldError
        There is not one share for each failure, or a number is out of its bounds.

    >>> rating = Channel("rating", (0.03, 0.08, 0.05, 0.08, 0.08), ((5.0, 0.7), (4.0, 0.3)), ((1.0, 1.0),), 3600.0, 1.0)
    >>> rating.remark(1, 0, Failure.WRONG, 5).value
    1.0
    """

    metric: str
    shares: tuple[float, ...]
    if_correct: tuple[tuple[float, float], ...]
    otherwise: tuple[tuple[float, float], ...]
    median_s: float
    sigma: float

    def __post_init__(self) -> None:
        if len(self.shares) != len(Failure) or not all(0.0 <= share <= 1.0 for share in self.shares):
            raise WorldError(
                f"feedback: {self.metric} needs {len(Failure)} shares from 0 to 1, got {self.shares}"
            )
        for values in (self.if_correct, self.otherwise):
            if (
                not values
                or min(weight for _, weight in values) < 0.0
                or max(weight for _, weight in values) <= 0.0
            ):
                raise WorldError(f"feedback: {self.metric} needs values with weights above 0, got {values}")
        if self.median_s <= 0.0 or self.sigma < 0.0:
            raise WorldError(f"feedback: {self.metric} needs a median above 0 and a sigma of 0 or more")

    def remark(self, request_id: int, tries: int, failure: Failure, key: int) -> Feedback:
        """Return what a user who speaks says of the answer of an attempt; ``key`` is this channel's own."""
        values = self.if_correct if failure is Failure.NONE else self.otherwise
        sums = list(accumulate(weight for _, weight in values))
        luck = uniform_at(key, _WHAT, request_id, tries) * sums[-1]
        value, _ = values[bisect_right(sums, luck, hi=len(sums) - 1)]
        delay_s = self.median_s * exp(self.sigma * normal_at(key, _WHEN, request_id, tries))
        return Feedback(delay_s, self.metric, value)


class Users:
    """Say what they have to say about answers, a function of the request and the attempt.

    Parameters
    ----------
    channels
        How they speak.
    key
        64-bit key of the random numbers, of this replication; another one than the truth's.

    >>> always = Channel("correction", (0.0, 1.0, 1.0, 1.0, 1.0), ((1.0, 1.0),), ((1.0, 1.0),), 60.0, 0.0)
    >>> users = Users((always,), 1)
    >>> users.say(7, 0, Failure.WRONG), users.say(7, 0, Failure.NONE)
    ((Feedback(delay_s=60.0, metric='correction', value=1.0),), ())
    """

    __slots__ = ("_channels", "_lucks")

    def __init__(self, channels: tuple[Channel, ...], key: int) -> None:
        self._channels = tuple((channel, key + place) for place, channel in enumerate(channels))
        self._lucks: dict[int, list[Callable[[int], float]]] = {}
        """Attempts before -> the luck that has each channel speak, by the request's number."""

    def say(self, request_id: int, tries: int, failure: Failure) -> tuple[Feedback, ...]:
        """Return everything that will be said of an answer, in the order of the channels.

        Parameters
        ----------
        request_id, tries
            The request, and how many attempts came before the one whose answer it got.
        failure
            What is wrong with that answer.
        """
        lucks = self._lucks.get(tries)
        if lucks is None:
            lucks = self._lucks[tries] = [_whether(key, tries) for _, key in self._channels]
        said = _NOTHING
        for (channel, key), luck in zip(self._channels, lucks, strict=True):
            if luck(request_id) < channel.shares[failure]:
                said += (channel.remark(request_id, tries, failure, key),)
        return said


_NOTHING: Final[tuple[Feedback, ...]] = ()


def _whether(key: int, tries: int) -> Callable[[int], float]:
    return Ahead(
        lambda number: uniform_at(key, _WHETHER, number, tries),
        lambda numbers: uniforms_at(key, _WHETHER, numbers, tries),
    ).at
