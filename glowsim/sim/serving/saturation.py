"""Whether a model server can keep up with its traffic, by a formula."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import fsum
from typing import Final, NamedTuple

from glowsim.core.errors import WorldError
from glowsim.sim.serving.steps import BatchSpec

__all__ = ["CLOSE", "Saturation", "Verdict", "saturation", "verdict_on"]

CLOSE: Final = 0.07
"""How far the formula may be from the exact engine, as a share. Measured: 2 % where calls are rarely preempted; up
to 8 % too high where a cache that holds a hundred calls drives every other one out."""


class Verdict(StrEnum):
    """What can be said about a rate of calls."""

    KEEPS_UP = "keeps up"
    SATURATED = "saturated"
    TOO_CLOSE = "too close to call"


class Saturation(NamedTuple):
    """The rate that a model server can sustain."""

    rate_per_s: float
    """Calls a second; the formula's, or the floor's where that is lower."""
    batch: float
    """Calls that decode at once at that rate."""
    context_tokens: float
    """Of a decoding call on the average, weighted by how long it decodes."""
    bound_by: str
    """What keeps the batch from being larger: ``max_num_seqs``, ``kv_blocks`` or ``max_num_batched_tokens``."""
    ignores: str
    """What the formula leaves out, for a reader of the verdict."""

    def verdict(self, rate_per_s: float) -> Verdict:
        """Return whether a server can keep up with so many calls a second.

        >>> limit = Saturation(10.0, 256.0, 500.0, "max_num_seqs", "")
        >>> str(limit.verdict(9.0)), str(limit.verdict(9.5)), str(limit.verdict(11.0))
        ('keeps up', 'too close to call', 'saturated')
        """
        return verdict_on(rate_per_s, self.rate_per_s)


def verdict_on(offered_per_s: float, sustainable_per_s: float) -> Verdict:
    """Return whether servers that can sustain so many calls a second keep up with those offered."""
    if offered_per_s < sustainable_per_s * (1.0 - CLOSE):
        return Verdict.KEEPS_UP
    return Verdict.SATURATED if offered_per_s > sustainable_per_s * (1.0 + CLOSE) else Verdict.TOO_CLOSE


def saturation(
    spec: BatchSpec,
    tokens_in: Sequence[int],
    tokens_out: Sequence[int],
    tokens_cached: Sequence[int] | None = None,
) -> Saturation:
    """Return the rate of calls that a model server can sustain.

    With P the tokens of a prompt, C those of them that are cached and O those of the answer:

        ctx = E[O (P + O/2)] / E[O]
        B = min(max_num_seqs, kv_tokens / (ctx + block_tokens / 2))
        rate = 1 / (E[b1 (P - C) + b4 (P - C) (P + C) / 2] + E[O] (b0 / B + b2 + b3 ctx))

    The floor: while B calls decode, a step ends B / E[O] calls and must prefill as many new ones, in the
    max_num_batched_tokens - B tokens that are left, so that B (1 + E[P - C] / E[O]) <= max_num_batched_tokens.

    Parameters
    ----------
    spec
        Of the server.
    tokens_in, tokens_out
        Of a sample of calls, each at least 1.
    tokens_cached
        Tokens of each prompt that the prefix cache holds; None: none. Take them from a run or a record: how
        much is cached depends on how much of the cache the running calls leave.

    Raises
    ------
    WorldError
        The samples are empty or of unlike lengths.

    >>> from glowsim.sim.serving.steps import StepTime
    >>> spec = BatchSpec(StepTime(0.007, 2e-5, 2.5e-5), 256, 8192, 100_000)
    >>> limit = saturation(spec, [256], [256])
    >>> round(limit.rate_per_s, 2), limit.batch, limit.bound_by
    (54.0, 256, 'max_num_seqs')
    """
    cached = [0] * len(tokens_in) if tokens_cached is None else tokens_cached
    if not tokens_in or not len(tokens_in) == len(tokens_out) == len(cached):
        said = f"{len(tokens_in)}, {len(tokens_out)} and {len(cached)}"
        raise WorldError(
            f"samples of {said} calls: give tokens in, out and cached of the same calls, at least one"
        )
    calls = len(tokens_in)
    step = spec.step
    out = fsum(tokens_out) / calls
    computed = fsum(p - c for p, c in zip(tokens_in, cached, strict=True)) / calls
    attention = fsum((p - c) * (p + c) / 2 for p, c in zip(tokens_in, cached, strict=True)) / calls
    context = fsum(o * (p + o / 2) for p, o in zip(tokens_in, tokens_out, strict=True)) / calls / out
    batch, bound_by = min(
        (spec.max_num_seqs, "max_num_seqs"),
        (spec.kv_blocks * spec.block_tokens / (context + spec.block_tokens / 2), "kv_blocks"),
        (spec.max_num_batched_tokens / (1.0 + computed / out), "max_num_batched_tokens"),
    )
    prefill_s = step.b1_s * computed + step.b4_s * attention
    decode_s = out * (step.b0_s / batch + step.b2_s + step.b3_s * context)
    ignores = "what is computed again after preemptions, and that calls begin and end at different moments"
    return Saturation(1.0 / (prefill_s + decode_s), batch, context, bound_by, ignores)
