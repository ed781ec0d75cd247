"""The page of a backtest as plain data, for the templates that every report uses."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import glowsim
from glowsim.backtest.compare import ALL, BY_CHANCE, FIGURES, OFF, WITHIN, Line
from glowsim.backtest.differences import UNEXPLAINED
from glowsim.report.blocks import Block, clean, code, figure, section, table, tiles
from glowsim.report.numbers import DASH
from glowsim.scenario import format_duration
from glowsim.stats.intervals import Interval
from glowsim.summary import shown

if TYPE_CHECKING:
    from glowsim.backtest.command import Backtest

__all__ = ["WORDS", "build", "interval_of", "value_of"]

_LEAST_USD: Final = 5e-5
"""Of a difference that is shown."""
_NOTHING: Final = "nothing to judge"
_MARKS: Final = {WITHIN: "good", BY_CHANCE: "open", OFF: "bad", _NOTHING: "open"}
_REPLAYED: Final = ("requests", "tokens_in", "tokens_out")
"""Figures that are the replayed part's own."""
WORDS: Final = {
    "cost_usd": "cost", "requests": "requests", "error_share": "failed", "tokens_in": "input tokens",
    "tokens_out": "output tokens", "latency_s_p50": "latency, median", "latency_s_p95": "latency, p95",
    "first_token_s_p50": "first token, median", "first_token_s_p95": "first token, p95",
}  # fmt: skip
"""Figure -> the words for it."""


def value_of(value: float, figure: str) -> str:
    """Return a figure for reading, with its unit."""
    return shown(value, FIGURES[figure])


def interval_of(interval: Interval, figure: str) -> str:
    """Return an interval for reading; a dash where it is a point, or nothing is known of it."""
    if interval.low == interval.high or not isfinite(interval.low) or not isfinite(interval.high):
        return DASH
    return f"{value_of(max(interval.low, 0.0), figure)} to {value_of(interval.high, figure)}"


def build(backtest: Backtest, picture: str | None, finished_at: str, command: Sequence[str]) -> Block:
    """Return the page: the verdicts, the cost and its differences, the latencies, every figure, what was fitted.

    Parameters
    ----------
    backtest
        What was found.
    picture
        Distributions of the latencies as SVG; None: the log has none.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    """
    whole = [line for line in backtest.lines if line.model == ALL]
    predicted = [line for line in whole if line.figure not in _REPLAYED]
    words = {line.word for line in predicted}
    verdict = next((word for word in (OFF, BY_CHANCE, WITHIN) if word in words), _NOTHING)
    return {
        "title": clean(f"Backtest on {backtest.name}"),
        "question": "Fitted to the first part of the log alone, does the model give what the last part recorded?",
        "verdict": verdict,
        "mark": _MARKS[verdict],
        "headline": clean(_headline(predicted)),
        "levels": [
            {"word": line.word, "name": WORDS[line.figure], "text": clean(line.verdict)}
            for line in whole
            if line.word != WITHIN
        ],
        "sections": [
            section(
                "all", "In all",
                "Recorded and modelled for the judged part. A difference within 1 % is none; one by chance is no "
                "more than the figures of both parts and of the model are uncertain by. Requests and tokens are "
                "replayed, not predicted.",
                [*([_tiles(predicted)] if predicted else []), _table(whole)],
            ),
            *_cost(backtest),
            *_latency(picture),
            section(
                "models", "Model by model",
                "The interval of a recorded quantile or share is of the law behind it, at 95 %; that of a modelled "
                f"figure is over {backtest.replications} replications.",
                [_table(lines, model) for model, lines in _by_model(backtest.lines).items()],
            ),
            _fitted(backtest),
            section("again", "Again", "", [code(" ".join(command))]),
        ],
        "marks": _MARKS,
        "footer": clean(f"glowsim {glowsim.__version__} · backtest · {backtest.name} · {finished_at}"),
    }  # fmt: skip


def _headline(predicted: Sequence[Line]) -> str:
    if not predicted:
        return "The judged part has neither costs nor latencies nor statuses: there is nothing to compare."
    held = sum(line.word != OFF for line in predicted)
    said = f"{held} of {len(predicted)} figures are within 1 %, or off by no more than chance."
    cost = next((line for line in predicted if line.figure == "cost_usd"), None)
    if cost is None:
        return f"{said} The log has no costs to compare."
    modelled, recorded = (value_of(each.mean, "cost_usd") for each in (cost.modelled, cost.recorded))
    return f"{said} Cost: {modelled} modelled, {recorded} recorded."


def _tiles(whole: Sequence[Line]) -> Block:
    first = ("cost_usd", "latency_s_p50", "latency_s_p95", "error_share")
    found = []
    for line in whole:
        if line.figure in first:
            modelled, recorded = (value_of(each.mean, line.figure) for each in (line.modelled, line.recorded))
            found.append((WORDS[line.figure], _apart(line), f"{modelled} for {recorded}"))
    return tiles(found)


def _apart(line: Line) -> str:
    if not isfinite(line.off):
        return DASH
    return f"{100 * line.off:+.2f} {'pt' if line.figure == 'error_share' else '%'}"


def _by_model(lines: Sequence[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        if line.model != ALL:
            found.setdefault(line.model, []).append(line)
    return found


def _table(lines: Sequence[Line], title: str = "") -> Block:
    rows: list[list[Any]] = [
        [
            WORDS[line.figure],
            value_of(line.recorded.mean, line.figure),
            interval_of(line.recorded, line.figure),
            value_of(line.modelled.mean, line.figure),
            interval_of(line.modelled, line.figure),
            _apart(line),
            line.word,
            line.because or DASH,
        ]
        for line in lines
    ]
    columns = "figure|>recorded|>its interval|>modelled|>its interval|>apart|?verdict|*because"
    return table(columns, rows, title=title)


def _cost(backtest: Backtest) -> list[Block]:
    cost = next((line for line in backtest.lines if line.model == ALL and line.figure == "cost_usd"), None)
    if cost is None or not cost.recorded.mean:
        return []
    recorded = cost.recorded.mean

    def share(usd: float) -> str:
        return f"{100 * usd / recorded:+.3f} %"

    rows = [
        [each.model, each.name, f"{each.rows:,}", _usd(each.usd), share(each.usd), each.detail or DASH]
        for each in backtest.differences
        if abs(each.usd) >= _LEAST_USD or each.name == UNEXPLAINED
    ]
    lead = (
        f"Recorded less modelled cost is {_usd(recorded - cost.modelled.mean)}; these parts add up to it. Unexplained "
        f"are {_usd(backtest.unexplained_usd)}, {share(backtest.unexplained_usd)} of what was recorded."
    )
    listed = table("model|*difference|>rows|>cost|>of recorded|*detail", rows)
    return [section("cost", "Cost, difference by difference", lead, [listed])]


def _usd(usd: float) -> str:
    return f"{'-' if usd < 0 else ''}${abs(usd):,.4f}"


def _latency(picture: str | None) -> list[Block]:
    if picture is None:
        return []
    said = "Share of the answers within each time, recorded in the judged part and modelled for it."
    return [
        section("latency", "Latency", said, [figure(picture, said, "All models; the time is logarithmic.")])
    ]


def _fitted(backtest: Backtest) -> Block:
    lead = (
        f"{backtest.fitted_rows:,} rows were fitted on; the judged part has {backtest.judged_rows:,} and begins "
        f"{format_duration(backtest.at_s)} after the log's first. Nothing of it was seen while fitting."
    )
    rows = [
        [path, origin["origin"], origin["source"]]
        for path, origin in backtest.imported.scenario["origins"].items()
    ]
    remarks = [
        *(["judged", each] for each in backtest.remarks),
        *(["fitted", each] for each in backtest.imported.remarks),
    ]
    blocks = [table("part|origin|*source", rows)]
    if remarks:
        blocks.append(table("part|*to know", remarks, title="What was left out, filled in or assumed"))
    return section("fitted", "What was fitted", lead, blocks)
