"""The model servers: what they did, whether they had room to spare, and where their numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glowsim.presets.hosted import hosted
from glowsim.presets.serving import serving
from glowsim.report.blocks import Block, section, table, text
from glowsim.report.numbers import DASH, plain
from glowsim.scenario import Scenario

__all__ = ["model_servers", "preset_origins"]


def model_servers(scenario: Scenario, summary: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the section of the model servers, if there are any."""
    if not scenario.servers:
        return
    rows = []
    for name, server in scenario.servers.items():
        did = summary["servers"][name]
        computed = did["tokens_in"] - did["tokens_cached"]
        replicas = 1 if server.engine == "hosted" else server.replicas
        end_s = scenario.duration_s
        busy = did.get("busy_s")
        rows.append(
            [
                name, server.engine, server.preset or "its own numbers", replicas, plain(did["calls"], "count"),
                plain(did["failed"], "count"), plain(computed, "count"), plain(did["tokens_out"], "count"),
                plain(did["tokens_cached"] / did["tokens_in"], "fraction") if did["tokens_in"] else DASH,
                plain(did["most_at_once"], "count"),
                DASH if busy is None else plain(min(busy / (replicas * end_s), 1.0), "fraction"),
                DASH if "preemptions" not in did else plain(did["preemptions"], "count"),
            ]
        )  # fmt: skip
    columns = "server|engine|preset|>replicas|>calls|>failed|>tokens read|>written|>cached|>at once|>busy|>preempted"
    lead = (
        "Means over the replications. Tokens read are those of prompts that no cache held; most at once is the most "
        "calls inside one replica, waiting ones included; busy is the share of the duration."
    )
    warnings = [text(f"Outside what a preset holds for: {each}.") for each in summary["warnings"]]
    room = [
        [name, plain(did["offered_per_s"], "rate"), plain(did["sustainable_per_s"], "rate"), did["load"]]
        for name, did in summary["servers"].items()
        if "load" in did
    ]
    saturation = table(
        "server|>calls offered, mean|>calls it could sustain|?verdict",
        room,
        title="Room to spare, by a formula",
        more="For calls like the latest ones of the run; within 7 % of the offered rate it is too close to call. A "
        "burst may saturate what the mean does not.",
    )
    blocks = [table(columns, rows), *([saturation] if room else []), *warnings]
    yield section("servers", "Model servers", lead, blocks)


def preset_origins(scenario: Scenario) -> Iterator[tuple[str, str, Any, str]]:
    """Yield (server, value, origin, source) of every preset that a server takes its numbers from."""
    for name, server in scenario.servers.items():
        if server.preset is not None and server.engine == "hosted":
            api = hosted(server.preset)
            yield name, f"preset {server.preset}", api.origin, api.source
        elif server.preset is not None:
            preset = serving(server.preset)
            source = f"{preset.engine}: {preset.source}"
            yield name, f"preset {server.preset}", preset.origin, source
