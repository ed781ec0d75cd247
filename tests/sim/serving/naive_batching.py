"""Continuous batching step by step and block by block: the specification of the fast engine.

Nothing is skipped and nothing is counted that can be looked at. The numbers in comments are those of the rules
of the scheduler (vLLM v1, first come, first served), as the project's reference numbers them. What they leave
open is decided here:

- A text is held once. A block that fills up with text which is held already is given back, and the held one is
  used: first those of calls that decode, then those that prefill, both in order of running.
- Calls cancelled between two boundaries are freed at the next, after the calls that end there, in the order in
  which they were cancelled. A call cancelled at a boundary does not end there.
- The speed of a step is the speed at its start.
- In order of priority a call that preempts itself does not keep those behind it from running.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappush
from typing import Any

from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.call import Call, Told
from glowsim.sim.serving.steps import BatchSpec, check_call

AFTER_OTHERS = 1 << 29


class Block:
    """A block of the KV cache; ``name`` is that of the text in it, once it is full."""

    def __init__(self) -> None:
        self.name: Any = None
        self.references = 0


class Blocks:
    """All blocks: those without a reference in order of use, and those that hold a text by its name."""

    def __init__(self, count: int) -> None:
        self.free: OrderedDict[Block, None] = OrderedDict((Block(), None) for _ in range(count))
        self.named: dict[Any, Block] = {}

    def allocate(self) -> Block:
        block, _ = self.free.popitem(last=False)  # rule 11: the least recently used, evicted on allocation
        if block.name is not None:
            del self.named[block.name]
            block.name = None
        block.references = 1
        return block

    def use(self, block: Block) -> None:
        if block.references == 0:
            del self.free[block]
        block.references += 1

    def release(self, block: Block) -> None:
        block.references -= 1
        if block.references == 0:
            self.free[block] = None


class Seat:
    """A call inside."""

    def __init__(self, call: Call, arrival: int) -> None:
        self.call = call
        self.arrival = arrival
        self.computed = 0
        self.generated = 0
        self.blocks: list[Block] = []
        self.admitted = False
        self.cancelled = False
        self.ended = False

    @property
    def tokens(self) -> int:
        return self.call.tokens_in + self.generated


class NaiveEngine:
    """A `glowsim.sim.serving.call.Server` that takes every step."""

    def __init__(self, environment: Environment, spec: BatchSpec, done: Told, first_token: Told) -> None:
        self.environment = environment
        self.spec = spec
        self.done = done
        self.first_token = first_token
        self.blocks = Blocks(spec.kv_blocks)
        self.waiting: deque[Seat] = deque()
        self.running: list[Seat] = []
        self.cancelled: list[Seat] = []
        self.scheduled: dict[Seat, int] = {}
        self.inside = 0
        self.arrivals = 0
        self.busy = False
        self.speed = 1.0
        self.steps = self.preemptions = self.tokens_prefilled = self.tokens_hit = 0
        self.busy_s = 0.0

    def __len__(self) -> int:
        return self.inside

    def start(self, call: Call) -> None:
        check_call(call, self.spec.block_tokens)
        self.inside += 1
        self.arrivals += 1
        call.state = seat = Seat(call, self.arrivals)
        self.waiting.append(seat)
        self._sort_waiting()
        if not self.busy:
            self.busy = True
            self._at(self.environment.now, self._schedule)

    def cancel(self, call: Call) -> None:
        seat: Seat = call.state
        seat.cancelled = True
        call.written = seat.generated
        self.inside -= 1
        if seat in self.waiting:
            self.waiting.remove(seat)
        elif not seat.ended:
            self.cancelled.append(seat)

    def set_speed(self, speed: float) -> None:
        self.speed = speed

    def _at(self, t_s: float, function: Any) -> None:
        """Call it at a moment, after everything else that happens then (rule 1: one tie rule)."""
        heappush(self.environment._queue, (t_s, AFTER_OTHERS, self.environment._number(), function, None))

    def _sort_waiting(self) -> None:
        if self.spec.priority_order:
            self.waiting = deque(sorted(self.waiting, key=lambda seat: (seat.call.priority, seat.arrival)))

    def _name(self, seat: Seat, i: int) -> Any:
        """Return the name of full block i of the call's text (rule 11), or None where nothing is shared."""
        if not self.spec.prefix_caching:
            return None
        call, size = seat.call, self.spec.block_tokens
        if call.blocks:
            if i < call.tokens_in // size:
                return "block", call.blocks[i]
            return "private", call.number, i
        if (i + 1) * size <= call.shared_tokens:
            return "shared", call.shared_key, i
        if call.own_key:
            return "own", call.shared_key, call.shared_tokens, call.own_key, i
        return "private", call.number, i

    def _schedule(self, _: None) -> None:
        spec, size, blocks = self.spec, self.spec.block_tokens, self.blocks
        for seat in self.cancelled:  # rule 18
            self._leave(seat)
        self.cancelled.clear()
        budget = spec.max_num_batched_tokens  # rule 2
        most = spec.long_prefill_threshold or budget
        scheduled = self.scheduled = {}
        preempted = False
        for seat in list(self.running):  # rule 3
            if seat not in self.running:
                continue
            if budget == 0:
                break
            chunk = min(seat.tokens - seat.computed, budget, most)
            wanted = -(-(seat.computed + chunk) // size) - len(seat.blocks)  # rule 5
            while wanted > len(blocks.free) and seat in self.running:
                victim = self._preempt()  # rule 6
                preempted = True
                budget += scheduled.pop(victim, 0)
            if seat in self.running:
                seat.blocks += [blocks.allocate() for _ in range(wanted)]
                scheduled[seat] = chunk
                budget -= chunk
        for decode in (True, False):
            for seat, chunk in scheduled.items():
                if (seat.tokens - seat.computed == 1) is decode:
                    self._hold(seat, chunk)
        invalid = []
        while not preempted and self.waiting and budget > 0 and len(self.running) < spec.max_num_seqs:  # 8, 9
            seat = self.waiting[0]
            if not spec.fits(seat.call):
                invalid.append(self.waiting.popleft())
                continue
            hits = self._hits(seat)
            fresh = -(-seat.tokens // size) - len(hits)
            unused = sum(block.references == 0 for block in hits)
            if fresh + unused > len(blocks.free) - spec.watermark_blocks:  # rule 10
                break
            self.waiting.popleft()
            self.running.append(seat)
            for block in hits:
                blocks.use(block)
            seat.computed = len(hits) * size
            self.tokens_hit += seat.computed
            if not seat.admitted:
                seat.admitted = True
                seat.call.tokens_cached = seat.computed
            chunk = min(seat.tokens - seat.computed, budget, most)
            wanted = -(-(seat.computed + chunk) // size) - len(hits)
            seat.blocks = hits + [blocks.allocate() for _ in range(wanted)]
            scheduled[seat] = chunk
            budget -= chunk
            self._hold(seat, chunk)
        self.busy = bool(scheduled)
        if scheduled:
            self._go()
        for seat in invalid:
            seat.ended = True
            self.inside -= 1
            seat.call.outcome = Outcome.INVALID
            self.done(seat.call)

    def _hits(self, seat: Seat) -> list[Block]:
        """Return the leading full blocks that are held (rule 11)."""
        found = []
        for i in range((seat.tokens - 1) // self.spec.block_tokens):
            name = self._name(seat, i)
            if name is None or name not in self.blocks.named:
                break
            found.append(self.blocks.named[name])
        return found

    def _hold(self, seat: Seat, chunk: int) -> None:
        """Name the blocks that fill up in this step, or use those that hold the same text already."""
        size, blocks = self.spec.block_tokens, self.blocks
        for i in range(seat.computed // size, (seat.computed + chunk) // size):
            name = self._name(seat, i)
            if name is None:
                continue
            held = blocks.named.get(name)
            if held is None:
                seat.blocks[i].name = name
                blocks.named[name] = seat.blocks[i]
            else:
                blocks.use(held)
                blocks.release(seat.blocks[i])
                seat.blocks[i] = held

    def _preempt(self) -> Seat:
        victim = self.running[-1]
        if self.spec.priority_order:
            victim = max(self.running, key=lambda seat: (seat.call.priority, seat.arrival))
        self._leave(victim)
        victim.computed = 0
        self.waiting.appendleft(victim)  # rule 7
        self._sort_waiting()
        self.preemptions += 1
        return victim

    def _leave(self, seat: Seat) -> None:
        self.running.remove(seat)
        for block in reversed(seat.blocks):  # rule 11: tail first
            self.blocks.release(block)
        seat.blocks = []

    def _go(self) -> None:
        """Take the step (rule 13)."""
        prefill = decodes = context = 0
        attention = 0.0
        for seat, chunk in self.scheduled.items():
            context += seat.computed
            if seat.tokens - seat.computed == 1:
                decodes += 1
            else:
                prefill += chunk
                attention += chunk * (seat.computed + chunk / 2)
        took_s = self.spec.step.step_s(prefill, decodes, context, attention) / self.speed
        for seat, chunk in self.scheduled.items():
            seat.computed += chunk
        self.steps += 1
        self.tokens_prefilled += prefill
        self.busy_s += took_s
        self._at(self.environment.now + took_s, self._end)

    def _end(self, _: None) -> None:
        now_s = self.environment.now
        told = []
        for seat in self.scheduled:
            if seat.cancelled or seat.computed < seat.tokens:
                continue
            seat.generated += 1  # rule 14
            if seat.generated == 1:
                seat.call.first_token_s = now_s
                if seat.call.stream:
                    told.append((seat, self.first_token))
            if seat.generated == seat.call.tokens_out:
                self._leave(seat)
                seat.ended = True
                seat.call.written = seat.generated
                told.append((seat, self.done))
        for seat, tell in told:
            if not seat.cancelled:
                self.inside -= tell is self.done
                tell(seat.call)
        self._at(now_s, self._schedule)
