"""The validation page: what it says of agreement and of misses, as HTML and as PDF."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from glowsim.core.errors import GlowsimError
from glowsim.report import render
from glowsim.stats.intervals import Interval
from glowsim.validation import page, report_validation
from glowsim.validation.cases import CASES
from glowsim.validation.forest import widest_error
from glowsim.validation.running import AGREES, DISAGREES, TOO_WIDE, Measured, judge

WHEN = "2026-01-02T03:04:05+00:00"
COMMAND = ("glowsim", "report", "validation", "--full")


def measured(error: float = 0.001, half_width: float = 0.01) -> list[Measured]:
    """Return every simulated quantity, measured with the same relative error and half-width."""
    found = []
    for case in CASES.values():
        for quantity in case.simulated:
            mean, reach = quantity.exact * (1.0 + error), quantity.exact * half_width
            interval = Interval(mean, mean - reach, mean + reach, 40)
            found.append(Measured(case, quantity, interval, judge(quantity, interval, narrow=True)))
    return found


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_agreement_is_said_with_every_case_its_definition_and_the_command() -> None:
    report = page.build(measured(), WHEN, COMMAND, full=True)
    html = render.html(report)
    text = words(html)
    count = len(measured())
    assert report["mark"] == "good"
    assert report["levels"] == []
    assert f"Agrees. {count} of {count} simulated quantities" in text
    assert "± 1.0 % of it" in text
    assert "glowsim report validation --full" in text
    assert "quick" not in text
    for case in CASES.values():
        assert text.count(case.name) >= 2, "in the definitions, and with its figures"
    assert text.count("✓ agrees") == count
    assert text.count("✓ as published") == sum(
        not q.metric for case in CASES.values() for q in case.quantities
    )
    assert not re.search(r"(src|href)=.(https?:|//)|<script", html), "the page opens offline"


def test_every_row_has_its_figures() -> None:
    report = page.build(measured(), WHEN, COMMAND, full=True)
    rows = report["sections"][1]["blocks"][0]["rows"]
    assert rows[0] == ["1 M/M/1", "mean wait", "4", "4.004", "0.04", "1.00 %", "40", AGREES]
    assert all(len(row) == 8 for row in rows)


def test_a_miss_comes_first_with_both_its_numbers() -> None:
    found = measured()
    found[0] = Measured(found[0].case, found[0].quantity, Interval(4.4, 4.3, 4.5, 40), DISAGREES)
    found[1] = Measured(found[1].case, found[1].quantity, Interval(5.0, 4.0, 6.0, 40), TOO_WIDE)
    report = page.build(found, WHEN, COMMAND, full=True)
    assert (report["verdict"], report["mark"]) == (DISAGREES, "bad")
    text = words(render.html(report))
    assert "✗ disagrees M/M/1 : mean wait: exactly 4, simulated from 4.3 to 4.5" in text
    assert "? too wide M/M/1 : mean sojourn: exactly 5, simulated from 4 to 6" in text
    del found[0]
    assert page.build(found, WHEN, COMMAND, full=True)["verdict"] == TOO_WIDE


def test_quick_sizes_say_that_they_prove_little() -> None:
    assert "prove little" in page.build(measured(), WHEN, COMMAND, full=False)["headline"]


def test_the_picture_shows_every_quantity_and_ignores_what_is_wide_for_a_reason() -> None:
    found = measured(half_width=0.03)
    figures = page.build(found, WHEN, COMMAND, full=False)["sections"][0]["blocks"]
    drawn = [figure["svg"] for figure in figures]
    for each in found:
        assert sum(f"{each.case.title}: {each.quantity.name}<" in svg for svg in drawn) == 1
    loose = next(i for i, each in enumerate(found) if each.quantity.why_wide)
    wide = found[loose]._replace(interval=Interval(1.0, -9.0, 11.0, 40))
    assert widest_error([*found[:loose], wide, *found[loose + 1 :]]) == widest_error(found)
    assert widest_error(found) == pytest.approx(0.031 * 1.04)


def test_equal_figures_give_equal_bytes() -> None:
    report = page.build(measured(), WHEN, COMMAND, full=True)
    again = page.build(measured(), WHEN, COMMAND, full=True)
    assert render.html(report) == render.html(again)
    assert render.pdf(report, WHEN) == render.pdf(again, WHEN)


def test_the_command_writes_both_and_overwrites_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {key: CASES[key] for key in ("tandem", "closed-stations")}
    monkeypatch.setattr("glowsim.validation.running.CASES", kept)
    done = report_validation(tmp_path / "new", command=COMMAND)
    assert done.agrees
    assert len(done.measured) == 6
    assert done.html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert done.pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(GlowsimError, match="exists: name another folder"):
        report_validation(tmp_path / "new")
