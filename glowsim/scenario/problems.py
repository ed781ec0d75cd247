"""What is wrong with a scenario, where it stands, what is allowed there and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from glowsim.core.errors import GlowsimError

__all__ = ["REQUIRED", "UNKNOWN_KEY", "Finding", "Problem", "ScenarioError", "did_you_mean"]

REQUIRED = "this key is required"
UNKNOWN_KEY = "unknown key"
_SHOWN_COLUMNS = 110


class Finding(NamedTuple):
    """A mistake at a path of the data, not yet placed in a file.

    >>> Finding(("fleet", 0, "model"), "unknown model 'mni'", ("mini",), "mini").path
    ('fleet', 0, 'model')
    """

    path: tuple[str | int, ...]
    message: str
    allowed: tuple[str, ...] = ()
    suggestion: str | None = None


class Problem(NamedTuple):
    """A mistake and its place.

    Args:
        file: the file, or ``-s ...`` for an override.
        line: from 1; 0 for an override, and where the mistake has no place in a text.
        column: from 1.
        path: dotted path, such as ``fleet.0.concurrency``; empty for the whole file.
        message: one plain sentence without a full stop.
        allowed: what may stand there, if that is a list.
        suggestion: what was probably meant.
        source: the line of the file, or the override.
        width: how many characters the caret covers.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    allowed: tuple[str, ...] = ()
    suggestion: str | None = None
    source: str = ""
    width: int = 1

    def render(self, *, with_source: bool = True) -> str:
        """Return the problem as plain text: place and message, the line with a caret, what is allowed.

        >>> print(Problem("x.yaml", 2, 3, "a.b", "unknown key", ("bee",), "bee", "  b: 1").render())
        x.yaml:2:3: a.b: unknown key; did you mean 'bee'?
           2 |   b: 1
             |   ^
           allowed here: bee
        """
        place = self.file if self.line == 0 else f"{self.file}:{self.line}:{self.column}"
        hint = f"; did you mean '{self.suggestion}'?" if self.suggestion else ""
        rows = [": ".join(part for part in (place, self.path, self.message) if part) + hint]
        if self.source and with_source:
            rows += self._caret()
        if self.allowed:
            rows.append(f"   allowed here: {', '.join(self.allowed)}")
        return "\n".join(rows)

    def _caret(self) -> list[str]:
        first = max(0, self.column - 1 - _SHOWN_COLUMNS // 2) if len(self.source) > _SHOWN_COLUMNS else 0
        shown = self.source[first : first + _SHOWN_COLUMNS].replace("\t", " ")
        start = self.column - 1 - first
        width = max(1, min(self.width, len(shown) - start))
        number = f"{self.line or self.file:>4}"
        return [f"{number} | {shown}".rstrip(), f"{' ' * len(number)} | {' ' * start}{'^' * width}"]


class ScenarioError(GlowsimError):
    """A scenario cannot be used; ``problems`` holds everything that is wrong with it, in file order.

    >>> print(ScenarioError([Problem("x.yaml", 0, 0, "", "the file is empty")]))
    x.yaml: the file is empty
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(self._rendered()))

    def _rendered(self) -> Iterator[str]:
        place: tuple[str, int, int, str] | None = None
        for problem in self.problems:
            here = (problem.file, problem.line, problem.column, problem.source)
            yield problem.render(with_source=here != place)
            place = here


def did_you_mean(word: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed word that is nearest to a misspelt one, or None if none is near.

    >>> did_you_mean("concurency", ["count", "concurrency"])
    'concurrency'
    """
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.7)
    return near[0] if near else None
