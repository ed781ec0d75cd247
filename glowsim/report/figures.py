"""The pictures of a report, as SVG text: no user's words in them, no dates, equal bytes for equal runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.report.binning import OverTime, tail
from glowsim.report.numbers import Scale, exact, scale_of
from glowsim.report.style import BAND, BLUE, GREEN, INK, ORANGE, RED, SOFT, STYLE, bare, headed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Backdrop",
    "Target",
    "body_end_s",
    "fleet_over_time",
    "latency_distribution",
    "requests_over_time",
]

Floats = npt.NDArray[np.float64]

_WIDTH_IN: Final = 7.2
_LETTER: Final = 0.008
"""Share of the time axis that a letter of a label takes."""
_LINES: Final = {50: (BLUE, "-", "median"), 95: (ORANGE, "--", "p95"), 99: (RED, ":", "p99")}


class Target(NamedTuple):
    """A bound on a latency, to be marked: the share of requests that may be slower, if it is a percentile."""

    latency_s: float
    slower: float | None


class Backdrop(NamedTuple):
    """What lies behind the pictures over time: their end, the warm-up, faults as (from, to, label); in seconds."""

    end_s: float
    warmup_s: float
    faults: tuple[tuple[float, float, str], ...]


def latency_distribution(latency_s: Floats, targets: Sequence[Target]) -> str:
    """Return the histogram of latencies up to ``body_end_s``, and the share that is slower than x.

    Parameters
    ----------
    latency_s
        Of the requests that were answered, shape (n,), n >= 1.
    targets
        Marked in both; beside the curve of the second, a percentile's target is a point to stay below.
    """
    with _figure(2.5) as (figure, svg):
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.88, bottom=0.185, wspace=0.24)
        _histogram(left, latency_s, targets)
        _tail(right, latency_s, targets)
    return svg()


def body_end_s(latency_s: Floats, targets: Sequence[Target]) -> float:
    """Return where the histogram ends, in seconds: beyond the 95th percentile and the targets near it.

    >>> body_end_s(np.arange(101.0), [Target(100.0, None), Target(500.0, None)])
    125.0
    """
    p95 = float(np.quantile(latency_s, 0.95))
    near = [target.latency_s for target in targets if target.latency_s < 3 * p95]
    return 1.25 * max([p95, *near]) or 1e-3


def _histogram(axes: Axes, latency_s: Floats, targets: Sequence[Target]) -> None:
    highest = body_end_s(latency_s, targets)
    scale = scale_of("duration", highest)
    counts, edges = np.histogram(latency_s, bins=60, range=(0.0, highest))
    axes.stairs(100 * counts / len(latency_s), edges / scale.factor, fill=True, color=BLUE, alpha=0.85)
    for target in targets:
        if target.latency_s <= highest:
            axes.axvline(target.latency_s / scale.factor, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    axes.set_title("Share of the requests")
    axes.set_xlabel(f"latency ({scale.after.strip()})")
    axes.set_ylabel("% in each bar")
    axes.set_xlim(0, highest / scale.factor)
    axes.grid(visible=False, axis="x")


def _tail(axes: Axes, latency_s: Floats, targets: Sequence[Target]) -> None:
    curve = tail(latency_s)
    largest = float(curve.x[-1])
    scale = scale_of("duration", largest)
    lowest = 100 / len(latency_s)
    left = min(max(float(np.quantile(latency_s, 0.02)), largest / 1000), largest / 10) or 1e-3
    x = np.maximum(np.concatenate([[left], curve.x]), left) / scale.factor
    shares = np.concatenate([[1.0], curve.share])
    axes.step(x, np.maximum(100 * shares, lowest / 10), where="post", color=BLUE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    right = max(1.15 * largest, 2 * left, *(_beside(left, target.latency_s) for target in targets), 0.0)
    axes.set_xlim(left / scale.factor, right / scale.factor)
    axes.set_ylim(min(lowest, 50.0), 130)
    for target in targets:
        at = target.latency_s / scale.factor
        if target.slower is None:
            axes.axvline(at, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
            continue
        axes.plot([at], [100 * target.slower], marker="D", color=INK, markersize=4, linestyle="none")
        missed = float((latency_s > target.latency_s).mean()) > target.slower
        axes.annotate(
            f"≤ {100 * target.slower:g} % over {exact(target.latency_s, 'duration')}",
            (at, 100 * target.slower), (-6, -3) if missed else (5, 4), textcoords="offset points",
            fontsize=7.5, ha="right" if missed else "left",
        )  # fmt: skip
    axes.set_title("Share of the requests slower than …")
    axes.set_xlabel(f"latency ({scale.after.strip()})")
    axes.set_ylabel("% slower")
    _plain_logarithm(axes.xaxis, (1, 2, 5) if right / left < 60 else (1,))
    _plain_logarithm(axes.yaxis, (1,))


def _beside(left: float, at: float) -> float:
    """Return where a logarithmic axis ends that leaves a third of itself for words beside a point."""
    return left * float(max(at / left, 1.0) ** 1.5)


def requests_over_time(
    slices: OverTime, moments_s: Floats, waiting: Floats, in_flight: Floats, back: Backdrop
) -> str:
    """Return latency percentiles, rates, the share of errors if any, and open requests over time.

    The rates are of arrivals, attempts and completions: where attempts leave arrivals behind, retries make
    load of their own.

    Parameters
    ----------
    slices
        Percentiles, rates and shares.
    moments_s, waiting, in_flight
        Levels of the whole fleet at these moments, shape (m,) each.
    back
        What lies behind.
    """
    any_errors = bool(np.nansum(slices.error_share) > 0.0)
    with _figure(5.6 if any_errors else 4.4) as (figure, svg):
        latency, rate, *failing, level = figure.subplots(4 if any_errors else 3, 1, sharex=True)
        bottom = 0.075 if any_errors else 0.095
        figure.subplots_adjust(left=0.075, right=0.985, top=0.96, bottom=bottom, hspace=0.4)
        clock = _time_axis((latency, rate, *failing, level), back)
        _percentiles(latency, slices, clock)
        most = max(
            float(each.max())
            for each in (slices.arrivals_per_s, slices.attempts_per_s, slices.completions_per_s)
        )
        scale = scale_of("rate", most)
        edges = slices.edges_s / clock.factor
        for values, colour, line, name in (
            (slices.arrivals_per_s, BLUE, "-", "arrivals"),
            (slices.attempts_per_s, RED, ":", "attempts"),
            (slices.completions_per_s, ORANGE, "--", "completions"),
        ):
            rate.stairs(values / scale.factor, edges, baseline=None, color=colour, linestyle=line, label=name)
        headed(rate, f"Requests and attempts{scale.after}")
        for errors in failing:
            errors.stairs(
                100 * slices.error_share, edges, baseline=None, color=RED, label="rejected or failed"
            )
            errors.set_ylim(0, max(1.0, errors.get_ylim()[1]))
            headed(errors, "Errors (% of the requests that arrived then)")
        at = moments_s / clock.factor
        level.step(at, in_flight, where="post", color=BLUE, label="in flight", linewidth=0.9)
        level.step(at, waiting, where="post", color=ORANGE, linestyle="--", label="waiting", linewidth=1.1)
        _whole_numbers(level)
        headed(level, "Open requests")
    return svg()


def _percentiles(axes: Axes, slices: OverTime, clock: Scale) -> None:
    centres = (slices.edges_s[:-1] + slices.edges_s[1:]) / 2 / clock.factor
    seen = np.concatenate(list(slices.latency_s.values()))
    highest = float(np.nanmax(seen)) if not np.isnan(seen).all() else 1.0
    scale = scale_of("duration", highest)
    for percentile, values in slices.latency_s.items():
        colour, line, name = _LINES[percentile]
        axes.plot(centres, values / scale.factor, color=colour, linestyle=line, label=name)
    headed(axes, f"Latency ({scale.after.strip()})")


def fleet_over_time(
    moments_s: Floats, ready: Floats, starting: Floats, wanted: Floats, alerts_s: Floats, stages_s: Floats,
    back: Backdrop,
) -> str:  # fmt: skip
    """Return the instances that were ready, starting and wanted over time, with alerts and rollout stages.

    Parameters
    ----------
    moments_s, ready, starting, wanted
        Levels of the whole fleet at these moments, shape (m,) each.
    alerts_s, stages_s
        When alerts were raised and rollouts moved.
    back
        What lies behind.
    """
    with _figure(2.3) as (figure, svg):
        axes = figure.subplots()
        figure.subplots_adjust(left=0.075, right=0.985, top=0.88, bottom=0.18)
        clock = _time_axis((axes,), back)
        at = moments_s / clock.factor
        axes.fill_between(at, ready, step="post", color=BLUE, alpha=0.25, linewidth=0)
        axes.step(at, ready, where="post", color=BLUE, label="ready")
        axes.fill_between(
            at,
            ready,
            ready + starting,
            step="post",
            facecolor=GREEN,
            alpha=0.45,
            linewidth=0,
            label="starting",
        )
        axes.step(at, wanted, where="post", color=INK, linestyle="--", label="wanted", linewidth=1.0)
        highest = max(float((ready + starting).max()), float(wanted.max()), 1.0)
        for marker, colour, name, when_s in (
            ("v", RED, "alert", alerts_s),
            ("D", ORANGE, "rollout", stages_s),
        ):
            if len(when_s):
                drawn = np.unique(np.round(when_s / back.end_s, 3)) * back.end_s / clock.factor
                axes.plot(
                    drawn, np.full(len(drawn), 1.09 * highest), marker=marker, color=colour, linestyle="none",
                    markersize=4.5, label=name,
                )  # fmt: skip
        axes.set_ylim(0, 1.16 * highest)
        _whole_numbers(axes)
        headed(axes, "Instances", low=None)
    return svg()


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """Give an empty figure in the report's style, and a function that returns it as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        drawn = io.StringIO()
        yield figure, lambda: bare(drawn.getvalue())
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing, transparent=True)


def _time_axis(panels: Sequence[Axes], back: Backdrop) -> Scale:
    clock = scale_of("duration", max(back.end_s, 1.0))
    for axes in panels:
        if back.warmup_s:
            axes.axvline(back.warmup_s / clock.factor, color=SOFT, linestyle=":", linewidth=0.9)
        for begin_s, end_s, _ in back.faults:
            axes.axvspan(begin_s / clock.factor, end_s / clock.factor, color=BAND, linewidth=0.7)
    _name_faults(panels[0], back, clock)
    panels[-1].locator_params(axis="x", steps=[1, 2, 5, 10])
    panels[-1].set_xlim(0, back.end_s / clock.factor)
    panels[-1].set_xlabel(f"time ({clock.after.strip()})")
    return clock


def _name_faults(axes: Axes, back: Backdrop, clock: Scale) -> None:
    """Write each fault's label at the top of its band, where the one before leaves room for it."""
    free_s = 0.0
    for begin_s, _, label in sorted(back.faults):
        if free_s <= begin_s < 0.95 * back.end_s:
            at = begin_s / clock.factor
            place = ("data", "axes fraction")
            axes.annotate(
                label,
                (at, 1.0),
                (2, -2),
                xycoords=place,
                textcoords="offset points",
                va="top",
                fontsize=7,
                color=SOFT,
            )
            free_s = begin_s + (0.02 + _LETTER * len(label)) * back.end_s


def _whole_numbers(axes: Axes) -> None:
    axes.locator_params(axis="y", integer=True)


def _plain_logarithm(axis: Any, at: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=at, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
