"""From a scenario's servers to what the simulated world calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glowsim.core.streams import Streams
from glowsim.presets import hosted as published
from glowsim.presets.serving import serving
from glowsim.scenario import Scenario
from glowsim.scenario import servers as written
from glowsim.sim import laws
from glowsim.sim.environment import Environment
from glowsim.sim.servers import Served
from glowsim.sim.serving.batching import BatchEngine
from glowsim.sim.serving.call import Server, Told
from glowsim.sim.serving.hosted import HostedApi, HostedSpec, PromptCache
from glowsim.sim.serving.outages import Gaps, Repairs, Timetable, outages
from glowsim.sim.serving.ps import PsEngine
from glowsim.sim.serving.steps import BatchSpec, StepTime

__all__ = ["batch_spec", "hosted_spec", "served"]

Make = Callable[[Environment, int, Told, Told], Server]
MakeLaw = Callable[[Any], laws.Law]
_BLOCK_TOKENS = 16
"""Of the engine that is modelled."""


def served(scenario: Scenario, streams: Streams, law: MakeLaw) -> list[Served]:
    """Return what serves the scenario's models, server by server.

    Parameters
    ----------
    scenario
        Its servers, and the models that name them.
    streams
        Of this replication.
    law
        Makes a law of what a scenario says of one.
    """
    models = list(scenario.models.values())
    until_s = scenario.duration_s + scenario.drain_s
    return [
        Served(
            models=tuple(i for i, model in enumerate(models) if model.server == name),
            replicas=1 if server.engine == "hosted" else server.replicas,
            router="round_robin" if server.engine == "hosted" else server.router,
            make=_hosted(name, server, streams, law, until_s)
            if isinstance(server, written.HostedServer)
            else _self_hosted(server),
            spec=None if isinstance(server, written.HostedServer) else batch_spec(server),
            region=None if server.region is None else scenario.regions.index(server.region),
        )
        for name, server in scenario.servers.items()
    ]


def _self_hosted(server: written.BatchServer | written.PsServer) -> Make:
    spec, engine = batch_spec(server), PsEngine if server.engine == "ps" else BatchEngine
    return lambda environment, place, done, first_token: engine(environment, spec, done, first_token)


def batch_spec(server: written.BatchServer | written.PsServer) -> BatchSpec:
    """Return a replica's coefficients and limits: the preset's, and what the scenario says otherwise."""
    sequences, batched, memory = server.sequences, server.batched_tokens, server.cache_tokens
    if server.preset is not None:
        preset = serving(server.preset)
        given = preset.coefficients
        step = StepTime(given.b0_s, given.b1_s, given.b2_s, given.b3_s, given.b4_s)
        sequences = sequences or preset.max_num_seqs
        batched = batched or preset.max_num_batched_tokens
        memory = memory or preset.kv_tokens
    else:
        said = server.step
        assert said is not None, "the scenario has either a preset or a step"
        step = StepTime(said.base_s, said.prefill_s, said.sequence_s, said.context_s, said.attention_s)
    assert sequences is not None, "without a preset the scenario gives all three"
    assert batched is not None
    assert memory is not None
    caching = isinstance(server, written.BatchServer) and server.prefix_caching
    blocks = max(memory // _BLOCK_TOKENS, 1)
    return BatchSpec(step, sequences, batched, blocks, _BLOCK_TOKENS, prefix_caching=caching)


def _hosted(name: str, server: written.HostedServer, streams: Streams, law: MakeLaw, until_s: float) -> Make:
    spec, timetable = hosted_spec(server, law), None
    if server.incidents is not None:
        seen = published.incidents(server.incidents)
        gaps = Gaps(seen.weibull_shape, seen.mean_between_starts_s)
        repairs = Repairs(seen.repair_median_s, seen.repair_sigma)
        stream = streams.stream("incidents", name)
        timetable = Timetable(outages(stream, until_s, gaps, repairs, seen.share))
    key = streams.key("hosted", name)
    return lambda environment, place, done, first_token: HostedApi(
        environment, spec, key, done, first_token, timetable
    )


def hosted_spec(server: written.HostedServer, law: MakeLaw) -> HostedSpec:
    """Return what a hosted API does to its callers: the preset's laws, and what the scenario says otherwise."""
    error = server.error
    if server.preset is not None:
        preset = published.hosted(server.preset)
        first_token: laws.Law = laws.Quantiles(preset.quantiles, preset.first_token_s)
        per_token: laws.Law = laws.Quantiles(preset.quantiles, preset.per_token_s)
        error = preset.error if error is None else error
    if server.first_token_s is not None:
        first_token = law(server.first_token_s)
    if server.per_token_s is not None:
        per_token = law(server.per_token_s)
    cache = server.cache
    return HostedSpec(
        first_token,
        per_token,
        error=0.0 if error is None else error,
        requests_per_min=server.requests_per_min,
        tokens_per_min=server.tokens_per_min,
        cache=None if cache is None else PromptCache(cache.keeps_s, cache.least, cache.step),
    )
