"""A workload preset that resembles a recorded log.

The rate wanders from window to window, and within it requests come in bunches (`glowsim.sim.workload.renewal`).
Three numbers are tuned until the mean of simulated runs as long as the log shows what the log shows:

- ``cv`` of the gaps within a window: the index of dispersion at 1 s; where windows are longer than a minute, since
  such a log is thin, the CV of all gaps;
- how far the rate swings (an exponent on its recorded levels): the dispersion at 10 s, or where windows are of a
  minute and more, that of the windows;
- how long it remembers: the dispersion at 60 s, or there the correlation of the counts of neighbouring windows.

The window is the one whose runs come closest, and so is whether a fifth of the wandering is slow (idle
spells then last longer at the same dispersion). ``envelope="recorded"`` keeps the log's own counts per window and tunes
``cv`` alone: every run has its peaks at the log's times, the rhythm of its days included, and repeats after the
log's end. ``"stochastic"`` keeps the laws: any length, every seed another run, and no memory of the time of day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from itertools import pairwise
from math import fsum
from math import log as ln
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.presets.workloads import WorkloadPreset, parse
from glowsim.traces import statistics
from glowsim.traces.describe import SCALES_S
from glowsim.traces.log import Log, LogError

__all__ = ["CLIENT_P", "LENGTH_P", "LEVEL_P", "Goal", "Play", "achieved", "fit", "tune", "write"]

Floats = npt.NDArray[np.float64]
Play = Callable[[WorkloadPreset, int, float], Floats]
"""(preset, seed, until_s) -> moments of arrival: what a simulated run of a preset sends."""

_LEAST: Final = 100
_WINDOWS_S: Final = (5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0)
_LEAST_WINDOWS: Final = 20
_LEAST_IN_WINDOW: Final = 5.0
_SLOW: Final = 0.2
_SLOW_WINDOWS: Final = 15
"""This share of the wandering may fade slowly: in so many windows."""
_SEEN: Final = 6
"""A log shows a memory of at most one part in so many of its length."""
_ROUNDS: Final = 8
_SEARCHED: Final = 400_000
"""Arrivals simulated for one trial, about."""
_MATCHED: Final = ("dispersion_1s", "dispersion_10s", "dispersion_60s", "dispersion_window", "gap_cv")
_CLIENTS: Final = 50
_DIGITS: Final = 4
LEVEL_P: Final = (*(i / 20 for i in range(20)), 0.975, 0.99, 1.0)
LENGTH_P: Final = (0.0, 0.01, *(i / 50 for i in range(1, 50)), 0.99, 0.995, 0.999, 1.0)
CLIENT_P: Final = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0)


def fit(
    log: Log,
    play: Play,
    *,
    envelope: Literal["stochastic", "recorded"] = "stochastic",
    window_s: float | None = None,
    name: str = "fitted",
    samples: int = 20,
) -> dict[str, Any]:
    """Return a preset that resembles a log, with its statistics beside those that simulated runs achieve.

    Parameters
    ----------
    log
        With tokens in and out; tenants (or users) and sessions are used where it has them.
    play
        Runs a preset.
    envelope
        ``stochastic``: any length, every seed another run. ``recorded``: the log's own counts per window.
    window_s
        The rate changes so often; default: of several, the one that comes closest.
    name
        Of the preset.
    samples
        Runs whose mean and standard deviation are stated, at least 2.

    Raises
    ------
    LogError
        The log has fewer than 100 requests, no tokens, or all of them at one time.
    """
    if len(log) < _LEAST:
        raise LogError(
            f"{log.source} has {len(log)} requests: at least {_LEAST} are needed to fit a workload"
        )
    for column in ("tokens_in", "tokens_out"):
        if column not in log.numbers or not np.isfinite(log.numbers[column]).any():
            raise LogError(f"{log.source} has no {column}: a workload cannot be fitted without lengths")
    span_s = float(log.t_s[-1])
    if not span_s:
        raise LogError(f"{log.source}: its requests are all at one time, so their rate is unknown")
    windows = _windows(len(log), span_s) if window_s is None else (window_s,)
    said = _said(log, name)
    made = [(*tune(said, goal, play, envelope), goal) for goal in (_goal(log, each) for each in windows)]
    near = min(made, key=lambda one: one[0])
    if envelope == "stochastic":
        near = min(near, (*tune(said, near[2], play, envelope, slow=True), near[2]), key=lambda one: one[0])
    best = near[1]
    best["statistics"] = {
        "target": _rounded(_target(log.t_s, None)),
        "achieved": achieved(best, play, span_s, samples),
        "span_s": round(span_s, 3),
        "samples": samples,
    }
    return best


def _windows(n: int, span_s: float) -> tuple[float, ...]:
    enough = [w for w in _WINDOWS_S if span_s / w >= _LEAST_WINDOWS] or [span_s / _LEAST_WINDOWS]
    full = [w for w in enough if n * w / span_s >= _LEAST_IN_WINDOW]
    return tuple(full or enough[-1:])


class Goal(NamedTuple):
    """What arrivals are tuned to."""

    target: Mapping[str, float]
    """``dispersion_1s``, ``dispersion_10s``, ``dispersion_60s``, ``dispersion_window``, ``gap_cv`` and ``correlation``
    (of neighbouring windows' counts); nan where unknown."""
    recorded: Floats
    """Counts of the windows, whose law the levels have."""
    window_s: float
    span_s: float
    """Of the log, and of a run."""


def _goal(log: Log, window_s: float) -> Goal:
    recorded = statistics.counts(log.t_s, window_s).astype(np.float64)
    if not recorded.any():
        raise LogError(f"{log.source} has no whole window of {window_s:g} s: choose a shorter one")
    return Goal(_target(log.t_s, window_s), recorded, window_s, float(log.t_s[-1]))


def _said(log: Log, name: str) -> dict[str, Any]:
    """Return all of a preset but its arrivals."""
    clients, spearman = _clients(log)
    lengths = {
        "p": list(LENGTH_P),
        **{column: _quantiles(log.numbers[column], LENGTH_P) for column in ("tokens_in", "tokens_out")},
        "spearman": round(spearman, _DIGITS),
    }
    source = f"{log.source} ({log.format}, {len(log)} requests)"
    parts = ["arrivals", "lengths"]
    said: dict[str, Any] = {
        "name": name, "rate_per_s": float(f"{len(log) / log.t_s[-1]:.6g}"), "arrivals": {}, "lengths": lengths,
    }  # fmt: skip
    if clients:
        lengths["client_p"] = list(CLIENT_P)
        said["clients"], parts = clients, [*parts, "clients"]
    if "session" in log.names and (found := _sessions(log)):
        said["sessions"], parts = found, [*parts, "sessions"]
    said["origins"] = {part: {"origin": "fitted", "source": source} for part in parts}
    return said


def tune(
    said: Mapping[str, Any],
    goal: Goal,
    play: Play,
    envelope: Literal["stochastic", "recorded"] = "stochastic",
    *,
    slow: bool = False,
) -> tuple[float, dict[str, Any]]:
    """Return (distance, preset): a preset whose arrivals are tuned to a goal.

    The distance is the sum of the squares of the logarithms of achieved over target, all but the correlation's.

    Parameters
    ----------
    said
        The preset without its arrivals.
    goal
        What runs shall look like.
    play
        Runs a preset.
    envelope
        See `fit`.
    slow
        Whether a fifth of the wandering is slow.
    """
    knobs = _Knobs(cv=1.0, swing=1.0, time_s=2.0 * goal.window_s, slow=_SLOW if slow else 0.0)
    runs = int(np.clip(_SEARCHED / (said["rate_per_s"] * goal.span_s), 5, 20))
    best: tuple[float, dict[str, Any]] = float("inf"), {}
    for _ in range(_ROUNDS):
        trial = {**said, "arrivals": _arrivals(goal.recorded, goal.window_s, envelope, knobs)}
        preset = parse(trial, "the fitted preset")
        seen = _mean([_target(play(preset, seed, goal.span_s), goal.window_s) for seed in range(runs)])
        distance = fsum(
            ln(seen[key] / goal.target[key]) ** 2
            for key in _MATCHED
            if goal.target[key] > 0 and seen[key] > 0
        )
        best = min(best, (distance, trial), key=lambda one: one[0])
        knobs = _turned(knobs, goal, seen)
    return best


class _Knobs(NamedTuple):
    cv: float
    swing: float
    time_s: float
    slow: float


def _arrivals(recorded: Floats, window_s: float, envelope: str, knobs: _Knobs) -> dict[str, Any]:
    said: dict[str, Any] = {"window_s": window_s, "cv": float(f"{knobs.cv:.4g}"), "kind": envelope}
    if envelope == "recorded":
        return said | {"level": _rounded_list(recorded / recorded.mean())}
    table = np.quantile(recorded, LEVEL_P) ** knobs.swing
    mean = fsum(
        (b - a) * (x + y) / 2 for (a, b), (x, y) in zip(pairwise(LEVEL_P), pairwise(table), strict=True)
    )
    parts = (1.0 - knobs.slow, knobs.time_s), (knobs.slow, max(_SLOW_WINDOWS * window_s, knobs.time_s))
    return said | {
        "p": list(LEVEL_P),
        "level": _rounded_list(table / mean),
        "memory": [{"share": share, "time_s": float(f"{time_s:.4g}")} for share, time_s in parts if share],
    }


def _turned(knobs: _Knobs, goal: Goal, seen: Mapping[str, float]) -> _Knobs:
    """Return the knobs after a step towards the goal, each by what it moves most."""
    target, _, window_s, span_s = goal
    long = window_s >= SCALES_S[-1]
    swing = "dispersion_window" if long else "dispersion_10s"
    bunch, power = ("gap_cv", 1.0) if window_s > SCALES_S[-1] else ("dispersion_1s", 0.7)
    if not long:
        time_s = knobs.time_s * _ratio(target["dispersion_60s"], seen["dispersion_60s"])
    elif target["correlation"] > 0 and seen["correlation"] > 0:
        time_s = knobs.time_s * _ratio(ln(seen["correlation"]), ln(target["correlation"]))
    else:
        time_s = knobs.time_s * (0.5 if target["correlation"] <= 0 else 2.0)
    return knobs._replace(
        cv=float(np.clip(knobs.cv * _ratio(target[bunch], seen[bunch]) ** power, 0.2, 20.0)),
        swing=float(np.clip(knobs.swing * _ratio(target[swing], seen[swing]) ** 0.5, 0.02, 4.0)),
        time_s=float(np.clip(time_s, window_s / 5, span_s / _SEEN)),
    )


def _ratio(wanted: float, seen: float) -> float:
    """Return how far to go, at most twofold; 1 where one of them is unknown."""
    ratio = wanted / seen if seen else float("nan")
    return min(max(ratio, 0.5), 2.0) if ratio > 0 else 1.0


def _target(t_s: Floats, window_s: float | None) -> dict[str, float]:
    found = {f"dispersion_{scale_s:.0f}s": statistics.dispersion(t_s, scale_s) for scale_s in SCALES_S}
    found["gap_cv"] = statistics.variation(t_s)
    if window_s is None:
        return found | {
            "peak_to_mean": statistics.peak_to_mean(t_s), "idle_share": statistics.idle_share(t_s),
        }  # fmt: skip
    return found | {
        "dispersion_window": statistics.dispersion(t_s, window_s),
        "correlation": statistics.autocorrelation(t_s, window_s, 1),
    }


def _mean(seen: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([each[key] for each in seen])) for key in seen[0]}


def achieved(said: Mapping[str, Any], play: Play, span_s: float, samples: int) -> dict[str, list[float]]:
    """Return (mean, standard deviation) over runs of what `fit` states of a log, by name.

    Parameters
    ----------
    said
        A preset.
    play
        Runs it.
    span_s
        Length of a run.
    samples
        How many runs, at least 2; their seeds are not those of the search.
    """
    preset = parse(said, "the fitted preset")
    seen = [_target(play(preset, 1000 + seed, span_s), None) for seed in range(samples)]
    return {
        key: [
            float(f"{np.mean([each[key] for each in seen]):.4g}"),
            float(f"{np.std([each[key] for each in seen], ddof=1):.2g}"),
        ]
        for key in seen[0]
    }


# --- lengths, clients, sessions -------------------------------------------------------------------------


def _quantiles(values: Floats, p: tuple[float, ...]) -> list[float]:
    return _rounded_list(np.quantile(values[np.isfinite(values)], p))


def _clients(log: Log) -> tuple[list[dict[str, Any]], float]:
    """Return the clients, the small ones together as one, and the rank correlation of tokens within them."""
    tokens_in, tokens_out = log.numbers["tokens_in"], log.numbers["tokens_out"]
    named = next((name for name in ("tenant", "user") if name in log.names), None)
    if named is None:
        return [], statistics.spearman(tokens_in, tokens_out) if _vary(tokens_in, tokens_out) else 0.0
    codes = log.names[named].codes + 1
    heaviest = np.argsort(-np.bincount(codes), kind="stable")[:_CLIENTS]
    place = np.full(int(codes.max()) + 1, len(heaviest))
    place[heaviest] = np.arange(len(heaviest))
    who = place[codes]
    first, second = _scores(tokens_in), _scores(tokens_out)
    everybodys = (first[np.isfinite(first)], second[np.isfinite(second)])
    clients, left = [], (first.copy(), second.copy())
    for client in np.unique(who):
        mine = who == client
        laws = []
        for scores, rest, all_ in zip((first, second), left, everybodys, strict=True):
            own = scores[mine & np.isfinite(scores)]
            law = np.quantile(own if len(own) else all_, CLIENT_P)
            laws.append([round(float(score), 2) for score in law])
            rest[mine] = _scores(scores[mine])
        clients.append({"share": round(float(mine.mean()), 6), "tokens_in": laws[0], "tokens_out": laws[1]})
    spearman = statistics.spearman(*left) if _vary(*left) else 0.0
    return (clients if len(clients) > 1 else []), spearman


def _vary(*columns: Floats) -> bool:
    both = np.all([np.isfinite(column) for column in columns], axis=0)
    return bool(both.sum() > 1) and all(np.ptp(column[both]) > 0 for column in columns)


def _scores(values: Floats) -> Floats:
    """Return normal scores of a column's ranks, nan where it has no number."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    known = np.isfinite(values)
    scores = np.full(len(values), np.nan)
    scores[known] = ndtri((rankdata(values[known]) - 0.5) / known.sum())
    return scores


def _sessions(log: Log) -> dict[str, Any]:
    found = statistics.sessions(log)
    parts = {
        "turns": found.turns.astype(np.float64), "think_s": found.think_s,
        "first_tokens": found.first_tokens, "new_tokens": found.new_tokens,
        "tokens_out": log.numbers["tokens_out"][np.isfinite(log.numbers["tokens_out"])],
    }  # fmt: skip
    laws = {
        name: {"law": "quantiles", "p": list(LEVEL_P), "x": _quantiles(values, LEVEL_P)}
        for name, values in parts.items()
        if len(values)
    }
    if not found.number:
        return {}
    return {
        "rate_per_s": float(f"{found.number / log.t_s[-1]:.6g}"),
        "think_from_end": found.from_end,
        **laws,
    }


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def _rounded_list(values: Floats) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def write(preset: Mapping[str, Any]) -> str:
    """Return a preset as YAML, lists of numbers on one line.

    >>> print(write({"name": "a", "lengths": {"p": [0.0, 1.0]}}), end="")
    name: a
    lengths:
      p: [0, 1]
    """
    from ruamel.yaml import YAML

    text = StringIO()
    yaml = YAML()
    yaml.width = 110
    yaml.dump(_plain(preset), text)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _plain(said: Any, inline: bool = False) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(said, Mapping):
        made = CommentedMap({str(key): _plain(value, inline) for key, value in said.items()})
        if inline:
            made.fa.set_flow_style()
        return made
    if isinstance(said, list | tuple):
        items = CommentedSeq([_plain(each, inline=True) for each in said])
        if not any(isinstance(each, Mapping) for each in said):
            items.fa.set_flow_style()
        return items
    return int(said) if isinstance(said, float) and said.is_integer() else said
