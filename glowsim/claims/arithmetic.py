"""Arithmetic over named figures, and nothing else: what a file of claims may compute."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["NotArithmetic", "evaluate", "figures_in", "filled_in"]

_LONGEST: Final = 500
_OPERATORS: Final[Mapping[type[ast.AST], Callable[..., float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., float]]] = {
    "ln": math.log,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "min": min,
    "max": max,
}


class NotArithmetic(ValueError):
    """An expression that is none, or names what is not known."""


def figures_in(expression: str) -> tuple[str, ...]:
    """Return the names of the figures in an expression, in their order, each once.

    >>> figures_in("cost_usd / tasks - ln(tasks)")
    ('cost_usd', 'tasks')
    """
    tree = _parsed(expression)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(node.id for node in names))


def evaluate(expression: str, figures: Mapping[str, float]) -> float:
    """Return the value of an expression of + - * / ( ), ln, exp, sqrt, min and max.

    Parameters
    ----------
    expression
        At most 500 characters.
    figures
        Name -> value.

    Raises
    ------
    NotArithmetic
        It is no such expression, names an unknown figure, or has no finite value.

    >>> evaluate("max(cost, 1) / (tasks - 2)", {"cost": 21.0, "tasks": 44.0})
    0.5
    """
    try:
        value = _value(_parsed(expression).body, figures)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        raise NotArithmetic(f"{expression!r}: {error}") from error
    if not math.isfinite(value):
        raise NotArithmetic(f"{expression!r} has no finite value")
    return value


def filled_in(expression: str, shown: Mapping[str, str]) -> str:
    """Return an expression with figures in place of their names, for a person.

    >>> filled_in("cost / tasks", {"cost": "$2,100", "tasks": "42,000"})
    '$2,100 / 42,000'
    """
    names = [
        node for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Name) and node.id in shown
    ]
    for node in sorted(names, key=lambda node: -node.col_offset):
        expression = expression[: node.col_offset] + shown[node.id] + expression[node.end_col_offset :]
    return expression.replace("*", "\u00d7").replace("-", "\u2212")


def _parsed(expression: str) -> ast.Expression:
    if len(expression) > _LONGEST:
        raise NotArithmetic(f"an expression has {len(expression)} characters: at most {_LONGEST}")
    try:
        return ast.parse(expression, mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise NotArithmetic(f"{expression!r} is no arithmetic") from error


def _value(node: ast.AST, figures: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name):
            if name not in figures:
                raise NotArithmetic(f"there is no figure {name!r}")
            return figures[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand, figures))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, figures), _value(right, figures))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](*(_value(each, figures) for each in args)))
    raise NotArithmetic(f"{ast.unparse(node)!r} is more than arithmetic")
