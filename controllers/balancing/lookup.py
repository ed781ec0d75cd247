"""From an instance's number to the instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glowsim.core.instance import Eligible, Instance

__all__ = ["by_number"]


def by_number(allowed: Sequence[Instance]) -> Mapping[int, Instance]:
    """Return number -> instance of at least the allowed ones; of the others, ``place`` is below 0.

    The pool's own list knows all of its instances, so this costs nothing; a filtered list is gone through.

    >>> a, b = Instance(0, 0, 1), Instance(1, 0, 1)
    >>> eligible = Eligible({0: a, 1: b}); eligible.add(b)
    >>> sorted(by_number(eligible)), sorted(by_number([b]))
    ([0, 1], [1])
    """
    if type(allowed) is Eligible:
        return allowed.instances
    return {each.number: each for each in allowed}
