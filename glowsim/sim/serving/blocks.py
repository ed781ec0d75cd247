"""The blocks of a KV cache, with the texts that they hold: counted in runs, never one by one.

A text is held from its beginning, ``text[:end]``, each block once. Calls hold beginnings of it, so what nobody
holds is its end, ``text[top:end]``, and as blocks are released from the tail, the deeper ones are older: the
end is evicted from the tail. So a text is three numbers and the places of its unheld runs in the one queue of
free blocks, least recently used first. Blocks without a text that can be found again are a number of such a run:
they were released before it.

Allocation is put off: ``free`` goes down at once, and the queue is cut down to it, which evicts, only before
somebody looks at what a text still holds (`BlockStore.settle`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence

__all__ = ["BlockStore", "Text", "prefix_hits"]

_ENTRIES = 64


class Text:
    """A text of which the cache holds the beginning, in blocks.

    ``end`` blocks are held, ``top`` of them referenced; ``users`` calls are at it.
    """

    __slots__ = ("end", "held", "key", "runs", "top", "users", "writer")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.end = 0
        self.top = 0
        self.held: dict[int, int] = {}
        """Length of a beginning -> how many references there are to just that."""
        self.runs: list[_Run] = []
        """Unreferenced runs, the deepest first."""
        self.users = 0
        self.writer: object = None
        """The only call at it, which extends it and has not said so yet; ``held`` knows nothing of it."""


class _Run:
    """Free blocks that lie together in the queue: ``loose`` ones without a text, then ``text[begin:end]``."""

    __slots__ = ("before", "begin", "end", "loose", "text")

    def __init__(self, text: Text | None, begin: int, end: int, loose: int, before: int) -> None:
        self.text = text
        self.begin = begin
        self.end = end
        self.loose = loose
        self.before = before
        """Blocks that had come into the queue before those with the text."""


class BlockStore:
    """All blocks of a KV cache.

    Parameters
    ----------
    blocks
        How many there are, at least 0.

    >>> store = BlockStore(10)
    >>> text = store.text("a")
    >>> store.free -= 3
    >>> store.extend(text, 0, 3)
    >>> store.release(text, 3)
    >>> store.free, text.end
    (10, 3)
    >>> store.free -= 8
    >>> store.settle(0)
    >>> text.end
    2
    """

    __slots__ = ("_most", "_queue", "blocks", "came", "free", "mixed", "queued", "texts")

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.free = blocks
        """Blocks without a reference, and those that the user of the store counts itself."""
        self.queued = blocks
        """Blocks in the queue: those and the ones allocated since it was last settled."""
        self.came = blocks
        """Blocks that have ever come into the queue."""
        self.mixed = False
        """Whether some text has ever been in the queue; before, its order is all the same."""
        self.texts: dict[Hashable, Text] = {}
        self._queue: deque[_Run] = deque([_Run(None, 0, 0, blocks, blocks)])
        self._most = _ENTRIES
        """Runs in the queue at which it is worth settling: runs that are held again leave empty ones."""

    def text(self, key: Hashable) -> Text:
        """Return the text with this key, a new one if it is not known."""
        text = self.texts.get(key)
        if text is None:
            text = self.texts[key] = Text(key)
        return text

    def give_back(self, blocks: int) -> None:
        """Put blocks that hold nothing to be found again at the end of the queue."""
        self.free += blocks
        self.turn(blocks)

    def turn(self, blocks: int) -> None:
        """Put blocks that counted as free all the while, and hold nothing to be found, at the end of the queue."""
        self.queued += blocks
        self.came += blocks
        queue = self._queue
        if queue and queue[-1].text is None:
            queue[-1].loose += blocks
        else:
            queue.append(_Run(None, 0, 0, blocks, self.came))

    def hold(self, text: Text, upto: int) -> None:
        """Take a reference to ``text[:upto]``, all of which is held."""
        text.held[upto] = text.held.get(upto, 0) + 1
        if upto > text.top:
            self.free -= upto - text.top
            self.queued -= upto - text.top
            text.top = upto
            runs = text.runs
            while runs and runs[-1].begin < upto:
                run = runs[-1]
                if run.end > upto:
                    run.begin = upto
                    break
                run.begin = run.end
                runs.pop()

    def extend(self, text: Text, upto: int, end: int) -> None:
        """Make a reference to all of ``text[:upto]`` one to ``text[:end]``: allocated blocks that filled up."""
        held = text.held
        if not upto:
            if text.key is not None:
                self.texts[text.key] = text  # all of it may have been evicted
        else:
            left = held[upto] - 1
            if left:
                held[upto] = left
            else:
                del held[upto]
        held[end] = held.get(end, 0) + 1
        text.end = text.top = end

    def release(self, text: Text, upto: int) -> None:
        """Give a reference to ``text[:upto]`` back; what nobody references any more can be evicted, tail first."""
        held = text.held
        left = held[upto] - 1
        if left:
            held[upto] = left
            return
        del held[upto]
        if upto == text.top:
            top = max(held) if held else 0
            self.free += upto - top
            self.let_go(text, top)

    def let_go(self, text: Text, top: int, loose: int = 0) -> None:
        """Put blocks without a text, then all of a text from ``top`` on, at the end of the queue; all count as free."""
        end = text.top
        before = self.came + loose
        run = _Run(text, top, end, loose, before)
        text.runs.append(run)
        self._queue.append(run)
        self.mixed = True
        self.came = before + end - top
        self.queued += loose + end - top
        text.top = top

    def take(self, text: Text, used: int) -> bool:
        """Let an only user have all of an unheld text, to go on counting as free; return whether it is all there.

        At most ``used`` blocks are in use, so the queue holds at least all the others: a run with no more than
        these from its beginning to the queue's end is whole. What cannot be told so quickly is no.
        """
        runs = text.runs
        if len(runs) != 1 or len(self._queue) >= self._most:
            return False
        run = runs[0]
        if self.came - run.before > self.blocks - used:
            return False
        runs.clear()
        run.begin = text.top = end = run.end
        self.queued -= end
        return True

    def settle(self, pending: int) -> None:
        """Evict what has been allocated since the last time, and ``pending`` blocks more that are in no count."""
        due = self.queued - self.free + pending
        self.queued -= due
        queue = self._queue
        while due > 0:
            run = queue[0]
            due -= run.loose
            if due < 0:
                run.loose = -due
                break
            run.loose = 0
            text, size = run.text, run.end - run.begin
            if size > due:
                assert text is not None
                run.end = text.end = run.end - due
                break
            queue.popleft()
            due -= size
            if size:
                assert text is not None
                text.end = run.begin
                text.runs.pop(0)
                if not text.end and not text.users:
                    self.texts.pop(text.key, None)
        self._most = 2 * len(queue) + _ENTRIES


def prefix_hits(prompts: Iterable[Sequence[int]], blocks: int | None = None) -> list[int]:
    """Return of each prompt how many leading blocks a cache with room for so many blocks holds when it comes.

    A prompt's blocks are touched tail first, so that its beginning is the newest; what is too much is evicted
    after the prompt, least recently used first.

    Parameters
    ----------
    prompts
        The hashes of each prompt's blocks, in order of arrival; equal where the text up to there is equal.
    blocks
        How many the cache has room for, at least 0; None: as many as there are.

    Notes
    -----
    Source of the rule: the KV cache manager of vLLM v1, which frees a request's blocks in reverse order.

    >>> prefix_hits([(1, 2, 3), (1, 2, 4), (1, 2, 3)], 4), prefix_hits([(1, 2, 3), (4, 5), (1, 2, 3)], 4)
    ([0, 2, 3], [0, 0, 2])
    """
    store = BlockStore(0)
    hits = []
    for prompt in prompts:
        texts = [store.text(block) for block in prompt]
        hits.append(next((i for i, text in enumerate(texts) if not text.end), len(texts)))
        for text in texts:
            if text.end:
                store.hold(text, 1)
            else:
                store.extend(text, 0, 1)
        for text in reversed(texts):
            store.release(text, 1)
        if blocks is not None and store.queued > blocks:
            store.free = blocks
            store.settle(0)
    return hits
