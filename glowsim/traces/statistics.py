"""What a recorded workload looks like, as numbers: how bursty, how correlated, how shared, how skewed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.traces.log import Log, LogError

__all__ = [
    "IDLE_S", "Sharing", "Skew", "Turns", "autocorrelation", "counts", "dispersion", "idle_share", "peak_to_mean",
    "prefix_sharing", "sessions", "skew", "spearman", "variation",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

IDLE_S: Final = 30.0
"""A gap longer than this counts as idle."""
_MINUTE_S: Final = 60.0
_MOST: Final = 0.9


def counts(t_s: Floats, window_s: float) -> Ints:
    """Return how many arrivals each whole window from 0 s to the last arrival holds.

    A window that the log's end cuts short is left out: it would look like a lull.

    >>> counts(np.array([0.0, 0.5, 2.5, 3.0]), 1.0)
    array([2, 0, 1])
    """
    whole = _whole(t_s, window_s)
    return np.bincount((t_s / window_s).astype(np.int64), minlength=whole)[:whole].astype(np.int64)


def _whole(t_s: Floats, window_s: float) -> int:
    return int(t_s[-1] / window_s) if len(t_s) else 0


def dispersion(t_s: Floats, window_s: float) -> float:
    """Return the index of dispersion of counts: their variance over their mean, 1 for a Poisson process.

    Parameters
    ----------
    t_s
        Moments of arrival, in order, from 0 s.
    window_s
        Length of a window, above 0; nan where the log has no two whole ones.

    >>> dispersion(np.array([0.0, 1.0, 2.0, 3.0]), 1.0)
    0.0

    Source: Cox & Lewis, "The Statistical Analysis of Series of Events", 1966.
    """
    whole = _whole(t_s, window_s)
    windows = (t_s / window_s).astype(np.int64)
    windows = windows[: np.searchsorted(windows, whole)]
    if whole < 2 or not len(windows):
        return float("nan")
    starts = np.flatnonzero(np.diff(windows, prepend=-1))  # the empty windows may be many: they are not made
    held = np.diff(starts, append=len(windows)).astype(np.float64)
    mean = float(held.sum()) / whole
    return (float(held @ held) - whole * mean**2) / (whole - 1) / mean


def peak_to_mean(t_s: Floats, window_s: float = _MINUTE_S) -> float:
    """Return the fullest window's count over the mean one's; nan without a whole window."""
    found = counts(t_s, window_s)
    return float(found.max() / found.mean()) if found.any() else float("nan")


def variation(t_s: Floats) -> float:
    """Return the coefficient of variation of the times between arrivals: 1 for a Poisson process.

    >>> variation(np.array([0.0, 1.0, 2.0, 3.0]))
    0.0
    """
    gaps = np.diff(t_s)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and t_s[-1] > t_s[0] else float("nan")


def autocorrelation(t_s: Floats, window_s: float, lag: int) -> float:
    """Return the correlation of the counts of windows that lie ``lag`` apart; nan without enough of them."""
    found = counts(t_s, window_s).astype(np.float64)
    if len(found) < lag + 3:
        return float("nan")
    around = found - found.mean()
    power = float(around @ around)
    return float(around[lag:] @ around[:-lag]) / power if power else float("nan")


def idle_share(t_s: Floats, over_s: float = IDLE_S) -> float:
    """Return the share of the time that lies in gaps longer than ``over_s``.

    >>> idle_share(np.array([0.0, 10.0, 50.0]))
    0.8
    """
    gaps = np.diff(t_s)
    span_s = float(t_s[-1] - t_s[0]) if len(t_s) else 0.0
    return float(gaps[gaps > over_s].sum()) / span_s if span_s else float("nan")


def spearman(a: Floats, b: Floats) -> float:
    """Return the correlation of ranks, ties sharing their mean rank, over the rows where both are numbers.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 100.0, 90.0])), 6)
    0.5
    """
    from scipy.stats import rankdata

    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1])


class Sharing(NamedTuple):
    """How much of the prompts an unlimited prefix cache would have held."""

    blocks: int
    unique: int
    hits: int
    """Blocks at the head of a prompt that all came before, in earlier prompts."""
    requests_hit: int
    """Requests with at least one."""
    tokens: float
    """Input tokens; nan where the log has none."""
    tokens_hit: float
    """Input tokens in those blocks; nan where the log has none."""

    @property
    def hit_share(self) -> float:
        """Hits over blocks."""
        return self.hits / self.blocks if self.blocks else float("nan")

    @property
    def token_share(self) -> float:
        """Input tokens hit over input tokens."""
        return self.tokens_hit / self.tokens if self.tokens else float("nan")


def prefix_sharing(
    blocks: Sequence[Sequence[int]], block_tokens: int, tokens_in: Floats | None = None
) -> Sharing:
    """Return what an unlimited cache of prompt blocks would have hit, in the order of arrival.

    A block counts only while all before it in its prompt were hit: a prefix is reused from its head.

    Parameters
    ----------
    blocks
        The hashes of each prompt's blocks, equal where the text up to there is equal.
    block_tokens
        Tokens of a whole block; a prompt's last one may be shorter.
    tokens_in
        Input tokens of each request.

    >>> prefix_sharing([(1, 2), (1, 3, 2)], 16, np.array([32.0, 40.0]))
    Sharing(blocks=5, unique=3, hits=1, requests_hit=1, tokens=72.0, tokens_hit=16.0)

    Source: Qin et al., "Mooncake", FAST 2025, section 4.
    """
    seen: set[int] = set()
    total, heads = 0, np.zeros(len(blocks))
    for row, prompt in enumerate(blocks):
        head = 0
        for block in prompt:
            if block not in seen:
                break
            head += 1
        heads[row] = head
        total += len(prompt)
        seen.update(prompt)
    tokens, hit = float("nan"), float("nan")
    if tokens_in is not None:
        tokens, hit = float(tokens_in.sum()), float(np.minimum(heads * block_tokens, tokens_in).sum())
    return Sharing(total, len(seen), int(heads.sum()), int((heads > 0).sum()), tokens, hit)


class Turns(NamedTuple):
    """The sessions of a log: requests that belong together, in order."""

    number: int
    turns: Ints
    """Of each session."""
    think_s: Floats
    """From the end of a turn to the next one's start; from start to start where latencies are missing."""
    from_end: bool
    """Whether every think time is from an end."""
    overlapping: int
    """Turns that began before the last one's end: their think time counts as 0 s."""
    first_tokens: Floats
    """Input tokens of first turns."""
    new_tokens: Floats
    """Input tokens of a later turn beyond the input and output of the one before, not below 0."""
    shrunk: int
    """Later turns whose input is smaller than that: their context was cut or compacted."""


def sessions(log: Log) -> Turns:
    """Return the sessions of a log; rows without a session are left out.

    Parameters
    ----------
    log
        Its column ``session`` says which rows belong together.

    Raises
    ------
    LogError
        The log has no such column.
    """
    if "session" not in log.names:
        raise LogError(f"{log.source} has no sessions: its format {log.format} has no column 'session'")
    codes = log.names["session"].codes
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    nothing = np.full(len(log), np.nan)
    latency_s = log.numbers.get("latency_s", nothing)
    tokens_in, tokens_out = log.numbers.get("tokens_in", nothing), log.numbers.get("tokens_out", nothing)
    later = np.flatnonzero(np.diff(codes[rows]) == 0) + 1
    now, before = rows[later], rows[later - 1]
    ended = np.isfinite(latency_s[before])
    waits = log.t_s[now] - log.t_s[before] - np.where(ended, latency_s[before], 0.0)
    new = tokens_in[now] - tokens_in[before] - tokens_out[before]
    new = new[np.isfinite(new)]
    first = np.delete(rows, later)
    heads = tokens_in[first]
    return Turns(
        number=len(first),
        turns=np.unique(codes[rows], return_counts=True)[1].astype(np.int64),
        think_s=np.maximum(waits, 0.0),
        from_end=bool(ended.all()),
        overlapping=int((waits < 0).sum()),
        first_tokens=heads[np.isfinite(heads)],
        new_tokens=np.maximum(new, 0.0),
        shrunk=int((new < 0).sum()),
    )


class Skew(NamedTuple):
    """How unevenly requests fall on those who send them."""

    number: int
    shares: Floats
    """Of each, the largest first."""
    top: tuple[float, float, float]
    """Share of the largest 1, 5 and 10."""
    for_most: int
    """How many of the largest send 90 %."""
    gini: float
    """0: all alike; near 1: one sends all."""


def skew(weights: npt.ArrayLike) -> Skew:
    """Return how unevenly weights, such as requests for each tenant, are spread.

    >>> found = skew([1, 3, 0, 4])
    >>> found.number, found.top[0], found.for_most, round(found.gini, 4)
    (3, 0.5, 3, 0.25)
    """
    each = np.sort(np.asarray(weights, dtype=np.float64))
    each = each[each > 0]
    if not len(each):
        return Skew(0, each, (float("nan"),) * 3, 0, float("nan"))
    shares = each[::-1] / each.sum()
    upto = np.cumsum(shares)
    ranks = np.arange(1, len(each) + 1)
    gini = float(((2 * ranks - len(each) - 1) * each).sum() / (len(each) * each.sum()))
    top = tuple(float(upto[min(n, len(upto)) - 1]) for n in (1, 5, 10))
    return Skew(
        len(each), shares, (top[0], top[1], top[2]), int(np.searchsorted(upto, _MOST - 1e-12)) + 1, gini
    )
