import json
from pathlib import Path

import pytest

from glowsim.experiment.run import run
from glowsim.scenario import Scenario, load

TEXT = """\
title: A small fleet
question: Does it hold?
description: |
  One line
  and its rest.

  Another paragraph.
seed: 3
duration: 60s
warmup: 10s
models:
  mini: {input: $0.15/1M, cached_input: $0.075/1M, output: $0.60/1M}
  large: {input: $2.50/1M, output: $10/1M}
fleet:
  - agent: tax
    domain: tax
    count: 2
    model: mini
    instances: 1
    concurrency: 2
    startup: 5s
    instance_price: $0.40/h
    service: {law: tokens, base: 150ms, input: 40us/token, output: 8ms/token, slowdown: 0.01}
    failures: {invalid: 4%, error: 3%}
  - agent: legal
    model: large
    instances: 1
    concurrency: 4
    service: {law: time, time: {law: exponential, mean: 300ms}}
workload:
  - kind: poisson
    rate: 5/s
    users: 20
    agents: {tax: 4, legal: 1}
    tokens_in: {law: exponential, mean: 3100}
    tokens_out: {law: gamma, mean: 90, cv: 0.35}
    stream: true
    cacheable: {share: 0.3, keys: 5}
faults:
  - {kind: errors, agent: tax, at: 30s, lasts: 5s, error: 50%}
controllers:
  cache: {use: lru}
  retrier: {use: backoff}
  scaler: {use: agent_scaler, min_instances: 1, max_instances: 3, cooldown_up: 10s, cooldown_down: 10s, look: 5s}
slos:
  - {name: fast, metric: latency_s_p95, max: 60s}
  - {name: impossible, metric: latency_s_p50, max: 1ms}
  - {name: legal works, metric: success_rate, min: 50%, agent: legal}
expectations:
  - {metric: success_rate, low: 50%, high: 100%, source: a guess}
  - {metric: latency_s_mean, low: 1h, high: 2h}
origins:
  fleet.tax.service: {origin: fitted, source: a fit}
  models.mini.input: {origin: published, source: a list of prices}
"""


class Written:
    """A run on disk with its reports, as the runner left it."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder = folder
        self.scenario = scenario
        self.summary = json.loads((folder / "summary.json").read_text())
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.pdf = (folder / "report.pdf").read_bytes()


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Returns overrides and replications -> a run of the small fleet with its reports."""

    def make(*overrides: str, replications: int = 1) -> Written:
        scenario = load(TEXT, overrides)
        folder = tmp_path_factory.mktemp("runs") / "run"
        command = ["glowsim", "run", "small.yaml", "-s", "seed=3 <b>"]
        run(scenario, "small", folder, replications=replications, command=command)
        return Written(folder, scenario)

    return make


@pytest.fixture(scope="session")
def small(written):
    """The small fleet, two replications."""
    return written(replications=2)
