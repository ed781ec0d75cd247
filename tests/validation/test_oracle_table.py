"""The oracle table itself: complete, as published, and every simulated case inside its interval."""

from __future__ import annotations

import pytest

from glowsim.validation.case import Case
from glowsim.validation.cases import CASES
from glowsim.validation.running import AGREES, HALF_WIDTH, measure

SIMULATED = [case for case in CASES.values() if case.simulate is not None]
QUICK = [case for case in SIMULATED if case.quick is not None]


def key(case: Case) -> str:
    return case.key


def test_every_case_of_the_table_is_there_once() -> None:
    assert sorted({case.number for case in CASES.values()}) == list(range(1, 21))
    titles = [case.title for case in CASES.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("case", CASES.values(), ids=key)
def test_the_formulas_give_the_published_digits(case: Case) -> None:
    assert case.quantities, "a case without a quantity says nothing"
    for quantity in case.quantities:
        assert quantity.as_printed, f"{quantity.name}: {quantity.exact!r} is printed as {quantity.printed}"


@pytest.mark.parametrize("case", CASES.values(), ids=key)
def test_a_case_is_simulated_or_says_why_not(case: Case) -> None:
    if case.simulate is None:
        assert case.simulated == ()
        assert case.quick is None
        assert case.full is None
        assert case.how.startswith(("Not simulated: ", "Formula."))
    else:
        assert case.simulated
        assert case.full is not None
        assert case.how.startswith(("Whole stack", "Stations alone"))


def test_only_the_largest_cases_wait_for_the_campaign() -> None:
    left_out = {case.key for case in SIMULATED} - {case.key for case in QUICK}
    assert left_out == {
        "two-choices-0.95", "two-choices-0.99", "two-choices-limit-0.9", "two-choices-limit-0.95",
    }  # fmt: skip


@pytest.mark.parametrize("case", QUICK, ids=key)
def test_quick_runs_agree_with_theory(case: Case) -> None:
    assert case.quick is not None
    for each in measure(case, case.quick, narrow=False):
        assert each.verdict == AGREES, f"{each.quantity.name}: {each.quantity.exact} outside {each.interval}"


@pytest.mark.campaign
@pytest.mark.parametrize("case", SIMULATED, ids=key)
def test_campaign_agrees_with_theory_within_two_per_cent(case: Case) -> None:
    assert case.full is not None
    for each in measure(case, case.full, narrow=True):
        assert each.verdict == AGREES, f"{each.quantity.name}: {each.quantity.exact}, {each.interval}"
        assert each.half_width <= HALF_WIDTH or each.quantity.why_wide
