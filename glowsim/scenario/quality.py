"""The block ``quality``: what the models can do, what users say of it, and what changes with time.

It is complete in itself, or stands on presets whose numbers it takes where it gives none:

    quality:
      presets: [routellm, feedback]
      models:
        small: {like: mixtral-8x7b}
        large: {like: gpt-4-1106, accuracy: {gsm8k: 92%}}
      drift:
        - {model: small, at: 10d, ramp: 3d, factor: 90%}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from glowsim.scenario.base import AgentName, Items, Model, Name, findings_error
from glowsim.scenario.problems import Finding, did_you_mean
from glowsim.scenario.quantities import FRACTION, Duration, Number, PositiveDuration, Share, Within

__all__ = [
    "Ability", "Drift", "Feedback", "Kind", "Quality", "Ratings", "Remarks", "Shares", "completed", "references",
]  # fmt: skip

Factor = Annotated[float, Within(FRACTION, 0, 100)]
"""A factor on the accuracy; written ``0.9`` or ``90%``."""
Auc = Annotated[float, Within(FRACTION, 0.5, 0.9999)]
_EVERY = "*"


def _by_kind(value: Any) -> Any:
    return value if isinstance(value, dict) else {_EVERY: value}


Accuracies = Annotated[
    dict[Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]*)$")], Share],
    BeforeValidator(_by_kind, json_schema_input_type=dict[str, Share] | Share),
]
"""Kind of task -> share of correct answers; a bare share is that of every kind."""


class Kind(Model):
    """How alike attempts at a task of this kind are, as correlations of the latent ability."""

    shared: Share = Field(description="Between two models: 0, who fails is chance; 1, all fail at the same.")
    repeat: Share = Field(description="Between two attempts of one model; at least that between two models.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.repeat < self.shared:
            message = f"must be at least 'shared' ({self.shared:g}): a model is most like itself"
            raise findings_error(Finding(("repeat",), message))
        return self


class Ability(Model):
    """What a model can do. The failures are shares of its answers that are not correct."""

    like: Name | None = Field(default=None, description="A model of the presets, for what is not given here.")
    accuracy: Accuracies = Field(
        default={}, description="Share of correct answers, of all or by kind of task."
    )
    hallucination: Share | None = Field(default=None, description="Failures that look right.")
    format: Share | None = Field(default=None, description="Failures whose form is wrong: seen at once.")
    refusal: Share | None = Field(default=None, description="Failures in which it declines.")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if math.fsum(x or 0.0 for x in (self.hallucination, self.format, self.refusal)) > 1.0 + 1e-9:
            raise findings_error(
                Finding(("hallucination",), "with 'format' and 'refusal' must be at most 100%")
            )
        return self


class Drift(Model):
    """Accuracy that changes with time: abrupt, or gradual with a ramp, or recurring with a period."""

    at_s: Duration = Field(alias="at", description="When it begins.")
    factor: Factor = Field(description="Factor on the accuracy.")
    ramp_s: Duration = Field(
        default=0.0, alias="ramp", description="How long it takes to come; default: none."
    )
    lasts_s: PositiveDuration | None = Field(
        default=None, alias="lasts", description="How long it is there, the ramp included; default: for ever."
    )
    every_s: PositiveDuration | None = Field(
        default=None, alias="every", description="How often it comes; default: once."
    )
    model: Name | None = Field(default=None, description="The only model it concerns; default: all.")
    kind: Name | None = Field(default=None, description="The only kind of task; default: all.")
    agent: AgentName | None = Field(default=None, description="The only agent or group; default: all.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.every_s is not None and (self.lasts_s is None or self.lasts_s >= self.every_s):
            message = "must be given and shorter than 'every', or it never goes"
            raise findings_error(Finding(("lasts",), message))
        if self.lasts_s is not None and self.ramp_s > self.lasts_s:
            raise findings_error(Finding(("ramp",), "must be at most 'lasts', or it never comes"))
        return self


class Shares(Model):
    """Share of the answers that are spoken of, by what is wrong with them."""

    correct: Share = Field(description="Of the correct ones.")
    wrong: Share = Field(description="Of those that are simply wrong.")
    hallucination: Share = Field(description="Of those that look right.")
    format: Share = Field(description="Of those whose form is wrong.")
    refusal: Share = Field(description="Of those in which the model declined.")


class Delay(Model):
    """A lognormal time."""

    median_s: PositiveDuration = Field(alias="median", description="The median.")
    sigma: Number = Field(description="Standard deviation of the logarithm.")


class Remarks(Model):
    """Something that users say or do not say: its value is 1."""

    shares: Shares = Field(description="How often.")
    delay: Delay = Field(description="How long after the answer.")


Weights = Annotated[Items[Share], Field(min_length=5, max_length=5)]


class Ratings(Remarks):
    """A mark from 1 to 5."""

    if_correct: Weights = Field(description="Shares of the marks 1 to 5 that correct answers get.")
    otherwise: Weights = Field(description="Shares of the marks 1 to 5 that other answers get.")

    @model_validator(mode="after")
    def _sums(self) -> Self:
        for name, weights in (("if_correct", self.if_correct), ("otherwise", self.otherwise)):
            total = math.fsum(weights)
            if not math.isclose(total, 1.0, abs_tol=1e-6):
                raise findings_error(Finding((name,), f"must add up to 100%, not {total:.4%}"))
        return self


class Feedback(Model):
    """What users say: metrics ``rating``, ``correction`` and ``complaint``."""

    rating: Ratings | None = Field(default=None, description="Marks; default: none.")
    correction: Remarks | None = Field(default=None, description="Corrections by a person; default: none.")
    complaint: Remarks | None = Field(default=None, description="Complaints; default: none.")


class Quality(Model):
    """How good answers are: hidden from every controller but for a confidence and for what users say."""

    presets: Items[Name] = Field(
        default=(), description="Whose numbers hold where none is given; later ones first."
    )
    kinds: dict[Name, Kind] = Field(default={}, description="Kind of task -> how alike attempts are.")
    models: dict[Name, Ability] = Field(default={}, description="Model -> what it can do; every model used.")
    context_loss: Share | None = Field(
        default=None, description="Share of the accuracy lost where nothing of the input is kept."
    )
    confidence: Auc | None = Field(
        default=None, description="What the confidence of an answer is worth (AUC): 0.5 nothing, 1 all."
    )
    variants: dict[Name, Factor] = Field(
        default={}, description="Variant -> factor on the accuracy; default: 1."
    )
    drift: Items[Drift] = Field(default=(), description="What changes with time.")
    feedback: Feedback = Field(default_factory=Feedback, description="What users say.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        findings = [*self._known_kinds()]
        if not self.presets:
            findings += self._missing()
        if findings:
            raise findings_error(*findings)
        return self

    def _missing(self) -> Iterator[Finding]:
        for key in ("kinds", "models", "context_loss", "confidence"):
            if getattr(self, key) in (None, {}):
                yield Finding((key,), "is required where no preset gives it")
        for name, ability in self.models.items():
            path = ("models", name)
            if ability.like is not None:
                yield Finding((*path, "like"), "needs 'presets': it names a model of theirs")
            for kind in self.kinds:
                if kind not in ability.accuracy and _EVERY not in ability.accuracy:
                    yield Finding((*path, "accuracy"), f"has none for the kind {kind!r}")
            for share in ("hallucination", "format", "refusal"):
                if getattr(ability, share) is None:
                    yield Finding((*path, share), "is required where no preset gives it")

    def _known_kinds(self) -> Iterator[Finding]:
        if self.presets:
            return  # theirs are known when they have been read
        kinds = list(self.kinds)
        for name, ability in self.models.items():
            for kind in ability.accuracy:
                if kind != _EVERY and kind not in kinds:
                    yield _unknown(("models", name, "accuracy", kind), "kind of task", kind, kinds)
        for i, drift in enumerate(self.drift):
            if drift.kind is not None and drift.kind not in kinds:
                yield _unknown(("drift", i, "kind"), "kind of task", drift.kind, kinds)

    def accuracy(self, model: str, kind: str) -> float:
        """Return a model's share of correct answers at a kind of task.

        >>> ability = {"accuracy": 0.7, "hallucination": 0, "format": 0, "refusal": 0}
        >>> quality = Quality.model_validate(
        ...     {"kinds": {"any": {"shared": 0.5, "repeat": 0.8}}, "models": {"m": ability},
        ...      "context_loss": "30%", "confidence": "70%"}
        ... )
        >>> quality.accuracy("m", "any")
        0.7
        """
        of_model = self.models[model].accuracy
        return of_model[kind] if kind in of_model else of_model[_EVERY]


def completed(written: Quality, presets: Sequence[Mapping[str, Any]]) -> Quality:
    """Return the block without its presets: what they say, replaced by what is written, number by number.

    Models of the presets that nobody is like are left out, and so is their drift; without ``models`` all of the
    presets' are there. What is written under ``drift`` and ``feedback`` replaces theirs altogether.

    Parameters
    ----------
    written
        The block as a person wrote it.
    presets
        The part ``quality`` of each of its presets, in their order.

    Raises
    ------
    ValidationError
        A number is missing still, or a model is like none.

    >>> preset = {"kinds": {"any": {"shared": 0.5, "repeat": 0.8}}, "context_loss": 0.3, "confidence": 0.7,
    ...     "models": {"weak": {"accuracy": 0.7, "hallucination": 0, "format": 0, "refusal": 0}}}
    >>> block = Quality.model_validate({"presets": ["this"], "models": {"mini": {"like": "weak", "format": "5%"}}})
    >>> completed(block, [preset]).models["mini"]
    Ability(like=None, accuracy={'*': 0.7}, hallucination=0.0, format=0.05, refusal=0.0)
    """
    merged: dict[str, Any] = {}
    for preset in presets:
        merged = _over(merged, preset)
    given = written.model_dump(by_alias=True, exclude_unset=True, mode="json")
    given.pop("presets", None)
    theirs, mine = merged.pop("models", {}), given.pop("models", None)
    if mine is not None:
        likes = {name: ability.pop("like", name) for name, ability in mine.items()}
        lost = [
            _unknown(("models", name, "like"), "model of the presets", like, list(theirs))
            for name, like in likes.items()
            if like not in theirs and written.models[name].like is not None
        ]
        if lost:
            raise ValidationError.from_exception_data(
                "Quality", [{"type": findings_error(*lost), "loc": (), "input": given}]
            )
        theirs = {name: _over(theirs.get(likes[name], {}), ability) for name, ability in mine.items()}
        merged["drift"] = [each for drift in merged.get("drift", ()) for each in _renamed(drift, likes)]
    feedback = {"feedback": given.pop("feedback")} if "feedback" in given else {}
    return Quality.model_validate(_over(merged, {**given, "models": theirs}) | feedback)


def _renamed(drift: Mapping[str, Any], likes: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Return a preset's drift for each of the models that are like the one that it concerns."""
    if "model" not in drift:
        return [drift]
    return [{**drift, "model": name} for name, like in likes.items() if like == drift["model"]]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping laid over another, key by key, all the way down; lists and scalars are replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if key == "accuracy":
            old, value = _by_kind(old if old is not None else {}), _by_kind(value)
            if _EVERY in value:
                old = {}
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def references(
    data: Mapping[str, Any], models: Sequence[str], agents: Sequence[str], variants: Sequence[str]
) -> Iterator[Finding]:
    """Yield the names in a block, as plain data, that the rest of the scenario does not have.

    Paths are from the scenario's root. What is malformed is passed over: the model of the block says so.

    >>> block = {"models": {"gpt": {}}, "drift": [{"agent": "tax"}]}
    >>> [finding.message for finding in references(block, ["gpt-4o"], ["tax"], [])]
    ["unknown model 'gpt'"]
    """
    for section, what, allowed in (("models", "model", models), ("variants", "variant", variants)):
        names = data.get(section)
        for name in names if isinstance(names, Mapping) else ():
            if name not in allowed:
                yield _unknown(("quality", section, name), what, name, allowed)
    drifts = data.get("drift")
    for i, drift in enumerate(drifts if isinstance(drifts, list) else ()):
        for key, allowed in (("model", models), ("agent", agents)):
            name = drift.get(key) if isinstance(drift, Mapping) else None
            if isinstance(name, str) and name not in allowed:
                yield _unknown(("quality", "drift", i, key), key, name, allowed)


def _unknown(path: tuple[str | int, ...], what: str, name: str, allowed: Sequence[str]) -> Finding:
    return Finding(path, f"unknown {what} {name!r}", tuple(allowed), did_you_mean(name, allowed))
