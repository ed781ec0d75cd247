"""Random workloads that meet in the same few texts, blocks and moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from twins import Ask

from glowsim.sim.serving.steps import BatchSpec, StepTime

DYADIC = StepTime(0.25, 0.125, 0.0625)
"""All times are exact, so that arrivals can be tied with boundaries."""


def workload(seed: int) -> tuple[BatchSpec, list[Ask], list[tuple[float, float]]]:
    """Return a server, its calls and its changes of speed: small caches, shared texts, ties, cancellations."""
    dice = np.random.default_rng(seed)
    size, seqs = int(dice.choice([2, 4, 16])), int(dice.choice([1, 3, 8, 32]))
    step = DYADIC
    if dice.random() < 0.6:
        b3_s, b4_s = float(dice.choice([0.0, 1e-6, 1e-4])), float(dice.choice([0.0, 1e-6]))
        step = StepTime(0.007, 2e-5 * int(dice.integers(0, 50)), 2e-5, b3_s, b4_s)
    spec = BatchSpec(
        step,
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + int(dice.choice([0, 2, 8, 64, 500])),
        kv_blocks=int(dice.choice([12, 30, 100, 1000])),
        block_tokens=size,
        long_prefill_threshold=int(dice.choice([0, 0, 1, 4, 16])),
        watermark_blocks=int(dice.choice([0, 0, 3])),
        prefix_caching=bool(dice.random() < 0.8),
        priority_order=bool(dice.random() < 0.3),
    )
    calls = int(dice.choice([3, 10, 40]))
    span_s = calls * float(dice.choice([0.0, 0.05, 0.2, 1.0])) * (10.0 if step is DYADIC else 1.0)

    def moment(most_s: float) -> float:
        t_s = float(dice.random()) * most_s
        return round(t_s * 16) / 16 if step is DYADIC else t_s

    asks = []
    for _ in range(calls):
        tokens_in = int(dice.integers(1, 1 + size * int(dice.choice([1, 3, 8]))))
        tokens_out = int(dice.integers(1, 1 + int(dice.choice([1, 8, 60]))))
        keys: dict[str, Any] = {"priority": int(dice.integers(0, 3)), "stream": bool(dice.random() < 0.3)}
        kind = dice.random()
        if kind < 0.5:
            keys["shared_key"] = int(dice.integers(1, 3))
            keys["shared_tokens"] = min(
                tokens_in, int(dice.choice([size, 2 * size + 1, 3 * size, 5 * size - 1]))
            )
        if kind < 0.4 or kind > 0.8:
            keys["own_key"] = int(dice.integers(1, 1 + int(dice.choice([2, 4, 40]))))
        if 0.7 < kind < 0.8:
            head, own = int(dice.integers(1, 3)) * 1000, int(dice.integers(0, 40)) * 100
            blocks = range(tokens_in // size + 1)
            keys["blocks"] = tuple(head + i if i < 3 else head + own + i for i in blocks)
        cancel_after_s = moment(max(span_s, 0.1) / 2) if dice.random() < 0.25 else -1.0
        then = int(dice.integers(0, 4)) if "own_key" in keys and dice.random() < 0.6 else 0
        asks.append(Ask(moment(span_s), tokens_in, tokens_out, keys, cancel_after_s, then))
    changes = int(dice.choice([0, 0, 3]))
    return spec, asks, [(moment(span_s), float(dice.choice([0.5, 1.0, 2.0]))) for _ in range(changes)]
