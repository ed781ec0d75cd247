"""What a replay says of effects: every command had its own, once, or it is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from glowsim import build
from glowsim.cli import app
from glowsim.core.checking.effects import Effects
from glowsim.core.journal import Effected, Journal, read
from glowsim.core.types import Ask, Cancel, Code, Command, Effect, Forget, Probe, Reason, Woke
from glowsim.experiment.effects import effects
from glowsim.scenario import load

TEXT = """
title: Told
question: Did every command have its effect?
seed: 3
duration: 20s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, model: m, instances: 2, concurrency: 2, service: {law: time, time: {law: exponential, mean: 200ms}}}
workload:
  - {kind: poisson, rate: 8/s, tokens_in: 100, tokens_out: 10}
"""
KINDS = (Forget(1), Probe(0), Cancel(1, Reason(Code.CLIENT_GONE)), Ask(1, "limit", 0, 1.0, 1.0))


@given(
    commands=st.lists(st.sampled_from(KINDS), max_size=30),
    rows=st.lists(
        st.tuples(st.integers(0, 32), st.integers(1, 6), st.sampled_from(list(Effect))), max_size=12
    ),
)
def test_effects_are_counted_as_one_by_one(commands, rows):
    """Against a plain count, and against the checker's I14, which reads record by record."""
    journal = Journal({})
    journal.event(Woke(0.0))
    for command in commands:
        journal.command(command)
    journal.pending.extend(Effected(0.0, *row) for row in rows)
    told: dict[int, list[Effect]] = {number: [] for number in range(len(commands))}
    again = 0
    for first, n, status in rows:
        for number in range(first, first + n):
            if number in told:
                told[number].append(status)
            else:
                again += 1
    found = effects(journal.recording())
    last = Counter(statuses[-1] for statuses in told.values() if statuses)
    assert found.commands == len(commands)
    assert found.never == Counter(
        type(commands[number]).__name__ for number, statuses in told.items() if not statuses
    )
    assert found.again == again + sum(max(len(statuses) - 1, 0) for statuses in told.values())
    if not found.again:
        assert (found.done, found.refused, found.late) == tuple(last[each] for each in Effect)
        assert sum(found.refused_of.values()) == found.refused
    complaints: list[str] = []
    checker = Effects(lambda invariant, what: complaints.append(what), lambda source: None)
    for number in range(len(commands)):
        checker.given(number)
    for row in rows:
        checker.told(Effected(0.0, *row))
    checker.ended()
    assert found.once == (not complaints)


def test_effects_of_a_later_segment_are_numbered_on() -> None:
    """Commands 3 and 5 of before wait for their effect; 7 to 9 are given here."""

    def found(*rows: Effected) -> tuple[dict[str, int], int, int]:
        journal = Journal({"commands": 7, "untold": [3, 5]})
        journal.event(Woke(0.0))
        journal.pending.extend([Forget(1), Forget(2), Probe(0), *rows])
        told = effects(journal.recording())
        return told.never, told.again, told.done

    def done(first: int, n: int) -> Effected:
        return Effected(0.0, first, n, Effect.DONE)

    assert found(done(3, 1), done(7, 3), done(5, 1)) == ({}, 0, 3)
    assert found(done(7, 3)) == ({"of before": 2}, 0, 3)
    assert found(done(3, 1), done(5, 4)) == ({"Probe": 1}, 1, 2), "6 had its effect in the segment before"
    assert found(done(3, 1), done(3, 1), done(5, 1), done(7, 3)) == ({}, 1, 3)
    assert found(done(3, 1), done(5, 1), done(7, 4)) == ({}, 1, 3)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    scenario = load(TEXT)
    (tmp_path / "told.yaml").write_text(TEXT)
    built = build.replication(scenario, 0, journal_path=tmp_path / "told.glow")
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    return tmp_path / "told.glow"


def replayed(path: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["replay", str(path), "--scenario", str(path.with_name("told.yaml"))])
    assert isinstance(done.exception, SystemExit | None)
    return done.exit_code, done.stdout


def test_a_journal_whose_commands_all_had_their_effect_is_proved(journal: Path) -> None:
    commands = sum(isinstance(record, Command) for record in read(journal).records())
    code, said = replayed(journal)
    assert code == 0
    assert f"effects:  {commands:,} commands: {commands:,} done, 0 refused, 0 late, 0 never told" in said


@pytest.mark.parametrize("plant", ["forgotten", "doubled", "cut off"])
def test_a_command_without_its_effect_is_no_proof(journal: Path, plant: str) -> None:
    recording = read(journal)
    other = Journal(recording.header, journal.with_name("planted.glow"))
    records = list(recording.records())
    last = max(place for place, record in enumerate(records) if isinstance(record, Effected))
    row = records[last]
    assert isinstance(row, Effected)
    rows = {
        "forgotten": [row._replace(n=row.n - 1)] if row.n > 1 else [],
        "doubled": [row, row._replace(first=row.first - 1, n=1)],
        "cut off": [],
    }[plant]
    other.pending.extend([*records[:last], *rows, *records[last + 1 :]])
    other.close()
    code, said = replayed(journal.with_name("planted.glow"))
    assert code == 1
    assert "every command equal" in said
    assert ("1 told of a command that had its effect" in said) == (plant == "doubled")
    assert ("0 never told" in said) == (plant == "doubled")


def test_what_was_refused_is_named_by_its_kind(journal: Path) -> None:
    path = journal.with_name("asks.glow")
    text = TEXT + "controllers:\n  limiter: {use: leased, grant: 5, when_unknown: admit}\n"
    scenario = load(text)
    path.with_name("told.yaml").write_text(text)
    built = build.replication(scenario, 0, journal_path=path)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    code, said = replayed(path)
    asked = sum(isinstance(record, Ask) for record in read(path).records())
    assert code == 0
    assert f"{asked:,} refused ({asked:,} Ask)" in said
    done = CliRunner().invoke(
        app, ["replay", str(path), "--scenario", str(path.with_name("told.yaml")), "--json"]
    )
    assert json.loads(done.stdout)["journals"][0]["effects"]["refused_of"] == {"Ask": asked}
