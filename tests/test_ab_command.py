"""``glowsim ab``: answers first, exit codes, tables as JSON, and rows that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from glowsim.cli import app
from glowsim.core.errors import GlowsimError
from glowsim.stats.experiments.moments import Moments
from glowsim.stats.experiments.proportions import proportions


@pytest.fixture
def ab():
    def call(*words: object, code: int = 0) -> str:
        found = CliRunner().invoke(app, ["ab", *map(str, words)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == code, found.output
        return found.output

    return call


def table(path: Path, effect: float, users: int = 1500, seed: int = 1) -> pd.DataFrame:
    """Users with one to three rows each; arm b is right more often, by ``effect``, and as fast."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        arm, before = "ab"[user % 2], rng.lognormal(0, 0.5)
        for _ in range(rng.integers(1, 4)):
            right = int(rng.random() < 0.8 + effect * (arm == "b"))
            rows.append((f"u{user}", arm, right, before * rng.lognormal(0, 0.2), before))
    frame = pd.DataFrame(rows, columns=["user", "arm", "right", "latency_s", "before_s"])
    {".csv": frame.to_csv, ".parquet": frame.to_parquet}[path.suffix](path, index=False)
    return frame


def test_size_says_how_many_and_how_long(ab) -> None:
    # 435 each is Fleiss' table's; 870 units at 31 a day are 28 days.
    said = json.loads(ab("size", "--base", "5%", "--effect", "5%", "--rate", "31/d", "--json"))
    assert (said["a"], said["b"], said["units"]) == (435, 435, 870)
    assert said["lasts_s"] == pytest.approx(870 / 31 * 86400)
    assert ab("size", "--deviation", "1", "--effect", "-0.5").startswith("128 units: 64 of the baseline")
    looks = json.loads(ab("size", "--deviation", "1", "--effect", "0.5", "--looks", "5", "--json"))
    assert 1.0 < looks["inflation"] < 1.04
    assert looks["a"] > 64


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--effect", "1%"], "give --base for a share, or --deviation"),
        (["--effect", "1%", "--base", "5%", "--deviation", "1"], "give --base for a share, or --deviation"),
        (["--effect", "much", "--base", "5%"], "--effect: "),
        (["--effect", "96%", "--base", "5%"], "must be shares"),
        (["--effect", "1%", "--base", "5%", "--rate", "0/d"], "no experiment ends"),
        (["--effect", "1%", "--base", "5%", "--spending", "some"], "give one of obrien-fleming"),
    ],
)
def test_size_refuses_what_makes_no_sense(ab, words: list[str], says: str) -> None:
    assert says in ab("size", *words, code=2)


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_a_winner_is_named_first_with_its_interval(ab, tmp_path: Path, kind: str) -> None:
    frame = table(tmp_path / f"data{kind}", 0.08)
    words = ["evaluate", tmp_path / f"data{kind}", "--variant", "arm", "--metric", "right"]
    assert ab(*words).startswith("right: b wins: p = ")
    said = json.loads(ab(*words, "--json"))["comparisons"][0]
    arms = frame.groupby("arm")["right"].agg(["sum", "count"])
    counts = [tuple(map(int, arms.loc[arm])) for arm in "ab"]
    expected = proportions(*counts)
    assert (said["difference"], said["low"], said["p"]) == (expected.difference, expected.low, expected.p)


def test_rows_of_a_unit_count_as_one(ab, tmp_path: Path) -> None:
    frame = table(tmp_path / "data.csv", 0.08)
    words = ["evaluate", tmp_path / "data.csv", "--variant", "arm", "--metric", "right", "--unit", "user"]
    said = json.loads(ab(*words, "--json"))
    assert said["units"] == {"a": 750, "b": 750}
    means = frame.groupby(["user", "arm"])["right"].mean().reset_index()
    one = said["comparisons"][0]
    assert one["test"] == "welch"
    assert one["b"] == pytest.approx(Moments.of(means[means["arm"] == "b"]["right"]).mean)


def test_a_covariate_narrows_the_interval(ab, tmp_path: Path) -> None:
    table(tmp_path / "data.csv", 0.0)
    words = [
        "evaluate",
        tmp_path / "data.csv",
        "--variant",
        "arm",
        "--metric",
        "latency_s",
        "--unit",
        "user",
        "--json",
    ]
    plain = json.loads(ab(*words, code=3))["comparisons"][0]
    sharp = json.loads(ab(*words, "--covariate", "before_s", code=3))["comparisons"][0]
    assert sharp["high"] - sharp["low"] < 0.5 * (plain["high"] - plain["low"])
    assert sharp["variance_removed"] > 0.75


def test_peeking_at_a_fixed_test_is_refused_and_priced(ab, tmp_path: Path) -> None:
    table(tmp_path / "data.csv", 0.08)
    words = ["evaluate", tmp_path / "data.csv", "--variant", "arm", "--metric", "right"]
    assert "14 %" in ab(*words, "--looks", 5, code=3), "the chance of a false alarm at five looks"
    early = ab(*words, "--planned", 100_000, code=3)
    assert "of 100000 planned units are in" in early
    ab(*words, "--test", "sequential", "--looks", 5)
    ab(*words, "--test", "group-sequential", "--planned", 4000, "--earlier", "1000,2000")


def test_exit_codes_tell_worse_from_undecided_and_from_nothing_that_matters(ab, tmp_path: Path) -> None:
    table(tmp_path / "data.csv", -0.08)
    words = ["evaluate", tmp_path / "data.csv", "--variant", "arm", "--unit", "user", "--metric"]
    assert ab(*words, "right", code=1).startswith("right: a wins")
    assert "undecided" in ab(*words, "latency_s", code=3)
    assert "no difference that matters" in ab(*words, "latency_s", "--matters", "0.5")


def test_several_metrics_share_alpha(ab, tmp_path: Path) -> None:
    table(tmp_path / "data.csv", 0.08)
    words = [
        "evaluate",
        tmp_path / "data.csv",
        "--variant",
        "arm",
        "--metric",
        "right",
        "--metric",
        "latency_s",
    ]
    one, other = json.loads(ab(*words, "--json"))["comparisons"]
    assert one["adjusted_p"] == 2 * one["p"]
    assert other["adjusted_p"] == other["p"]


def test_a_broken_split_leaves_nobody_a_winner(ab, tmp_path: Path) -> None:
    table(tmp_path / "data.csv", 0.08)
    words = [
        "evaluate",
        tmp_path / "data.csv",
        "--variant",
        "arm",
        "--metric",
        "right",
        "--split",
        "a=0.45,b=0.55",
    ]
    assert "the split is broken" in ab(*words, code=3)


def test_json_lines_are_read_too(ab, tmp_path: Path) -> None:
    frame = table(tmp_path / "data.csv", 0.08)
    frame.to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    ab("evaluate", tmp_path / "data.jsonl", "--variant", "arm", "--metric", "right")


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("arm,x\na,1\nb,two\nb,nan\n", [], "2 of 3 rows cannot be used:\n  line 3: x is 'two'"),
        ("arm,x\na,1\nb\n", [], "line 3 has 1 fields, and the first line 2"),
        ("arm,x\na,1\n,2\n", [], "line 3: arm is ''"),
        ("arm,y\na,1\n", [], "there is no column 'x'"),
        ("arm,x\n", [], "has no rows"),
        (
            "arm,x,u\na,1,k\nb,2,k\n",
            ["--unit", "u"],
            "line 3: unit 'k' is in variant 'b' here, and in 'a' before",
        ),
        ('arm,x\na,"1\n', [], "line 2"),
    ],
)
def test_rows_that_cannot_be_used_are_named_by_line(ab, tmp_path: Path, text, words, says) -> None:
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(GlowsimError) as refused:
        ab("evaluate", tmp_path / "data.csv", "--variant", "arm", "--metric", "x", *words)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("arm,x\np,1\nq,2\n", [], "which of p, q is the baseline? Say it by --baseline"),
        ("arm,x\na,1\nb,2\n", ["--baseline", "c"], "there is no such variant"),
        ("arm,x\na,1\na,2\n", [], "at least one other variant"),
        ("arm,x\na,1\nb,2\n", ["--test", "t"], "--test 't': give one of auto, welch"),
        ("arm,x\na,1\nb,2\n", ["--test", "proportions"], "units that have 0 or 1"),
        ("arm,x\na,1\nb,2\na,2\nb,3\n", ["--test", "group-sequential"], "--planned"),
        ("arm,x\na,1\nb,2\n", ["--split", "a=1"], "a number above 0 for each variant"),
        ("arm,x\na,1\nb,2\n", ["--earlier", "9"], "--earlier is for"),
        ("arm,x\na,1\nb,2\n", ["--metric", "x"], "given twice"),
    ],
)
def test_options_that_do_not_fit_are_refused(ab, tmp_path: Path, text, words, says) -> None:
    (tmp_path / "data.csv").write_text(text)
    assert says in ab("evaluate", tmp_path / "data.csv", "--variant", "arm", "--metric", "x", *words, code=2)


# --- off-policy -------------------------------------------------------------------------------------------


def decisions(path: Path, n: int = 3000) -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(n) < 0.5
    strong = rng.random(n) < np.where(hard, 0.7, 0.2)
    chance = np.where(hard, 0.7, 0.2)
    pd.DataFrame(
        {
            "action": np.where(strong, "strong", "cheap"),
            "propensity": np.where(strong, chance, 1 - chance),
            "reward": (rng.random(n) < np.where(hard, 0.4 + 0.4 * strong, 0.9)).astype(int),
            "task": np.where(hard, "hard", "easy"),
            "wanted": np.where(hard, "strong", "cheap"),
            "user": rng.integers(0, 500, n),
        }
    ).to_csv(path, index=False)


def test_another_policy_is_judged_by_what_this_one_logged(ab, tmp_path: Path) -> None:
    decisions(tmp_path / "log.csv")
    words = ["off-policy", tmp_path / "log.csv", "--context", "task", "--unit", "user", "--policy"]
    assert ab(*words, "column:wanted").startswith("column:wanted: better: ")
    said = json.loads(ab(*words, "always:cheap", "--json", code=1))
    # Truth: 0.65 if it is always cheap, 0.85 if the strong one gets the hard tasks.
    assert said["doubly_robust"]["low"] < 0.65 < said["doubly_robust"]["high"]
    assert said["rows"] == 3000
    assert "cannot tell" in ab(*words, "always:huge", code=3)
    assert "cannot tell" in ab(*words, "column:wanted", "--within", "0.0001", code=3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "sometimes"], "--policy 'sometimes': give always:ACTION"),
        (["--policy", "always:"], "give always:ACTION"),
        (["--policy", "uniform", "--better", "more"], "--better 'more'"),
    ],
)
def test_a_policy_that_is_none_is_refused(ab, tmp_path: Path, words: list[str], says: str) -> None:
    decisions(tmp_path / "log.csv", 100)
    assert says in ab("off-policy", tmp_path / "log.csv", *words, code=2)


def test_a_propensity_that_is_none_is_named_by_line(ab, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("action,propensity,reward\na,0.5,1\nb,0,1\n")
    with pytest.raises(GlowsimError, match="line 3: propensity is 0, and must be above 0 and up to 1"):
        ab("off-policy", tmp_path / "log.csv", "--policy", "uniform")


SCENARIO = """
title: three variants
question: Which one do users like?
seed: 3
duration: 30m
models: {small: {input: $1/1M, output: $2/1M}}
quality:
  kinds: {any: {shared: 50%, repeat: 80%}}
  models: {small: {accuracy: 70%, hallucination: 20%, format: 10%, refusal: 10%}}
  context_loss: 30%
  confidence: 85%
  feedback:
    complaint:
      shares: {correct: 20%, wrong: 60%, hallucination: 60%, format: 60%, refusal: 60%}
      delay: {median: 10s, sigma: 0.5}
    rating:
      shares: {correct: 80%, wrong: 80%, hallucination: 80%, format: 80%, refusal: 80%}
      delay: {median: 10s, sigma: 0.5}
      if_correct: [0%, 0%, 0%, 0%, 100%]
      otherwise: [100%, 0%, 0%, 0%, 0%]
fleet:
  - agent: tax
    model: small
    instances: 8
    concurrency: 4
    failures: {error: 20%}
    service: {law: time, time: 500ms}
    variants: {v2: {error: 1%}, v3: {error: 60%}}
workload:
  - {kind: poisson, rate: 2/s, tokens_in: 900, tokens_out: 100}
controllers:
  splitter: {use: bandit, explore: 10%, look: 1m}
"""


def test_a_run_with_feedback_is_a_log(ab, tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(SCENARIO)
    run = CliRunner().invoke(
        app, ["run", str(tmp_path / "three.yaml"), "--out", str(tmp_path / "run"), "--replications", "1"]
    )
    assert (tmp_path / "run").is_dir(), run.output
    words = ["off-policy", tmp_path / "run", "--reward", "rating", "--policy"]
    said = json.loads(ab(*words, "always:v2", "--json", code=3))
    # Right in 7 of 10 answers, whatever the variant: 0.7 x 5 + 0.3 x 1.
    assert said["snips"]["low"] < 3.8 < said["snips"]["high"]
    assert said["overlap"] > 0.5, "the bandit went over to what fails least"
    # Failures are not rated, and v3 has most of them: its weights say so.
    assert said["verdict"] == "cannot tell"
    assert said["mean_weight"] > 1.0
    assert "rows are missing more often after one action" in ab(*words, "always:v3", code=3)
    with pytest.raises(GlowsimError, match="there is no variant 'v9'; there are baseline, v2, v3"):
        ab(*words, "always:v9")
    with pytest.raises(GlowsimError, match="of none; name one by --agent"):
        ab("off-policy", tmp_path / "run", "--reward", "praise", "--policy", "uniform")
    assert "no --context" in ab(*words, "column:x", code=2)
