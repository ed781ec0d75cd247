"""How good answers are: a truth that no controller sees, and one signal of it that any may.

A model has learned what it has learned: whether it masters a task depends on how hard the task is for all
models, on what it lacks itself, and a little on luck. So the latent score of attempt n of model m at request r is

    x = sqrt(shared) * hard(r) + sqrt(repeat - shared) * lacks(r, m) + sqrt(1 - repeat) * luck(r, m, n)

with independent standard normal terms, and the answer is correct where x <= the normal quantile of the accuracy.
Then every model has its accuracy, two models at the same task have the latent correlation ``shared`` (so the table
of who is right where the other is wrong comes out as measured), and two attempts of one model have ``repeat``
(so pass^k falls with k as measured). Everything is a function of (key, request, model, attempt).

Sources: the joint table of two binary outcomes by a bivariate normal is Pearson's tetrachoric correlation (1900);
one factor for all attempts at a task is the two-parameter normal-ogive model of item response theory (Lord and
Novick, "Statistical theories of mental test scores", 1968).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from math import exp, fsum, inf, prod, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import WorldError
from glowsim.core.streams import Ahead, uniform_at, uniforms_at
from glowsim.core.types import Plan, Request

__all__ = ["Drift", "Failure", "Likeness", "Quality", "Skill", "Verdict", "normal_at"]

Luck = Callable[[int], float]
Column = npt.NDArray[np.float64]
Ordinals = npt.NDArray[np.uint64]
_new = tuple.__new__
_quantile = NormalDist().inv_cdf
_HARD, _LACKS, _LUCK, _HOW, _SIGNAL = range(5)
"""What a number is drawn for: added to the key."""
_ROUNDING: Final = 1e-9
"""Shares that add up to one may add up to a hair more."""


class Failure(IntEnum):
    """What is wrong with an answer."""

    NONE = 0
    """Nothing: it is correct."""
    WRONG = 1
    HALLUCINATION = 2
    """Wrong, and made to look right: users are slower to notice."""
    FORMAT = 3
    """Not in the form that was asked for: the adapter sees it at once."""
    REFUSAL = 4


_NONE, _FORMAT = Failure.NONE, Failure.FORMAT


class Verdict(NamedTuple):
    """What an answer is worth, and what a cheap check says of it.

    >>> Verdict(Failure.WRONG, 0.4).correct
    False
    """

    failure: Failure
    confidence: float
    """0 to 1, what a controller may see: see `Quality`."""

    @property
    def correct(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.failure is Failure.NONE


class Skill(NamedTuple):
    """What a model can do.

    >>> Skill((0.68, 0.64)).accuracy[1]
    0.64
    """

    accuracy: tuple[float, ...]
    """Share of correct answers, by number of the kind of task."""
    hallucination: float = 0.0
    """Shares of the answers that are not correct; the rest of them is simply wrong."""
    format: float = 0.0
    refusal: float = 0.0


class Likeness(NamedTuple):
    """How alike attempts at the same task are: latent correlations of a kind of task, 0 <= shared <= repeat <= 1."""

    shared: float
    """Between two models."""
    repeat: float
    """Between two attempts of one model."""


@dataclass(frozen=True)
class Drift:
    """A change of accuracy with time, for all or for one segment.

    From ``at_s`` on the factor goes in a straight line from 1 to ``factor`` within ``ramp_s`` seconds and stays
    there; ``lasts_s`` after ``at_s`` it is 1 again, and every ``every_s`` seconds all this is repeated. So it is
    abrupt with no ramp, gradual with one, and recurring with a period.

    Parameters
    ----------
    at_s
        When it begins, in seconds.
    factor
        On the accuracy, 0 or more; above 1 it is a gain.
    ramp_s
        How long it takes to come, in seconds; 0: at once.
    lasts_s
        How long it is there, the ramp included, above 0 and at most ``every_s``; inf: for ever.
    every_s
        Period, in seconds; inf: it comes once.
    model, kind, agent
        Number of the only one that it concerns; None: all.

    >>> slow = Drift(at_s=100.0, factor=0.5, ramp_s=50.0)
    >>> [slow.at(t_s) for t_s in (99.0, 125.0, 1000.0)]
    [1.0, 0.75, 0.5]
    >>> nights = Drift(at_s=10.0, factor=0.5, lasts_s=5.0, every_s=20.0)
    >>> [nights.at(t_s) for t_s in (10.0, 15.0, 34.0)]
    [0.5, 1.0, 0.5]
    """

    at_s: float
    factor: float
    ramp_s: float = 0.0
    lasts_s: float = inf
    every_s: float = inf
    model: int | None = None
    kind: int | None = None
    agent: int | None = None

    def at(self, t_s: float) -> float:
        """Return the factor on the accuracy at a moment."""
        passed_s = t_s - self.at_s
        if passed_s < 0.0:
            return 1.0
        passed_s %= self.every_s
        if passed_s >= self.lasts_s:
            return 1.0
        come = 1.0 if passed_s >= self.ramp_s else passed_s / self.ramp_s
        return 1.0 + (self.factor - 1.0) * come

    def concerns(self, request: Request, plan: Plan) -> bool:
        """Return whether a request that is served so is of the segment."""
        return (
            (self.model is None or self.model == plan.model)
            and (self.kind is None or self.kind == request.kind)
            and (self.agent is None or self.agent == request.agent)
        )


@dataclass(frozen=True)
class Quality:
    """Says what each answer is worth.

    The accuracy is the model's for the kind of task, times the variant's factor, times
    1 - context_loss * (1 - kept), where ``kept`` is the share of the request's input tokens that the plan keeps,
    times the drifts' factors; at most 1.

    The confidence of an answer comes from a normal signal s, whose mean is d = sqrt(2) * quantile(auc) for correct
    answers and 0 for the others: confidence = 1 / (1 + exp(d * d / 2 - d * s)), what a judge should say who takes
    both to be equally likely. An answer that is correct gets the higher one of two with probability ``auc``. One
    that is not in its form has confidence 0.

    Parameters
    ----------
    skills
        What each model can do, by its number.
    kinds
        How alike attempts are, by number of the kind of task.
    context_loss
        Share of the accuracy that is lost where nothing of the input is kept, 0 to 1.
    auc
        What the confidence is worth as a judge of correctness: 0.5 nothing, below 1.
    key
        64-bit key of the random numbers, of this replication.
    variants
        Factors on the accuracy, by agent and variant, the baseline's 1 included; none: all are alike.
    drifts
        What changes with time.

    Raises
    ------
    WorldError
        A number is out of its bounds, or a model has not one accuracy for each kind.

    >>> quality = Quality((Skill((0.7,)), Skill((0.9,))), (Likeness(0.5, 0.8),), 0.2, 0.8, key=1)
    >>> small, large = Plan(0, 0, 900, 100), Plan(1, 0, 900, 100)
    >>> request = Request(7, 0, 900, 100)
    >>> quality.accuracy(0.0, request, small), quality.accuracy(0.0, request, Plan(0, 0, 450, 100))
    (0.7, 0.63)
    >>> quality.judge(0.0, request, small, 0) == quality.judge(5.0, request, small, 0)
    True
    """

    skills: tuple[Skill, ...]
    kinds: tuple[Likeness, ...]
    context_loss: float
    auc: float
    key: int
    variants: tuple[tuple[float, ...], ...] = ()
    drifts: tuple[Drift, ...] = ()
    _cases: dict[tuple[int, int, int, int, int], _Case] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """(model, variant, kind, agent, attempts before) -> what judging takes."""
    _lucks: dict[tuple[int, int, int], tuple[Luck, Luck, Luck]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """(kind, model, attempts before) -> what is random in it."""
    _apart: float = field(default=0.0, init=False, repr=False, compare=False)
    """The distance between the means of the signals of correct answers and of others."""

    def __post_init__(self) -> None:
        for number, skill in enumerate(self.skills):
            if len(skill.accuracy) != len(self.kinds):
                raise WorldError(
                    f"quality: model {number} has {len(skill.accuracy)} accuracies: give one for each of the "
                    f"{len(self.kinds)} kinds of task"
                )
            _within(f"accuracy of model {number}", 1.0, *skill.accuracy)
            _within(f"failures of model {number}", 1.0 + _ROUNDING, *skill[1:], fsum(skill[1:]))
        for number, (shared, repeat) in enumerate(self.kinds):
            _within(f"shared correlation of kind {number}", repeat, shared)
            _within(f"repeat correlation of kind {number}", 1.0, repeat)
        _within("context_loss", 1.0, self.context_loss)
        if not 0.5 <= self.auc < 1.0:
            raise WorldError(f"quality: auc must be at least 0.5 and below 1, got {self.auc}")
        object.__setattr__(self, "_apart", sqrt(2.0) * _quantile(self.auc))

    def accuracy(self, t_s: float, request: Request, plan: Plan) -> float:
        """Return the chance that such a request is answered correctly, over all of its kind."""
        accuracy = self.skills[plan.model].accuracy[request.kind]
        if self.variants:
            accuracy *= self.variants[request.agent][plan.variant]
        if plan.tokens_in < request.tokens_in:
            accuracy *= 1.0 - self.context_loss * (1.0 - plan.tokens_in / request.tokens_in)
        accuracy *= prod([drift.at(t_s) for drift in self.drifts if drift.concerns(request, plan)])
        return min(accuracy, 1.0)

    def judge(self, t_s: float, request: Request, plan: Plan, tries: int) -> Verdict:
        """Return what the answer of an attempt is worth.

        Parameters
        ----------
        t_s
            When the attempt began, in seconds.
        request, plan
            What was asked, and how it was served.
        tries
            How many attempts at this request came before.
        """
        number = request[0]
        segment = (plan[0], plan[1], request[5], request[1], tries)
        case = self._cases.get(segment)
        if case is None:
            case = self._cases[segment] = self._case(request, plan, tries)
        steady, bar, score, signal_of, how = case
        if not steady or plan[2] < request[2]:
            bar = _bar(self.accuracy(t_s, request, plan))
        apart = self._apart
        if score(number) <= bar:
            failure = _NONE
            signal = signal_of(number) + apart
        else:
            failure = _how(self.skills[plan[0]], how(number))
            if failure is _FORMAT:
                return Verdict(failure, 0.0)
            signal = signal_of(number)
        return _new(Verdict, (failure, 1.0 / (1.0 + exp(apart * apart / 2.0 - apart * signal))))

    def _case(self, request: Request, plan: Plan, tries: int) -> _Case:
        """Return what judging the attempts of a segment takes."""
        model, kind = plan.model, request.kind
        luck = self._lucks.get((kind, model, tries))
        if luck is None:
            luck = self._lucks[kind, model, tries] = self._luck(kind, model, tries)
        steady = not any(drift.concerns(request, plan) for drift in self.drifts)
        whole = plan._replace(tokens_in=max(plan.tokens_in, request.tokens_in))
        return _Case(steady, _bar(self.accuracy(0.0, request, whole)), *luck)

    def _luck(self, kind: int, model: int, tries: int) -> tuple[Luck, Luck, Luck]:
        """Return (score, signal, how it fails) of an attempt at requests of a kind, by their numbers."""
        shared, repeat = self.kinds[kind]
        key, attempt = self.key, _attempt(model, tries)
        hard, lacks, luck = sqrt(shared), sqrt(repeat - shared), sqrt(1.0 - repeat)

        def score(number: int) -> float:
            of_all = hard * normal_at(key + _HARD, number) + lacks * normal_at(key + _LACKS, number, model)
            return of_all + luck * normal_at(key + _LUCK, number, attempt)

        def scores(numbers: Ordinals) -> Column:
            of_all = hard * _normals_at(key + _HARD, numbers) + lacks * _normals_at(
                key + _LACKS, numbers, model
            )
            return of_all + luck * _normals_at(key + _LUCK, numbers, attempt)

        signals = Ahead(
            lambda number: normal_at(key + _SIGNAL, number, attempt),
            lambda numbers: _normals_at(key + _SIGNAL, numbers, attempt),
        )
        fails = Ahead(
            lambda number: uniform_at(key + _HOW, number, attempt),
            lambda numbers: uniforms_at(key + _HOW, numbers, attempt),
        )
        return Ahead(score, scores).at, signals.at, fails.at


class _Case(NamedTuple):
    """What judging an attempt of a segment takes: of one model, variant, kind and agent, after so many attempts."""

    steady: bool
    """Whether its accuracy stays as it is."""
    bar: float
    """The score up to which an answer is correct, where nothing of the input was left out."""
    score: Luck
    signal: Luck
    how: Luck
    """Uniform: how it fails if it is not correct."""


def _bar(accuracy: float) -> float:
    """Return the score up to which an answer is correct."""
    if accuracy in (0.0, 1.0):
        return inf if accuracy else -inf
    return _quantile(accuracy)


def normal_at(key: int, *ordinals: int) -> float:
    """Return the standard normal number that belongs to (key, ordinals): see `glowsim.core.streams.uniform_at`.

    >>> normal_at(1, 7) == normal_at(1, 7) != normal_at(1, 8)
    True
    """
    return _quantile(max(uniform_at(key, *ordinals), _LEAST))


def _normals_at(key: int, *ordinals: int | Ordinals) -> Column:
    """Return `normal_at` of whole columns: by the same function, or a last digit could differ."""
    return np.array(list(map(_quantile, np.maximum(uniforms_at(key, *ordinals), _LEAST).tolist())))


_LEAST: Final = 2.0**-54
"""Stands for a uniform number that is 0."""


def _attempt(model: int, tries: int) -> int:
    """Return one number for an attempt of a model."""
    return model << 32 | tries


def _how(skill: Skill, luck: float) -> Failure:
    """Return how an answer fails that is not correct; luck is uniform on 0..1."""
    for failure, share in (
        (Failure.HALLUCINATION, skill.hallucination),
        (Failure.FORMAT, skill.format),
        (Failure.REFUSAL, skill.refusal),
    ):
        if luck < share:
            return failure
        luck -= share
    return Failure.WRONG


def _within(what: str, most: float, *numbers: float) -> None:
    for number in numbers:
        if not 0.0 <= number <= most:
            raise WorldError(f"quality: {what} must be from 0 to {most:g}, got {number}")
