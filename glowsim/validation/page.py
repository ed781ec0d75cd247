"""The validation page as plain data, for the templates that every report uses."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

import numpy as np

import glowsim
from glowsim.report.blocks import Block, clean, code, figure, section, table, text
from glowsim.report.numbers import DASH
from glowsim.validation.cases import CASES
from glowsim.validation.forest import forest, widest_error
from glowsim.validation.running import AGREES, CONFIDENCE, DISAGREES, HALF_WIDTH, TOO_WIDE, Measured
from glowsim.validation.worlds import SEED

__all__ = ["build"]

_MARKS: Final = {AGREES: "good", DISAGREES: "bad", TOO_WIDE: "open", "as published": "good", "differs": "bad"}


def build(measured: Sequence[Measured], finished_at: str, command: Sequence[str], *, full: bool) -> Block:
    """Return the page: verdict, the picture, what was simulated, formulas alone, definitions, how to repeat it.

    Parameters
    ----------
    measured
        As ``glowsim.validation.running.measure_all`` gives it, at least one.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    full
        Whether the campaign's sizes were run.
    """
    verdict = next(
        (word for word in (DISAGREES, TOO_WIDE) if any(each.verdict == word for each in measured)), AGREES
    )
    return {
        "title": "Validation against queueing theory",
        "question": "Does the simulator give the answers that are known exactly?",
        "verdict": verdict,
        "mark": _MARKS[verdict],
        "headline": _headline(measured, full=full),
        "levels": [
            {"word": each.verdict, "name": each.case.title, "text": _miss(each)}
            for each in measured
            if each.verdict != AGREES
        ],
        "sections": [
            _picture(measured),
            _simulated(measured),
            _formulas(),
            _definitions(),
            _again(command, full=full),
        ],
        "marks": _MARKS,
        "footer": clean(f"glowsim {glowsim.__version__} · validation · seed {SEED} · {finished_at}"),
    }


def _headline(measured: Sequence[Measured], *, full: bool) -> str:
    held = sum(each.verdict == AGREES for each in measured)
    simulated = sum(case.simulate is not None for case in CASES.values())
    widest = max(each.half_width for each in measured if not each.quantity.why_wide)
    left_out = "" if full else " These are the quick sizes: they catch what is broken, and prove little."
    return (
        f"{held} of {len(measured)} simulated quantities agree with their exact value at {100 * CONFIDENCE:g} %; the "
        f"widest interval is ± {100 * widest:.1f} % of it. {simulated} of {len(CASES)} cases can be simulated."
        f"{left_out}"
    )


def _miss(each: Measured) -> str:
    low, high = each.interval.low, each.interval.high
    return f"{each.quantity.name}: exactly {each.quantity.exact:.6g}, simulated from {low:.6g} to {high:.6g}"


def _picture(measured: Sequence[Measured]) -> Block:
    half = len(measured) // 2 + 1
    while half < len(measured) and measured[half].case is measured[half - 1].case:
        half += 1
    limit = widest_error(measured)
    return section(
        "errors",
        "Errors",
        f"Every simulated quantity: its mean over the replications and the {100 * CONFIDENCE:g} % interval. The band "
        f"is ± {100 * HALF_WIDTH:g} %, the half-width that the campaign must reach. What is wide for a reason stated "
        "below runs out of the picture.",
        [_forest(part, limit) for part in (measured[:half], measured[half:]) if part],
    )


def _forest(measured: Sequence[Measured], limit: float) -> Block:
    worst = max(measured, key=lambda each: abs(each.interval.mean / each.quantity.exact - 1.0))
    error = 100.0 * (worst.interval.mean / worst.quantity.exact - 1.0)
    first, last = measured[0].case, measured[-1].case
    return figure(
        forest(measured, limit),
        f"Relative errors of {len(measured)} quantities with their intervals; the largest is {error:.2f} %, of "
        f"{worst.case.title}, {worst.quantity.name}.",
        f"Cases {first.number} to {last.number}.",
    )


def _simulated(measured: Sequence[Measured]) -> Block:
    rows = [
        [
            each.case.name,
            each.quantity.name,
            f"{each.quantity.exact:.6g}",
            f"{each.interval.mean:.6g}",
            f"{each.interval.half_width:.2g}",
            f"{100 * each.half_width:.2f} %",
            each.interval.n,
            each.verdict,
        ]
        for each in measured
    ]
    wide = {
        f"{each.case.title}, {each.quantity.name}": each.quantity.why_wide
        for each in measured
        if each.quantity.why_wide
    }
    waived = "; ".join(f"{name}: {why}" for name, why in wide.items())
    more = f"Held to the interval and not to the half-width: {waived}." if waived else ""
    columns = "*case|*quantity|>exact|>simulated|>±|>± of exact|>runs|?verdict"
    lead = (
        "A quantity agrees if the interval covers the exact value, give or take what that value is itself uncertain by "
        "where it is an approximation. Exact values are recomputed here by formula, and equal the published digits. "
        "A run is an independent replication."
    )
    return section("simulated", "What was simulated", lead, [table(columns, rows, more=more)])


def _formulas() -> Block:
    rows = [
        [
            case.name,
            quantity.name,
            f"{quantity.exact:.6g}",
            quantity.printed or DASH,
            "as published" if quantity.as_printed else "differs",
        ]
        for case in CASES.values()
        for quantity in case.quantities
        if not quantity.metric
    ]
    lead = "Formulas that nothing here simulates: recomputed, and held against the published digits."
    return section(
        "formulas", "Formulas alone", lead, [table("*case|*quantity|>computed|>published|?digits", rows)]
    )


def _definitions() -> Block:
    rows = [[case.name, case.definition, case.how, case.source] for case in CASES.values()]
    lead = (
        "Arrivals are Poisson and services exponential unless a case says otherwise; rates are per second. A wait is "
        "in queue, zeros included; a sojourn is wait plus service. Whole stack: a scenario, through the control plane "
        "and the simulated world. Stations alone: the simulator's own, put together directly, where no scenario has "
        "that shape. No two cases share random numbers."
    )
    return section(
        "cases", "The cases", lead, [table("*case|*definition|*how it is simulated|*source", rows)]
    )


def _again(command: Sequence[str], *, full: bool) -> Block:
    facts: list[list[object]] = [
        ["glowsim", glowsim.__version__],
        ["Python", platform.python_version()],
        ["numpy", np.__version__],
        ["seed", SEED],
        ["sizes", "the campaign's" if full else "quick"],
    ]
    return section(
        "again",
        "Again",
        "Equal seeds give equal figures with the same numpy on the same processor.",
        [
            code(" ".join(command)),
            text(
                "The same list of cases is checked by the tests: pytest tests/validation, and with -m campaign."
            ),
            table("|", facts),
        ],
    )
