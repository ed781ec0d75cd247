import os
import re
from importlib.util import find_spec
from math import exp

import pytest

from glowsim.resources import resource

MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]


@pytest.fixture(scope="module")
def notebook():
    if MISSING:
        reason = f"needs {', '.join(MISSING)}: install glowsim[test]"
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    import nbformat

    return nbformat.read(resource("notebooks", "02_what_if.ipynb"), as_version=4)


def test_it_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def numbers(text: str, label: str) -> list[float]:
    return [float(each) for each in re.search(rf"^{label} +(.*)$", text, re.MULTILINE)[1].split()]


def test_it_runs_and_says_what_the_text_says(notebook):
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output["text"] for output in outputs if output.output_type == "stream")
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
