"""``glowsim pairs run`` against real servers on loopback: verdicts, limits, failures, and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glowsim.pairs.ordering import in_order, sides_of
from glowsim.pairs.tasks import Task, read_tasks

PRICES = {
    "old": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat"},
    "new": {"input_cost_per_token": 2e-6, "output_cost_per_token": 4e-6, "mode": "chat"},
}
OLD_USD, NEW_USD = 0.002, 0.004


def targets(agents: Any) -> list[str]:
    return ["--baseline", f"{agents.url},old", "--variant", f"{agents.url},new"]


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(PRICES))
    return path


# --- verdicts ------------------------------------------------------------------------------------------------


def test_a_worse_variant_is_found_early_and_the_lost_tasks_are_named(command, agents, tasks) -> None:
    agents.wrong["new"] = {f"{n}+1" for n in range(0, 200, 4)}
    agents.wrong["old"] = {f"{n}+1" for n in range(0, 200, 20)}
    code, out, _ = command("run", tasks(200), *targets(agents))
    assert code == 1
    assert out.startswith("the variant is worse: ")
    assert len(agents.asked) < 200  # of 400
    code, out, _ = command("run", tasks(200), *targets(agents), "--json")
    said = json.loads(out)
    assert code == 1
    assert said["calls_now"] == 0  # the verdict is kept: nothing is asked again
    assert said["e_worse"] >= 100
    lost = {f"t{n}" for n in range(0, 200, 4)} - {f"t{n}" for n in range(0, 200, 20)}
    assert set(said["lost"]) <= lost
    assert said["won"] == []
    assert said["ended_by"] == "verdict"
    assert said["cost_usd"] == 0.0
    assert said["calls_of_unknown_cost"] == said["calls"] == len(agents.asked)


def test_an_equal_variant_passes_by_the_margin(command, agents, tasks) -> None:
    agents.wrong["new"] = agents.wrong["old"] = {"3+1", "7+1"}  # ties all the same
    code, out, _ = command("run", tasks(100), *targets(agents), "--margin", "10%")
    assert code == 0
    assert out.startswith("the variant is not worse by 10 points: 0 against 0 of ")


def test_few_tasks_are_undecided(command, agents, tasks) -> None:
    code, out, err = command("run", tasks(5), *targets(agents), "--futility", "0%")
    assert code == 3
    assert "5 tasks cannot show that the variant is not worse by 3%: that takes 177 tasks at least" in err
    assert out.startswith("undecided whether")
    assert "5 of 5 tasks: all recorded tasks are through" in out


def test_a_replay_that_can_hardly_decide_ends_before_it_is_paid(command, agents, tasks) -> None:
    code, out, _ = command("run", tasks(60), *targets(agents), "--margin", "1%", "--json", "--concurrency", 1)
    assert code == 3
    assert json.loads(out)["ended_by"] == "futility"
    assert len(agents.asked) < 60  # of 120
    first = [model for model, _ in agents.asked[::2]]
    assert {"old", "new"} == set(first)  # which is asked first changes from pair to pair
    assert all(
        a[1] == b[1] and a[0] != b[0] for a, b in zip(agents.asked[::2], agents.asked[1::2], strict=True)
    )


def test_fast_failures_of_one_side_do_not_run_ahead_of_slow_ones_of_the_other(
    command, agents, tasks, tmp_path
) -> None:
    # Both fail at ten tasks: the variant at once, the baseline by a timeout. Weighed as they come in, the variant
    # would have lost all ten before the baseline lost any.
    path = tasks(40)
    recorded = read_tasks(path, "exact", models_named=True).tasks
    names = [recorded[rows[0]].name for rows in in_order(recorded, seed=1)]
    agents.silent = {("old", f"{name[1:]}+1") for name in names[:20:2]}
    agents.wrong["new"] = {f"{name[1:]}+1" for name in names[1:20:2]}
    options = ("--timeout", "5s", "--concurrency", 15, "--json", "--futility", "0%")
    _, out, _ = command("run", path, *targets(agents), *options)
    said = json.loads(out)
    assert said["verdict"] == "undecided"
    assert (len(said["won"]), len(said["lost"])) == (10, 10)
    assert said["baseline"]["outcomes"]["timeout"] == 10


def test_position_in_a_pair_is_drawn_and_so_is_the_order_of_tasks() -> None:
    first = [sides_of(row, seed=1)[0] for row in range(1000)]
    assert 430 <= first.count("baseline") <= 570
    rows = in_order([Task(str(n), {}, None, None) for n in range(100)], seed=1)
    assert sorted(rows) == [[n] for n in range(100)] != rows
    assert rows != in_order([Task(str(n), {}, None, None) for n in range(100)], seed=2)


def test_repeats_of_a_task_are_one_task(command, agents, tmp_path) -> None:
    path = tmp_path / "tasks.jsonl"
    rows = [{"task": f"t{n // 3}", "input": f"{n}+1", "expected": str(n + 1)} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    agents.wrong["new"] = {"0+1"}
    _, out, _ = command("run", path, *targets(agents), "--json", "--futility", "0%")
    said = json.loads(out)
    assert said["tasks"] == said["tasks_in_all"] == 10
    assert said["lost"] == ["t0"]
    assert said["difference"]["mean"] == pytest.approx(1 / 30)


# --- failures are outcomes -----------------------------------------------------------------------------------


def test_errors_and_timeouts_count_against_the_side_that_has_them(command, agents, tasks) -> None:
    agents.status = {("new", "0+1"): [500], ("old", "1+1"): [503]}
    agents.silent = {("new", "2+1")}
    _, out, _ = command("run", tasks(4), *targets(agents), "--timeout", "5s", "--json", "--futility", "0%")
    said = json.loads(out)
    assert sorted(said["lost"]) == ["t0", "t2"]
    assert said["won"] == ["t1"]
    assert said["variant"]["outcomes"] == {"ok": 2, "error": 1, "timeout": 1}
    assert said["variant"]["failures"]["status 500"] == 1


def test_a_target_that_asks_for_patience_is_asked_again(command, agents, tasks) -> None:
    agents.status = {("new", "0+1"): [429, 429], ("new", "1+1"): [429] * 10}
    _, out, _ = command("run", tasks(3), *targets(agents), "--json", "--futility", "0%")
    said = json.loads(out)
    assert said["lost"] == ["t1"]
    assert said["variant"]["outcomes"] == {"ok": 2, "throttled": 1}


def test_a_wrong_key_ends_the_replay_and_keeps_what_was_answered(command, agents, tasks, monkeypatch) -> None:
    path = tasks(6)
    recorded = read_tasks(path, "exact", models_named=True).tasks
    last = recorded[in_order(recorded, seed=1)[-1][0]].name
    agents.status = {("new", f"{last[1:]}+1"): [401]}
    monkeypatch.setenv("A_KEY", "sesame-7")
    keyed = ("--variant-key-env", "A_KEY", "--concurrency", 1, "--futility", "0%")
    code, out, err = command("run", path, *targets(agents), *keyed)
    assert code == 2
    assert "status 401: it wants a valid key: name the variable that holds it with --variant-key-env" in err
    assert agents.keys == {("old", None), ("new", "Bearer sesame-7")}
    code, out, _ = command("run", path, *targets(agents), *keyed, "--json")
    assert code == 3
    assert json.loads(out)["calls_now"] <= 2
    kept = path.with_name("tasks.results.jsonl").read_text()
    assert "sesame" not in kept + out + err


def test_nobody_there_is_said_before_anything_is_asked(command, agents, tasks) -> None:
    gone = "http://127.0.0.1:1,new"
    code, _, err = command("run", tasks(3), "--baseline", f"{agents.url},old", "--variant", gone)
    assert code == 2
    assert "--variant http://127.0.0.1:1/v1/chat/completions: nobody takes connections there" in err
    assert agents.asked == []


def test_tls_that_is_not_to_be_had_is_no_outcome(command, agents, tasks) -> None:
    secure = agents.url.replace("http:", "https:")
    code, _, err = command("run", tasks(3), "--baseline", f"{secure},old", "--variant", f"{secure},new")
    assert code == 2
    assert "no TLS with a certificate that this machine trusts" in err
    assert agents.asked == []


def test_a_side_that_answers_nothing_is_doubted(command, agents, tasks) -> None:
    agents.status = {("new", f"{n}+1"): [400] for n in range(12)}
    code, out, _ = command("run", tasks(12), *targets(agents), "--futility", "0%", "--concurrency", 1)
    assert code == 1
    assert "invalid; 9 x status 400): none was answered; is it set up as it should be?" in out


# --- money ---------------------------------------------------------------------------------------------------


def test_the_cost_is_stated_and_its_limit_is_kept(command, agents, tasks, prices) -> None:
    limited = ("--prices", prices, "--futility", "0%", "--margin", "0%", "--json")
    code, out, _ = command("run", tasks(50), *targets(agents), *limited, "--max-cost", "$0.05")
    said = json.loads(out)
    assert code == 3
    assert said["ended_by"] == "cost"
    assert 0.03 < said["cost_usd"] <= 0.05
    calls = agents.times()
    old, new = (sum(n for (model, _), n in calls.items() if model == each) for each in ("old", "new"))
    assert said["cost_usd"] == pytest.approx(old * OLD_USD + new * NEW_USD)
    assert said["cost_shift_usd"]["mean"] == pytest.approx(NEW_USD - OLD_USD)
    before = len(agents.asked)
    _, out, _ = command("run", tasks(50), *targets(agents), *limited, "--max-cost", "$1")  # goes on
    assert json.loads(out)["ended_by"] == "end"
    assert len(agents.asked) == 100 > before
    assert set(agents.times().values()) == {1}


def test_calls_without_usage_count_as_the_dearest(command, agents, tasks, prices) -> None:
    agents.dropped = {("new", f"{n}+1") for n in range(50)}
    limited = ("--prices", prices, "--max-cost", "$0.02", "--json", "--futility", "0%")
    _, out, _ = command("run", tasks(50), *targets(agents), *limited, "--alpha", "0.0001%")
    said = json.loads(out)
    assert said["ended_by"] == "cost"
    assert len(agents.asked) == 10  # at 0.002 each, both sides
    assert (said["calls_of_unknown_cost"], said["cost_usd"]) == (5, pytest.approx(0.01))


def test_a_limit_that_cannot_be_kept_is_refused(command, agents, tasks, prices) -> None:
    agents.usage = None
    code, _, err = command(
        "run", tasks(50), *targets(agents), "--prices", prices, "--max-cost", "$1", "--concurrency", 1
    )
    assert code == 2
    assert "does not say what its answers used, so no limit can be kept" in err
    assert len(agents.asked) == 1


def test_prices_are_needed_for_every_model(command, agents, tasks, prices) -> None:
    other = ["--baseline", f"{agents.url},old", "--variant", f"{agents.url},third"]
    code, _, err = command("run", tasks(3), *other, "--prices", prices)
    assert code == 2
    assert "has no price per token for third" in err
    code, _, err = command("run", tasks(3), *other, "--max-cost", "$1")
    assert code == 2
    assert "--max-cost needs --prices" in err
    assert agents.asked == []


# --- a kill, and going on ------------------------------------------------------------------------------------


def test_a_killed_replay_goes_on_and_asks_nothing_twice_that_was_kept(
    command, agents, tasks, tmp_path
) -> None:
    path, results = tasks(40), tmp_path / "kept.jsonl"
    agents.wrong["new"], agents.wrong["old"] = {"5+1", "9+1"}, {"7+1"}
    agents.hold_after = 31
    asked = [
        "run",
        str(path),
        *targets(agents),
        "--out",
        str(results),
        "--futility",
        "0%",
        "--concurrency",
        "3",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "glowsim", "pairs", *asked], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert agents.holding.wait(60.0), process.stderr.read() if process.poll() is not None else ""
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60.0)
    finally:
        process.kill()
        process.communicate()
    agents.hold_after = None
    agents.release.set()
    kept = [json.loads(line) for line in results.read_text().splitlines()[1:]]
    assert len(kept) >= 31 - 3
    with results.open("a") as file:
        file.write('{"row": 3, "task"')  # and the kill had come while a line was written
    code, out, _ = command(*asked, "--json")
    said = json.loads(out)
    assert code == 3
    twice = {asked_of for asked_of, times in agents.times().items() if times > 1}
    texts = {"baseline": "old", "variant": "new"}
    assert not twice & {(texts[line["side"]], f"{line['task'][1:]}+1") for line in kept}
    assert len(twice) <= 3
    assert (sorted(said["lost"]), said["won"]) == (["t5", "t9"], ["t7"])
    assert said["calls"] == 80
    assert said["calls_now"] == 80 - len(kept)
    again = command(
        "run", path, *targets(agents), "--out", tmp_path / "fresh.jsonl", "--futility", "0%", "--json"
    )
    fresh = json.loads(again[1])
    assert {key: fresh[key] for key in ("lost", "won", "e_worse", "tasks")} == {
        key: said[key] for key in ("lost", "won", "e_worse", "tasks")
    }


def test_an_interrupted_replay_finishes_what_is_open(agents, tasks) -> None:
    agents.hold_after = 6
    process = subprocess.Popen(
        [sys.executable, "-m", "glowsim", "pairs", "run", str(tasks(30)), *targets(agents), "--json", "--futility",
         "0%", "--concurrency", "2"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert agents.holding.wait(60.0)
        process.send_signal(signal.SIGINT)
        agents.hold_after = None
        agents.release.set()
        out, _ = process.communicate(timeout=60.0)
    finally:
        process.kill()
        process.communicate()
    said = json.loads(out)
    assert process.returncode == 3
    assert said["ended_by"] == "interrupted"
    assert said["baseline"]["calls"] == said["variant"]["calls"] < 30


def test_results_of_another_replay_are_not_mixed_in(command, agents, tasks, tmp_path) -> None:
    results = tmp_path / "kept.jsonl"
    asked = ("run", tasks(5), *targets(agents), "--out", results, "--futility", "0%")
    command(*asked)
    before = results.read_bytes()
    for other, what in ((("--margin", "5%"), "rules was"), (("--seed", 9), "seed was")):
        code, _, err = command(*asked, *other)
        assert code == 2
        assert "holds another replay" in err
        assert what in err
    results.write_bytes(before.replace(b'"outcome": "ok"', b'"outcome": "fine"', 1))
    code, _, err = command(*asked)
    assert code == 2
    assert "kept.jsonl:2: not an answer as a replay writes it" in err
    results.write_bytes(before.replace(b'"row": 0', b'"row": 7', 1))
    code, _, err = command(*asked)
    assert code == 2
    assert "an answer to 't0' that no such row asks for" in err
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary")
    code, _, err = command("run", tasks(5), *targets(agents), "--out", notes)
    assert code == 2
    assert notes.read_text() == "dear diary"


def test_wherever_a_kill_cuts_the_file_the_whole_lines_before_it_are_kept(tmp_path) -> None:
    from glowsim.pairs.kept import Line, Results

    path = tmp_path / "kept.jsonl"
    lines = [Line(n, f"t{n}", "variant", "ok", 1.0, "an answer", 0.5, 10, 0, 5, None, "") for n in range(3)]
    with Results(path, {"seed": 1}) as results:
        for line in lines:
            results.add(line)
    assert path.stat().st_mode & 0o077 == 0
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Results(path, {"seed": 1}) as results:
            before = sum(end <= cut for end in ends)
            assert results.lines == lines[: max(before - 1, 0)]
            assert results.torn == cut - max([end for end in ends if end <= cut], default=0)
            results.add(lines[2])
        assert path.read_bytes().endswith(whole[ends[-2] :])


def test_two_replays_do_not_write_one_file(command, agents, tasks, tmp_path) -> None:
    from glowsim.pairs.kept import Results

    results = tmp_path / "kept.jsonl"
    with Results(results, {"seed": 1}):
        code, _, err = command("run", tasks(3), *targets(agents), "--out", results)
    assert code == 2
    assert "another replay is writing it" in err


# --- judges --------------------------------------------------------------------------------------------------


def test_labels_of_a_file_are_waited_for_and_nothing_is_asked_again(command, agents, tmp_path) -> None:
    path, labels = tmp_path / "tasks.jsonl", tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"task": f"t{n}", "input": f"{n}+1"}) + "\n" for n in range(4)))
    labels.write_text("")
    agents.wrong["new"] = {"2+1"}
    asked = ("run", path, *targets(agents), "--judge", f"file:{labels}", "--futility", "0%", "--json")
    code, out, _ = command(*asked)
    assert code == 3
    said = json.loads(out)
    assert (said["ended_by"], said["waiting_for_labels"], said["tasks"]) == ("labels", 8, 0)
    kept = [json.loads(line) for line in Path(said["results"]).read_text().splitlines()[1:]]
    judged = [
        {
            "task": line["task"],
            "answer": line["answer"],
            "correct": int(line["answer"]) == int(line["task"][1:]) + 1,
        }
        for line in kept
    ]
    labels.write_text("".join(json.dumps(label) + "\n" for label in judged))
    _, out, _ = command(*asked)
    said = json.loads(out)
    assert (said["ended_by"], said["waiting_for_labels"], said["lost"]) == ("end", 0, ["t2"])
    assert len(agents.asked) == 8
