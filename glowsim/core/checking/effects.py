"""What became of every command."""

from __future__ import annotations

from collections.abc import Callable

from glowsim.core.checking.picture import Replica
from glowsim.core.journal import Effected
from glowsim.core.types import Effect

__all__ = ["Effects"]


class Effects:
    """Counts the effects of commands; those that are put off wait in a set.

    Parameters
    ----------
    violate
        Takes an invariant's number and what is wrong.
    lost
        Takes a source that was to be kept, and is not.
    """

    def __init__(self, violate: Callable[[str, str], None], lost: Callable[[int], None]) -> None:
        self._violate = violate
        self._lost = lost
        self.commands = 0
        """How many commands were given."""
        self._told = 0
        """Of the commands before this one every effect was told, but for those put off."""
        self._put_off: set[int] = set()
        self._scales: dict[int, list[Replica]] = {}
        self._keeps: dict[int, int] = {}

    def given(self, number: int) -> None:
        """I14: commands are numbered without a gap. Against commands that never reach the journal."""
        if number != self.commands:
            self._violate("I14", f"command {number} stands where {self.commands} should")
        self.commands += 1

    def sent_away(self, victims: list[Replica]) -> None:
        """Take in whom the command that is given next sends away."""
        self._scales[self.commands] = victims

    def kept(self, source: int) -> None:
        """Take in what the command that is given next has the world keep."""
        self._keeps[self.commands] = source

    def told(self, effected: Effected) -> None:
        """I14: every command has its effect once. Against doubled and invented acknowledgements."""
        _, first, n, status = effected
        end = first + n
        if not 0 <= first < end <= self.commands:
            self._violate(
                "I14", f"commands {first} to {end - 1} took effect, of {self.commands} that were given"
            )
            return
        self._put_off.update(range(self._told, first))
        late = range(first, min(end, self._told))
        again = [number for number in late if number not in self._put_off]
        self._put_off.difference_update(late)
        self._told = max(self._told, end)
        if again:
            self._violate("I14", f"command {again[0]} took effect twice")
        for number in [each for each in self._scales if first <= each < end]:
            for victim in self._scales.pop(number):
                victim.refused = status != Effect.DONE
        for number in [each for each in self._keeps if first <= each < end]:
            source = self._keeps.pop(number)
            if status == Effect.REFUSED:
                self._lost(source)

    def ended(self) -> None:
        """I14: no command is left without an effect. Against drivers that forget to say."""
        missing = len(self._put_off) + self.commands - self._told
        if missing:
            first = min(self._put_off, default=self._told)
            self._violate("I14", f"{missing} commands have no effect, number {first} for one")
