"""From the block ``quality`` of a scenario to the truth about its answers: names become numbers here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from glowsim import presets
from glowsim.core.streams import Streams
from glowsim.scenario import quality as written
from glowsim.sim import feedback, quality

__all__ = ["Judging", "judging"]

_SPOKEN: Final[tuple[tuple[float, float], ...]] = ((1.0, 1.0),)


class Judging(NamedTuple):
    """What the world needs to judge answers and to have users speak."""

    quality: quality.Quality
    channels: tuple[feedback.Channel, ...]
    feedback_key: int
    kinds: tuple[str, ...]
    """Names of the kinds of task, in the order of ``Request.kind``."""


def judging(
    block: written.Quality,
    models: Sequence[str],
    agents: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[str]],
    streams: Streams,
) -> Judging:
    """Return the truth that a block describes.

    Parameters
    ----------
    block
        As written; its presets are read here.
    models
        Names of the scenario's models, in the order of their numbers.
    agents
        Each agent's name, in the order of their numbers -> names of its variants, without the baseline.
    groups
        Name that a drift may give -> the agents that it means.
    streams
        Of this replication.

    Raises
    ------
    PresetError
        There is no such preset.
    ValidationError
        The presets leave a number open, or there is no model of theirs to be like.
    ValueError
        A model of the scenario has no ability.

    >>> block = written.Quality.model_validate({"presets": ["routellm"]})
    >>> judging(block, ["mixtral-8x7b", "gpt-4-1106"], {"a": []}, {"a": ["a"]}, Streams(1)).kinds
    ('mmlu', 'gsm8k')
    """
    if block.presets:
        block = written.completed(block, [presets.read("quality", name)["quality"] for name in block.presets])
    kinds = tuple(block.kinds)
    for name in models:
        if name not in block.models:
            raise ValueError(f"quality.models has no {name!r}: say what it can do, or whom it is like")
    truth = quality.Quality(
        skills=tuple(_skill(block, name, kinds) for name in models),
        kinds=tuple(quality.Likeness(kind.shared, kind.repeat) for kind in block.kinds.values()),
        context_loss=_given(block.context_loss),
        auc=_given(block.confidence),
        key=streams.key("quality"),
        variants=tuple(
            (1.0, *(block.variants.get(variant, 1.0) for variant in variants)) for variants in agents.values()
        ),
        drifts=tuple(
            drift for each in block.drift for drift in _drifts(each, models, kinds, list(agents), groups)
        ),
    )
    return Judging(truth, _channels(block.feedback), streams.key("feedback"), kinds)


def _given(number: float | None) -> float:
    assert number is not None, "a completed block has it"
    return number


def _skill(block: written.Quality, name: str, kinds: Sequence[str]) -> quality.Skill:
    ability = block.models[name]
    return quality.Skill(
        tuple(block.accuracy(name, kind) for kind in kinds),
        _given(ability.hallucination),
        _given(ability.format),
        _given(ability.refusal),
    )


def _drifts(
    drift: written.Drift,
    models: Sequence[str],
    kinds: Sequence[str],
    agents: list[str],
    groups: Mapping[str, Sequence[str]],
) -> list[quality.Drift]:
    whom = [None] if drift.agent is None else [agents.index(name) for name in groups[drift.agent]]
    return [
        quality.Drift(
            at_s=drift.at_s,
            factor=drift.factor,
            ramp_s=drift.ramp_s,
            lasts_s=inf if drift.lasts_s is None else drift.lasts_s,
            every_s=inf if drift.every_s is None else drift.every_s,
            model=None if drift.model is None else models.index(drift.model),
            kind=None if drift.kind is None else kinds.index(drift.kind),
            agent=agent,
        )
        for agent in whom
    ]


def _channels(said: written.Feedback) -> tuple[feedback.Channel, ...]:
    made = []
    for metric in ("rating", "correction", "complaint"):
        remarks: written.Remarks | None = getattr(said, metric)
        if remarks is None:
            continue
        shares = remarks.shares
        marks = (_SPOKEN, _SPOKEN)
        if isinstance(remarks, written.Ratings):
            marks = (_marks(remarks.if_correct), _marks(remarks.otherwise))
        by_failure = (shares.correct, shares.wrong, shares.hallucination, shares.format, shares.refusal)
        made.append(feedback.Channel(metric, by_failure, *marks, remarks.delay.median_s, remarks.delay.sigma))
    return tuple(made)


def _marks(weights: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple((float(mark), weight) for mark, weight in enumerate(weights, 1))
