"""A hosted API: what its callers see of it, latencies, limits of rate, errors, a prompt cache, and outages.

The time of a call does not depend on how many others there are: that is an assumption of the model, to be
checked against a provider's own figures; what couples its callers are the limits. Who wins and who loses
follows from (key, number of the call) alone, so two policies that make the same call get the same answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import WorldError
from glowsim.core.streams import mix
from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.laws import Law, at
from glowsim.sim.serving.call import Call, Told
from glowsim.sim.serving.outages import Timetable

__all__ = ["HostedApi", "HostedSpec", "PromptCache"]

Prefixes = Sequence[tuple[tuple[int, ...], int]]
"""What they are, and their tokens."""
Array = npt.NDArray[np.float64]
_FIRST_TOKEN, _PER_TOKEN, _ERROR, _OUTAGE = map(mix, range(4))
"""What a number is drawn for: a function of the call's number, never of the order in which calls come."""
_OK: Final = Outcome.OK
_TO_UNIT: Final = 2.0**-53
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class PromptCache:
    """A provider's cache of prompts, by what it bills.

    A prompt that begins like one answered within ``ttl_s`` is billed as cached for the common tokens, down to a
    whole number of steps beyond the least: 0 below ``least_tokens``, else
    least_tokens + floor((common - least_tokens) / step_tokens) * step_tokens. Every use begins the time anew.

    Parameters
    ----------
    ttl_s
        Seconds for which a prefix is kept after its last use, above 0.
    least_tokens
        Common tokens from which anything is cached, at least 1.
    step_tokens
        Tokens of a step beyond that, at least 1.
    block_tokens
        Tokens of a block, for calls that name their blocks; at least 1.

    >>> PromptCache(300.0, 1024, 128).billed(1300)
    1280
    """

    ttl_s: float
    least_tokens: int
    step_tokens: int
    block_tokens: int = 16

    def __post_init__(self) -> None:
        if not self.ttl_s > 0.0 or min(self.least_tokens, self.step_tokens, self.block_tokens) < 1:
            raise WorldError(f"{self} cannot be: give a time above 0 and at least 1 token of each")

    def billed(self, common: int) -> int:
        """Return how many tokens are billed as cached when so many are common."""
        if common < self.least_tokens:
            return 0
        return common - (common - self.least_tokens) % self.step_tokens


@dataclass(frozen=True)
class HostedSpec:
    """What a hosted API does to its callers, all of them together.

    Parameters
    ----------
    first_token
        Law of the seconds to the first token.
    per_token
        Law of the seconds for each further token of a call.
    error
        Share of the calls that fail, at the moment at which the first token would have come.
    requests_per_min, tokens_per_min
        Limits; None: there is none. What is not used fills a bucket, which never holds more than ``burst_s``
        allows.
    burst_s
        Seconds' worth of the limits that a bucket holds, and with which it starts; above 0.
    reserved_out
        Tokens of an answer that a call takes from the bucket of tokens when it is let in, beside its prompt;
        when it ends the difference to what it used is settled. 0: an answer is paid for afterwards.
    counts_cached
        Whether tokens that are billed as cached count against the limit of tokens.
    concurrency
        Most calls at once; None: any number.
    busy_retry_after_s
        Seconds after which those beyond it are asked to come again.
    outage_after_s
        Seconds after which a call that an outage strikes hears of it.
    cache
        How prompts are cached; None: they are not.

    Raises
    ------
    WorldError
        A number is out of its bounds.

    >>> from glowsim.sim.laws import Constant
    >>> HostedSpec(Constant(0.2), Constant(0.01), requests_per_min=60.0).burst_s
    60.0
    """

    first_token: Law
    per_token: Law
    error: float = 0.0
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    burst_s: float = 60.0
    reserved_out: int = 0
    counts_cached: bool = True
    concurrency: int | None = None
    busy_retry_after_s: float = 1.0
    outage_after_s: float = 0.0
    cache: PromptCache | None = None

    def __post_init__(self) -> None:
        limits = (self.requests_per_min, self.tokens_per_min, self.concurrency)
        if any(limit is not None and not limit > 0 for limit in limits) or not self.burst_s > 0.0:
            raise WorldError(f"{self} cannot be: a limit must be above 0, or None")
        if (
            not 0.0 <= self.error <= 1.0
            or min(self.reserved_out, self.busy_retry_after_s, self.outage_after_s) < 0
        ):
            raise WorldError(f"{self} cannot be: error is a share, and nothing is below 0")
        if self.requests_per_min is not None and self.requests_per_min * self.burst_s < 60.0:
            raise WorldError(
                f"{self.requests_per_min} requests a minute never make one in {self.burst_s} s: give a longer burst_s"
            )


class HostedApi:
    """Answers calls by laws of latency, within limits of rate.

    A call beyond a limit is THROTTLED at once, with the seconds after which the buckets would let it in, and
    takes nothing from them (some providers count it). A prompt that no full bucket could pay for is INVALID:
    no retry mends it. A call that fails or is cancelled keeps what it has used; one that an outage strikes is
    an ERROR and uses nothing. What is under way when an outage begins goes on.

    Parameters
    ----------
    environment
        The simulated time.
    spec
        Latencies and limits.
    key
        Of the random numbers, such as ``streams.key("hosted", name)``.
    done
        Called with every call that ends, whatever its outcome.
    first_token
        Called with a streaming call when its first token is out.
    timetable
        When the provider is down; None: never.

    >>> from glowsim.sim.laws import Constant
    >>> environment = Environment()
    >>> spec = HostedSpec(Constant(0.5), Constant(0.01), requests_per_min=60.0, burst_s=1.0)
    >>> ended = []
    >>> done = lambda call: ended.append((call.number, call.outcome.name, call.retry_after_s, environment.now))
    >>> api = HostedApi(environment, spec, 1, done, done)
    >>> for number in (1, 2):
    ...     api.start(Call(number, 900, 51))
    >>> environment.run(); ended
    [(2, 'THROTTLED', 1.0, 0.0), (1, 'OK', 0.0, 1.0)]
    """

    def __init__(
        self, environment: Environment, spec: HostedSpec, key: int, done: Told, first_token: Told,
        timetable: Timetable | None = None,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._spec = spec
        self._done = done
        self._first_token = first_token
        self._timetable = timetable
        self._key = key
        self._first_token_at, self._per_token_at = at(spec.first_token), at(spec.per_token)
        self._requests = _Bucket(spec.requests_per_min, spec.burst_s)
        self._tokens = _Bucket(spec.tokens_per_min, spec.burst_s)
        self._limited = spec.requests_per_min is not None or spec.tokens_per_min is not None
        self._texts = _Texts(spec.cache) if spec.cache is not None else None
        self._inside: dict[int, _Answer] = {}
        self._busy = 0
        """Calls that were let in."""
        self._speed = 1.0

    def start(self, call: Call) -> None:
        """Take a call in, or turn it away."""
        now_s = self._environment._now
        number, spec = call.number, self._spec
        # What all draws of a call begin with: (key, number, what) give the number of `uniform_at`.
        luck = mix(self._key ^ mix(number))
        if self._timetable is not None and _drawn(luck, _OUTAGE) < self._timetable.share(now_s):
            self._refuse(call, Outcome.ERROR, now_s + spec.outage_after_s)
            return
        if spec.concurrency is not None and self._busy >= spec.concurrency:
            call.retry_after_s = spec.busy_retry_after_s
            self._refuse(call, Outcome.THROTTLED, now_s)
            return
        texts = self._texts
        if texts is not None:
            prefixes = texts.prefixes(call)
            cached = texts.common(call, prefixes, now_s)
        else:
            cached = 0
        if self._limited and not self._admits(call, cached, now_s):
            return
        self._busy += 1
        speed = self._speed
        first_s = now_s + self._first_token_at(_drawn(luck, _FIRST_TOKEN)) / speed
        per_token_s = self._per_token_at(_drawn(luck, _PER_TOKEN)) / speed
        end_s = first_s + per_token_s * (call.tokens_out - 1)
        if spec.error and _drawn(luck, _ERROR) < spec.error:
            answer = _Answer(call, Outcome.ERROR, True, cached, first_s, per_token_s)
            end_s = first_s
        else:
            answer = _Answer(call, _OK, True, cached, first_s, per_token_s)
            if texts is not None:
                texts.learn(prefixes, now_s, first_s)
            if call.stream:
                self._environment.call_at(first_s, self._stream, answer)
        self._inside[number] = answer
        self._environment.call_at(end_s, self._end, answer)

    def _refuse(self, call: Call, outcome: Outcome, t_s: float) -> None:
        """Have a call end that has used nothing."""
        answer = self._inside[call.number] = _Answer(call, outcome, False, 0, t_s, 0.0)
        self._environment.call_at(t_s, self._end, answer)

    def _admits(self, call: Call, cached: int, now_s: float) -> bool:
        """Take a call's share from the buckets, or turn it away."""
        spec = self._spec
        counted = call.tokens_in - (0 if spec.counts_cached else cached)
        amount = counted + spec.reserved_out
        wait_s = max(self._requests.wait_s(1.0, now_s), self._tokens.wait_s(amount, now_s))
        if wait_s > 0.0:
            call.retry_after_s = wait_s if wait_s < inf else 0.0
            self._refuse(call, Outcome.THROTTLED if wait_s < inf else Outcome.INVALID, now_s)
            return False
        self._requests.take(1.0)
        self._tokens.take(amount)
        return True

    def cancel(self, call: Call) -> None:
        """Drop a call; ``written`` and ``tokens_cached`` are set."""
        answer = self._inside.pop(call.number)
        if answer.reserved:
            self._settle(answer, answer.written_by(self._environment._now))

    def set_speed(self, speed: float) -> None:
        """Answer later calls at a share of the usual speed; those under way keep theirs."""
        self._speed = speed

    def __len__(self) -> int:
        """Return how many calls are inside."""
        return len(self._inside)

    def _stream(self, answer: _Answer) -> None:
        call = answer.call
        if self._inside.get(call.number) is answer:
            call.first_token_s = answer.first_s
            self._first_token(call)

    def _end(self, answer: _Answer) -> None:
        call, outcome = answer.call, answer.outcome
        if self._inside.get(call.number) is not answer:
            return  # cancelled meanwhile
        del self._inside[call.number]
        call.outcome = outcome
        if answer.reserved:
            self._settle(answer, call.tokens_out if outcome is _OK else 0)
        self._done(call)

    def _settle(self, answer: _Answer, written: int) -> None:
        self._busy -= 1
        call = answer.call
        call.written = written
        call.tokens_cached = answer.cached
        if written:
            call.first_token_s = answer.first_s
        if self._limited:
            self._tokens.take(written - self._spec.reserved_out)


def _drawn(luck: int, what: int) -> float:
    """Return a call's uniform number for one purpose."""
    return (mix(mix(luck ^ what)) >> 11) * _TO_UNIT


class _Answer:
    """What will become of a call."""

    __slots__ = ("cached", "call", "first_s", "outcome", "per_token_s", "reserved")

    def __init__(
        self, call: Call, outcome: Outcome, reserved: bool, cached: int, first_s: float, per_token_s: float
    ) -> None:
        self.call = call
        self.outcome = outcome
        self.reserved = reserved
        """Whether it has taken from the buckets."""
        self.cached = cached
        self.first_s = first_s
        self.per_token_s = per_token_s

    def written_by(self, t_s: float) -> int:
        if t_s < self.first_s or self.outcome is not _OK:
            return 0
        further = int((t_s - self.first_s) / self.per_token_s + _ROUNDING) if self.per_token_s > 0.0 else inf
        return int(min(1 + further, self.call.tokens_out))


class _Bucket:
    """A limit a minute, refilled continuously."""

    def __init__(self, per_min: float | None, burst_s: float) -> None:
        self._per_s = inf if per_min is None else per_min / 60.0
        self._most = self._per_s * burst_s
        self._level = self._most
        self._at_s = 0.0

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return the seconds until so much is there: 0 if it is, inf if it never will be."""
        if self._most == inf:
            return 0.0
        self._level = min(self._level + (now_s - self._at_s) * self._per_s, self._most)
        self._at_s = now_s
        if amount > self._most * (1.0 + _ROUNDING):
            return inf
        lacks = min(amount, self._most) - self._level
        return lacks / self._per_s if lacks > _ROUNDING * self._most else 0.0

    def take(self, amount: float) -> None:
        """Take so much, or put it back if it is below 0."""
        if self._most < inf:
            self._level = min(self._level - amount, self._most)


class _Texts:
    """The prefixes that a cache holds, in order of their last use."""

    def __init__(self, cache: PromptCache) -> None:
        self._cache = cache
        self._held: OrderedDict[tuple[int, ...], tuple[float, float, int]] = OrderedDict()
        """What the prefix is -> (when it can be used, when it is dropped, its tokens)."""
        self._drop_s = inf
        """Nothing is to be dropped at this moment or before it."""

    def common(self, call: Call, prefixes: Prefixes, now_s: float) -> int:
        """Return how many tokens of the prompt are billed as cached."""
        held = self._held
        if self._drop_s < now_s:
            self._drop(now_s)
        found = 0
        for name, tokens in prefixes:
            text = held.get(name)
            if text is not None and text[0] <= now_s:
                found = max(found, min(text[2], tokens))
            elif call.blocks:
                break  # a block counts only behind all that stand before it
        return self._cache.billed(found)

    def _drop(self, now_s: float) -> None:
        held = self._held
        while held:
            self._drop_s = next(iter(held.values()))[1]
            if self._drop_s >= now_s:
                return
            held.popitem(last=False)
        self._drop_s = inf

    def learn(self, prefixes: Prefixes, now_s: float, ready_s: float) -> None:
        """Hold the prompt's text, usable from when its first token is out; what is held already is used again."""
        held, drop_s = self._held, now_s + self._cache.ttl_s
        for name, tokens in prefixes:
            text = held.get(name)
            if text is None:
                held[name] = ready_s, drop_s, tokens
                continue
            held[name] = (ready_s, drop_s, tokens) if text[2] < tokens else (text[0], drop_s, text[2])
            held.move_to_end(name)
        self._drop_s = min(self._drop_s, drop_s)

    def prefixes(self, call: Call) -> Prefixes:
        """Return (name, tokens) of the prefixes that another call may have too, shortest first."""
        if call.blocks:
            size = self._cache.block_tokens
            return [((block,), min((i + 1) * size, call.tokens_in)) for i, block in enumerate(call.blocks)]
        shared = ((call.shared_key, 0), call.shared_tokens)
        if not call.own_key:
            return (shared,) if call.shared_tokens else ()
        own = ((call.shared_key, call.shared_tokens, call.own_key), call.tokens_in)
        return (shared, own) if call.shared_tokens else (own,)
