"""What the cache holds of the texts of calls: looked up at admission, named as blocks fill up, left to be hit."""

from __future__ import annotations

from bisect import insort

from glowsim.sim.serving.blocks import Text
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.decoding import Decoding
from glowsim.sim.serving.seats import DECODE
from glowsim.sim.serving.steps import BatchSpec

__all__ = ["Sharing"]


class Sharing(Decoding):
    """The calls of a model server that run, and the texts that they share.

    A call's text is a head, shared with others, and its own. A call that decodes a text at which nobody else is
    names its blocks only when somebody asks; where two are at one text, both name theirs as they fill up.

    Parameters
    ----------
    spec
        Of the server.
    """

    __slots__ = (
        "_blocked", "_prefills", "_running", "_tokens_hit",
    )  # fmt: skip

    def __init__(self, spec: BatchSpec) -> None:
        super().__init__(spec)
        self._running: dict[Call, None] = {}
        self._prefills: list[Call] = []
        self._tokens_hit = 0
        self._blocked = False
        """Whether the head of those waiting cannot be admitted until somebody leaves."""

    def _own(self, call: Call) -> Text:
        """Return the text of the call's own key."""
        if call.own is not None:
            return call.own
        return self._store.text((call.shared_key, call.shared_tokens, call.own_key))

    def _find(self, call: Call, most: int) -> tuple[list[tuple[Text, int]], int]:
        """Return what is held of the beginning of a call's text, at most so many blocks."""
        texts, heads = self._store.texts, call.head_blocks
        holds: list[tuple[Text, int]] = []
        found = 0
        if heads and call.blocks:
            for key in call.blocks[: min(heads, most)]:
                text = texts.get((key,))
                if text is None or not self._held(text, 1):
                    return holds, 0
                holds.append((text, 1))
            found = len(holds)
        elif heads:
            text = texts.get(call.shared_key)
            found = 0 if text is None else self._held(text, min(heads, most))
            if text is not None and found:
                holds.append((text, found))
        if found < heads or found >= most:
            return holds, 0
        own = call.own
        if own is None:
            if call.blocks or not call.own_key:
                return holds, 0
            own = texts.get((call.shared_key, call.shared_tokens, call.own_key))
            if own is None:
                return holds, 0
        if isinstance(own.writer, Call):
            self._write_eagerly(own.writer)
        return holds, self._held(own, most - heads)

    def _held(self, text: Text, most: int) -> int:
        """Return how many blocks of a text are held, at most so many."""
        if text.top < most and text.top < text.end:
            self._store.settle(self._decoding())
        return text.end if text.end < most else most

    def _meets_held(self, call: Call) -> bool:
        """Return whether text that the call computes may be held already."""
        if call.named < call.head_blocks:
            if call.blocks:
                return any((key,) in self._store.texts for key in call.blocks[call.named :])
            text = self._store.texts.get(call.shared_key)
            if text is not None and text.end > call.named:
                return True
        return call.own is not None and call.own.end > call.own_upto

    def _sit_at_own(self, call: Call) -> None:
        call.own = own = self._own(call)
        own.users += 1
        if isinstance(own.writer, Call):
            self._write_eagerly(own.writer)
        if call.own_upto:
            self._store.hold(own, call.own_upto)

    def _sit_at_texts(self, call: Call, most_tokens: int, used: int) -> int:
        """Have a call come to texts as most do: the head is in use, and it is the only one at its own.

        Return the tokens that it need not compute; -1, and nothing is done, if it comes otherwise, or has more
        than so many tokens to compute. ``used`` blocks are in use at most.
        """
        heads, texts = call.head_blocks, self._store.texts
        own_key, cached = call.own_key, heads
        if call.blocks:
            return -1
        head = texts.get(call.shared_key) if heads else None
        if heads and (head is None or head.top < heads):
            return -1
        if own_key:
            key = (call.shared_key, call.shared_tokens, own_key)
            own = texts.get(key)
            if own is not None:
                if own.users:
                    return -1
                cached += own.end
        tokens = cached * self._block_tokens
        if not 0 < call.tokens_in - tokens <= most_tokens:
            return -1
        if own_key:
            if own is None:
                own = texts[key] = Text(key)
            elif not self._store.take(own, used):
                return -1
            own.users = 1
            own.writer = call
            call.own = own
        if head is not None:
            head.held[heads] = head.held.get(heads, 0) + 1
            call.holds = [(head, heads)]
            call.named = heads
            self._store.free += heads
        self._tokens_hit += tokens
        call.tokens_cached = tokens
        return tokens

    def _leave_own(self, call: Call, own: Text) -> None:
        """Leave a text behind at which the call was the only one."""
        store = self._store
        full, partly = divmod(self._s + call.base, self._block_tokens)
        own.writer = None
        own.users = 0
        own.end = own.top = full - call.head_blocks
        if own.end:
            store.let_go(own, 0, 1 if partly else 0)
        else:
            if partly:
                store.turn(1)
            if own.key is not None:
                del store.texts[own.key]
        for text, upto in reversed(call.holds):
            store.free -= upto
            left = text.held[upto] - 1
            if left:
                text.held[upto] = left
            else:
                store.release(text, upto)

    def _write_eagerly(self, call: Call) -> None:
        """Have a call name its blocks as they fill up from now on: somebody else is at its text."""
        self._say_written(call)
        insort(self._eager, call, key=lambda each: each.order)

    def _say_written(self, call: Call) -> None:
        """Name the blocks that a call has filled up as the only one at its text."""
        own = call.own
        if own is not None:
            own.writer = None
            call.named = full = (self._s + call.base) // self._block_tokens
            call.own_upto = own.end = own.top = full - call.head_blocks
            if call.own_upto:
                own.held[call.own_upto] = 1

    def _name_written(self) -> None:
        """Name the blocks that fill up in this step, of calls that are at a text with others."""
        for call in self._eager:
            if not (self._s + call.base) % self._block_tokens:
                self._name(call, (self._s + call.base) // self._block_tokens)

    def _name(self, call: Call, full: int) -> None:
        """Name the leading full blocks of a call, or use those that hold the same text already."""
        store, heads = self._store, call.head_blocks
        while call.named < full:
            named = call.named
            if named < heads:
                if call.blocks:
                    text, upto, limit = store.text((call.blocks[named],)), 0, 1
                else:
                    text, upto, limit = store.text(call.shared_key), named, min(full, heads)
            elif call.own is not None:
                text, upto, limit = call.own, call.own_upto, full - heads
            else:
                return
            end = upto if text.end <= upto else self._held(text, limit)
            if end > upto:
                store.hold(text, end)
                if upto:
                    store.release(text, upto)
                store.give_back(end - upto)
                self._blocked = False
            else:
                end = limit
                store.extend(text, upto, end)
            call.named = named + end - upto
            if named >= heads:
                call.own_upto = end
            elif upto:
                call.holds[-1] = (text, end)
            else:
                call.holds.append((text, end))

    def _leave(self, call: Call, fresh: int = 0) -> None:
        """Take a call out of those running and give its blocks back, the last first."""
        store, own = self._store, call.own
        del self._running[call]
        self._peaks -= call.peak
        if call.phase == DECODE:
            computed = self._s + call.base
            if not call.cancelled:
                call.generated = computed - call.tokens_in + 1
            blocks = -(-computed // self._block_tokens) + fresh
            store.free -= blocks
            self._n -= 1
            self._base_sum -= call.base
            self._bins[call.base % self._block_tokens] -= 1
            call.finish = -1
            if own is not None:
                if own.writer is call:
                    self._say_written(call)
                else:
                    self._eager.remove(call)
        else:
            blocks = call.blocks_held
            self._prefills.remove(call)
        if blocks > call.named:
            store.give_back(blocks - call.named)
        if own is not None:
            if call.own_upto:
                store.release(own, call.own_upto)
            own.users -= 1
            if own.key is not None:
                if not own.users and not own.end:
                    store.texts.pop(own.key, None)
                call.own = None
        for text, upto in reversed(call.holds):
            store.release(text, upto)
