"""Real answers: what changed in two models between March and June 2023 is told, a shuffled March is not.

LLMDrift (Chen, Zaharia, Zou, "How is ChatGPT's behavior changing over time?", 2023). The values come one by one in
random order, March first, then June. Metrics: whether the answer is right (primes) or is one of the options at all
(opinions: GPT-4 came to refuse), and its length.
"""

from __future__ import annotations

import csv
import gzip
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.drift.adwin import Adwin
from controllers.drift.ks import KolmogorovSmirnov
from controllers.drift.psi import PopulationStability
from controllers.drift.report import drift_report
from controllers.drift.shiryaev_roberts import ShiryaevRoberts
from glowsim.core.types import Code

Series = dict[tuple[str, str, str], list[float]]
RUN_LENGTH = 10_000
SHUFFLES = 20
GPT4, GPT35 = ("gpt-4-0314", "gpt-4-0613"), ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613")
CHANGED = {
    ("prime", "correct", GPT4): -0.329,
    ("prime", "correct", GPT35): +0.261,
    ("prime", "tokens_out", GPT4): -212.5,
    ("prime", "tokens_out", GPT35): +70.6,
    ("opinion", "answered", GPT4): -0.732,
    ("opinion", "tokens_out", GPT4): +5.57,
}
"""(task, metric, snapshots) -> change of the mean. GPT-3.5 on opinions hardly changed in these metrics."""
DETECTORS: dict[str, Callable[[str], Any]] = {
    "shiryaev_roberts": lambda metric: ShiryaevRoberts(metric=metric, run_length=RUN_LENGTH, baseline=400),
    "adwin": lambda metric: Adwin(metric=metric, quiet_s=0),
    "ks": lambda metric: KolmogorovSmirnov(metric=metric, run_length=RUN_LENGTH, window=200),
    "psi": lambda metric: PopulationStability(metric=metric, run_length=RUN_LENGTH, window=200),
}


@pytest.fixture(scope="module")
def series(data_file: Callable[[str], Path]) -> Series:
    csv.field_size_limit(sys.maxsize)
    found: Series = {}
    for task in ("prime", "opinion"):
        name = {"prime": "PRIME_FULL", "opinion": "OPINIONQA"}[task]
        path = data_file(f"llmdrift/{name}_EVAL.csv.gz")
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                model, answer = row["model"].removeprefix("openaichat/"), row["answer"]
                found.setdefault((task, "tokens_out", model), []).append(float(row["answer_token"]))
                if task == "prime":
                    said = re.findall(r"\b(yes|no)\b", answer.lower())
                    right = said[-1:] == [row["ref_answer"].strip().lower()]
                    found.setdefault((task, "correct", model), []).append(float(right))
                else:
                    chosen = re.search(r"\([A-Z]\)", answer) is not None
                    found.setdefault((task, "answered", model), []).append(float(chosen))
    return found


PAIRS = [
    # 2 % refusals are no bin of 20 values in a window of 200: PSI cannot be asked.
    pytest.param(name, changed, id=f"{name}-{changed[0]}-{changed[1]}-{changed[2][0]}")
    for name in DETECTORS
    for changed in CHANGED
    if (name, changed[1]) != ("psi", "answered")
]


@pytest.mark.parametrize(("name", "changed"), PAIRS)
def test_march_to_june_is_told(series: Series, name: str, changed: tuple[str, str, tuple[str, str]]) -> None:
    task, metric, (march, june) = changed
    before, after = (np.array(series[task, metric, model]) for model in (march, june))
    assert after.mean() - before.mean() == pytest.approx(CHANGED[changed], rel=0.01)
    rng, told = np.random.default_rng(3), 0
    for _ in range(SHUFFLES):
        detector = DETECTORS[name](metric)
        for t_s, value in enumerate(rng.permutation(before).tolist()):
            detector.observe(float(t_s), value)
        june_first = (
            detector.observe(1e6 + i, value) for i, value in enumerate(rng.permutation(after).tolist())
        )
        alert = next(filter(None, june_first), None)
        if alert is None:
            continue
        told += 1
        assert drift_report(detector).has_drift
        if alert.reason.code != Code.DRIFT_SHAPE:
            assert (alert.reason.code == Code.DRIFT_UP) == (CHANGED[changed] > 0)
    assert told >= 0.9 * SHUFFLES


@pytest.mark.parametrize("name", DETECTORS)
def test_a_shuffled_march_is_no_drift(series: Series, name: str) -> None:
    """800 to 1,300 values after the baseline at a run length of 10,000: at most 13 % of the shuffles may alarm."""
    rng, told, shuffles = np.random.default_rng(4), 0, 0
    for (_, metric, model), values in series.items():
        if model not in (GPT4[0], GPT35[0]):
            continue
        for _ in range(SHUFFLES):
            detector = DETECTORS[name](metric)
            shuffled = rng.permutation(values).tolist()
            told += any(detector.observe(float(t_s), value) for t_s, value in enumerate(shuffled))
            shuffles += 1
    assert shuffles == 8 * SHUFFLES
    assert told <= {"shiryaev_roberts": 2, "adwin": 4, "ks": 8, "psi": 16}[name]
