"""A fleet, a log that its gateway writes row by row, a clock that is set by hand, and an advisor beside them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace

import pytest

from glowsim.core.journal import read
from glowsim.experiment.replaying import replay
from glowsim.live.advice.daemon import Sources, advising
from glowsim.live.settings import settings
from glowsim.scenario import Scenario

NOON_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
LAG_S = 60.0


def fleet(controllers=None, **agent):
    """Return a scenario of two agents, ``tax`` and ``audit``, on a model each."""
    each = {"instances": 2, "concurrency": 4, "service": {"law": "time", "time": "1s"}} | agent
    return Scenario.model_validate(
        {
            "title": "Advised",
            "question": "What would its controllers do?",
            "seed": 1,
            "duration": "60s",
            "models": {
                "small": {"input": "$1/1M", "output": "$2/1M"},
                "large": {"input": "$1/1M", "output": "$2/1M"},
            },
            "fleet": [{"agent": "tax", "model": "small", **each}, {"agent": "audit", "model": "large", **each}],
            "controllers": controllers or {},
            "workload": [{
                "kind": "poisson", "agents": "tax", "rate": "1/s", "tokens_in": 9, "tokens_out": 9, "max_tokens_out": 9,
            }],
        }
    )  # fmt: skip


def row(at_s, latency_s=1.0, **given):
    """Return a row of a log of our own, ``at_s`` seconds after noon."""
    date = datetime.fromtimestamp(NOON_S + at_s, UTC).isoformat()
    said = {"t_s": date, "latency_s": latency_s, "tokens_in": 100, "tokens_out": 10, "agent": "tax"}
    return json.dumps(said | {"status": "ok"} | given) + "\n"


def steady(rate_per_s, latency_s, *, since_s=0.0, until_s=300.0, **given):
    """Return rows at a constant rate, in the order of their ends, as a gateway writes them."""
    n = int((until_s - since_s) * rate_per_s)
    return [row(since_s + i / rate_per_s, latency_s, **given) for i in range(n)]


class Place:
    """Where an advisor's files are, and what time it is there, in seconds after noon."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder = folder
        self.scenario = scenario
        self.log = folder / "gateway.jsonl"
        self.journal = folder / "advise.glow"
        self.now_s = 0.0

    def write(self, *rows: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write("".join(rows))

    @asynccontextmanager
    async def advisor(self, *, metrics=None, log=True, certificate=None, lag_s=LAG_S, chosen=None, **sources):
        chosen = chosen or settings(admin_port=0, journal_path=self.journal, tokens=True, environment={})
        if log:
            self.log.touch()
        heard = Sources(self.log if log else None, metrics=metrics or {}, lag_s=lag_s, **sources)
        async with advising(
            self.scenario, heard, chosen, certificate=certificate, clock=lambda: NOON_S + self.now_s,
            look_every_s=3600.0,
        ) as advice:  # fmt: skip
            yield advice
            assert advice.listener.error is None

    def advise(self, *, until_s, **given):
        """Return what is recommended of the log as it stands, when the clock shows ``until_s``."""

        async def main():
            self.now_s = until_s
            async with self.advisor(**given) as advice:
                advice.listener.look()
                return list(advice.recommendations.newest())[::-1]

        return asyncio.run(main())

    def forget(self):
        """Have the next advisor begin afresh."""
        rmtree(self.journal, ignore_errors=True)

    def commands(self, kind):
        return [record for record in read(self.journal).records() if type(record) is kind]

    def replayed(self):
        (result,) = replay(self.journal, self.scenario)
        return result


@pytest.fixture
def beside(tmp_path):
    """Scenarios, rows, and a place for an advisor."""
    return SimpleNamespace(
        fleet=fleet, row=row, steady=steady, noon_s=NOON_S, place=lambda scenario: Place(tmp_path, scenario)
    )


@pytest.fixture
def standing():
    """Return (agent, kind, advice) of the recommendations that stand."""
    return lambda found: [(each.agent, each.kind, each.advice) for each in found if each.over_s is None]
