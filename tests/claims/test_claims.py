"""What a document claims, against its own arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.claims.arithmetic import NotArithmetic, evaluate, figures_in, filled_in
from glowsim.claims.command import BUNDLED, report_claims
from glowsim.claims.document import Claims
from glowsim.claims.verdicts import (
    CONSISTENT,
    INCONSISTENT,
    NOT_REPRODUCED,
    REPRODUCED,
    UNKNOWABLE,
    Simulated,
    check,
    judge,
)
from glowsim.core.errors import GlowsimError
from glowsim.scenario.loader import load_as
from glowsim.scenario.problems import ScenarioError


@pytest.fixture(scope="module")
def phase_5():
    return load_as(Claims, BUNDLED)


def relation(document, name):
    return next(each for each in check(document) if each.relation.name == name)


# --- arithmetic ----------------------------------------------------------------------------------------

NUMBERS = st.floats(0.1, 1e6)
EXPRESSIONS = st.recursive(
    NUMBERS.map(lambda x: repr(float(x))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=6,
)


@given(EXPRESSIONS)
@settings(derandomize=True, deadline=None)
def test_arithmetic_is_pythons(expression):
    try:
        expected = eval(expression)
    except (ZeroDivisionError, OverflowError):
        with pytest.raises(NotArithmetic):
            evaluate(expression, {})
    else:
        assert evaluate(expression, {}) == expected


@pytest.mark.parametrize(
    "evil",
    [
        "__import__('os').system('true')", "(1).__class__", "[1][0]", "x := 3", "lambda: 1", "2 ** 99999", "'a' * 3",
        "open('/etc/passwd')", "exp(10000)", "ln(0)", "1 if 1 else 2", "1" + "+1" * 300,
        "True", "ln(x=1)", "1 / 0", "",
    ],
)  # fmt: skip
def test_a_claim_may_compute_and_nothing_else(evil):
    with pytest.raises(NotArithmetic):
        evaluate(evil, {})


def test_names_are_found_and_filled_in():
    assert figures_in("ln(b / a) + min(a, c)") == ("b", "a", "c")
    assert filled_in("a / aa", {"a": "1", "aa": "22"}) == "1 / 22"


# --- verdicts ------------------------------------------------------------------------------------------


def document(**changes):
    claim = {"says": "so", "where": "here"}
    return Claims.model_validate(
        {
            "title": "t",
            "source": "s",
            "claims": {
                "total": {"value": 10, **claim},
                "one": {"value": 4, **claim},
                "two": {"value": 6, **claim},
                "other": {"value": 9, **claim},
                "mood": {"value": 5, **claim, "unknowable": "nobody counted"},
                "speed": {"value": 2, **claim},
            },
            "relations": [
                {"name": "sum", "left": "one + two", "right": "total", "why": "parts"},
                {"name": "twice", "left": "other", "right": "total", "why": "the same"},
            ],
            "shown": [{"claim": "speed", "scenario": "x", "metric": "latency_s_p50"}],
        }
        | changes
    )


def test_every_claim_gets_the_verdict_that_its_relations_and_runs_give():
    found = document()
    shown = {"speed": Simulated(found.shown[0], 2.0, 2.1, 2.0, 2.2)}
    verdicts = {each.name: each for each in judge(found, shown)}
    assert {name: each.verdict for name, each in verdicts.items()} == {
        "total": INCONSISTENT, "one": CONSISTENT, "two": CONSISTENT, "other": INCONSISTENT, "mood": UNKNOWABLE,
        "speed": REPRODUCED,
    }  # fmt: skip
    assert verdicts["total"].against == ("other",)
    assert verdicts["total"].holds == ("sum",)
    missed = {"speed": Simulated(found.shown[0], 2.0, 2.3, 2.2, 2.4)}
    assert judge(found, missed)[-1].verdict == NOT_REPRODUCED


def test_a_relation_at_most_bounds_one_side_only():
    ordered = [
        {"name": "less", "left": "one", "right": "two", "at_most": True, "within": 0.01, "why": "order"}
    ]
    assert relation(document(relations=ordered, claims=_claims(one=1, two=6)), "less").holds
    assert not relation(document(relations=ordered, claims=_claims(one=7, two=6)), "less").holds


def _claims(**values):
    names = {"one": 1, "two": 2, "speed": 2} | values
    return {name: {"value": value, "says": "so", "where": "here"} for name, value in names.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left: on + two", "unknown claim 'on'; did you mean 'one'?"),
        ("left: one / (two - 6)", "division by zero"),
        ("left: import os", "is no arithmetic"),
    ],
)
def test_what_is_wrong_is_shown_in_its_place(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(
        "title: t\nsource: s\nclaims:\n"
        "  one: {value: 4, says: so, where: here}\n  two: {value: 6, says: so, where: here}\n"
        f"relations:\n  - name: n\n    {text}\n    right: two + one * 0\n    why: w\n"
    )
    with pytest.raises(ScenarioError) as caught:
        load_as(Claims, path)
    assert message in str(caught.value)
    assert f"{path}:8" in str(caught.value)


def test_a_claim_that_nothing_is_said_about_is_refused():
    with pytest.raises(ValueError, match="say how it can be known"):
        document(relations=[], shown=[])


# --- the document that comes along ----------------------------------------------------------------------


def test_the_contradictions_of_the_seed_are_found(phase_5):
    broken = {each.relation.name for each in check(phase_5) if not each.holds}
    assert broken == {
        "the monthly cost is the tasks at the stated cost of each",
        "the dashboard and the breakdown tell of the same month's cost",
        "fewer tokens save their part of the bill",
        "a cached answer takes no time, so it is the median",
        "the users of the load test are in flight",
        "failures of the load test and of production",
        "the soak test at the cost of a task",
        "one agent's traffic is less than everybody's",
        "what a canary of one agent sees in its day",
    }


def test_its_arithmetic_is_as_a_person_does_it(phase_5):
    assert relation(phase_5, "the users of the load test are in flight").left == pytest.approx(183.7)
    assert relation(phase_5, "the soak test at the cost of a task").left == pytest.approx(63_360)
    assert relation(phase_5, "one agent's traffic is less than everybody's").left == 1248
    assert relation(phase_5, "what a canary of one agent sees in its day").right == pytest.approx(70 / 45)


def test_every_claim_quotes_the_document(phase_5):
    assert len(phase_5.claims) > 60
    assert all(claim.says and claim.where for claim in phase_5.claims.values())


def test_the_page_is_written_once(tmp_path):
    report = report_claims(tmp_path / "out", simulated=False)
    page = report.html.read_text()
    assert "$2,100 / 42,000 tasks" in page
    assert "what a canary of one agent sees in its day" in page
    assert report.pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(GlowsimError, match="exists"):
        report_claims(tmp_path / "out", simulated=False)


def test_claims_of_ones_own_are_judged_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(Path(BUNDLED).read_text().replace("value: 2100, unit: USD", "value: 1850.5, unit: USD"))
    judged = {each.name: each for each in report_claims(tmp_path / "out", path, simulated=False).judged}
    assert "the dashboard and the breakdown tell of the same month's cost" in judged["cost_after_usd"].holds
