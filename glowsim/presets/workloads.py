"""Workload presets: how requests arrive and how large they are, checked on reading.

A preset is a mapping, from a file in ``workloads/`` or fitted to a user's log:

- ``rate_per_s``, and ``arrivals``: ``{window_s, cv, kind: stochastic, p, level, memory: [{share, time_s}]}`` or
  ``{window_s, cv, kind: recorded, level}``; levels are multiples of the mean rate;
- ``lengths``: ``{p, tokens_in, tokens_out, spearman}``, quantiles at ``p``;
- ``clients``, optional: ``[{share, tokens_in, tokens_out}]``, the lists being each client's own law: quantiles of the
  normal scores in ``lengths`` (0: everybody's median), at ``client_p`` of ``lengths``; where each also has ``cv`` and
  ``level`` they send independently, and ``arrivals`` has neither;
- ``sessions``, optional: laws of turns, think times and tokens, and ``statistics``: target and achieved;
- ``origins``: part -> ``{origin: measured | published | fitted | assumed, source}``; an entry such as
  ``sessions.think_s`` says that this one differs from its part's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Any, Final, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from glowsim.presets import PresetError, names, read
from glowsim.presets.place import Place

__all__ = ["Client", "Lengths", "WorkloadPreset", "load", "load_file", "parse", "preset_names"]

_PARTS: Final = ("arrivals", "lengths", "clients", "sessions")
_WIDE: Final = 40.0
"""No normal score is as far from 0."""
_EXACT: Final = 0.02
"""How far shares may miss 1, and mean levels 1, by rounding."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of requests: stored quantiles, joined by a Gaussian copula."""

    p: tuple[float, ...]
    tokens_in: tuple[float, ...]
    tokens_out: tuple[float, ...]
    spearman: float
    """Rank correlation of the two within a client."""
    client_p: tuple[float, ...] | None
    """Where the quantiles of the clients' own laws stand."""


@dataclass(frozen=True)
class Client:
    """One of those who send requests."""

    share: float
    """Of all requests."""
    cv: float | None
    """Of its gaps, and its levels; None: it takes its share of the pooled arrivals."""
    level: tuple[float, ...] | None
    tokens_in: tuple[float, ...]
    """Its own law: quantiles of the normal scores in everybody's lengths, at their ``client_p``."""
    tokens_out: tuple[float, ...]


@dataclass(frozen=True)
class WorkloadPreset:
    """A workload that resembles a recorded one."""

    name: str
    rate_per_s: float
    window_s: float
    kind: Literal["stochastic", "recorded"]
    p: tuple[float, ...] | None
    """Where the quantiles of levels stand; None: levels as recorded."""
    memory: tuple[tuple[float, float], ...]
    """(share, time_s) of the levels' fading memory."""
    cv: float | None
    """Of the pooled arrivals; None: each client has its own."""
    level: tuple[float, ...] | None
    lengths: Lengths
    clients: tuple[Client, ...]
    sessions: Mapping[str, Any] | None
    statistics: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, str]]

    def at_rate(self, rate_per_s: float | None) -> WorkloadPreset:
        """Return it at another mean rate, the shape of its levels unchanged; None: at its own.

        Twice the rate has twice the dispersion in excess of what a steady rate would have: it stands for twice as
        many users who are busy at the same times, not for two independent crowds.
        """
        return self if rate_per_s is None else replace(self, rate_per_s=rate_per_s)


def preset_names() -> tuple[str, ...]:
    """Return the names of the workloads that come along.

    >>> "azure_code" in preset_names()
    True
    """
    return names("workloads")


def load(name: str) -> WorkloadPreset:
    """Return a workload that comes along.

    Raises
    ------
    PresetError
        There is none of that name; says which there are.

    >>> load("azure_code").window_s
    10.0
    """
    return parse(read("workloads", name), f"the preset {name}")


def load_file(path: Path) -> WorkloadPreset:
    """Return the workload in a file, such as one fitted to a log.

    Raises
    ------
    PresetError
        It is no YAML, or not as this module's head describes it.
    """
    try:
        said = YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise PresetError(f"{path} is no YAML: {error}") from error
    return parse(said, str(path))


def parse(said: Any, where: str) -> WorkloadPreset:
    """Return the workload that a mapping says.

    Parameters
    ----------
    said
        As this module's head describes it.
    where
        Its file, for errors.

    Raises
    ------
    PresetError
        A part is missing, unknown, or cannot be: names the place.
    """
    root = Place(where, said)
    arrivals, lengths = root.part("arrivals"), _lengths(root.part("lengths"))
    kind = arrivals.one_of("kind", ("stochastic", "recorded"))
    p = arrivals.probabilities("p") if kind == "stochastic" else None
    memory = (
        tuple((part.number("share", 0, 1), part.number("time_s", 1e-9)) for part in arrivals.parts("memory"))
        if p is not None
        else ()
    )
    if fsum(share for share, _ in memory) > 1 + 1e-9:
        arrivals.fail("memory", "its shares add up to more than 1")
    if "clients" in root.found and lengths.client_p is None:
        root.part("lengths").fail("client_p", "is missing, and there are clients")
    own_p = lengths.client_p or ()
    clients = (
        tuple(_client(each, p, own_p) for each in root.parts("clients")) if "clients" in root.found else ()
    )
    if clients and abs(fsum(client.share for client in clients) - 1) > _EXACT:
        root.fail("clients", "their shares must add up to 1")
    alone = [client.cv is not None for client in clients]
    pooled = not any(alone)
    if any(alone) and not all(alone):
        root.fail("clients", "either all have 'cv' and 'level', or none")
    cv, level = (arrivals.number("cv", 1e-3), _level(arrivals, p)) if pooled else (None, None)
    if not pooled and ("cv" in arrivals.found or "level" in arrivals.found):
        arrivals.fail("cv", "and 'level' belong to the clients, who have their own")
    origins = root.part("origins")
    for part in {**{part: None for part in _PARTS if part in root.found}, **origins.found}:
        origins.part(part).attribution()
    return WorkloadPreset(
        name=root.text("name"),
        rate_per_s=root.number("rate_per_s", 1e-12),
        window_s=arrivals.number("window_s", 1e-3),
        kind="stochastic" if p is not None else "recorded",
        p=p,
        memory=memory,
        cv=cv,
        level=level,
        lengths=lengths,
        clients=clients,
        sessions=root.part("sessions").found if "sessions" in root.found else None,
        statistics=root.part("statistics").found if "statistics" in root.found else {},
        origins=origins.found,
    )


def _lengths(place: Place) -> Lengths:
    p = place.probabilities("p")
    return Lengths(
        p=p,
        tokens_in=place.quantiles("tokens_in", p),
        tokens_out=place.quantiles("tokens_out", p),
        spearman=place.number("spearman", -1, 1),
        client_p=place.probabilities("client_p") if "client_p" in place.found else None,
    )


def _client(place: Place, p: tuple[float, ...] | None, own_p: tuple[float, ...]) -> Client:
    alone = "cv" in place.found or "level" in place.found
    if alone and p is None:
        place.fail("level", "clients of their own need 'kind: stochastic'")
    return Client(
        share=place.number("share", 0, 1),
        cv=place.number("cv", 1e-3) if alone else None,
        level=_level(place, p) if alone else None,
        tokens_in=place.quantiles("tokens_in", own_p, -_WIDE),
        tokens_out=place.quantiles("tokens_out", own_p, -_WIDE),
    )


def _level(place: Place, p: tuple[float, ...] | None) -> tuple[float, ...]:
    if p is None:
        level = place.numbers("level", 0)
        mean = fsum(level) / max(len(level), 1)
    else:
        level = place.quantiles("level", p)
        mean = fsum(
            (b - a) * (x + y) / 2 for (a, b), (x, y) in zip(pairwise(p), pairwise(level), strict=True)
        )
    if abs(mean - 1) > _EXACT:
        place.fail(
            "level", f"must have the mean 1, and has {mean:.3f}: levels are multiples of the mean rate"
        )
    return level
