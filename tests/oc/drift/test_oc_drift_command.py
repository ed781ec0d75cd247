"""``glowsim oc POLICY --drift`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glowsim.cli import app

SMALL = [
    "--drift",
    "--rate",
    "200/d",
    "--run-length",
    "400",
    "--campaigns",
    "100",
    "--shift",
    "10%",
    "--swing",
    "0%",
]


def typed(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["oc", *arguments])
    return done.exit_code, done.output


def test_it_answers_first_and_exits_0_where_the_run_length_is_kept() -> None:
    code, said = typed("page_hinkley", "--base-error", "5%", *SMALL)
    assert code == 0
    assert said.startswith("page_hinkley with threshold")
    code, said = typed("page_hinkley", "--base-error", "5%", *SMALL, "--json")
    assert code == 0
    assert json.loads(said)["run_length"] == 400.0


def test_a_recorded_column_of_a_file_is_a_regime(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text("latency_s\n" + "".join(f"{1 + (7 * i) % 11 / 10}\n" for i in range(300)))
    code, said = typed("cusum", "--regime", f"{path}:latency_s", *SMALL, "--shift", "-10%,25%")
    assert code == 0
    assert "delay at -0.1" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cusum", "--drift", "--rate", "2/s"], "--base-error 5%, or --regime"),
        (["cusum", "--drift", "--base-error", "5%"], "--rate 31/d"),
        (["cusum", "--base-error", "5%", *SMALL, "--shift", "x"], "--shift"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_write(arguments: list[str], said: str) -> None:
    code, output = typed(*arguments)
    assert code == 2
    assert said in output


def test_the_page_says_what_is_printed_and_is_not_written_over(tmp_path: Path) -> None:
    arguments = ["page_hinkley", "--base-error", "5%", *SMALL, "--out", str(tmp_path / "pages")]
    code, said = typed(*arguments)
    assert code == 0
    page = (tmp_path / "pages" / "drift.html").read_text()
    data = json.loads((tmp_path / "pages" / "drift.json").read_text())
    setting = f"threshold {data['detectors'][0]['plain']['setting']:.4g}"
    assert setting in said
    assert setting in page
    assert "<svg" in page
    code, said = typed(*arguments)
    assert code == 2
    assert "exists" in said
