"""Tasks, judges, labels, prices and results made elsewhere: what is read, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.types import Usage
from glowsim.pairs.evaluating import Row, read_rows
from glowsim.pairs.judges import JUDGES, judge_of
from glowsim.pairs.prices import pricing
from glowsim.pairs.problems import PairsError
from glowsim.pairs.tasks import read_tasks

GOOD = {"task": "t1", "messages": [{"role": "user", "content": "2+2?"}], "expected": "4"}
SCENARIO = """
title: t
question: q
seed: 1
duration: 60s
models: {c: {input: $1/1M, cached_input: $0.1/1M, output: $2/1M}}
fleet:
  - {agent: tax, model: c, instances: 1, concurrency: 1, timeout: 10s, service: {law: time, time: 1s}}
workload:
  - {kind: poisson, rate: 1/s, tokens_in: 100, tokens_out: 10}
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# --- tasks ---------------------------------------------------------------------------------------------------


def test_rows_are_read_with_all_their_columns(tmp_path: Path) -> None:
    full = {**GOOD, "model": "m", "max_tokens": 50, "temperature": 0, "team": "tax"}
    path = written(
        tmp_path / "t.jsonl", full, "", {"task": "t2", "input": "hi", "expected": ["a", "b"], "team": "x"}
    )
    recorded = read_tasks(path, "exact", models_named=True)
    first, second = recorded.tasks
    assert first.body == {"messages": GOOD["messages"], "max_tokens": 50, "temperature": 0}
    assert (first.model, second.model) == ("m", None)
    assert second.body == {"messages": [{"role": "user", "content": "hi"}]}
    assert recorded.passed_over == {"team": 2}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ({**GOOD, "task": ""}, "task must be a name"),
        ({**GOOD, "task": 7}, "task must be a name"),
        ({**GOOD, "input": "x"}, "give either messages or input"),
        ({**GOOD, "messages": []}, "messages must be a list"),
        ({**GOOD, "messages": [{"role": "user"}]}, "messages must be a list"),
        ({"task": "t", "input": 5, "expected": "x"}, "messages must be a list"),
        ({"task": "t", "input": "x"}, "expected is missing"),
        ({**GOOD, "expected": 4}, "expected must be a text"),
        ({**GOOD, "max_tokens": 0}, "max_tokens must be"),
        ({**GOOD, "max_tokens": True}, "max_tokens must be"),
        ({**GOOD, "max_tokens": 1.5}, "max_tokens must be"),
        ({**GOOD, "temperature": "hot"}, "temperature must be"),
        ({**GOOD, "model": ""}, "model must be"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, row: object, said: str) -> None:
    path = written(tmp_path / "t.jsonl", GOOD, row)
    with pytest.raises(PairsError) as refused:
        read_tasks(path, "exact", models_named=True)
    assert f"{path}:2: {said}" in str(refused.value)
    assert "nothing was sent" in str(refused.value)


def test_many_malformed_lines_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", *["{"] * 30)
    with pytest.raises(PairsError, match="and 10 more"):
        read_tasks(path, "exact", models_named=True)


def test_a_model_is_needed_somewhere_and_so_is_a_task(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="model is missing"):
        read_tasks(written(tmp_path / "t.jsonl", GOOD), "exact", models_named=False)
    with pytest.raises(PairsError, match="no task in it"):
        read_tasks(written(tmp_path / "e.jsonl", ""), "exact", models_named=True)
    with pytest.raises(PairsError, match="No such file"):
        read_tasks(tmp_path / "none.jsonl", "exact", models_named=True)


# --- judges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "expected", "right", "wrong"),
    [
        ("exact", "Yes", [" Yes\n"], ["yes", "Yes.", ""]),
        ("exact", ["a", "b"], ["b"], ["c"]),
        ("contains", "Net Total", ["the net\ntotal: 5"], ["net of total"]),
        (
            "json",
            {"a": [1, None]},
            ['{"a": [1, null]}', '```json\n{"a":[1,null]}\n```'],
            ['{"a": [true, null]}', "a"],
        ),
        ("regex", r"^\d+ EUR$", ["12 EUR"], ["12 EURO", "x 12 EUR"]),
    ],
)
def test_judges(judge: str, expected: object, right: list[str], wrong: list[str]) -> None:
    says = JUDGES[judge]
    assert all(says("t", expected, answer) == 1.0 for answer in right)
    assert all(says("t", expected, answer) == 0.0 for answer in wrong)


@given(JSON, JSON)
def test_json_equals_itself_and_nothing_that_is_written_otherwise(a: object, b: object) -> None:
    assert JUDGES["json"]("t", a, json.dumps(a)) == 1.0
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert JUDGES["json"]("t", a, json.dumps(b)) == float(same)


def test_a_text_of_brackets_is_no_json_and_hurts_nobody() -> None:
    assert JUDGES["json"]("t", [], "[" * 100_000) == 0.0


def test_labels(tmp_path: Path) -> None:
    label = {"task": "t", "answer": "x", "correct": True}
    path = written(tmp_path / "l.jsonl", label, "", {**label, "answer": "y", "correct": 0.5}, label)
    says = judge_of(f"file:{path}")
    assert [says("t", None, answer) for answer in "xyz"] == [1.0, 0.5, None]
    for wrong, said in (
        ({**label, "correct": 2}, ":2: must be"),
        ("{", ":2: must be"),
        ({**label, "correct": 0}, "labelled twice"),
    ):
        with pytest.raises(PairsError, match=said):
            judge_of(f"file:{written(path, label, wrong)}")
    with pytest.raises(PairsError, match="No such file"):
        judge_of("file:/nowhere")
    with pytest.raises(PairsError, match="choose exact, contains"):
        judge_of("magic")


# --- where to ask, and for how much --------------------------------------------------------------------------


@pytest.mark.usefixtures("_serving")
@pytest.mark.parametrize(
    ("given_url", "said"),
    [
        ("ftp://x", "write http"), ("http://", "write http"), ("http://h:0", "write http"),
        ("http://h:99999", "write http"), ("http://u:p@h", "leave the key out"), ("http://h/?a=1", "leave out"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_asked_are_refused(given_url: str, said: str) -> None:
    from glowsim.pairs.asking import side_of

    with pytest.raises(PairsError, match=said) as refused:
        side_of("variant", given_url)
    assert "u:p" not in str(refused.value)


def test_prices_of_a_scenario_and_of_a_map_agree(tmp_path: Path) -> None:
    usage = Usage(tokens_in=1000, tokens_cached=400, tokens_out=100)
    price_map = tmp_path / "prices.json"
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat"}
    price_map.write_text(
        json.dumps({"m": entry, "c": {**entry, "cache_read_input_token_cost": 1e-7}, "e": {"mode": "chat"}})
    )
    of_map = pricing(price_map, ["m", "c"])
    assert of_map("m", usage) == pytest.approx(1000e-6 + 200e-6)  # the map has no price of cached input
    assert of_map("c", usage) == pytest.approx(600e-6 + 40e-6 + 200e-6)
    scenario = tmp_path / "s.yaml"
    scenario.write_text(SCENARIO)
    assert pricing(scenario, ["c"])("c", usage) == pytest.approx(of_map("c", usage))
    with pytest.raises(PairsError, match="no price per token for m"):
        pricing(scenario, ["m"])
    with pytest.raises(PairsError, match="no price per token for e, x"):
        pricing(price_map, ["m", "x", "e"])


# --- results made elsewhere ----------------------------------------------------------------------------------


def test_csv_and_json_lines_read_alike(tmp_path: Path) -> None:
    text = "task,baseline,variant,baseline_cost_usd,variant_cost_usd\na,1,0,0.01,0.02\nb,true,pass,,\nc,0.5,no,0,1\n"
    (tmp_path / "r.csv").write_text(text)
    lines = written(
        tmp_path / "r.jsonl",
        {"task": "a", "baseline": 1, "variant": 0, "baseline_cost_usd": 0.01, "variant_cost_usd": 0.02},
        {"task": "b", "baseline": True, "variant": "pass"},
        {
            "task": "c",
            "baseline": 0.5,
            "variant": False,
            "baseline_cost_usd": 0,
            "variant_cost_usd": 1,
            "other": 7,
        },
    )
    assert read_rows(tmp_path / "r.csv") == read_rows(lines)
    assert read_rows(lines)[0] == Row("a", 1.0, 0.0, 0.01, 0.02)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,1,2,,", ":3: baseline and variant"), (",1,1,,", ":3: task"), ("a,1,,,", ":3: baseline and variant"),
        ("a,1,nan,,", ":3: baseline and variant"), ("a,1,1,-3,", ":3: costs"), ("a,1,1,x,", ":3: costs"),
    ],
)  # fmt: skip
def test_malformed_results_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"task,baseline,variant,baseline_cost_usd,variant_cost_usd\nok,1,1,,\n{line}\n")
    with pytest.raises(PairsError, match=said):
        read_rows(path)


def test_results_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="no result in it"):
        read_rows(written(tmp_path / "r.jsonl", ""))
    with pytest.raises(PairsError, match="No such file"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(PairsError, match="which looked after every pair"):
        read_rows(written(tmp_path / "r.jsonl", {"glowsim_pairs": 1, "tasks": "x"}))


# --- glowsim pairs evaluate ----------------------------------------------------------------------------------


def results(path: Path, lost: int, won: int, tied: int) -> Path:
    rows = [(1, 0)] * lost + [(0, 1)] * won + [(1, 1)] * tied
    spread = [rows[(7 * n) % len(rows)] for n in range(len(rows))]  # their number is prime to 7
    text = "".join(f"t{n},{b},{v},0.01,0.03\n" for n, (b, v) in enumerate(spread))
    path.write_text(f"task,baseline,variant,baseline_cost_usd,variant_cost_usd\n{text}")
    return path


def test_evaluate_says_worse_not_worse_or_undecided(command, tmp_path) -> None:
    path = tmp_path / "r.csv"
    code, out, _ = command("evaluate", results(path, lost=21, won=6, tied=374))
    assert code == 1
    assert out.startswith("the variant is worse: 21 against 6 of 401 tasks, p = 0.003")
    assert "cost of the replay: $16.04" in out
    code, out, _ = command("evaluate", results(path, lost=3, won=4, tied=394))
    assert code == 0
    assert out.startswith(
        "the variant is not worse by 3 points: 3 against 4 of 401 tasks, at most +1.30 points"
    )
    code, out, _ = command("evaluate", results(path, lost=9, won=6, tied=385), "--margin", "1%")
    assert code == 3
    assert out.startswith(
        "undecided whether the variant is worse, or not worse by 1 point: 9 against 6 of 400"
    )


def test_evaluate_with_a_look_at_every_pair(command, tmp_path) -> None:
    path = results(tmp_path / "r.csv", lost=60, won=6, tied=335)
    code, out, _ = command("evaluate", path, "--looks", "every", "--json")
    said = json.loads(out)
    assert (code, said["verdict"], said["looks"]) == (1, "worse", "every pair")
    assert said["e_worse"] >= 100
    assert said["tasks"] < said["tasks_in_all"] == 401


def test_evaluate_refuses_what_it_does_not_know(command, tmp_path) -> None:
    path = results(tmp_path / "r.csv", 1, 1, 9)
    for options, said in (
        (("--looks", "often"), "choose once or every"),
        (("--alpha", "60%"), "below 50%"),
        (("--margin", "3 points"), "--margin: must be a share"),
        (("--promote-alpha", "0%"), "above 0%"),
    ):
        code, _, err = command("evaluate", path, *options)
        assert code == 2
        assert said in err


def test_only_asking_needs_aiohttp() -> None:
    needed = "glowsim.commands.pairs, glowsim.pairs.saying, glowsim.pairs.plan, sys"
    asked = f"import {needed}; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
