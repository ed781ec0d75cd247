"""A self-hosted model server: continuous batching, exact, in jumps over runs of like steps.

The rules are those of vLLM v1's scheduler, first come, first served or by priority; the specification is an
engine in the tests that takes every step and moves every block. This one gives the same times because between
two boundaries at which something is decided, everything is arithmetic:

- k decode steps of n calls last k a + b3 n k (k - 1) / 2, where a is the first of them; a run of chunks of one
  long prompt has the same form.
- Step j needs a block for each call with (base + j) mod block_tokens = 0, so a histogram of bases tells how
  many blocks are taken, and after how many steps there are too few.
- Ends are keys on the step counter in a heap; arrivals move none of them.

Time is caught up with, not followed: `BatchEngine.start` only writes down when a call came. The environment is
asked for the earliest moment at which a callback may be due, and there every boundary up to it is decided in
one loop. Cancelling, changing the speed and looking catch up first.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from heapq import heappop, heappush
from math import inf, isfinite
from typing import NamedTuple

from glowsim.core.errors import WorldError
from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.blocks import Text
from glowsim.sim.serving.call import Call, Told
from glowsim.sim.serving.decoding import steps_until
from glowsim.sim.serving.seats import DECODE, OUT, PREFILL, WAITING
from glowsim.sim.serving.sharing import Sharing
from glowsim.sim.serving.steps import BatchSpec, check_call

__all__ = ["BatchEngine", "Look"]

_AFTER_OTHERS = 1 << 29
"""A boundary sees everything else that happens at its moment."""
_FEW = 8


class Look(NamedTuple):
    """What there is to see of a model server; the step in progress counts as taken."""

    running: int
    waiting: int
    blocks_used: int
    steps: int
    preemptions: int
    tokens_prefilled: int
    """Tokens of prompts computed, what was computed again included."""
    tokens_hit: int
    """Tokens that the prefix cache saved, at every admission."""
    busy_s: float


class BatchEngine(Sharing):
    """Serves calls in batches that change at every step: a replica of a self-hosted model.

    Rules. A step has one budget of tokens for decodes and prefills; running calls come first, in the order of
    their admission; where blocks run short, the last of them is preempted and computed again later; otherwise
    waiting calls are admitted while they fit. A call that arrives or is cancelled at or before a boundary is
    seen there. Speed is that at a step's start. A text is held once: a block that fills up with text held
    already is given back.

    Parameters
    ----------
    environment
        The simulated time.
    spec
        How long steps take, and what bounds them.
    done
        Called with every call at the end of the step that ends it; with `Outcome.INVALID` when it is the turn
        of a call that the cache can never hold.
    first_token
        Called with a streaming call at the end of the step that ends its prefill.

    Notes
    -----
    Sources: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
    SOSP 2023; vLLM, ``vllm/v1/core/sched/scheduler.py`` and ``vllm/v1/core/kv_cache_manager.py``. Departures:
    vLLM keeps a second copy of a text that two calls compute at once, and in order of priority a call that
    preempts itself keeps those behind it from running in that step.

    >>> from glowsim.sim.serving.steps import StepTime
    >>> environment = Environment()
    >>> said = lambda call: print(call.number, round(environment.now, 3))
    >>> spec = BatchSpec(StepTime(0.01, 0.0001, 0.001), 8, 64, 100)
    >>> engine = BatchEngine(environment, spec, said, said)
    >>> for number, tokens_out in ((1, 3), (2, 2)):
    ...     engine.start(Call(number, 32, tokens_out))
    >>> environment.run()
    2 0.028
    1 0.039
    """

    __slots__ = (
        "_admitted", "_arrivals", "_asked", "_b1", "_b4", "_begun_s", "_budget", "_busy_s", "_caching",
        "_cancelled", "_done", "_environment", "_first_token", "_idle", "_inside", "_invalid_now", "_invalids",
        "_max_seqs", "_most", "_number", "_preemptions", "_priority", "_queue", "_room", "_spec", "_streams",
        "_t", "_telling", "_tokens_prefilled", "_told", "_unseen", "_voids", "_wake_s",
    )  # fmt: skip

    def __init__(self, environment: Environment, spec: BatchSpec, done: Told, first_token: Told) -> None:
        super().__init__(spec)
        self._b1, self._b4 = spec.step.b1_s, spec.step.b4_s
        self._environment = environment
        self._queue = environment._queue
        self._number = environment._number
        self._spec = spec
        self._done = done
        self._first_token = first_token
        self._max_seqs = spec.max_num_seqs
        self._budget = spec.max_num_batched_tokens
        self._most = spec.long_prefill_threshold or spec.max_num_batched_tokens
        self._priority = spec.priority_order
        self._caching = spec.prefix_caching
        self._room = spec.kv_blocks - spec.watermark_blocks
        self._t = environment.now
        """The last boundary decided up to; what happens there comes next."""
        self._told = 0
        """The step whose end was told of last."""
        self._idle = True
        self._begun_s = self._t
        """Since when it is busy, as far as ``_busy_s`` does not know of it."""
        self._voids = 0
        """Ends in the heap that are void."""
        self._telling = False
        self._wake_s = inf
        self._unseen: deque[Call] = deque()
        """Calls that no boundary has seen yet."""
        self._cancelled: list[Call] = []
        self._streams: list[Call] = []
        self._invalid_now: list[Call] = []
        self._asked = 0
        """The same of all inside."""
        self._inside = self._invalids = self._arrivals = self._admitted = 0
        self._preemptions = self._tokens_prefilled = 0
        self._busy_s = 0.0

    def __len__(self) -> int:
        """Return how many calls are inside."""
        return self._inside

    def start(self, call: Call) -> None:
        """Take a call in; the next boundary sees it, and an idle server begins a step at once.

        Raises
        ------
        WorldError
            The call contradicts itself; says how.
        """
        tokens_in, tokens_out, block_tokens = call.tokens_in, call.tokens_out, self._block_tokens
        shared_tokens = call.shared_tokens
        if tokens_in < 1 or tokens_out < 1 or not 0 <= shared_tokens <= tokens_in or call.blocks:
            check_call(call, block_tokens)
            shared_tokens = tokens_in
        heads = shared_tokens // block_tokens if self._caching else 0
        now_s = self._environment._now
        self._inside += 1
        self._arrivals = arrival = self._arrivals + 1
        peak = (tokens_in + tokens_out + block_tokens - 2) // block_tokens
        call.state = self
        call.arrival = arrival
        call.came_s = now_s
        call.peak = peak
        call.head_blocks = heads
        call.has_text = heads > 0 or (self._caching and call.own_key != 0)
        call.generated = call.named = call.own_upto = 0
        call.holds = []
        call.phase = WAITING
        call.cancelled = False
        call.finish = call.order = -1
        call.own = None
        self._unseen.append(call)
        self._asked = asked = self._asked + peak
        if self._idle:
            self._idle = False
            self._t = self._begun_s = now_s
        if peak > self._room:
            self._invalids += 1
            if not self._telling:
                self._catch_up_and_plan(now_s)
            return
        earliest_s = now_s if now_s > self._t else self._t
        if asked <= self._kv_blocks or (self._blocked and not self._may_admit()):
            earliest_s += self._b0 * self._scale * (1 if call.stream else tokens_out)
        if earliest_s < self._wake_s and not self._telling:
            self._plan(earliest_s)

    def cancel(self, call: Call) -> None:
        """Drop a call; its step is finished and its blocks are freed at the next boundary.

        Raises
        ------
        WorldError
            The call is not inside.
        """
        if call.state is not self:
            raise WorldError(f"call {call.number} is not inside: cancel a call between start and done, once")
        now_s = self._environment._now
        call.state = None
        self._inside -= 1
        if call.phase != OUT:
            self._asked -= call.peak
        if not self._telling:
            self._catch_up(now_s, late=False)
            self._cut(now_s)
        call.cancelled = True
        if call.phase == WAITING:
            self._drop_waiting(call)
        elif call.phase != OUT:
            if call.phase == DECODE:
                written = self._s + call.base - call.tokens_in + 1
                if self._told < self._s:
                    written -= 1  # the step in progress would have written it
                self._voids += 1
                call.generated = written
                if not written:
                    call.first_token_s = -1.0
            call.finish = -1
            self._cancelled.append(call)
        call.written = call.generated
        if not self._telling:
            self._catch_up_and_plan(now_s)

    def set_speed(self, speed: float) -> None:
        """Work at a share of the usual speed from the next step on; the one in progress keeps its own.

        Raises
        ------
        WorldError
            The speed is not a finite number above 0.
        """
        if not (isfinite(speed) and speed > 0.0):
            raise WorldError(f"speed: {speed} cannot be; give a finite number above 0")
        now_s = self._environment._now
        if not self._telling:
            self._catch_up(now_s, late=False)
            self._cut(now_s)
        self._scale = 1.0 / speed
        if not self._telling:
            self._catch_up_and_plan(now_s)

    def look(self) -> Look:
        """Return what there is to see now."""
        now_s = self._environment._now
        if not self._telling:
            self._catch_up(now_s, late=False)
            self._cut(now_s)
            self._catch_up_and_plan(now_s)
        waiting = len(self._waiting) + len(self._unseen)
        used = self._kv_blocks - self._store.free + self._decoding()
        return Look(
            len(self._running), waiting, used, self._s, self._preemptions, self._tokens_prefilled,
            self._tokens_hit, self._busy_s + (self._t - self._begun_s),
        )  # fmt: skip

    def _woken(self, wake_s: float) -> None:
        if wake_s == self._wake_s:
            self._wake_s = wake_s = self._catch_up(wake_s, late=True)
            if wake_s < inf:
                heappush(self._queue, (wake_s, _AFTER_OTHERS, self._number(), self._woken, wake_s))

    def _plan(self, wake_s: float) -> None:
        if wake_s < self._wake_s:
            self._wake_s = wake_s
            heappush(self._queue, (wake_s, _AFTER_OTHERS, self._number(), self._woken, wake_s))

    def _catch_up_and_plan(self, now_s: float) -> None:
        self._plan(self._catch_up(now_s, late=False))

    def _catch_up(self, now_s: float, *, late: bool) -> float:
        """Decide every boundary before now, and if everything else has happened now, that at it.

        Return a moment at or before the next callback.
        """
        heap, unseen, waiting, queue = self._heap, self._unseen, self._waiting, self._queue
        while True:
            if self._invalid_now:
                self._tell_invalid()
                if queue and queue[0][0] == now_s:
                    return now_s
            if self._voids:
                self._drop_voids()
            t_s, s = self._t, self._s
            if heap[0][0] == s or self._streams:
                if t_s > now_s or not late:
                    return t_s
                self._t = t_s = now_s  # what was foreseen may differ from what came by rounding
                self._tell()
                if queue and queue[0][0] == now_s:
                    return now_s  # what else happens now is seen by the step that begins now
            elif t_s > now_s or (t_s == now_s and not late):
                return self._earliest()
            if self._cancelled:
                for call in self._cancelled:
                    self._leave(call)
                self._blocked = False
                self._cancelled.clear()
            if unseen and unseen[0].came_s <= t_s:
                if not (
                    waiting
                    or self._prefills
                    or self._eager
                    or self._priority
                    or self._peaks > self._kv_blocks
                ):
                    self._step_of_arrivals()
                    continue
                self._see()
            if (waiting and not self._blocked) or self._prefills:
                if not (self._prefills and self._run_of_chunks(now_s)):
                    self._step()
                continue
            n = self._n
            if not n:
                self._busy_s += t_s - self._begun_s
                if unseen:
                    self._t = self._begun_s = unseen[0].came_s
                    continue
                self._begun_s = t_s
                self._idle = True
                return inf
            if self._voids:
                self._drop_voids()
            if self._eager or self._peaks > self._kv_blocks:
                k, first_s, half_s = self._jump()
            else:  # as `_jump` does; every call comes here
                k = heap[0][0] - s
                first_s = (self._b0 + self._b2 * n + self._b3 * (n * s + self._base_sum)) * self._scale
                half_s = self._b3 * n * self._scale * 0.5
            if not k:
                self._step()
                continue
            end_s = t_s + (first_s * k + half_s * (k * (k - 1)))
            if unseen and end_s >= unseen[0].came_s and len(self._running) < self._max_seqs:
                if self._priority or not waiting:
                    k = steps_until(unseen[0].came_s - t_s, t_s, unseen[0].came_s, first_s, half_s)
                    end_s = t_s + (first_s * k + half_s * (k * (k - 1)))
                elif end_s > now_s:
                    return end_s
            elif end_s > now_s:
                return end_s
            self._t, self._s = end_s, s + k
            if self._eager:
                self._name_written()

    def _drop_voids(self) -> None:
        """Take void ends off the heap, so that the first one is one."""
        heap = self._heap
        while heap[0][2].finish != heap[0][0]:
            heappop(heap)
            self._voids -= 1

    def _cut(self, now_s: float) -> None:
        """Take the jump in progress up to the next boundary and no further."""
        if self._t < now_s and not self._idle:
            _, first_s, half_s = self._jump()
            k = steps_until(now_s - self._t, self._t, now_s, first_s, half_s)
            self._take(k, self._t + (first_s * k + half_s * (k * (k - 1))))

    def _earliest(self) -> float:
        """Return a moment at or before the next callback, which is not known yet: others may come first."""
        t_s, s = self._t, self._s
        if self._cancelled or self._invalids or self._peaks > self._kv_blocks:
            return t_s
        coming = len(self._waiting) + len(self._unseen)
        may_admit = not self._blocked or self._may_admit()
        if coming and may_admit and self._asked > self._kv_blocks:
            return t_s  # who is admitted may drive others out, so that the rest goes faster
        earliest_s = inf
        step_s = self._b0 * self._scale
        n = self._n
        if n:
            first_s = (self._b0 + self._b2 * n + self._b3 * (n * s + self._base_sum)) * self._scale
            half_s = self._b3 * n * self._scale * 0.5
            k = self._heap[0][0] - s
            earliest_s = t_s + (first_s * k + half_s * (k * (k - 1)))
        if may_admit:
            if coming + len(self._prefills) > _FEW:
                return min(earliest_s, t_s + step_s)
            if not coming and not self._prefills:
                return earliest_s
            for calls in (self._prefills, self._waiting, self._unseen):
                for call in calls:
                    left = call.tokens_out - call.generated
                    if call.stream and not call.generated:
                        left = 1
                    if t_s + step_s * left < earliest_s:
                        earliest_s = t_s + step_s * left
        elif not n:
            return t_s
        return earliest_s

    def _may_admit(self) -> bool:
        """Return whether somebody may be admitted before somebody leaves."""
        return not self._blocked or self._priority or bool(self._prefills or self._eager)

    def _take(self, k: int, end_s: float) -> None:
        """Take so many decode steps."""
        self._t = end_s
        self._s += k
        if self._eager:
            self._name_written()

    def _run_of_chunks(self, now_s: float) -> bool:
        """Take a run of like steps of one long prompt, if there is one, up to the first boundary from now on."""
        if len(self._prefills) != 1 or self._eager or self._peaks > self._kv_blocks:
            return False
        call, n, s = self._prefills[0], self._n, self._s
        left = self._budget - n
        chunk = min(left, self._most)
        steps = (call.tokens_in + call.generated - call.computed - 1) // chunk
        steps = min(steps, self._heap[0][0] - s)
        if steps < 2 or call is not next(reversed(self._running)):
            return False
        if chunk < left and len(self._running) < self._max_seqs:
            return False
        if self._meets_held(call):
            return False
        context, scale = call.computed, self._scale
        decode_s = self._b0 + self._b2 * n + self._b3 * (n * s + self._base_sum + context)
        first_s = (decode_s + self._b1 * chunk + self._b4 * (chunk * (context + chunk / 2))) * scale
        half_s = (self._b3 * (n + chunk) + self._b4 * chunk * chunk) * 0.5 * scale
        steps = min(steps, steps_until(now_s - self._t, self._t, now_s, first_s, half_s))
        end_s = self._t + (first_s * steps + half_s * (steps * (steps - 1)))
        call.computed += steps * chunk
        self._tokens_prefilled += steps * chunk
        blocks = -(-call.computed // self._block_tokens)
        self._store.free -= blocks - call.blocks_held
        call.blocks_held = blocks
        self._take(steps, end_s)
        self._name(call, call.computed // self._block_tokens)
        return True

    def _step(self) -> None:
        """Take one step: running calls first, then admissions."""
        n, s, block_tokens = self._n, self._s, self._block_tokens
        budget, store = self._budget - n, self._store
        scheduled: list[tuple[Call, int]] = []
        wanted = 0
        enough = True
        # Nobody running wants more tokens than a step ago but the last, who was cut short: they last for all before.
        for call in self._prefills:
            chunk = min(call.tokens_in + call.generated - call.computed, self._most, budget)
            if chunk:
                budget -= chunk
                wanted += -(-(call.computed + chunk) // block_tokens) - call.blocks_held
                scheduled.append((call, chunk))
        if self._peaks > self._kv_blocks:
            enough = wanted + self._bins[-s % block_tokens] <= store.free - self._decoding()
        context = n * s + self._base_sum
        preempted = False
        if enough:
            if scheduled:
                store.free -= wanted
                for call, chunk in scheduled:
                    call.blocks_held = -(-(call.computed + chunk) // block_tokens)
        else:
            scheduled, budget, preempted = self._walk()
            n = self._n
            context = n * s + self._base_sum
        self._s = s + 1
        if self._eager:
            self._name_written()
        if self._caching:
            for call, chunk in scheduled:
                self._name(call, (call.computed + chunk) // block_tokens)
        if self._waiting and not preempted and budget:
            self._admit(budget, scheduled)
        if not n and not scheduled:
            self._s = s  # only calls that can never be served
            return
        left_out = not enough or len(scheduled) < len(self._prefills)
        self._go(n, context, 0, 0.0, scheduled)
        if left_out:
            self._prefills = [call for call in self._running if call.phase == PREFILL]

    def _go(
        self, n: int, context: int, prefilled: int, attention: float, scheduled: list[tuple[Call, int]]
    ) -> None:
        """Let the time of a step pass and have what it computes computed."""
        for call, chunk in scheduled:
            computed = call.computed
            context += computed
            if call.tokens_in + call.generated - computed == 1:
                n += 1
            else:
                prefilled += chunk
                attention += chunk * (computed + chunk / 2)
        took_s = (
            self._b0 + self._b1 * prefilled + self._b2 * n + self._b3 * context + self._b4 * attention
        ) * self._scale
        self._t += took_s
        self._tokens_prefilled += prefilled
        if scheduled:
            prefills = []
            for call, chunk in scheduled:
                call.computed += chunk
                if call.computed == call.tokens_in + call.generated:
                    self._decode(call)
                else:
                    prefills.append(call)
            self._prefills = prefills

    def _see(self) -> None:
        """Let the calls that came up to this boundary wait."""
        unseen, waiting = self._unseen, self._waiting
        while unseen and unseen[0].came_s <= self._t:
            if self._priority:
                insort(waiting, unseen.popleft())
                self._blocked = False
            else:
                waiting.append(unseen.popleft())

    def _step_of_arrivals(self) -> None:
        """Take a step in which nobody but calls that just came can be admitted, and everybody else decodes.

        Those that fit as a whole, whatever becomes of them, are admitted here; from the first other on it goes
        as usual.
        """
        unseen, running, heap, bins = self._unseen, self._running, self._heap, self._bins
        block_tokens, max_seqs, most, room = self._block_tokens, self._max_seqs, self._most, self._room
        t_s, n, base_sum, peaks, order = self._t, self._n, self._base_sum, self._peaks, self._admitted
        context = n * self._s + base_sum
        self._s = s = self._s + 1
        decodes, left = n, self._budget - n
        prefilled = 0
        attention = 0.0
        begun = []
        while unseen and unseen[0].came_s <= t_s:
            call = unseen[0]
            chunk = tokens_in = call.tokens_in
            if n >= max_seqs or peaks + call.peak > room:
                break
            computed = 0
            if call.has_text:
                computed = self._sit_at_texts(call, left if left < most else most, peaks)
                if computed < 0:
                    break
                chunk -= computed
                context += computed
            elif chunk > left or chunk > most:
                break
            if chunk > 1:
                prefilled += chunk
                attention += chunk * (computed + chunk / 2)
            else:
                decodes += 1
            unseen.popleft()
            left -= chunk
            running[call] = None
            call.order = order = order + 1
            call.phase = DECODE
            call.base = base = tokens_in - s
            call.finish = finish = s + call.tokens_out - 1
            heappush(heap, (finish, order, call))
            n += 1
            peaks += call.peak
            base_sum += base
            bins[base % block_tokens] += 1
            begun.append(call)
        self._n, self._base_sum, self._peaks, self._admitted = n, base_sum, peaks, order
        scheduled: list[tuple[Call, int]] = []
        if unseen and unseen[0].came_s <= t_s:
            self._see()
            if left:
                self._admit(left, scheduled)
            if not decodes and not prefilled and not scheduled:
                self._s = s - 1  # only calls that can never be served
                return
        if scheduled:
            self._go(decodes, context, prefilled, attention, scheduled)
        else:
            self._t += (
                self._b0
                + self._b1 * prefilled
                + self._b2 * decodes
                + self._b3 * context
                + self._b4 * attention
            ) * self._scale
            self._tokens_prefilled += prefilled
        t_s = self._t
        for call in begun:
            call.first_token_s = t_s
            if call.stream:
                self._streams.append(call)

    def _walk(self) -> tuple[list[tuple[Call, int]], int, bool]:
        """Go through those running one by one, since blocks do not last for all.

        Return the prefills scheduled, the budget left and whether one was preempted.
        """
        s, block_tokens, store = self._s, self._block_tokens, self._store
        free = store.free - self._decoding()
        budget = self._budget
        given: dict[Call, tuple[int, int]] = {}
        preempted = False
        for call in list(self._running):
            decodes = call.phase == DECODE
            if call.phase == WAITING:
                continue
            if not budget:
                break
            if decodes:
                chunk = 1
                wanted = 0 if (s + call.base) % block_tokens else 1
            else:
                chunk = min(call.tokens_in + call.generated - call.computed, budget, self._most)
                wanted = -(-(call.computed + chunk) // block_tokens) - call.blocks_held
            while wanted > free and call.phase != WAITING:
                victim = max(self._running) if self._priority else next(reversed(self._running))
                tokens, fresh = given.pop(victim, (0, 0))
                budget += tokens
                free += self._preempt(victim, fresh)
                preempted = True
            if call.phase != WAITING:
                given[call] = chunk, wanted
                budget -= chunk
                free -= wanted
                if not decodes:
                    store.free -= wanted
                    call.blocks_held += wanted
        scheduled = [(call, chunk) for call, (chunk, _) in given.items() if call.phase == PREFILL]
        return scheduled, budget, preempted

    def _preempt(self, call: Call, fresh: int) -> int:
        """Put a running call back to the front of those waiting; return the blocks that this frees.

        ``fresh`` are those that it has been given in this step.
        """
        before = self._store.free - self._decoding()
        decodes = call.phase == DECODE
        full = (self._s + call.base if decodes else call.computed) // self._block_tokens
        if self._caching and call.own is None and full > call.head_blocks:
            call.own = own = Text(None)  # nobody else finds it
            own.users = 1
            own.writer = call if decodes else None
            if not decodes:
                call.own_upto = full - call.head_blocks
                call.named = full
                self._store.extend(own, 0, call.own_upto)
        if decodes:
            self._voids += 1
        self._leave(call, fresh if decodes else 0)
        call.phase = WAITING
        if self._priority:
            insort(self._waiting, call)
        else:
            self._waiting.appendleft(call)
        self._blocked = False
        self._preemptions += 1
        return self._store.free - self._decoding() - before + (fresh if decodes else 0)

    def _admit(self, budget: int, scheduled: list[tuple[Call, int]]) -> None:
        """Admit from the head of those waiting while tokens, places and blocks last."""
        waiting, running, store, block_tokens = self._waiting, self._running, self._store, self._block_tokens
        room, caching = self._room, self._caching
        while waiting and budget:
            if len(running) >= self._max_seqs:
                self._blocked = True
                return
            call = waiting[0]
            peak, tokens = call.peak, call.tokens_in + call.generated
            if peak > room:
                self._invalid_now.append(waiting.popleft())
                continue
            own_upto = cached = 0
            holds: list[tuple[Text, int]] = []
            if caching and (call.own_key or call.head_blocks or call.own is not None):
                most = (tokens - 1) // block_tokens
                holds, own_upto = self._find(call, most)
                cached = own_upto
                for _, upto in holds:
                    cached += upto
            if self._peaks + peak > room:
                fresh = -(-tokens // block_tokens)
                for text, upto in holds:
                    fresh -= min(upto, text.top)
                if own_upto:
                    own = self._own(call)
                    fresh -= min(own_upto, own.top)
                if fresh > store.free - self._decoding() - self._spec.watermark_blocks:
                    self._blocked = True
                    return
            waiting.popleft()
            running[call] = None
            self._peaks += peak
            call.phase = PREFILL
            call.named = cached
            call.own_upto = own_upto
            call.holds = holds
            for text, upto in holds:
                store.hold(text, upto)
            if call.own is not None or (caching and call.own_key and not call.blocks):
                self._sit_at_own(call)
            call.computed = cached * block_tokens
            self._tokens_hit += call.computed
            if call.order < 0:
                call.tokens_cached = call.computed
            self._admitted = call.order = self._admitted + 1
            chunk = min(tokens - call.computed, budget, self._most)
            call.blocks_held = -(-(call.computed + chunk) // block_tokens)
            store.free -= call.blocks_held - cached
            budget -= chunk
            scheduled.append((call, chunk))
            if call.head_blocks or call.own is not None:
                self._name(call, (call.computed + chunk) // block_tokens)

    def _decode(self, call: Call) -> None:
        """Begin to decode at the end of the step that computed all there was."""
        call.generated += 1
        if call.generated == 1:
            call.first_token_s = self._t
            if call.stream:
                self._streams.append(call)
        call.phase = DECODE
        call.base = base = call.computed - self._s
        self._n += 1
        self._base_sum += base
        self._bins[base % self._block_tokens] += 1
        self._store.free += call.blocks_held
        if not call.cancelled:
            call.finish = finish = call.tokens_in + call.tokens_out - 1 - base
            heappush(self._heap, (finish, call.order, call))
        own = call.own
        if own is not None:
            # who waits for blocks needs one less when text that it begins with fills up
            if own.users > 1 or own.end > call.own_upto or (self._waiting and self._waits_for(own)):
                insort(self._eager, call, key=lambda each: each.order)
            else:
                own.writer = call
                own.held.clear()

    def _waits_for(self, own: Text) -> bool:
        """Return whether the prompt of the first call that waits begins with a text."""
        head = self._waiting[0]
        return own.key == (head.shared_key, head.shared_tokens, head.own_key)

    def _drop_waiting(self, call: Call) -> None:
        (self._waiting if call in self._waiting else self._unseen).remove(call)
        self._blocked = False
        if call.peak > self._room:
            self._invalids -= 1

    def _tell(self) -> None:
        """Tell of everything that happens at this boundary, in order of running."""
        s, heap, running, bins, store = self._s, self._heap, self._running, self._bins, self._store
        ended = []
        while heap[0][0] == s:
            call = heappop(heap)[2]
            if call.finish != s:
                self._voids -= 1
                continue
            own = call.own
            if own.writer is call if own is not None else not call.holds:
                base = call.base
                del running[call]
                self._n -= 1
                self._base_sum -= base
                self._peaks -= call.peak
                bins[base % self._block_tokens] -= 1
                if own is not None:
                    self._leave_own(call, own)
                elif store.mixed:
                    store.turn(-(-(s + base) // self._block_tokens))
            else:
                self._leave(call)
            call.phase = OUT
            self._asked -= call.peak
            ended.append(call)
        self._told = s
        self._telling = True
        if ended:
            self._blocked = False
        if self._streams:
            first = [(call.order, 0, call) for call in self._streams]
            self._streams.clear()
            for _, is_end, call in sorted(first + [(call.order, 1, call) for call in ended]):
                if is_end:
                    self._tell_end(call)
                elif not call.cancelled:
                    self._first_token(call)
        else:
            tell_end = self._tell_end
            for call in ended:
                tell_end(call)
        self._telling = False

    def _tell_end(self, call: Call) -> None:
        call.written = call.tokens_out
        if not call.cancelled:
            call.state = None
            self._inside -= 1
            self._done(call)

    def _tell_invalid(self) -> None:
        """Tell of calls whose turn has come, but which the cache can never hold."""
        self._telling = True
        invalid, self._invalid_now = self._invalid_now, []
        for call in invalid:
            call.phase = OUT
        for call in invalid:
            if not call.cancelled:
                self._invalids -= 1
                self._inside -= 1
                self._asked -= call.peak
                call.state = None
                call.outcome = Outcome.INVALID
                self._done(call)
        self._telling = False
