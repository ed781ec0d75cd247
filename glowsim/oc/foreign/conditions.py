"""Conditions of an Argo analysis, such as ``result[0] >= 0.95``, over many values at once.

The usual part of the expression language: comparisons of the result with numbers, ``len``, ``isNaN``, ``isInf``,
``default``, ``asFloat``, ``asInt``, ``&&``, ``||``, ``!`` and parentheses. A comparison with NaN is false, and the
first element of an empty result is an error, as in docs/features/analysis.md of argoproj/argo-rollouts ("Handling
Metric Results") and in its utils/evaluate/evaluate.go. Anything else is refused, never guessed. A bare ``result`` is
read as its first element.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from glowsim.oc.rules import Bools, Floats

__all__ = ["Condition", "ConditionError", "Truth"]

_MOST_CHARACTERS: Final = 500
_DEEPEST: Final = 20
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(\|\||&&|[<>=!]=|[][()<>!,-]))")
_COMPARISONS: Final[dict[str, Callable[[Floats, Floats], Bools]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


class ConditionError(ValueError):
    """A condition is not of a form that can be simulated; the message says which part."""


class Truth(NamedTuple):
    """Where a condition holds, and where it could not be told (an error of the measurement)."""

    holds: Bools
    errs: Bools


class _Number(NamedTuple):
    value: Floats
    errs: Bools


_Result = tuple[Floats, Bools]
_Numeric = Callable[[_Result], _Number]
_Logical = Callable[[_Result], Truth]


class Condition:
    """A condition, read once and evaluated over arrays.

    Args:
        text: the expression, at most 500 characters.

    Raises:
        ConditionError: a form that is not understood.

    >>> values, present = np.array([0.96, 0.5, np.nan, 0.0]), np.array([True, True, True, False])
    >>> Condition("result[0] >= 0.95").evaluate(values, present)
    Truth(holds=array([ True, False, False, False]), errs=array([False, False, False,  True]))
    >>> Condition("len(result) == 0 || isNaN(result[0]) || result[0] >= 0.95").evaluate(values, present).holds
    array([ True, False,  True,  True])
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _MOST_CHARACTERS:
            raise ConditionError(f"is longer than {_MOST_CHARACTERS} characters")
        self._tokens = _tokens(text)
        self._numbers: list[float] = []
        self._at = 0
        self._evaluate = self._either(0)
        if self._at < len(self._tokens):
            raise ConditionError(f"has {self._tokens[self._at]!r} where it should end")

    @property
    def largest(self) -> float:
        """The largest number in it, 0 without one: above 1, a share is meant in per cent."""
        return max(self._numbers, default=0.0)

    def evaluate(self, values: Floats, present: Bools) -> Truth:
        """Return where it holds.

        Args:
            values: the first element of each result, any shape; may be NaN.
            present: whether the result has an element at all, the same shape.
        """
        return self._evaluate((values, present))

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def _next(self) -> str:
        if self._at == len(self._tokens):
            raise ConditionError("ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, *wanted: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            self._at += 1
            return True
        return False

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise ConditionError(f"has {found!r} where {wanted!r} should be")

    def _either(self, depth: int) -> _Logical:
        if depth > _DEEPEST:
            raise ConditionError(f"is nested deeper than {_DEEPEST} levels")
        left = self._both(depth)
        while self._accept("||", "or"):
            left = _or(left, self._both(depth))
        return left

    def _both(self, depth: int) -> _Logical:
        left = self._one(depth)
        while self._accept("&&", "and"):
            left = _and(left, self._one(depth))
        return left

    def _one(self, depth: int) -> _Logical:
        negated = False
        while self._accept("!", "not"):
            negated = not negated
        if self._accept("("):
            inner = self._either(depth + 1)
            self._expect(")")
        elif self._accept("isNaN", "isInf"):
            inner = self._test(np.isnan if self._tokens[self._at - 1] == "isNaN" else np.isinf)
        else:
            inner = self._comparison()
        return _not(inner) if negated else inner

    def _test(self, test: Callable[[Floats], Bools]) -> _Logical:
        self._expect("(")
        inner = self._number()
        self._expect(")")

        def evaluate(result: _Result) -> Truth:
            value, errs = inner(result)
            return Truth(test(value) & ~errs, errs)

        return evaluate

    def _comparison(self) -> _Logical:
        left = self._number()
        sign = self._next()
        if sign not in _COMPARISONS:
            raise ConditionError(f"has {sign!r} where a comparison ({', '.join(_COMPARISONS)}) should be")
        compare, right = _COMPARISONS[sign], self._number()

        def evaluate(result: _Result) -> Truth:
            a, b = left(result), right(result)
            errs = a.errs | b.errs
            return Truth(compare(a.value, b.value) & ~errs, errs)

        return evaluate

    def _number(self) -> _Numeric:
        token = self._next()
        if token == "result":  # noqa: S105 - a word of the language, no secret
            if self._accept("["):
                self._expect("0")
                self._expect("]")
            return _result
        if token in ("asFloat", "asInt"):
            self._expect("(")
            inner = self._number()
            self._expect(")")
            return inner
        if token in ("len", "default"):
            return self._call(token)
        sign = 1.0
        if token == "-":  # noqa: S105
            sign, token = -1.0, self._next()
        try:
            number = sign * float(token)
        except ValueError:
            raise ConditionError(f"has {token!r}, which is not understood") from None
        self._numbers.append(number)
        return _constant(number)

    def _call(self, name: str) -> _Numeric:
        self._expect("(")
        self._expect("result")
        if name == "len":
            self._expect(")")
            return _length
        self._expect(",")
        otherwise = self._number()
        self._expect(")")

        def evaluate(result: _Result) -> _Number:
            values, present = result
            other = otherwise(result)
            return _Number(np.where(present, values, other.value), other.errs & ~present)

        return evaluate


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    stripped = text.rstrip()
    while at < len(stripped):
        token = _TOKEN.match(stripped, at)
        if token is None:
            raise ConditionError(f"has {stripped[at:].lstrip()[:1]!r}, which is not understood")
        found.append(token[1] or token[2] or token[3])
        at = token.end()
    return found


def _or(left: _Logical, right: _Logical) -> _Logical:
    def evaluate(result: _Result) -> Truth:
        a, b = left(result), right(result)
        errs = a.errs | (~a.holds & b.errs)
        return Truth((a.holds | b.holds) & ~errs, errs)

    return evaluate


def _and(left: _Logical, right: _Logical) -> _Logical:
    def evaluate(result: _Result) -> Truth:
        a, b = left(result), right(result)
        errs = a.errs | (a.holds & b.errs)
        return Truth(a.holds & b.holds & ~errs, errs)

    return evaluate


def _not(inner: _Logical) -> _Logical:
    def evaluate(result: _Result) -> Truth:
        holds, errs = inner(result)
        return Truth(~holds & ~errs, errs)

    return evaluate


def _result(result: _Result) -> _Number:
    values, present = result
    return _Number(values, ~present)


def _length(result: _Result) -> _Number:
    _, present = result
    return _Number(present.astype(np.float64), np.zeros_like(present))


def _constant(number: float) -> _Numeric:
    def evaluate(result: _Result) -> _Number:
        _, present = result
        return _Number(np.full(present.shape, number), np.zeros_like(present))

    return evaluate
