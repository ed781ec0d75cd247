"""The presets of quality say what the data say, and the fits behind them are what textbooks call them."""

from __future__ import annotations

import csv
import gzip
import io
import re
import statistics
import tarfile
from fnmatch import fnmatchcase
from math import asin, pi
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from glowsim import presets
from glowsim.presets import PresetError
from glowsim.presets.quality import Table, all_right, correlation, pooled_correlation
from glowsim.scenario.quality import Quality, completed

NAMES = presets.names("quality")
share = st.floats(0.05, 0.95)


# --- the fits -------------------------------------------------------------------------------------------


@given(share, share, st.floats(0.0, 0.95))
def test_two_attempts_are_right_as_a_bivariate_normal_says(first: float, second: float, c: float) -> None:
    expected = multivariate_normal.cdf(norm.ppf([first, second]), cov=[[1.0, c], [c, 1.0]])
    assert all_right((first, second), c) == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize("c", [0.0, 0.3, 0.678, 0.9])
def test_even_chances_follow_sheppards_formula(c: float) -> None:
    assert all_right((0.5, 0.5), c) == pytest.approx(0.25 + asin(c) / (2 * pi), abs=1e-9)
    assert all_right((0.5,) * 3, c) == pytest.approx(0.125 + 3 * asin(c) / (4 * pi), abs=1e-9)


@given(share, share, st.floats(0.01, 0.98))
def test_a_correlation_is_found_again(first: float, second: float, c: float) -> None:
    both = all_right((first, second), c)
    assume(both < min(first, second) - 1e-3)  # from there on every correlation gives the same table
    assert correlation(first, second, both) == pytest.approx(c, abs=1e-5)


@pytest.mark.parametrize("both", [0.2, 0.6])
def test_shares_that_no_correlation_makes_are_refused(both: float) -> None:
    with pytest.raises(PresetError, match=r"give at least 0\.25 and less than 0\.5"):
        correlation(0.5, 0.5, both)


def test_one_correlation_for_tables_of_different_difficulty() -> None:
    tables = []
    for first, second in ((0.9, 0.95), (0.5, 0.8), (0.3, 0.4)):
        both = all_right((first, second), 0.6)
        shares = (both, first - both, second - both, 1 - first - second + both)
        tables.append(Table(*(round(1e6 * x) for x in shares)))
    assert pooled_correlation(tables) == pytest.approx(0.6, abs=1e-3)
    mixed = Table(*(sum(column) for column in zip(*tables, strict=True)))
    assert correlation(*mixed.shares) > 0.7, "difficulty that differs by kind looks like correlation"


# --- every preset ---------------------------------------------------------------------------------------


def leaves(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for i, inner in enumerate(value) for leaf in leaves(inner, f"{path}.{i}")]
    return [path]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_says_where_it_comes_from(name: str) -> None:
    preset = presets.read("quality", name)
    assert set(preset) == {"title", "origins", "measured", "quality"}
    for each in preset["origins"].values():
        assert each["origin"] in ("measured", "published", "fitted", "assumed")
        assert each["source"]
    for leaf in leaves(preset["quality"], "quality"):
        if re.fullmatch(r"quality\.drift\.\d+\.(model|kind)", leaf):
            continue  # names, not numbers
        known = any(fnmatchcase(leaf, path) or fnmatchcase(leaf, f"{path}.*") for path in preset["origins"])
        assert known, f"{name}: {leaf} comes from nowhere"


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_block_that_validates(name: str) -> None:
    parts = [presets.read("quality", each)["quality"] for each in dict.fromkeys(("routellm", name))]
    if name != "feedback":
        parts = parts[-1:]
    block = completed(Quality.model_validate({"presets": [name]}), parts)
    assert block.presets == ()
    assert Quality.model_validate(block.model_dump(by_alias=True, exclude_none=True, mode="json")) == block


# --- RouteLLM -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def routellm(data_file) -> dict[str, Table]:
    """Return benchmark or subject -> its table, counted from the archive."""
    found: dict[str, list[int]] = {"mmlu": [0, 0, 0, 0]}
    with tarfile.open(data_file("routellm/eval_responses.tar.gz")) as archive:
        for member in archive.getmembers():
            if not member.name.endswith(".csv"):
                continue
            stem = Path(member.name).stem
            name = "gsm8k" if stem.startswith("gsm8k") else stem.removeprefix("mmlu_")
            opened = archive.extractfile(member)
            assert opened is not None
            _, *rows = csv.reader(io.TextIOWrapper(opened, encoding="utf-8", newline=""))
            pairs = [(row[1] == "True", row[2] == "True") for row in rows]
            counts = [
                pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
            ]
            found[name] = counts
            if name != "gsm8k":
                found["mmlu"] = [a + b for a, b in zip(found["mmlu"], counts, strict=True)]
    return {name: Table(*counts) for name, counts in found.items()}


def test_the_joint_table_of_mmlu_is_the_published_one(routellm) -> None:
    both, weak_only, strong_only, neither = routellm["mmlu"]
    n = both + weak_only + strong_only + neither
    shares = [
        (both + weak_only) / n,
        (both + strong_only) / n,
        (both + neither) / n,
        weak_only / n,
        strong_only / n,
    ]
    assert [round(x, 3) for x in shares] == [0.681, 0.806, 0.769, 0.053, 0.178]
    assert round((n - neither) / n, 3) == 0.859, "the ceiling of any routing between the two"


@pytest.mark.parametrize("name", ["routellm", "routellm_subjects"])
def test_routellm_is_counted_and_fitted_as_it_says(name: str, routellm) -> None:
    preset, counted = presets.read("quality", name), routellm
    tables = {kind: Table(*counts) for kind, counts in preset["measured"].items()}
    assert tables == {kind: counted[kind] for kind in tables}
    models = preset["quality"]["models"]
    for kind, table in tables.items():
        weak, strong, _ = table.shares
        assert models["mixtral-8x7b"]["accuracy"][kind] == pytest.approx(weak, abs=5.1e-5)
        assert models["gpt-4-1106"]["accuracy"][kind] == pytest.approx(strong, abs=5.1e-5)
    fitted = {kind: each["shared"] for kind, each in preset["quality"]["kinds"].items()}
    if name == "routellm":
        again = {kind: correlation(*table.shares) for kind, table in tables.items()}
    else:
        assert len(tables) == 57
        again = dict.fromkeys(tables, pooled_correlation(list(tables.values())))
    assert fitted == pytest.approx(again, abs=2e-4)


# --- leaderboards ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tau2(data_file) -> list[tuple[str, str, list[float]]]:
    """Return (model, domain, pass^1 to pass^4) of each submission that has all four."""
    with data_file("tau2_bench/leaderboard.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["model"].startswith("Example")]
    full = [row for row in rows if all(row[f"pass_{k}"] for k in range(1, 5))]
    return [
        (row["model"], row["domain"], [float(row[f"pass_{k}"]) / 100 for k in range(1, 5)]) for row in full
    ]


def test_one_correlation_predicts_four_trials_from_two(tau2) -> None:
    """Fitted to pass^1 and pass^2 alone, it is judged on pass^3 and pass^4: nothing of them went in."""
    errors = []
    for _, _, (first, second, third, fourth) in tau2:
        try:
            repeat = correlation(first, first, second)
        except PresetError:
            continue  # one submission whose second trial repeats the first nearly always
        errors += [
            abs(all_right((first,) * 3, repeat) - third),
            abs(all_right((first,) * 4, repeat) - fourth),
        ]
    assert len(errors) >= 140
    assert statistics.median(errors) < 0.012
    assert max(errors) < 0.05


def test_tau2_is_what_was_submitted(tau2) -> None:
    preset = presets.read("quality", "tau2")
    submitted = [(domain, passes) for _, domain, passes in tau2]
    for model, domains in preset["measured"].items():
        for domain, passes in domains.items():
            assert any(d == domain and p == pytest.approx(passes, abs=5.1e-5) for d, p in submitted), model
            assert preset["quality"]["models"][model]["accuracy"][domain] == passes[0]
    for domain, kind in preset["quality"]["kinds"].items():
        fits = []
        for _, each, (first, second, _, _) in tau2:
            if each == domain and second < all_right((first, first), 0.9999):
                fits.append(correlation(first, first, second))
        assert kind["repeat"] == pytest.approx(statistics.median(fits), abs=1e-4)


def test_aider_is_what_was_published(data_file) -> None:
    preset = presets.read("quality", "aider_polyglot")
    with data_file("aider/polyglot_leaderboard.csv").open(encoding="utf-8") as file:
        published = {
            tuple(float(row[key]) for key in ("pass_rate_1", "pass_rate_2", "percent_cases_well_formed"))
            for row in csv.DictReader(file)
            if row["percent_cases_well_formed"]
        }
    for model, (first, second, formed) in preset["measured"].items():
        assert (first, second, formed) in published
        ability = preset["quality"]["models"][model]
        assert ability["accuracy"] == pytest.approx(second / 100)
        assert ability["format"] == pytest.approx(1 - formed / 100)


# --- drift that was measured ----------------------------------------------------------------------------


def test_llmdrift_is_counted_as_it_says(data_file) -> None:
    preset = presets.read("quality", "llmdrift")
    right: dict[str, list[bool]] = {}
    unbracketed: dict[str, list[bool]] = {}
    with gzip.open(data_file("llmdrift/PRIME_FULL_EVAL.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            said = re.findall(r"\b(yes|no)\b", row["answer"].lower())
            correct = said[-1:] == [row["ref_answer"].strip().lower()]
            right.setdefault(row["model"], []).append(correct)
            if not correct:
                formed = re.search(r"\[(yes|no)\]", row["answer"].lower())
                unbracketed.setdefault(row["model"], []).append(formed is None)
    snapshots = {
        "gpt-4": ("gpt-4-0314", "gpt-4-0613"),
        "gpt-3.5": ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613"),
    }
    factors = {drift["model"]: drift["factor"] for drift in preset["quality"]["drift"]}
    for model, (march, june) in snapshots.items():
        counts = [sum(right[f"openaichat/{each}"]) for each in (march, june)]
        assert counts == preset["measured"][model]
        assert preset["quality"]["models"][model]["accuracy"] == counts[0] / 1000
        assert factors[model] == pytest.approx(counts[1] / counts[0], abs=5.1e-4)
        seen = statistics.fmean(unbracketed[f"openaichat/{june}"])
        assert preset["quality"]["models"][model]["format"] == pytest.approx(seen, abs=5.1e-5)
