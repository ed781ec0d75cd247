"""A recorded workload, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glowsim.traces import statistics
from glowsim.traces.log import Log, LogError

__all__ = ["SCALES_S", "Amounts", "Description", "describe"]

SCALES_S: Final = (1.0, 10.0, 60.0)
"""Windows at which counts are compared with a Poisson process's."""
_LAGS_S: Final = (1, 10, 60)
_SENDERS: Final = ("tenant", "user", "agent", "model")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Amounts:
    """How large something is, over the rows that say so."""

    rows: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Floats) -> Amounts | None:
        """Return the amounts of a column; None where no row has one.

        >>> Amounts.of(np.array([1.0, 3.0, np.nan]))
        Amounts(rows=2, mean=2.0, p50=2.0, p90=2.8, p99=2.98, max=3.0)
        """
        known = values[np.isfinite(values)]
        if not len(known):
            return None
        p50, p90, p99 = np.quantile(known, (0.5, 0.9, 0.99)).tolist()
        return cls(len(known), float(known.mean()), p50, p90, p99, float(known.max()))


@dataclass(frozen=True)
class Description:
    """What `describe` found; None and absent names are what the log does not say, nan what it is too short for."""

    source: str
    format: str
    rows: int
    refused: int
    span_s: float
    rate_per_s: float
    peak_to_mean: float
    """Of counts a minute."""
    dispersion: Mapping[float, float]
    """Window (s) -> index of dispersion."""
    gap_cv: float
    autocorrelation: Mapping[int, float]
    """Lag (s) -> correlation of counts a second."""
    idle_share: float
    """Of the time, in gaps longer than 30 s."""
    amounts: Mapping[str, Amounts]
    """Column of numbers -> how large."""
    spearman: float | None
    """Of tokens in and out."""
    statuses: Mapping[str, float]
    """Status -> share of the rows that have one."""
    senders: Mapping[str, Mapping[str, float]]
    """Column of names -> how unevenly requests fall on them."""
    sharing: Mapping[str, float] | None
    """What an unlimited prefix cache would hold."""
    sessions: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def text(self) -> str:
        """Return it as lines for a terminal."""
        refused = f", {self.refused} rows refused" if self.refused else ""
        dispersion = ", ".join(
            f"{_g(found)} at {scale_s:.0f} s" for scale_s, found in self.dispersion.items()
        )
        correlation = ", ".join(f"{_g(found)} after {lag} s" for lag, found in self.autocorrelation.items())
        busiest = f"{_g(self.peak_to_mean)} times"
        lines = [
            f"{self.source} ({self.format}): {self.rows} requests{refused}",
            f"arrivals    {self.rate_per_s:.4g}/s over {self.span_s:.0f} s; busiest minute {busiest} the mean",
            f"idle        {_share(self.idle_share)} of the time, in gaps of over {statistics.IDLE_S:.0f} s",
            f"dispersion  {dispersion} (Poisson: 1); CV of gaps {_g(self.gap_cv)}",
            f"correlation {correlation} (counts a second)",
        ]
        if self.amounts:
            lines.append(f"{'':18}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}")
            lines += [
                f"{name:<18}" + "".join(f"{_g(each):>10}" for each in (a.mean, a.p50, a.p90, a.p99, a.max))
                + ("" if a.rows == self.rows else f"  ({a.rows} rows)")
                for name, a in self.amounts.items()
            ]  # fmt: skip
        if self.spearman is not None:
            lines.append(f"rank correlation of tokens in and out: {_g(self.spearman)}")
        if self.statuses:
            lines.append(
                "status      " + ", ".join(f"{name} {_share(x)}" for name, x in self.statuses.items())
            )
        for name, found in self.senders.items():
            lines.append(
                f"{name + 's':<12}{found['number']:.0f}; the top 1/5/10 send {_share(found['top1'])}/"
                f"{_share(found['top5'])}/{_share(found['top10'])}; {found['for_90']:.0f} send 90 %"
            )
        if self.sharing is not None:
            s = self.sharing
            lines.append(
                f"prefixes    {s['blocks']:.0f} blocks of {s['block_tokens']:.0f} tokens, {s['unique']:.0f} unique; an "
                f"unlimited cache hits {s['hits']:.0f} ({_share(s['hit_share'])}; tokens {_share(s['token_share'])})"
            )
        if self.sessions is not None:
            lines.append(_sessions_text(self.sessions))
        return "\n".join(lines)


def describe(log: Log) -> Description:
    """Return what a recorded workload looks like.

    Raises
    ------
    LogError
        It has fewer than two requests.

    >>> from glowsim.traces.log import Log, Reading
    >>> log = Log("a.csv", "csv", np.arange(241) / 2, Reading(241), numbers={"tokens_in": np.arange(241.0)})
    >>> found = describe(log)
    >>> found.rate_per_s, found.peak_to_mean, found.amounts["tokens_in"].p50
    (2.0, 1.0, 120.0)
    """
    if len(log) < 2:
        raise LogError(f"{log.source} has {len(log)} requests: too few to describe")
    t_s = log.t_s
    span_s = float(t_s[-1] - t_s[0])
    amounts = {name: Amounts.of(values) for name, values in log.numbers.items() if name != "turn"}
    tokens_in, tokens_out = log.numbers.get("tokens_in"), log.numbers.get("tokens_out")
    return Description(
        source=log.source,
        format=log.format,
        rows=len(log),
        refused=log.reading.refused_count,
        span_s=span_s,
        rate_per_s=(len(log) - 1) / span_s if span_s else float("nan"),
        peak_to_mean=statistics.peak_to_mean(t_s),
        dispersion={window_s: statistics.dispersion(t_s, window_s) for window_s in SCALES_S},
        gap_cv=statistics.variation(t_s),
        autocorrelation={lag: statistics.autocorrelation(t_s, 1.0, lag) for lag in _LAGS_S},
        idle_share=statistics.idle_share(t_s),
        amounts={name: found for name, found in amounts.items() if found is not None},
        spearman=None
        if tokens_in is None or tokens_out is None
        else statistics.spearman(tokens_in, tokens_out),
        statuses=_shares(log, "status"),
        senders={name: _skew(log, name) for name in _SENDERS if name in log.names},
        sharing=_sharing(log),
        sessions=_sessions(log),
    )


def _shares(log: Log, name: str) -> dict[str, float]:
    if name not in log.names:
        return {}
    codes, labels = log.names[name]
    found = np.bincount(codes[codes >= 0], minlength=len(labels))
    total = max(int(found.sum()), 1)
    return {label: int(n) / total for label, n in zip(labels, found, strict=True) if n}


def _skew(log: Log, name: str) -> dict[str, float]:
    codes = log.names[name].codes
    found = statistics.skew(np.bincount(codes[codes >= 0]) if (codes >= 0).any() else [])
    top1, top5, top10 = found.top
    return {"number": found.number, "top1": top1, "top5": top5, "top10": top10, "for_90": found.for_most,
            "gini": found.gini}  # fmt: skip


def _sharing(log: Log) -> dict[str, float] | None:
    if log.blocks is None:
        return None
    found = statistics.prefix_sharing(log.blocks, log.block_tokens, log.numbers.get("tokens_in"))
    return {
        "block_tokens": log.block_tokens, "blocks": found.blocks, "unique": found.unique, "hits": found.hits,
        "hit_share": found.hit_share, "token_share": found.token_share,
        "requests_hit_share": found.requests_hit / len(log),
    }  # fmt: skip


def _sessions(log: Log) -> dict[str, Any] | None:
    if "session" not in log.names:
        return None
    found = statistics.sessions(log)
    parts = {
        "turns": found.turns.astype(np.float64), "think_s": found.think_s,
        "first_tokens": found.first_tokens, "new_tokens": found.new_tokens,
    }  # fmt: skip
    amounts = {name: Amounts.of(values) for name, values in parts.items()}
    return {
        "number": found.number, "from_end": found.from_end, "overlapping": found.overlapping, "shrunk": found.shrunk,
        **{name: asdict(each) for name, each in amounts.items() if each is not None},
    }  # fmt: skip


def _sessions_text(found: Mapping[str, Any]) -> str:
    parts = (("turns", "turns each"), ("think_s", "s between them"), ("new_tokens", "new tokens a turn"))
    said = ", ".join(
        f"{_g(found[name]['mean'])} {words} (p50 {_g(found[name]['p50'])})"
        for name, words in parts
        if name in found
    )
    lines = [f"sessions    {found['number']}: {said}"]
    if "think_s" in found and not found["from_end"]:
        lines.append("            times between turns are from start to start where latencies are missing")
    if found["overlapping"]:
        lines.append(f"            {found['overlapping']} turns began before the one before had ended")
    if found["shrunk"]:
        lines.append(f"            {found['shrunk']} turns had less context than the one before left")
    return "\n".join(lines)


def _g(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) and abs(value) < 10_000 else f"{value:.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if isfinite(value) else "nan"
