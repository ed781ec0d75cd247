"""Standard loads of a self-hosted model server, by which its engines are compared and timed."""

from __future__ import annotations

from collections.abc import Callable
from math import fsum
from typing import Final, NamedTuple

import numpy as np

from glowsim.core.errors import WorldError
from glowsim.sim.environment import Environment
from glowsim.sim.serving.batching import BatchEngine
from glowsim.sim.serving.call import Call, Server
from glowsim.sim.serving.steps import BatchSpec, StepTime

__all__ = ["LOADS", "Load", "batching_requests"]

_STEP: Final = StepTime(0.007, 2e-5, 2.5e-5, 3e-8)
"""Assumed, round: of the order of a 7B model on one accelerator of 2024."""


class Load(NamedTuple):
    """Poisson arrivals of sessions, whose turns follow one another."""

    rate_per_s: float
    """Of sessions."""
    turns: int
    """Of a session; the prompt of each begins with that of the one before and its answer."""
    tokens_in: int
    """That a turn adds to the prompt, on the average (exponential)."""
    tokens_out: int
    """On the average (exponential)."""
    shared_tokens: int
    """At the beginning of every prompt."""
    kv_blocks: int
    think_s: float = 0.0
    """On the average (exponential), between turns."""


LOADS: Final = {
    "chat": Load(40.0, 1, 256, 256, 0, 60_000),
    "agent": Load(11.0, 6, 100, 120, 130, 60_000, 5.0),
    "summarise": Load(3.5, 1, 4096, 512, 0, 60_000),
    "thrash": Load(14.0, 1, 256, 256, 0, 1_500),
}
"""Assumed: chat, agents whose context grows to 900 tokens on the average, long prompts, and a cache too small."""


def batching_requests(
    kind: str, requests: int, build: Callable[..., Server] = BatchEngine, seed: int = 1
) -> float:
    """Serve a standard load; return the mean seconds from arrival to end.

    Parameters
    ----------
    kind
        Among `LOADS`.
    requests
        How many, turns of sessions each.
    build
        Makes the engine: ``build(environment, spec, done, first_token)``.
    seed
        Of arrivals and lengths.

    Raises
    ------
    WorldError
        There is no such load; says which there are.

    >>> 2.0 < batching_requests("chat", 500) < 4.0
    True
    """
    if kind not in LOADS:
        raise WorldError(f"there is no load {kind!r}: choose from {', '.join(LOADS)}")
    load = LOADS[kind]
    turns = load.turns
    sessions = -(-requests // turns)
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.standard_exponential(sessions) / load.rate_per_s).tolist()
    adds = np.ceil(generator.standard_exponential(requests) * load.tokens_in).astype(int).tolist()
    outs = np.ceil(generator.standard_exponential(requests) * load.tokens_out).astype(int).tolist()
    thinks = (generator.standard_exponential(requests) * load.think_s).tolist()
    begun = [0.0] * requests
    took = [0.0] * requests
    environment = Environment()
    shared = load.shared_tokens
    shared_key = 1 if shared else 0

    def done(call: Call) -> None:
        number = call.number
        took[number] = environment._now - begun[number]
        following = number + 1
        if following % turns and following < requests:
            call_at(environment._now + thinks[number], ask, (following, call.tokens_in + call.tokens_out))

    engine = build(environment, BatchSpec(_STEP, 256, 8192, load.kv_blocks), done, done)
    call_at, start = environment.call_at, engine.start

    def ask(turn: tuple[int, int]) -> None:
        number, before = turn
        begun[number] = environment._now
        start(
            Call(
                number, before + adds[number], outs[number],
                shared_key=shared_key, shared_tokens=shared, own_key=1 + number // turns,
            )
        )  # fmt: skip

    def alone(number: int) -> None:
        following = number + 1
        if following < requests:
            call_at(arrivals[following], alone, following)
        begun[number] = arrivals[number]
        start(Call(number, adds[number], outs[number]))

    def begin(session: int) -> None:
        following = session + 1
        if following < sessions:
            call_at(arrivals[following], begin, following)
        ask((session * turns, shared))

    call_at(arrivals[0], begin if turns > 1 else alone, 0)
    environment.run()
    return fsum(took) / requests
