"""`glowsim controllers`: what is shown of every controller is true and whole; and CONTRIBUTING's example works."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console
from typer.testing import CliRunner

from glowsim import build, registry, results
from glowsim.cli import app
from glowsim.core.parameters import Count, Fraction, PositiveSeconds
from glowsim.registry import BUILT_INS, FAMILIES, RegistryError
from glowsim.scenario import load
from glowsim.showing import decides, document, families, find, render, show

ROOT = Path(__file__).resolve().parents[1]
EVERY = [f"{family}/{name}" for family in FAMILIES for name in BUILT_INS[family]]
SCENARIO = """
title: shown
question: Does the block that is shown validate?
seed: 1
duration: 1s
models:
  m: {input: $1/1M, output: $4/1M}
fleet:
  - {agent: a, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1s}, variants: {next: {}}}
workload:
  - {kind: poisson, rate: 1/s, tokens_in: 1, tokens_out: 1}
"""


def glowsim(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glowsim", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "100"}, timeout=120,
    )  # fmt: skip


def printed(name: str, **options: bool) -> str:
    text = io.StringIO()
    render(show(name, **options), Console(file=text, width=200, highlight=False))
    return text.getvalue()


# --- every built-in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_the_block_validates_and_says_what_the_constructor_does(name: str) -> None:
    family, use, kind = find(name)
    loaded = load(SCENARIO + show(name).yaml)
    (chosen,) = loaded.controllers.chosen()[family]
    assert chosen.use == use
    arguments, findings = registry.check(kind, chosen.settings)
    assert findings == []
    for argument in inspect.signature(kind).parameters.values():
        if argument.default is not argument.empty:
            assert arguments.get(argument.name, float("inf")) == argument.default, argument.name


@pytest.mark.parametrize("name", EVERY)
def test_the_docstring_has_all_its_parts(name: str) -> None:
    shown = show(name)
    document = shown.document
    assert re.match(r"Decides? .+\.$", document.summary), document.summary
    assert document.example.startswith(">>> ")
    assert [row.argument for row in shown.rows if not row.text] == [], "not in the docstring's Parameters"
    documented = set(document.parameters) - {row.argument for row in shown.rows}
    arguments = inspect.signature(find(name)[2]).parameters.values()
    handed_in = {each.name for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD}
    assert documented <= handed_in, "documented, but no parameter"


@pytest.mark.parametrize("name", EVERY)
def test_it_is_rendered_whole(name: str) -> None:
    shown, text = show(name), printed(name)
    assert text.startswith(name)
    assert shown.yaml.strip() in text
    for row in shown.rows:
        line = next(each for each in text.splitlines() if re.match(rf"{row.key} +\S", each))
        assert ("required" in line) == row.required
    assert json.loads(json.dumps(shown.as_json()))["parameters"] == [row._asdict() for row in shown.rows]


def test_the_list_follows_a_requests_way() -> None:
    found = families()
    assert list(found) == list(FAMILIES)
    assert {family: list(names) for family, names in found.items()} == {
        family: list(names) for family, names in BUILT_INS.items()
    }
    assert all(re.match(r"Decides? .+\.$", decides(family)) for family in FAMILIES)
    lines = [line for names in found.values() for line in names.values()]
    assert not any("`" in line or "\n" in line for line in lines)


# --- reading ------------------------------------------------------------------------------------------


ODD = """Decides *oddly*:
on two lines.

The formula keeps its line:

    x = ``low_s`` + 1

>>> Odd(
...     least=3, low_s=90.0, weight=0.25)
<Odd>

Parameters
----------
low_s, high_s : float
    Limits,
    on two lines.

Notes
-----
Source: none.

>>> 1 + 1
2
"""


class Odd:
    def __init__(
        self,
        *,
        least: Count,
        low_s: PositiveSeconds,
        weight: Fraction,
        side: Literal["up", "down"],
        shares: tuple[Fraction, ...],
        name: str,
        strict: bool,
        high_s: PositiveSeconds | None = None,
        most: float = float("inf"),
        word: str = "true",
    ) -> None: ...

    def pick(self, t_s, request, allowed): ...
    def reported(self, t_s, reported): ...
    def snapshot(self): ...
    def restore(self, saved): ...


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "__doc__", ODD)
    monkeypatch.setattr(registry, "_imported", lambda target: Odd)
    entry = EntryPoint("balancer.odd", "odd:Odd", "glowsim.controllers")
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [entry])


def test_a_docstring_is_taken_apart_wherever_its_doctests_stand() -> None:
    read = document(ODD)
    assert read.summary == "Decides *oddly*: on two lines."
    assert read.body == "The formula keeps its line:\n\n    x = ``low_s`` + 1"
    assert read.parameters == {"low_s": "Limits, on two lines.", "high_s": "Limits, on two lines."}
    assert read.notes == "Source: none."
    assert read.example.splitlines() == [
        ">>> Odd(", "...     least=3, low_s=90.0, weight=0.25)", "<Odd>", ">>> 1 + 1", "2",
    ]  # fmt: skip
    assert document("") == ("", "", {}, "", "", "")


@pytest.mark.usefixtures("odd")
def test_what_is_required_is_taken_from_the_doctest_or_made_up() -> None:
    lines = [line.strip() for line in show("odd").yaml.splitlines()]
    assert lines == [
        "controllers:", "balancer:", "use: odd", "least: 3", "low: 90s", "weight: 0.25", "side: up",
        "shares: [5%]", "name: name", "strict: true", "high: null", 'word: "true"',
    ]  # fmt: skip
    assert registry.check(Odd, load(SCENARIO + show("odd").yaml).controllers.balancer.settings)[1] == []


@pytest.mark.usefixtures("odd")
def test_a_plug_in_is_shown_as_yaml_spells_it() -> None:
    text = printed("balancer/odd")
    assert "    x = low + 1" in text
    rows = {row.key: row for row in show("odd").rows}
    assert rows["low"].allowed == "a duration, above 0s, such as 300ms"
    assert rows["high"].allowed == "a duration, above 0s, such as 300ms; or null"
    assert rows["least"].allowed == "a whole number, at least 1"
    assert rows["shares"].allowed == "a list; each a share, 0 to 1"
    assert rows["side"].allowed == "up | down"
    assert (rows["most"].default, rows["most"].allowed) == ("unlimited", "a number")
    assert families()["balancer"]["odd"] == "Decides *oddly*: on two lines."


def test_a_plug_in_that_is_broken_says_so_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("queue.gone", "no_such_module:Queue", "glowsim.controllers")
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [entry])
    assert "cannot be used: 'no_such_module:Queue' cannot be imported" in families()["queue"]["gone"]


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("round_robn", "did you mean 'round_robin'?"),
        ("balancr/round_robin", "did you mean 'balancer/round_robin'?"),
        ("queue/round_robin", "allowed here: fifo"),
        ("balancer", "name one of its controllers\nallowed here: round_robin"),
        ("json:JSONDecoder", "--allow-plugins"),
    ],
)
def test_a_name_that_is_not_there_says_what_is(name: str, said: str) -> None:
    with pytest.raises(RegistryError, match=re.escape(said)):
        find(name)


def test_a_name_in_two_families_needs_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_INS["queue"], "round_robin", "controllers.queueing.fifo:FifoQueue")
    with pytest.raises(RegistryError, match="allowed here: queue/round_robin, balancer/round_robin"):
        find("round_robin")
    assert find("queue/round_robin")[2].__name__ == "FifoQueue"


def test_the_family_of_code_is_known_by_its_methods() -> None:
    target = "controllers.queueing.fifo:FifoQueue"
    assert find(target, allow_plugins=True)[0] == "queue"
    assert find(f"queue/{target}", allow_plugins=True)[0] == "queue"
    with pytest.raises(RegistryError, match="FifoQueue is no balancer: it has no method 'pick'"):
        find(f"balancer/{target}", allow_plugins=True)
    with pytest.raises(RegistryError, match="no family: write FAMILY/module:Class"):
        find("json:JSONDecoder", allow_plugins=True)


# --- the command line ---------------------------------------------------------------------------------


def test_the_commands() -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["controllers", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert [line.split(":")[0] for line in run("list").splitlines() if line[0] != " "] == list(FAMILIES)
    assert list(json.loads(run("list", "--json"))) == list(FAMILIES)
    assert "controllers.queueing.fifo:FifoQueue" in run("show", "fifo")
    assert json.loads(run("show", "queue/fifo", "--json"))["name"] == "fifo"
    wrong = glowsim("controllers", "show", "fifoo")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean 'fifo'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from glowsim.cli import app\n"
        "try:\n    app(['controllers', *sys.argv[1:]])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'simpy', 'matplotlib', 'pandas', 'ruamel.yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


# --- CONTRIBUTING -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that CONTRIBUTING writes out."""
    folder = tmp_path_factory.mktemp("contributing")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    for name, content in blocks:
        (folder / name).write_text(content, encoding="utf-8")
    assert [name for name, _ in blocks] == ["linear.py", "linear.yaml", "test_linear.py"]
    return folder


def test_the_example_of_contributing_passes_its_own_tests(example: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", "."],
        cwd=example, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_example_of_contributing_is_shown(example: Path) -> None:
    shown = glowsim("controllers", "show", "linear:LinearRetrier", "--allow-plugins", cwd=example)
    assert shown.returncode == 0, shown.stderr
    assert "retrier/linear:LinearRetrier" in shown.stdout
    assert re.search(r"^step +500ms +a duration, above 0s", shown.stdout, re.MULTILINE)


def test_the_example_of_contributing_runs(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    scenario = load(example / "linear.yaml", allow_plugins=True)
    built = build.replication(scenario, 0, allow_plugins=True)
    monkeypatch.delitem(sys.modules, "linear")
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    found = results.figures(results.fold(built.journal.recording(), scenario))
    assert found["retries"] == pytest.approx(found["launched"] * 0.1, rel=0.4)
    assert found["success_rate"] > 0.99


def test_the_example_of_contributing_is_clean(example: Path) -> None:
    rules = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "D,S101,I001"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", *rules, "."], cwd=example, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
