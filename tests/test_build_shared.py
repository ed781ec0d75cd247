"""A fleet's controllers are looked up once each, however many agents have them; every agent gets its own."""

from __future__ import annotations

from collections import Counter

from glowsim import bench, build, registry
from glowsim.core.streams import Streams


def test_what_is_written_of_a_controller_is_looked_up_once_and_made_for_every_agent(monkeypatch):
    looked_up: Counter[str] = Counter()
    check = registry.check

    def counted(kind, settings):
        looked_up[kind.__name__] += 1
        return check(kind, settings)

    scenario = bench.stack_scenario(10, agents=7)
    monkeypatch.setattr(registry, "check", counted)
    plane = build.control_plane(scenario, Streams(1))
    assert looked_up
    assert set(looked_up.values()) == {1}
    for family in plane.pools[0].controllers.named():
        made = {id(pool.controllers.named()[family]) for pool in plane.pools}
        assert len(made) == 7, f"agents share a {family}"
