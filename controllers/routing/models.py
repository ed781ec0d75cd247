"""The two models that a router chooses between."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["numbers"]


def numbers(models: Sequence[str], cheap: str, strong: str) -> tuple[int, int]:
    """Return the numbers of the cheap and of the strong model.

    Raises
    ------
    ValueError
        There is no such model, or both are the same.

    >>> numbers(["large", "small"], "small", "large")
    (1, 0)
    """
    for key, name in (("cheap", cheap), ("strong", strong)):
        if name not in models:
            raise ValueError(f"{key}: there is no model {name!r}; there are {', '.join(models)}")
    if cheap == strong:
        raise ValueError(f"strong: {strong!r} is the cheap one too; name another")
    return list(models).index(cheap), list(models).index(strong)
