"""How long a step of a self-hosted model server takes, and what bounds a step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import NamedTuple

from glowsim.core.errors import WorldError
from glowsim.sim.serving.call import Call

__all__ = ["BatchSpec", "StepTime", "check_call"]


class StepTime(NamedTuple):
    """Coefficients of a step's time: dt = b0 + b1 P + b2 n + b3 K + b4 A.

    P are the tokens of prompts computed in the step (what is computed again after a preemption included), n
    the sequences that decode, K the tokens of context of everything scheduled before the step (cached ones
    included), A the sum over prefills of chunk * (context + chunk / 2): the attention of long prompts.

    Parameters
    ----------
    b0_s
        Of the step itself, above 0: reading the weights.
    b1_s
        A token of a prompt, 0 or more.
    b2_s
        A sequence that decodes, 0 or more.
    b3_s
        A token of context, 0 or more: reading its keys and values.
    b4_s
        A pair of tokens in a prefill's attention, 0 or more:
        4 * layers * heads * head_dim / (TP * peak FLOP/s * MFU).

    >>> StepTime(0.007, 2e-5, 2e-5).step_s(512, 10, 9000, 512 * 256)
    0.01744
    """

    b0_s: float
    b1_s: float
    b2_s: float
    b3_s: float = 0.0
    b4_s: float = 0.0

    def step_s(self, prefill_tokens: int, decodes: int, context_tokens: int, attention: float) -> float:
        """Return the seconds that a step takes at the usual speed."""
        return (
            self.b0_s
            + self.b1_s * prefill_tokens
            + self.b2_s * decodes
            + self.b3_s * context_tokens
            + self.b4_s * attention
        )


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """A replica of a self-hosted model: how long its steps take, and what bounds them.

    Parameters
    ----------
    step
        Coefficients of the step's time.
    max_num_seqs
        Sequences that run at once, at least 1.
    max_num_batched_tokens
        Tokens of a step, decodes and prefills together, at least ``max_num_seqs``.
    kv_blocks
        Blocks of the KV cache, at least 1: its tokens // ``block_tokens``.
    block_tokens
        Tokens of a block, at least 1.
    long_prefill_threshold
        Most tokens of one prompt in a step; 0: as many as fit.
    watermark_blocks
        Blocks that an admission leaves free, 0 or more and below ``kv_blocks``.
    prefix_caching
        Whether blocks of text computed before are used again.
    priority_order
        Whether calls are admitted by (priority, arrival) and the last of that order is preempted; otherwise
        by arrival, and the one admitted last is preempted.

    Raises
    ------
    WorldError
        A number is out of its bounds; says which and what it may be.

    Notes
    -----
    The names are those of vLLM's engine arguments.

    >>> BatchSpec(StepTime(0.007, 2e-5, 2e-5), 256, 128, 1000)
    Traceback (most recent call last):
    glowsim.core.errors.WorldError: max_num_batched_tokens: 128 cannot be; give at least max_num_seqs, 256
    """

    step: StepTime
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_blocks: int
    block_tokens: int = 16
    long_prefill_threshold: int = 0
    watermark_blocks: int = 0
    prefix_caching: bool = True
    priority_order: bool = False

    def __post_init__(self) -> None:
        for name, value in self.step._asdict().items():
            if not (isfinite(value) and value >= 0.0) or (name == "b0_s" and value == 0.0):
                least = "above 0: every step takes time" if name == "b0_s" else "0 or more"
                raise WorldError(f"{name}: {value} cannot be; give a finite number {least}")
        least_of = {
            "max_num_seqs": (1, "1"),
            "max_num_batched_tokens": (self.max_num_seqs, f"max_num_seqs, {self.max_num_seqs}"),
            "kv_blocks": (self.watermark_blocks + 1, "1 more than watermark_blocks"),
            "block_tokens": (1, "1"),
            "long_prefill_threshold": (0, "0"),
            "watermark_blocks": (0, "0"),
        }
        for field in fields(self):
            if field.name in least_of and getattr(self, field.name) < least_of[field.name][0]:
                value, said = getattr(self, field.name), least_of[field.name][1]
                raise WorldError(f"{field.name}: {value} cannot be; give at least {said}")

    def peak_blocks(self, tokens_in: int, tokens_out: int) -> int:
        """Return the most blocks that a call holds: the last token of its answer is never stored.

        >>> BatchSpec(StepTime(0.007, 2e-5, 2e-5), 256, 2048, 1000).peak_blocks(16, 1)
        1
        """
        return -(-(tokens_in + tokens_out - 1) // self.block_tokens)

    def fits(self, call: Call) -> bool:
        """Return whether the KV cache can ever hold the call, or it ends as `Outcome.INVALID`."""
        return self.peak_blocks(call.tokens_in, call.tokens_out) <= self.kv_blocks - self.watermark_blocks


def check_call(call: Call, block_tokens: int) -> None:
    """Refuse a call that contradicts itself.

    Raises
    ------
    WorldError
        It has no tokens, shares more than its prompt, or has too few hashes of blocks for it; says what to give.

    >>> check_call(Call(7, 100, 0), 16)
    Traceback (most recent call last):
    glowsim.core.errors.WorldError: call 7: 100 tokens in and 0 out; give at least 1 of each
    """
    if call.tokens_in < 1 or call.tokens_out < 1:
        said = f"{call.tokens_in} tokens in and {call.tokens_out} out; give at least 1 of each"
    elif not 0 <= call.shared_tokens <= call.tokens_in:
        said = f"{call.shared_tokens} shared tokens of {call.tokens_in}; give 0 to all of them"
    elif call.blocks and len(call.blocks) < call.tokens_in // block_tokens:
        said = f"{len(call.blocks)} blocks for {call.tokens_in} tokens; give a hash for each {block_tokens} of them"
    else:
        return
    raise WorldError(f"call {call.number}: {said}")
