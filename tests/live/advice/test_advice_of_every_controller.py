"""Every built-in beside the traffic: none raises, nothing is carried out, the journal replays, those advised speak."""

from __future__ import annotations

from random import Random

import pytest
from ruamel.yaml import YAML

from glowsim import registry, showing
from glowsim.core.advice import ADVISED
from glowsim.core.reasons import Code
from glowsim.core.types import Advised, Answer, Arrived, Dispatch, Fail, Finished, Raise, Shadowed

EVERY = [(family, name) for family in registry.FAMILIES for name in registry.BUILT_INS[family]]
BITING = {
    "rate": "1/s", "burst": 3, "limit": 1, "max_tokens_in": 400, "failures": 2, "failure_share": 0.4, "minimum": 5,
    "min_instances": 1, "max_instances": 6, "threshold": 1, "objective": 0.9, "burn": 2, "window": "30s",
    "quiet": "10s", "service": "1s", "eject": "5s", "baseline": 50, "allowance": 0, "run_length": 60, "delta": 0.9,
    "clock": 2,
}  # fmt: skip
SILENT = {"leased", "probes"}
"""They decide by what nobody tells them here: grants, and health checks."""


@pytest.mark.parametrize(("family", "name"), EVERY, ids=lambda each: each)
def test_a_controller_beside_the_traffic(beside, family, name):
    block = YAML(typ="safe").load(showing.show(f"{family}/{name}").yaml)["controllers"][family]
    one = block[0] if isinstance(block, list) else block
    known = {each.key for each in registry.parameters(registry.find(family, name))}
    one |= {key: value for key, value in BITING.items() if key in known and family in ADVISED}
    if name == "budget":
        one |= {"limit": 0.005, "every": "60s"}
    if family == "planner" and "cheap" in known:
        one |= {"cheap": "small", "strong": "large"}
    if name in {"ks", "psi"}:
        one |= {"window": 50, "metric": "latency_s"}
    if name == "shiryaev_roberts":
        one |= {"run_length": 2, "low": 0, "high": 5}
    if name == "weighted":
        one |= {"weights": [1, 2]}
    variants = {"variants": {"next": {"error": "25%"}}} if family == "splitter" else {}
    here = beside.place(beside.fleet({family: block}, **variants))
    random = Random(7)
    here.write(*[
        beside.row(
            i / 3, random.expovariate(0.4), tokens_in=random.randrange(900), user=f"u{i % 5}", session=f"s{i % 9}",
            instance=f"a:{(worst := int(random.random() < 0.5))}",
            status="error" if worst and 30 <= i / 3 < 60 else "ok",
        )
        for i in range(300)
    ])  # fmt: skip
    here.advise(until_s=300.0)
    assert len(here.commands(Arrived)) == len(here.commands(Dispatch)) == len(here.commands(Finished)) == 300
    assert here.replayed().proved
    raised = here.commands(Raise)
    assert Code.CONTROLLER_FAILED not in {each.alert.reason.code for each in raised}
    said = {type(record) for record in (*here.commands(Advised), *raised)}
    assert bool(said) == (family in ADVISED and name not in SILENT)
    assert len(here.commands(Answer)) + len(here.commands(Fail)) == 300
    assert here.commands(Shadowed) == []
