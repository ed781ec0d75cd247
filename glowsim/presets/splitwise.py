"""How far predicted step times are from Splitwise's measured ones.

Splitwise measured Llama 2 70B and BLOOM 176B with static batches on the stack of 2023: for a batch of B
prompts of p tokens, the time of the prefill and the mean time of an output token. In the terms of
`glowsim.presets.serving`, a prefill is one step with P = B p and A = B p^2 / 2, and an output token of T one
with n = B and, on the mean, K = B (p + T / 2).

Two predictions are judged: by physics, which has seen none of these times, and by non-negative least squares
of relative errors on all work but the one that is predicted: every run that did the same work is held out
with it, so that no repeat of it helps.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from math import fsum
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.presets import PresetError
from glowsim.presets.serving import Coefficients, derive

__all__ = ["Configuration", "Error", "LeftOut", "coefficients", "compare", "fit", "measured"]

HARDWARE: Final = {"a100-80gb": "a100", "h100-80gb": "h100"}
"""Theirs -> ours. Their power-capped H100 is the other one's prefill times 1.3, hence no measurement."""
MODELS: Final = {"llama2-70b": "llama-2-70b", "bloom-176b": "bloom-176b"}
_COLUMNS: Final = (
    "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time",
)  # fmt: skip
_QUICKER: Final = 0.9
"""A batch twice as large that prefills in less than this share of the time of the smaller is not believed."""

Array = npt.NDArray[np.float64]


class Configuration(NamedTuple):
    """The runs of one model, accelerator, batch and lengths."""

    model: str
    accelerator: str
    tensor_parallel: int
    batch: int
    prompt: int
    output: int
    prefill_s: float
    """Median of the runs."""
    decode_s: float
    """Of an output token, median of the runs."""
    prefill_spread: float
    """(longest - shortest) / median of the runs."""
    decode_spread: float

    def terms(self, phase: str) -> tuple[float, ...]:
        """Return what the coefficients of a phase are multiplied with: (1, P, A) or (1, n, K)."""
        if phase == "prefill":
            return 1.0, float(self.batch * self.prompt), self.batch * self.prompt**2 / 2.0
        return 1.0, float(self.batch), self.batch * (self.prompt + self.output / 2.0)

    def time_s(self, phase: str) -> float:
        """Return what was measured of a phase."""
        return self.prefill_s if phase == "prefill" else self.decode_s


class LeftOut(NamedTuple):
    """Runs that cannot be what the file says."""

    configuration: Configuration
    why: str


class Error(NamedTuple):
    """How far a prediction is from the measured times of one model, accelerator, number of them, and phase.

    Errors are shares of the measured time, predicted minus measured.
    """

    model: str
    accelerator: str
    tensor_parallel: int
    phase: str
    """``prefill`` or ``decode``."""
    law: str
    """``physics`` or ``fitted``, which never saw the work it predicts."""
    configurations: int
    mean: float
    mean_absolute: float
    worst: float
    """The one that is largest in size, with its sign."""
    spread: float
    """Median over the configurations of (longest - shortest) / median of repeated runs."""


def measured(path: Path) -> tuple[list[Configuration], list[LeftOut]]:
    """Return the configurations of ``perf_model.csv``, and those that are not believed.

    Raises
    ------
    PresetError
        The file does not have the columns, or a row of them is not numbers: says which line.
    """
    runs: dict[tuple[str, str, int, int, int, int], list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise PresetError(f"{path}: no column {', '.join(missing)}: give Splitwise's perf_model.csv")
        for row in rows:
            if row["hardware"] not in HARDWARE:
                continue
            try:
                numbers = [
                    int(row[name]) for name in ("tensor_parallel", "batch_size", "prompt_size", "token_size")
                ]
                times_s = (float(row["prompt_time"]) / 1e3, float(row["token_time"]) / 1e3)
                model = MODELS[row["model"]]
            except (KeyError, ValueError) as error:
                raise PresetError(f"{path}, line {rows.line_num}: {error}") from error
            runs.setdefault((model, HARDWARE[row["hardware"]], *numbers), []).append(times_s)  # type: ignore[arg-type]
    found = [_configuration(key, times) for key, times in sorted(runs.items())]
    left_out = list(_unbelievable(found))
    gone = {each.configuration for each in left_out}
    return [each for each in found if each not in gone], left_out


def _configuration(
    key: tuple[str, str, int, int, int, int], runs: list[tuple[float, float]]
) -> Configuration:
    prefills, decodes = zip(*runs, strict=True)
    prefill_s, decode_s = median(prefills), median(decodes)
    return Configuration(
        *key,
        prefill_s,
        decode_s,
        (max(prefills) - min(prefills)) / prefill_s,
        (max(decodes) - min(decodes)) / decode_s,
    )


def _unbelievable(found: list[Configuration]) -> Iterator[LeftOut]:
    slowest: dict[tuple[str, str, int, int, int], Configuration] = {}
    for each in found:
        key = (each.model, each.accelerator, each.tensor_parallel, each.prompt, each.output)
        smaller = slowest.get(key)
        if smaller is not None and each.prefill_s < _QUICKER * smaller.prefill_s:
            yield LeftOut(
                each,
                f"batch {each.batch} prefills in {each.prefill_s:.3f} s, batch {smaller.batch} in"
                f" {smaller.prefill_s:.3f} s",
            )
        else:
            slowest[key] = each


def fit(configurations: Iterable[Configuration], phase: str) -> tuple[float, float, float]:
    """Return the three coefficients of a phase, in seconds, that minimise the squared relative errors; none below 0.

    Parameters
    ----------
    configurations
        At least one.
    phase
        ``prefill``: (b0, b1, b4) of dt = b0 + b1 P + b4 A. ``decode``: (b0, b2, b3) of dt = b0 + b2 n + b3 K.
    """
    from scipy.optimize import nnls

    rows: list[tuple[float, ...]] = []
    for each in configurations:
        time_s = each.time_s(phase)
        rows.append(tuple(term / time_s for term in each.terms(phase)))
    terms = np.array(rows)
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale, np.ones(len(terms)))
    b0, b1, b2 = (found / scale).tolist()
    return b0, b1, b2


def coefficients(configurations: Iterable[Configuration], b4_s: float) -> Coefficients:
    """Return the coefficients of a preset: those of decoding by `fit`, and the b1 that suits the prefills best.

    b1 minimises the squared relative errors of b0 + b1 P + b4 A, with b0 that of decoding and b4 as given.
    """
    group = list(configurations)
    b0_s, b2_s, b3_s = fit(group, "decode")
    above, below = [], []
    for each in group:
        _, tokens, attention = each.terms("prefill")
        share = tokens / each.prefill_s
        above.append(share * (1.0 - (b0_s + b4_s * attention) / each.prefill_s))
        below.append(share**2)
    return Coefficients(b0_s, fsum(above) / fsum(below), b2_s, b3_s, b4_s)


def compare(path: Path) -> list[Error]:
    """Return the errors of both laws, by model, accelerator, number of them and phase.

    >>> from pathlib import Path
    >>> compare(Path("nowhere.csv"))
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.csv'
    """
    configurations, _ = measured(path)
    groups: dict[tuple[str, str, int], list[Configuration]] = {}
    for each in configurations:
        groups.setdefault((each.model, each.accelerator, each.tensor_parallel), []).append(each)
    table = []
    for (model, accelerator, together), group in sorted(groups.items()):
        physics = derive(model, accelerator, together)
        for phase in ("prefill", "decode"):
            by_physics = [_time_s(_of(physics, phase), each, phase) for each in group]
            by_fit = [_time_s(fit(_others(group, each, phase), phase), each, phase) for each in group]
            for law, predicted in (("physics", by_physics), ("fitted", by_fit)):
                table.append(
                    Error(model, accelerator, together, phase, law, *_summary(group, phase, predicted))
                )
    return table


def _summary(
    group: list[Configuration], phase: str, predicted: list[float]
) -> tuple[int, float, float, float, float]:
    errors = [p / each.time_s(phase) - 1.0 for p, each in zip(predicted, group, strict=True)]
    spread = median(each.prefill_spread if phase == "prefill" else each.decode_spread for each in group)
    n = len(group)
    return n, fsum(errors) / n, fsum(map(abs, errors)) / n, max(errors, key=abs), spread


def _of(coefficients: Coefficients, phase: str) -> tuple[float, float, float]:
    b = coefficients
    return (b.b0_s, b.b1_s, b.b4_s) if phase == "prefill" else (b.b0_s, b.b2_s, b.b3_s)


def _others(group: list[Configuration], one: Configuration, phase: str) -> list[Configuration]:
    return [each for each in group if each.terms(phase) != one.terms(phase)]


def _time_s(coefficients: tuple[float, ...], each: Configuration, phase: str) -> float:
    return fsum(b * term for b, term in zip(coefficients, each.terms(phase), strict=True))
