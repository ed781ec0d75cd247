"""Policies beside each other: what the page says is what each of them alone has."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from glowsim.cli import app
from glowsim.core.errors import GlowsimError
from glowsim.oc.characteristics import KEPT, NOT_KEPT, Budget, characterise
from glowsim.oc.comparison import BUNDLED, compare, report_rollouts
from glowsim.oc.comparison_page import rows
from glowsim.oc.policy import read_policy
from glowsim.oc.traffic import Traffic


def test_each_policy_has_the_figures_that_it_has_alone():
    found = compare(["canary", "flagger"], [0.5, 2.0], 0.05, campaigns=100, seed=3)
    assert [(each.rule.name, each.traffic.rate_per_s) for each in found] == [
        (name, rate_per_s) for name in ("canary", "Flagger: tax-agent") for rate_per_s in (0.5, 2.0)
    ]
    alone = characterise(read_policy("canary").rule, Traffic(2.0), Budget(), (0.02,), 100, 3)
    assert found[1].lines == alone.lines
    assert [row[-1] for row in rows(found)] == [each.verdict for each in found]


def test_a_threshold_on_a_ratio_held_for_a_day_rolls_nearly_every_healthy_version_back_and_ours_does_not():
    ours, argo = compare(["canary", "argo"], [2.0], 0.05, campaigns=100)
    assert argo.line(0.0).rolled_back.mean > 0.9
    assert argo.verdict == NOT_KEPT
    assert ours.line(0.0).rolled_back.mean <= 0.05, "1 % at most; 6 of 100 have a chance of 1 in 2,000"
    assert ours.verdict == KEPT


def test_what_is_compared_by_default_can_be():
    found = compare(BUNDLED, [0.2], 0.05, campaigns=100)
    assert [each.rule.name.partition(":")[0] for each in found] == [
        "canary",
        "Argo Rollouts",
        "Flagger",
        "Kayenta",
    ]


def test_the_page_is_written_once(tmp_path):
    found = compare(["gradual"], [2.0], 0.05, campaigns=100)
    done = report_rollouts(tmp_path / "here", found, 100, 0)
    page = done.html.read_text(encoding="utf-8")
    assert all(cell in page for cell in rows(found)[0])
    assert done.pdf.read_bytes().startswith(b"%PDF")
    assert json.loads(done.data.read_text(encoding="utf-8"))[0]["effects"]
    with pytest.raises(GlowsimError, match=r"rollouts\.html exists: name another folder"):
        report_rollouts(tmp_path / "here", found, 100, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nobody"], "no bundled policy 'nobody'"),
        (["canary", "--rates", "2/s,often"], "--rates:"),
        (["canary", "--base-error", "150%"], "1.5 is no share below 1"),
    ],
)
def test_what_cannot_be_compared_is_said(given, said, tmp_path):
    result = CliRunner().invoke(app, ["report", "rollouts", *given, "--out", str(tmp_path / "r")])
    assert result.exit_code != 0
    assert said in result.output + str(result.exception or "")
