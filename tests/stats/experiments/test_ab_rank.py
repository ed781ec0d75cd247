"""The command that ranks suggestions."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from glowsim.cli import app
from glowsim.commands.rows import RowsError

TABLE = """\
name,variant,value_usd_per_day,error_usd_per_day,harm_chance,harm_usd_per_day,critical
shorter prompt,v2,40,5,0,0,false
other model,v3,90,20,0.2,150,no
mend the parser,v4,60,10,0,0,yes
an idea,v5,500,inf,0,0,false
"""


def ranked(tmp_path, text, *options):
    path = tmp_path / "suggestions.csv"
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["ab", "rank", str(path), *options])


def test_the_surest_value_comes_first_and_an_idea_without_evidence_last(tmp_path):
    result = ranked(tmp_path, TABLE)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "1. mend the parser (v4): worth at least $43.55 a day: immediate",
        "2. shorter prompt (v2): worth at least $31.78 a day: gradual",
        "3. other model (v3): worth at least $27.10 a day: canary",
        "4. an idea (v5): no evidence of its worth: not yet",
    ]
    said = json.loads(ranked(tmp_path, TABLE, "--json").stdout)
    assert [each["variant"] for each in said] == ["v4", "v2", "v3", "v5"]
    assert said[3]["worth_usd_per_day"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (TABLE.replace("0.2,150", "1.2,150"), "other model: harm_chance is a probability"),
        (TABLE.replace(",yes", ",maybe"), "line 4: critical must be true or false"),
        (TABLE.replace("40,5", "forty,5"), "line 2: value_usd_per_day is 'forty'"),
        (TABLE.replace("inf", "a lot"), "line 5: error_usd_per_day must be a number"),
    ],
)
def test_what_cannot_be_ranked_is_named(tmp_path, wrong, said):
    result = ranked(tmp_path, wrong)
    assert result.exit_code != 0
    assert said in result.output + (str(result.exception) if isinstance(result.exception, RowsError) else "")
