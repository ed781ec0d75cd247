"""``glowsim oc POLICY --drift``: how often drift detectors lie, and how late they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glowsim.core.errors import GlowsimError

if TYPE_CHECKING:
    from glowsim.oc.drift.saying import Found

__all__ = ["drift"]


def drift(
    policy: str, *, regime: str, run_length: float, shifts: Sequence[float], per_day: float, swing: float,
    streams: int, seed: int, allow_plugins: bool = False,
) -> Found:  # fmt: skip
    """Return what was found of detectors at the thresholds that keep a run length.

    Parameters
    ----------
    policy
        ``all``, a detector's name, or a YAML file.
    regime
        As ``read_regime`` reads it.
    run_length
        The budget: values between false alarms, 100 to 10 million.
    shifts
        Changes to be told: of a rate in points, else relative to the mean; at least one.
    per_day
        Values in a day, at least 4.
    swing
        How far the mean moves in a day, at the weekend, and between kinds of task, 0..1; 0: those regimes
        are left out.
    streams
        In each regime, at least 20.
    seed
        Equal seeds give equal figures.
    allow_plugins
        Whether a scenario's controllers may be code beside it.

    Raises
    ------
    GlowsimError
        Bad input, with the remedy.
    """
    from glowsim.oc.drift.calibrate import calibrate, dummy
    from glowsim.oc.drift.policy import read_detectors
    from glowsim.oc.drift.regimes import daily, mixed, read_regime, weekly
    from glowsim.oc.drift.saying import Found

    if not 100.0 <= run_length <= 1e7:
        raise GlowsimError(f"--run-length {run_length:g}: give 100 to 10,000,000 values")
    if not shifts or not all(np.isfinite(shifts)) or not all(shifts):
        raise GlowsimError("--shift: give at least one change, and none of 0")
    if per_day < 4.0:
        raise GlowsimError(
            f"--rate: {per_day:g} values a day have no rhythm; pool more agents, or give 4 or more"
        )
    of = read_regime(regime)
    sample = of.values(np.random.default_rng((seed, 0)), 1, 0, 20_000)
    binary = bool(np.isin(sample, (0.0, 1.0)).all())
    deviation = float(sample.std())
    if deviation == 0.0:
        raise GlowsimError(f"--regime {regime}: it never varies, so any other value is a change")
    smallest = min(map(abs, shifts)) * (1.0 if binary else abs(float(sample.mean())))
    watched = read_detectors(
        policy, "error" if binary else "value", smallest, deviation, allow_plugins=allow_plugins
    )
    regimes = [of]
    if swing > 0.0:
        regimes += [make(of, per_day, swing) for make in (daily, weekly, mixed)]
    found = [calibrate(each, regimes, run_length, shifts, streams, seed) for each in watched]
    chance = dummy(run_length, shifts, streams)
    return Found(tuple(found), chance, tuple(regimes), run_length, streams, seed)
