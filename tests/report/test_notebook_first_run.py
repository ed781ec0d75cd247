import os
import re
from importlib.util import find_spec

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

    return nbformat.read(resource("notebooks", "01_first_run.ipynb"), as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebook_runs_and_answers_its_question(notebook):
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output["text"] for output in outputs if output.output_type == "stream")
    kinds = [kind for output in outputs if "data" in output for kind in output["data"]]
    assert kinds.count("image/png") == 2
    assert kinds.count("text/html") == 2
    assert re.search(r"^(met|not met|undecided)$", printed, flags=re.MULTILINE)
    difference = re.search(r"difference: ([+-]\d+\.\d+) s, 95 % interval ([+-]\d+\.\d+) to", printed)
    assert difference is not None
    assert float(difference[1]) > 0, "fewer instances make the largest agent slower"
