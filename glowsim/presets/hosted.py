"""Hosted APIs as others measured them: latencies, errors, and incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowsim.presets import read
from glowsim.presets.place import Place

__all__ = ["HostedPreset", "Incidents", "hosted", "incidents", "parse"]


@dataclass(frozen=True)
class HostedPreset:
    """How quickly a hosted API answered, and how often it failed."""

    name: str
    quantiles: tuple[float, ...]
    """Shares of the calls, from 0 to 1, to which the values of both laws belong."""
    first_token_s: tuple[float, ...]
    """Seconds to the first token."""
    per_token_s: tuple[float, ...]
    """Seconds for each further token of a call."""
    error: float
    """Share of the calls that failed, other than by a limit of rate."""
    valid_tokens_in: int
    """Tokens of the prompts that were measured; longer ones may wait longer."""
    valid_concurrency: int
    """Calls at once while it was measured."""
    origin: str
    source: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Incidents:
    """How often a provider has incidents, how long they last, and how many calls they strike."""

    name: str
    mean_between_starts_s: float
    weibull_shape: float
    """Of the time between starts; below 1 they cluster."""
    repair_median_s: float
    repair_sigma: float
    """Standard deviation of the logarithm of how long one lasts."""
    share: float
    """Calls that fail while one lasts."""
    share_source: str
    origin: str
    source: str


def hosted(name: str) -> HostedPreset:
    """Return a preset: ``good``, ``average`` or ``bad``.

    Raises
    ------
    PresetError
        There is no such preset, or its numbers cannot be.

    >>> hosted("good").first_token_s[5]
    0.2219
    """
    return parse(name, read("hosted", name))


def parse(name: str, found: Mapping[str, Any]) -> HostedPreset:
    """Return what a preset's file says.

    Parameters
    ----------
    name
        What messages call it.
    found
        The file's content; see ``glowsim/presets/hosted/*.yaml``.

    Raises
    ------
    PresetError
        A key is missing, or the quantiles do not rise from 0 to 1 with values that do not fall.
    """
    place = Place(f"hosted preset {name!r}", found)
    quantiles, valid = place.probabilities("quantiles"), place.part("valid")
    return HostedPreset(
        name, quantiles, place.quantiles("first_token_s", quantiles), place.quantiles("per_token_s", quantiles),
        place.number("error", 0, 1),
        valid.whole("tokens_in"), valid.whole("concurrency"), place.origin(), place.text("source"),
        place.texts("remarks"),
    )  # fmt: skip


def incidents(name: str) -> Incidents:
    """Return how often a provider has incidents: ``openai`` or ``anthropic``.

    Raises
    ------
    PresetError
        There is no such preset, or its numbers cannot be.

    >>> openai = incidents("openai")
    >>> openai.weibull_shape, round(openai.mean_between_starts_s / 3600, 1)
    (0.64, 85.7)
    """
    place = Place(f"incidents {name!r}", read("hosted/incidents", name))
    between, repair, share = place.part("between_starts"), place.part("repair"), place.part("share")
    return Incidents(
        name, between.number("mean_s"), between.number("weibull_shape"), repair.number("median_s"),
        repair.number("sigma"), share.number("value", 0, 1), share.attribution(), place.origin(), place.text("source"),
    )  # fmt: skip
