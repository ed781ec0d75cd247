"""The notebooks run from top to bottom, and what their text says is what they show."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from math import exp

import pytest

from glowsim.resources import resource

MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]


def read(name):
    if MISSING:
        reason = f"needs {', '.join(MISSING)}: install glowsim[test]"
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    import nbformat

    return nbformat.read(resource("notebooks", name), as_version=4)


def outputs_of(name):
    """Execute a notebook; return its outputs, and all that it printed."""
    from nbclient import NotebookClient

    notebook = read(name)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return outputs, "".join(output["text"] for output in outputs if output.output_type == "stream")


@pytest.mark.parametrize("path", sorted(resource("notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    for cell in read(path.name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_first_run_answers_its_question():
    outputs, printed = outputs_of("01_first_run.ipynb")
    kinds = [kind for output in outputs if "data" in output for kind in output["data"]]
    assert kinds.count("image/png") == 2
    assert kinds.count("text/html") == 2
    assert re.search(r"^(met|not met|undecided)$", printed, flags=re.MULTILINE)
    difference = re.search(r"difference: ([+-]\d+\.\d+) s, 95 % interval ([+-]\d+\.\d+) to", printed)
    assert difference is not None
    assert float(difference[1]) > 0, "fewer instances make the largest agent slower"


def numbers(text: str, label: str) -> list[float]:
    return [float(each) for each in re.search(rf"^{label} +(.*)$", text, re.MULTILINE)[1].split()]


def test_the_what_if_says_what_its_text_says():
    outputs, printed = outputs_of("02_what_if.ipynb")
    table, check = (
        output["data"]["text/plain"] for output in outputs if "text/html" in output.get("data", {})
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1

    rows = {label: numbers(table, label) for label in ("10 min", "30 min", "60 min", "120 min", "always")}
    for before, after in zip(list(rows.values())[:-1], list(rows.values())[1:], strict=True):
        assert all(less <= more for less, more in zip(after[:3], before[:3], strict=True)), "waiting shrinks"
        assert before[3] < after[3], "and costs"
    assert rows["30 min"][0] < 5 < 30 < rows["30 min"][1], "the median is low, the p95 is not"
    assert rows["30 min"][3] == pytest.approx(0.5 * rows["always"][3], rel=0.1)
    assert rows["120 min"][1] > 15, "two hours are not enough"
    assert rows["120 min"][3] == pytest.approx(7 / 8 * rows["always"][3], rel=0.05)
    assert rows["always"][3] == pytest.approx(51 * 30 * 24 * 0.05, rel=0.01)
    for minutes in (10, 30, 60):
        evenly, simulated = numbers(check, f"{minutes} min")
        assert evenly == pytest.approx(exp(-minutes * 31 / 1440), abs=0.001)
        assert 0 < evenly - simulated < 0.12

    mean, low, high = (
        float(each.replace(",", "")) for each in re.findall(r"\$([\d,]+)", printed.splitlines()[0])[:3]
    )
    assert 0 < low < mean < high
    assert re.search(r"^a p95 of 10 s: always, for \$1,836", printed, re.MULTILINE)


def test_the_rollout_risk_says_what_its_text_says():
    outputs, printed = outputs_of("03_rollout_risk.ipynb")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    told = re.findall(
        r"^ *(\S.*?) at +(\S+): +(.+?); .* (\S+) to (\S+) %; a bad one is found in (\d+) %",
        printed,
        re.MULTILINE,
    )
    verdicts = {
        (policy, rate): (verdict, float(low), int(finds)) for policy, rate, verdict, low, _, finds in told
    }
    assert len(verdicts) == 9
    assert {verdicts["ours", rate][0] for rate in ("2/s", "20/s")} <= {"kept", "undecided"}, (
        "400 campaigns are few"
    )
    assert {verdicts["Argo Rollouts", rate][0] for rate in ("0.2/s", "2/s", "20/s")} == {"not kept"}
    assert all(verdicts["Argo Rollouts", rate][1] > 95.0 for rate in ("0.2/s", "2/s", "20/s"))
    assert verdicts["Flagger", "0.2/s"][2] < 50, "most versions with twice the errors pass"
    assert "found in 0.0 %" in printed
    assert "replay 452 recorded tasks in pairs" in printed
