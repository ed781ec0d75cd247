"""``glowsim backtest``: fit a scenario to a log's first part, judge it on the last, write the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import fsum, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glowsim.backtest.compare import ALL, Line, compare, recorded_calls
from glowsim.backtest.differences import UNEXPLAINED, Difference, differences
from glowsim.backtest.modelled import Calls, Ints, replay_part
from glowsim.backtest.split import split
from glowsim.core.errors import GlowsimError
from glowsim.importing.part import ImportProblem, keys
from glowsim.importing.scenario import Imported, scenario_of, text_of
from glowsim.presets import prices as price_maps
from glowsim.presets.prices import PriceMap
from glowsim.traces import reading
from glowsim.traces.log import Log

__all__ = ["Backtest", "BacktestReport", "backtest", "judge"]

Progress = Callable[[int, int], None]
"""Told how many replications are done, of how many."""


@dataclass(frozen=True)
class Backtest:
    """What a model that was fitted to a part of a log gives for the other."""

    name: str
    """Of the log's file."""
    imported: Imported
    """The scenario, fitted to the first part."""
    fitted_rows: int
    judged_rows: int
    at_s: float
    """When the judged part begins, from the log's first row."""
    replications: int
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    """Of recorded less modelled cost; they add up to it."""
    remarks: tuple[str, ...]
    recorded: Calls
    """The judged part."""
    modelled: tuple[Calls, ...]
    """Its answers, by replication."""

    @property
    def unexplained_usd(self) -> float:
        """Recorded cost that neither prices times tokens nor a named difference explains."""
        return fsum(each.usd for each in self.differences if each.name == UNEXPLAINED)

    def line(self, figure: str, model: str = ALL) -> Line:
        """Return a figure's line.

        Raises
        ------
        KeyError
            The log does not have it, or fewer than 20 answers do.
        """
        found = next((each for each in self.lines if (each.figure, each.model) == (figure, model)), None)
        if found is None:
            raise KeyError(f"{model} has no {figure}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; what is not known is None."""
        return {
            "log": self.name,
            "fitted_rows": self.fitted_rows,
            "judged_rows": self.judged_rows,
            "judged_from_s": self.at_s,
            "replications": self.replications,
            "figures": [
                {
                    "model": line.model, "figure": line.figure, "recorded": line.recorded.mean,
                    "recorded_low": line.recorded.low, "recorded_high": line.recorded.high,
                    "modelled": line.modelled.mean, "modelled_low": _known(line.modelled.low),
                    "modelled_high": _known(line.modelled.high), "off": _known(line.off), "word": line.word,
                    "verdict": line.verdict,
                }
                for line in self.lines
            ],
            "cost_differences": [each._asdict() for each in self.differences],
            "unexplained_usd": self.unexplained_usd,
            "remarks": [*self.remarks, *self.imported.remarks],
        }  # fmt: skip

    def text(self) -> str:
        """Return the verdicts as lines for a person."""
        from glowsim.backtest.page import WORDS, value_of

        lines = [f"{self.name}: {self.fitted_rows} rows fitted on, {self.judged_rows} judged"]
        for line in self.lines:
            if line.model == ALL:
                recorded, modelled = (
                    value_of(each.mean, line.figure) for each in (line.recorded, line.modelled)
                )
                lines.append(f"  {WORDS[line.figure] + ' ':.<22} {modelled} for {recorded}: {line.verdict}")
        if any(line.figure == "cost_usd" for line in self.lines):
            recorded_usd = self.line("cost_usd").recorded.mean
            share = f" ({100 * self.unexplained_usd / recorded_usd:+.3f} %)" if recorded_usd else ""
            lines.append(f"  {'unexplained cost ':.<22} ${self.unexplained_usd:.4f}{share}")
        return "\n".join(lines)


class BacktestReport(NamedTuple):
    """A backtest that is on disk."""

    found: Backtest
    html: Path
    pdf: Path
    scenario: Path
    """The scenario that was fitted."""


def backtest(
    source: Path, folder: Path, *, format: str | None = None, columns: Mapping[str, str] | None = None,  # noqa: A002
    prices: Path | None = None, unpriced: bool = False, model: str | None = None, holdout: float = 0.25,
    replications: int = 10, command: Sequence[str] = ("glowsim", "backtest"), progress: Progress | None = None,
) -> BacktestReport:  # fmt: skip
    """Backtest a log, and write ``backtest.html``, ``backtest.pdf`` and the scenario that was fitted, ``fitted.yaml``.

    Parameters
    ----------
    source
        The log, in any format that ``glowsim.traces`` reads.
    folder
        Where to; made if it is not there.
    format, columns, prices, unpriced, model
        See ``glowsim.importing.command.import_log``.
    holdout, replications, progress
        See `judge`.
    command
        How to do it again, for the page.

    Raises
    ------
    GlowsimError
        A file is there already, the log cannot be read or has too little in it, or prices are not known.
    """
    html, pdf, scenario = (folder / name for name in ("backtest.html", "backtest.pdf", "fitted.yaml"))
    for path in (html, pdf, scenario):
        if path.exists():
            raise GlowsimError(f"{path} exists: name another folder, or remove it")
    log = reading.read(source, format, columns=columns)
    known = None if prices is None else price_maps.load(prices)
    found = judge(
        log, prices=known, unpriced=unpriced, model=model, holdout=holdout, replications=replications,
        progress=progress,
    )  # fmt: skip
    from glowsim.backtest import page
    from glowsim.backtest.figure import distributions
    from glowsim.report import render

    timed = found.recorded.answered & np.isfinite(found.recorded.latency_s)
    picture = distributions(found.recorded, found.modelled) if timed.sum() > 1 else None
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    report = page.build(found, picture, finished_at, command)
    folder.mkdir(parents=True, exist_ok=True)
    scenario.write_text(text_of(found.imported, " ".join(command)), encoding="utf-8")
    for name, text in found.imported.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    html.write_text(render.html(report), encoding="utf-8")
    pdf.write_bytes(render.pdf(report, finished_at))
    return BacktestReport(found, html, pdf, scenario)


def judge(
    log: Log, *, prices: PriceMap | None = None, unpriced: bool = False, model: str | None = None,
    holdout: float = 0.25, replications: int = 10, progress: Progress | None = None,
) -> Backtest:  # fmt: skip
    """Fit a scenario to all but the last part of a log, replay that part through it, and compare.

    Parameters
    ----------
    log
        What was recorded.
    prices, unpriced, model
        See ``glowsim.importing.scenario.scenario_of``.
    holdout
        Share of the log's time that is judged, above 0 and below 1.
    replications
        Of the judged part, at least 2.
    progress
        Told how many replications are done, of how many.

    Raises
    ------
    ImportProblem
        The log has too little in it, prices are not known, or nothing can be replayed.
    """
    if replications < 2:
        raise ImportProblem(f"{replications} replications have no interval: ask for at least 2")
    halves = split(log, holdout)
    imported = scenario_of(halves.fitted, prices=prices, unpriced=unpriced, model=model, stem="fitted")
    replayed = replay_part(imported, halves.judged, replications, progress)
    recorded = recorded_calls(halves.judged, replayed.model)
    before = recorded_calls(halves.fitted, _models(imported, halves.fitted))
    found = differences(imported, halves.judged, replayed)
    lines = compare(recorded, before, replayed, found, statuses="status" in log.names)
    return Backtest(
        Path(log.source).name, imported, len(halves.fitted), len(halves.judged), halves.at_s, replications,
        tuple(lines), tuple(found), (*_read(log), *replayed.remarks), recorded, tuple(replayed.answers),
    )  # fmt: skip


def _models(imported: Imported, log: Log) -> Ints:
    """Return the place of each row's model among the scenario's."""
    fleet = {each["agent"]: each["model"] for each in imported.scenario["fleet"]}
    names = list(imported.scenario["models"])
    places, found = keys(log)
    models = [fleet.get(imported.agents[key]) for key in found]
    return np.array([-1 if model is None else names.index(model) for model in models])[places]


def _read(log: Log) -> list[str]:
    """Return what happened while the log was read: of both parts, and so no part of what was fitted."""
    said = list(log.reading.remarks)
    if log.reading.refused_count:
        first = log.reading.refused[0]
        said.append(
            f"{log.reading.refused_count} rows were refused and are in no figure, the first at {log.reading.unit} "
            f"{first.line}: {first.why}"
        )
    return said


def _known(value: float) -> float | None:
    return value if isfinite(value) else None
