"""How long a one-sided CUSUM chart runs until its alarm, on normal values of variance 1."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["cusum_run_length", "siegmund_run_length"]

_NODES = 96


def cusum_run_length(threshold: float, allowance: float, shift: float) -> float:
    """Give the mean number of values until S > ``threshold``, with S = max(0, S + x - ``allowance``) from 0.

    x is normal with mean ``shift`` and variance 1, all in standard deviations. The mean run length from
    S = u solves L(u) = 1 + L(0) Phi(k - u - shift) + integral over 0..h of L(v) phi(v - u + k - shift) dv,
    here by Gauss and Legendre's rule: exact to six digits.

    Raises ``ValueError`` unless 0 < ``threshold`` <= 10 and ``allowance`` >= 0.

    >>> [f"{cusum_run_length(5.0, 0.5, shift):.2f}" for shift in (0.0, 1.0)]
    ['930.89', '10.38']

    Source: Page (1954), Biometrika 41; the integral equation: Lucas, Crosier (1982), Technometrics 24.
    """
    from scipy.special import ndtr

    if not (0.0 < threshold <= 10.0 and allowance >= 0.0):
        raise ValueError(
            "cusum_run_length: give a threshold above 0 and up to 10, and an allowance from 0 up"
        )
    at, weights = np.polynomial.legendre.leggauss(_NODES)
    v = np.concatenate([[0.0], (at + 1.0) * threshold / 2.0])
    drift = allowance - shift
    steps = v[None, :] - v[:, None] + drift
    kernel = np.exp(-0.5 * steps**2) / math.sqrt(2.0 * math.pi)
    kernel[:, 1:] *= weights * threshold / 2.0
    kernel[:, 0] = ndtr(drift - v)
    return float(np.linalg.solve(np.eye(len(v)) - kernel, np.ones(len(v)))[0])


def siegmund_run_length(threshold: float, allowance: float, shift: float) -> float:
    """Approximate ``cusum_run_length`` in closed form.

    With D = shift - allowance, not 0, and b = threshold + 1.166: (exp(-2 D b) + 2 D b - 1) / (2 D^2).

    Raises ``ValueError`` for a threshold not above 0, or a shift equal to the allowance.

    >>> [f"{siegmund_run_length(5.0, 0.5, shift):.2f}" for shift in (0.0, 1.0)]
    ['938.22', '10.34']

    Source: Siegmund, Sequential Analysis (1985).
    """
    drift = shift - allowance
    if not threshold > 0.0 or drift == 0.0:
        raise ValueError("siegmund_run_length: give a threshold above 0 and a shift unlike the allowance")
    reach = threshold + 1.166
    return (math.exp(-2.0 * drift * reach) + 2.0 * drift * reach - 1.0) / (2.0 * drift**2)
