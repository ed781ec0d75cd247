"""Requests of a workload preset: who sends each, and how many tokens it has, alike in law to a recorded log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import pi, sin, sqrt

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams
from glowsim.core.types import Request
from glowsim.sim.laws import Quantiles
from glowsim.sim.service import Truth
from glowsim.sim.workload.columns import AgentTraits, Columns, Shape, Tokens
from glowsim.sim.workload.renewal import Flow, superposed
from glowsim.sim.workload.sources import TraceBlocks

__all__ = ["ClientColumns", "Clients", "Sizes", "joint_tokens"]

_FAR = 4.0
"""Where the least and the largest of a client's scores stand: one in 30,000 is farther."""

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """Tokens in and out: stored quantiles, joined by a Gaussian copula of a given rank correlation."""

    tokens_in: Quantiles
    tokens_out: Quantiles
    spearman: float


@dataclass(frozen=True)
class Clients:
    """Those who share a workload, each with lengths of its own; one tenant each."""

    shares: tuple[float, ...]
    """Of the requests; used where all arrive as one flow."""
    p: tuple[float, ...]
    scores_in: tuple[tuple[float, ...], ...]
    """Each one's own law of tokens in: quantiles at ``p`` of the normal scores in everybody's law."""
    scores_out: tuple[tuple[float, ...], ...]


def joint_tokens(
    sizes: Sizes, clients: Clients | None, who: Index, generator: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """Return tokens in and out of requests, one a row.

    A pair of normal scores with correlation ``2 sin(pi spearman / 6)`` is drawn, moved to the client's own law of
    scores, and looked up in the stored quantiles.

    Parameters
    ----------
    sizes
        The laws of all requests.
    clients
        Who shares them; None: each request has everybody's law.
    who
        The client of each row.
    generator
        Draws the scores.

    >>> sizes = Sizes(Quantiles((0.0, 1.0), (10.0, 10.0)), Quantiles((0.0, 1.0), (3.0, 3.0)), 0.5)
    >>> joint_tokens(sizes, None, np.zeros(1, dtype=np.int64), np.random.default_rng(1))
    (array([10]), array([3]))

    Source: Kruskal, "Ordinal measures of association", JASA 53, 1958 (the correlation of ranks).
    """
    from scipy.special import ndtr, ndtri

    correlation = 2.0 * sin(pi * sizes.spearman / 6.0)
    first, second = generator.standard_normal((len(who), 2)).T
    second = correlation * first + sqrt(1.0 - correlation**2) * second
    if clients is not None:
        places = np.clip(ndtri(clients.p), -_FAR, _FAR)
        first = _of_each(places, np.array(clients.scores_in), who, first)
        second = _of_each(places, np.array(clients.scores_out), who, second)
    return _whole(sizes.tokens_in.ppf(ndtr(first))), _whole(sizes.tokens_out.ppf(ndtr(second)))


def _of_each(places: Array, values: Array, who: Index, scores: Array) -> Array:
    """Return what each score stands for under the law of its own row of values, straight between the places."""
    scores = np.clip(scores, places[0], places[-1])
    before = np.clip(np.searchsorted(places, scores, side="right") - 1, 0, len(places) - 2)
    part = (scores - places[before]) / (places[before + 1] - places[before])
    found: Array = (1.0 - part) * values[who, before] + part * values[who, before + 1]
    return found


def _whole(values: Array) -> Tokens:
    return np.rint(values).astype(np.int64)


class ClientColumns(Columns):
    """Draws the rows of a workload preset, and the moments that they belong to.

    The n-th arrival's client and tokens are a function of (seed, workload, n). `blocks` and `rows` go together: a
    block's rows are drawn before the next block is asked for.

    Parameters
    ----------
    name, shape, traits, streams
        As of `Columns`.
    flow
        How requests arrive; with several senders, sender i is client i.
    sizes
        Their tokens.
    clients
        Who shares them; None: nobody in particular, the shape says.
    """

    def __init__(
        self,
        name: str,
        shape: Shape,
        traits: Sequence[AgentTraits],
        streams: Streams,
        flow: Flow,
        sizes: Sizes,
        clients: Clients | None,
    ) -> None:
        super().__init__(name, shape, traits, streams)
        self._flow, self._sizes, self._clients = flow, sizes, clients
        self._who: Index | None = None
        self._moments = (streams.generator("workload", name, "arrivals", i) for i in count())
        self._lengths = streams.generator("workload", name, "lengths")

    def blocks(self, until_s: float) -> TraceBlocks:
        """Yield blocks of (moments, tokens in, tokens out) until a time."""
        for moments, sender in superposed(self._flow, self._moments, until_s):
            who = self._chosen(sender)
            tokens = joint_tokens(self._sizes, self._clients, who, self._lengths)
            self._who = who if self._clients else None
            yield moments, *tokens

    def _chosen(self, sender: Index) -> Index:
        if self._clients is None or len(self._flow.senders) > 1:
            return sender
        upto = np.cumsum(self._clients.shares)
        found: Index = np.searchsorted(upto / upto[-1], self._uniform("client", len(sender)), side="right")
        return found

    def rows(
        self,
        ids: Sequence[int],
        arrivals_s: Sequence[float],
        tokens: tuple[Tokens, Tokens] | None = None,
        users: Sequence[int] | None = None,
        agents: Tokens | None = None,
    ) -> tuple[list[Request], list[Truth]]:
        """Return the rows of the block handed out last, or the next of them."""
        if self._who is not None:
            users = self._who[: len(ids)].tolist()
            self._who = self._who[len(ids) :]
        return super().rows(ids, arrivals_s, tokens, users, agents)
