"""From a workload preset to what the simulator draws requests from; and its moments alone, for fitting."""

from __future__ import annotations

from itertools import count

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams
from glowsim.presets.workloads import WorkloadPreset
from glowsim.sim.laws import Quantiles
from glowsim.sim.workload.clients import Clients, Sizes
from glowsim.sim.workload.renewal import Flow, Sender, superposed

__all__ = ["clients", "flow", "parts", "play", "sizes"]


def flow(preset: WorkloadPreset) -> Flow:
    """Return how a preset's requests arrive: as one flow, or one of each client that sends independently."""
    if preset.cv is not None and preset.level is not None:
        senders = [Sender(preset.rate_per_s, preset.cv, preset.level)]
    else:
        senders = [
            Sender(preset.rate_per_s * client.share, client.cv, client.level)
            for client in preset.clients
            if client.cv is not None and client.level is not None
        ]
    return Flow(preset.window_s, preset.p, preset.memory, tuple(senders))


def sizes(preset: WorkloadPreset) -> Sizes:
    """Return the tokens of a preset's requests."""
    lengths = preset.lengths
    return Sizes(
        Quantiles(lengths.p, lengths.tokens_in), Quantiles(lengths.p, lengths.tokens_out), lengths.spearman
    )


def clients(preset: WorkloadPreset) -> Clients | None:
    """Return who sends a preset's requests; None: nobody in particular."""
    if not preset.clients or preset.lengths.client_p is None:
        return None
    return Clients(
        tuple(client.share for client in preset.clients),
        preset.lengths.client_p,
        tuple(client.tokens_in for client in preset.clients),
        tuple(client.tokens_out for client in preset.clients),
    )


def parts(preset: WorkloadPreset) -> tuple[Flow, Sizes, Clients | None]:
    """Return all three: what `ClientColumns` draws from."""
    return flow(preset), sizes(preset), clients(preset)


def play(preset: WorkloadPreset, seed: int, until_s: float) -> npt.NDArray[np.float64]:
    """Return the moments of arrival of one run of a preset.

    >>> from glowsim.presets import workloads
    >>> moments = play(workloads.load("azure_conv"), 1, 600.0)
    >>> 600 < len(moments) < 6000
    True
    """
    streams = Streams(seed)
    generators = (streams.generator("workload", "play", "arrivals", i) for i in count())
    return np.concatenate(
        [block for block, _ in superposed(flow(preset), generators, until_s)] or [np.empty(0)]
    )
