"""Requests and their truths, drawn ahead in columns: the n-th row is a function of (seed, workload, n)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams, key_of, mix_all
from glowsim.core.types import Request
from glowsim.sim.laws import Law
from glowsim.sim.service import Service, Truth

__all__ = ["AgentTraits", "Cacheable", "Columns", "Shape"]

_new = tuple.__new__


class AgentTraits(NamedTuple):
    """What a workload must know of an agent to draw the truths of its requests."""

    service: Service
    region: int
    lucky: bool
    """Whether any of its attempts can fail by chance."""


@dataclass(frozen=True)
class Cacheable:
    """A share of requests repeats one of ``keys`` prompts, the popular ones more often (Zipf)."""

    share: float
    keys: int
    zipf: float


@dataclass(frozen=True)
class Shape:
    """What the requests of a workload look like."""

    agents: tuple[int, ...]
    weights: tuple[float, ...]
    tokens_in: Law
    tokens_out: Law
    max_tokens_out: int
    priority: int = 1
    stream: bool = False
    deadline_s: float = inf
    """From arrival."""
    users: int | None = None
    """How many different ones send requests; None: each request is somebody else's."""
    tenants: int = 1
    cacheable: Cacheable | None = None
    kinds: tuple[float, ...] = ()
    """Weights of the kinds of task, by number; none: all are of the first."""
    users_from: tuple[float, ...] = ()
    """Shares of the users in each region, by number; none: they are where their agent is."""


class Columns:
    """Draws blocks of rows for one workload.

    Parameters
    ----------
    name
        Of the workload: names its streams.
    shape
        What requests look like.
    traits
        Of every agent, by number.
    streams
        Of this replication.
    """

    def __init__(self, name: str, shape: Shape, traits: Sequence[AgentTraits], streams: Streams) -> None:
        self._name = name
        self._shape = shape
        self._traits = traits
        self._streams = streams
        self._made: dict[str, np.random.Generator] = {}
        self._agents = np.array(shape.agents)
        self._homes = np.array([trait.region for trait in traits])
        self._share = np.cumsum(shape.weights) / np.sum(shape.weights)
        self._user_root = key_of("user", name)
        self._cache_root = key_of("prompt", name)
        if shape.users_from:
            self._region_root = streams.generator("workload", name, "region").integers(2**64, dtype=np.uint64)
        self._prompts: tuple[npt.NDArray[np.float64], Tokens, Tokens] | None = None
        if shape.cacheable is not None:
            ranks = np.arange(1, shape.cacheable.keys + 1, dtype=float) ** -shape.cacheable.zipf
            self._prompts = (
                np.cumsum(ranks) / ranks.sum(),
                self._tokens(shape.tokens_in, "prompt tokens in", shape.cacheable.keys),
                self._tokens(shape.tokens_out, "prompt tokens out", shape.cacheable.keys),
            )

    def _uniform(self, column: str, n: int) -> npt.NDArray[np.float64]:
        if column not in self._made:
            self._made[column] = self._streams.generator("workload", self._name, column)
        return self._made[column].random(n)

    def _tokens(self, law: Law, column: str, n: int) -> Tokens:
        u = self._uniform(column, n) if law.random else np.zeros(n)
        return np.maximum(np.rint(law.ppf(u)), 0).astype(np.int64)

    def whose(self, n: int) -> Ints:
        """Return the agents of the next rows."""
        if len(self._agents) == 1:
            return np.full(n, self._agents[0])
        return self._agents[np.searchsorted(self._share, self._uniform("agent", n), side="right")]

    def rows(
        self,
        ids: Sequence[int],
        arrivals_s: Sequence[float],
        tokens: tuple[Tokens, Tokens] | None = None,
        users: Sequence[int] | None = None,
        agents: Ints | None = None,
    ) -> tuple[list[Request], list[Truth]]:
        """Return the next rows.

        Parameters
        ----------
        ids
            Request numbers, one a row.
        arrivals_s
            When they arrive; only deadlines need it.
        tokens
            (in, out) where a trace says so.
        users
            Index of each row's user, where the workload has users of its own.
        agents
            Each row's agent, where that is known.
        """
        n, shape = len(ids), self._shape
        if agents is None:
            agents = self.whose(n)
        if tokens is None:
            tokens_in = self._tokens(shape.tokens_in, "tokens in", n)
            tokens_out = self._tokens(shape.tokens_out, "tokens out", n)
        else:
            tokens_in, tokens_out = tokens
        cache_keys = [0] * n
        if shape.cacheable is not None and self._prompts is not None:
            popularity, prompt_in, prompt_out = self._prompts
            repeats = np.flatnonzero(self._uniform("repeats", n) < shape.cacheable.share)
            which = np.searchsorted(popularity, self._uniform("prompt", n)[repeats], side="right")
            tokens_in, tokens_out = tokens_in.copy(), tokens_out.copy()
            tokens_in[repeats], tokens_out[repeats] = prompt_in[which], prompt_out[which]
            hashed = np.zeros(n, dtype=np.uint64)
            hashed[repeats] = mix_all(which.astype(np.uint64) ^ np.uint64(self._cache_root))
            cache_keys = hashed.tolist()
        if users is not None:
            who = np.asarray(users, dtype=np.uint64)
        elif shape.users is None:
            who = np.asarray(ids, dtype=np.uint64)
        else:
            who = (self._uniform("user", n) * shape.users).astype(np.uint64)
        keys = mix_all(who ^ np.uint64(self._user_root)).tolist()
        tenants = [1] * n if shape.tenants == 1 else (who % np.uint64(shape.tenants) + np.uint64(1)).tolist()
        present = np.flatnonzero(np.bincount(agents)).tolist()
        used = self._traits if len(present) > 1 else [self._traits[agent] for agent in present]
        draws = self._uniform("weight", n) if any(trait.service.law.random for trait in used) else np.zeros(n)
        first = self._traits[present[0]].service.law
        if all(self._traits[agent].service.law == first for agent in present):
            weight = first.ppf(draws)
        else:
            weight = np.empty(n)
            for agent in present:
                mine = agents == agent
                weight[mine] = self._traits[agent].service.law.ppf(draws[mine])
        kinds = [0] * n
        if len(shape.kinds) > 1:
            bounds = np.cumsum(shape.kinds) / np.sum(shape.kinds)
            kinds = np.searchsorted(bounds, self._uniform("kind", n), side="right").tolist()
        lucky = any(trait.lucky for trait in used)
        invalid = self._uniform("invalid", n).tolist() if lucky else [1.0] * n
        error = self._uniform("error", n).tolist() if lucky else [1.0] * n
        deadline = [t_s + shape.deadline_s for t_s in arrivals_s] if shape.deadline_s < inf else [inf] * n
        agent_list = agents.tolist()
        requests = list(
            map(
                _new,
                repeat(Request),
                zip(
                    ids, agent_list, tokens_in.tolist(), [shape.max_tokens_out] * n, [shape.priority] * n, kinds,
                    self._regions(who, agents), [shape.stream] * n, deadline, keys, keys,
                    tenants, cache_keys, [0] * n, [0] * n,
                    strict=True,
                ),
            )
        )  # fmt: skip
        truths = list(
            map(
                _new,
                repeat(Truth),
                zip(weight.tolist(), tokens_out.tolist(), invalid, error, [0] * n, strict=True),
            )
        )
        return requests, truths

    def _regions(self, who: npt.NDArray[np.uint64], agents: Ints) -> list[int]:
        """Return where each row's user is: always the same user in the same region."""
        if not self._shape.users_from:
            homes: list[int] = self._homes[agents].tolist()
            return homes
        upto = np.cumsum(self._shape.users_from)
        luck = (mix_all(mix_all(who) ^ self._region_root) >> np.uint64(11)) * 2.0**-53
        found: list[int] = np.searchsorted(upto / upto[-1], luck, side="right").tolist()
        return found


Tokens = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int64]
