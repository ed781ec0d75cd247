"""Model servers that others measured or modelled: step times and memory of a model on an accelerator.

A step of an engine with continuous batching takes

    dt = b0 + b1 P + b2 n + b3 K + b4 A

for P prompt tokens computed, n sequences that decode, K tokens of context that are read, and
A = sum of chunk * (context + chunk / 2) over the prompts. b0 to b3 stand in the preset's file; b4 is the
attention of the prefill, 4 * layers * heads * head_dim / (TP * peak * MFU), which no source fits.

No row is quicker than physics: every weight that a step needs is read once, and every prompt token takes
two operations a parameter. A row that is gets refused with the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from glowsim.presets import PresetError, read
from glowsim.presets.place import Place

__all__ = [
    "Accelerator",
    "Coefficients",
    "Model",
    "ServingPreset",
    "check",
    "derive",
    "outside",
    "parse",
    "serving",
]

_US: Final = 1e-6
_OPERATIONS: Final = 2
"""Operations a parameter and token: one multiplication, one addition."""


@dataclass(frozen=True)
class Model:
    """What a model is made of."""

    name: str
    parameters: int
    active_parameters: int
    """Those that multiply each token: without embedding and head, and only the experts that are chosen."""
    layers: int
    heads: int
    head_dim: int
    weight_bytes: int
    active_weight_bytes: int
    """Read for a step of one token: all but the embedding table, and only the experts that are chosen."""
    kv_bytes_per_token: int
    longest_context: int
    source: str


@dataclass(frozen=True)
class Accelerator:
    """One accelerator, and what an engine sets by default on a machine of its class."""

    name: str
    peak_flops: float
    """Operations a second, dense, 16 bits."""
    bandwidth_bytes_per_s: float
    memory_bytes: int
    mfu: float
    """Share of the peak that a prefill reaches."""
    hour_usd: float
    max_num_batched_tokens: int
    """Tokens of one step."""
    max_num_seqs: int
    """Sequences that run at once."""
    memory_share: float
    """Share of the memory that the engine takes."""
    sources: tuple[str, ...]
    """Of the facts, the MFU, the price and the limits, each after its origin."""


@dataclass(frozen=True)
class Coefficients:
    """Seconds of a step: for itself, a prompt token, a decoding sequence, a token of context, and prefill attention."""

    b0_s: float
    b1_s: float
    b2_s: float
    b3_s: float
    b4_s: float

    def step_s(
        self, prefill_tokens: float, decoding: float, context_tokens: float, attention: float = 0.0
    ) -> float:
        """Return how long a step takes.

        >>> Coefficients(0.01, 1e-5, 1e-4, 0.0, 0.0).step_s(1000, 10, 5000)
        0.021
        """
        work_s = self.b0_s + self.b1_s * prefill_tokens + self.b2_s * decoding
        return work_s + self.b3_s * context_tokens + self.b4_s * attention


@dataclass(frozen=True)
class ServingPreset:
    """A model on a number of accelerators, as one source has it."""

    name: str
    model: Model
    accelerator: Accelerator
    tensor_parallel: int
    """Accelerators that share the model."""
    coefficients: Coefficients
    engine: str
    """Engine and version that were modelled."""
    origin: str
    source: str
    valid_batch: int
    """Sequences at once up to which the source has data, or which the law is trusted for."""
    valid_context: int
    """Tokens of a sequence, likewise."""
    valid_source: str
    """Where the range comes from, after its origin."""
    spread_b0_s: Mapping[str, float] = field(default_factory=dict)
    """Source -> its b0 for the same model, accelerator and number of them."""
    remarks: tuple[str, ...] = ()

    @property
    def kv_tokens(self) -> int:
        """Tokens of context that fit into the memory.

        (memory_share * memory * TP - weight_bytes) / kv_bytes_per_token, rounded down. Activations and
        graphs take their part as well, so an engine's own log shows some percent less.
        """
        accelerator, model = self.accelerator, self.model
        memory = accelerator.memory_share * accelerator.memory_bytes * self.tensor_parallel
        return int((memory - model.weight_bytes) // model.kv_bytes_per_token)

    @property
    def max_num_seqs(self) -> int:
        """Sequences that run at once, by default."""
        return self.accelerator.max_num_seqs

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens of one step, by default."""
        return self.accelerator.max_num_batched_tokens

    @property
    def hour_usd(self) -> float:
        """US dollars an hour of one instance: the price of an accelerator, times their number."""
        return self.accelerator.hour_usd * self.tensor_parallel


def serving(name: str) -> ServingPreset:
    """Return a preset.

    Raises
    ------
    PresetError
        There is no such preset, or its numbers cannot be.

    >>> preset = serving("llama-3.1-8b-h100-tp1")
    >>> preset.model.name, preset.tensor_parallel, preset.origin, preset.kv_tokens
    ('llama-3.1-8b', 1, 'fitted', 467296)
    """
    return parse(name, read("serving", name))


def parse(name: str, found: Mapping[str, Any]) -> ServingPreset:
    """Return what a preset's file says, once it has passed `check`.

    Parameters
    ----------
    name
        What messages call it.
    found
        The file's content; see ``glowsim/presets/serving/*.yaml``.

    Raises
    ------
    PresetError
        A key is missing, an origin is none of the four, or the numbers cannot be: says which, and why.
    """
    place = Place(f"serving preset {name!r}", found)
    model, accelerator = _model(place.text("model")), _accelerator(place.text("accelerator"))
    tensor_parallel = place.whole("tensor_parallel")
    coefficients, valid = place.part("coefficients_us"), place.part("valid")
    preset = ServingPreset(
        name, model, accelerator, tensor_parallel,
        Coefficients(
            coefficients.number("b0") * _US,
            coefficients.number("b1") * _US,
            coefficients.number("b2") * _US,
            coefficients.number("b3") * _US,
            prefill_attention_s(model, accelerator, tensor_parallel),
        ),
        place.text("engine"), place.origin(), place.text("source"),
        valid.whole("batch"), valid.whole("context"), valid.attribution(),
        {source: b0_us * _US for source, b0_us in place.table("spread_b0_us").items()},
        place.texts("remarks"),
    )  # fmt: skip
    wrong = check(preset)
    if wrong:
        raise PresetError(f"serving preset {name!r} is not possible: {'; '.join(wrong)}")
    return preset


def check(preset: ServingPreset) -> list[str]:
    """Return what about a preset cannot be, each a sentence with its arithmetic; nothing if it may be true.

    b1 >= 2 * active parameters / (TP * peak), b0 >= active weight bytes / (TP * bandwidth), nothing is below
    zero, and the weights fit into the memory.
    """
    model, accelerator, together = preset.model, preset.accelerator, preset.tensor_parallel
    b = preset.coefficients
    least_b1_s = _OPERATIONS * model.active_parameters / (together * accelerator.peak_flops)
    least_b0_s = model.active_weight_bytes / (together * accelerator.bandwidth_bytes_per_s)
    wrong = [
        f"{name} is {value:g}, below zero"
        for name, value in (("b2_s", b.b2_s), ("b3_s", b.b3_s), ("b4_s", b.b4_s))
        if not value >= 0.0
    ]
    if not b.b1_s >= least_b1_s:
        wrong.append(
            f"b1 is {b.b1_s / _US:.4g} us for a prompt token, but 2 x {model.active_parameters:.4g} active parameters"
            f" / ({together} x {accelerator.peak_flops:.4g} FLOP/s) takes {least_b1_s / _US:.4g} us"
        )
    if not b.b0_s >= least_b0_s:
        wrong.append(
            f"b0 is {b.b0_s / _US:.6g} us for a step, but reading {model.active_weight_bytes:.4g} bytes of weights"
            f" / ({together} x {accelerator.bandwidth_bytes_per_s:.4g} B/s) takes {least_b0_s / _US:.6g} us"
        )
    if preset.kv_tokens < 1:
        wrong.append(
            f"{model.weight_bytes:.4g} bytes of weights do not fit into {accelerator.memory_share:g} of"
            f" {together} x {accelerator.memory_bytes:.4g} bytes"
        )
    return wrong


def outside(preset: ServingPreset, batch: float, context: float) -> list[str]:
    """Return a warning for each way in which a run leaves what the preset is valid for.

    Parameters
    ----------
    preset
        What the run was made with.
    batch
        The most sequences that ran at once.
    context
        Tokens of the longest sequence, its answer included.

    >>> outside(serving("llama-3.3-70b-h100-tp4-vllm-0.8.4"), 20, 100_000)[0][:60]
    "a sequence of 100000 tokens: 'llama-3.3-70b-h100-tp4-vllm-0."
    """
    found = []
    if batch > preset.valid_batch:
        found.append(
            f"{batch:g} sequences ran at once: {preset.name!r} holds up to {preset.valid_batch} ({preset.valid_source})"
        )
    if context > preset.valid_context:
        found.append(
            f"a sequence of {context:g} tokens: {preset.name!r} holds up to {preset.valid_context}"
            f" ({preset.valid_source})"
        )
    return found


def derive(model: str, accelerator: str, tensor_parallel: int, law: str = "trained-physics") -> Coefficients:
    """Return the coefficients of any model on any accelerator by a law of physics with fitted factors.

    b0 = weights * weight_bytes / (TP * bandwidth) + layer * layers + step, b2 = sequence,
    b3 = kv * kv_bytes_per_token / (TP * bandwidth), b1 = 2 * active_parameters / (TP * peak * MFU).

    Parameters
    ----------
    model, accelerator
        Files of ``glowsim/presets/serving/models`` and ``accelerators``.
    tensor_parallel
        Accelerators that share the model, at least 1; what they say to each other takes no time here.
    law
        File of ``glowsim/presets/serving/laws``.

    Raises
    ------
    PresetError
        There is no such file.

    >>> round(derive("llama-3.1-8b", "h100", 1).b0_s * 1e6)
    7685
    """
    place = Place(f"law {law!r}", read("serving/laws", law))
    of, on = _model(model), _accelerator(accelerator)
    bytes_per_s = tensor_parallel * on.bandwidth_bytes_per_s
    flops = tensor_parallel * on.peak_flops * on.mfu
    fixed_us = place.number("layer_us") * of.layers + place.number("step_us")
    return Coefficients(
        b0_s=place.number("weights") * of.weight_bytes / bytes_per_s + fixed_us * _US,
        b1_s=_OPERATIONS * of.active_parameters / flops,
        b2_s=place.number("sequence_us") * _US,
        b3_s=place.number("kv") * of.kv_bytes_per_token / bytes_per_s,
        b4_s=prefill_attention_s(of, on, tensor_parallel),
    )


def prefill_attention_s(model: Model, accelerator: Accelerator, tensor_parallel: int) -> float:
    """Return b4, seconds for a prompt token and token before it: 4 layers heads head_dim / (TP peak MFU)."""
    flops = tensor_parallel * accelerator.peak_flops * accelerator.mfu
    return 4.0 * model.layers * model.heads * model.head_dim / flops


def _model(name: str) -> Model:
    place = Place(f"model {name!r}", read("serving/models", name))
    return Model(
        name,
        place.whole("parameters"),
        place.whole("active_parameters"),
        place.whole("layers"),
        place.whole("heads"),
        place.whole("head_dim"),
        place.whole("weight_bytes"),
        place.whole("active_weight_bytes"),
        place.whole("kv_bytes_per_token"),
        place.whole("longest_context"),
        place.attribution(),
    )


def _accelerator(name: str) -> Accelerator:
    place = Place(f"accelerator {name!r}", read("serving/accelerators", name))
    mfu, hour, limits = place.part("mfu"), place.part("hour_usd"), place.part("limits")
    return Accelerator(
        name, place.number("peak_flops"), place.number("bandwidth_bytes_per_s"), place.whole("memory_bytes"),
        mfu.number("value"), hour.number("value"),
        limits.whole("max_num_batched_tokens"), limits.whole("max_num_seqs"), limits.number("memory_share"),
        tuple(part.attribution() for part in (place, mfu, hour, limits)),
    )  # fmt: skip
