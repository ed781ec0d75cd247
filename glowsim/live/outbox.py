"""What is acknowledged once it is committed, and told the control plane exactly once: feedback, and operators' orders.

Committed first, told next, acknowledged last. The store and the journal are two files, and a kill falls between any
two writes; so neither tries to know what the other has. What has been told is what the journal on the disk says: every
`Observed` and `Changed` carries the number that the store gave it, and they are told in the order of these numbers.
After a restart the control plane is what that journal replays to, and whatever the store holds for this journal
beyond the last number in it is told then. Hence

- killed before the commit: neither has it, and nobody was told that it was taken;
- killed after it, whatever else was done: the store has it. If the journal has it too, it is in the state that the
  replay gives, and is not told again. If not, that state has never heard of it, and it is told, once.

A control plane that starts afresh, with a journal of its own, has heard nothing and is told nothing of before.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from glowsim.core.errors import GlowsimError
from glowsim.core.types import Change, Changed, ChangeKind, Observed
from glowsim.live.driver import Driver
from glowsim.live.shapes import WHOLE
from glowsim.live.store import Store
from glowsim.live.store.store import signed, unsigned

__all__ = ["Feedback", "KeyReused", "Outbox", "Taken", "TooMuch", "Unknown"]

_MOST_A_REQUEST = 16
"""Rows of feedback on one request: nobody fills the disk with opinions on one answer."""
_BEST = 5.0


class Unknown(GlowsimError):
    """Feedback is on a request that was never served, is too old, or is not the caller's."""


class KeyReused(GlowsimError):
    """An idempotency key came before with something else."""


class TooMuch(GlowsimError):
    """There is enough feedback on this request."""


_KINDS: list[JsonValue] = [
    {
        "required": ["value"],
        "properties": {"kind": {"const": "rating"}, "value": {"type": "number", "minimum": 1, "maximum": 5}},
    },
    {
        "required": ["value", "tag"],
        "properties": {"kind": {"const": "label"}, "value": {"type": "number"}, "tag": {"type": "string"}},
    },
    {"properties": {"kind": {"enum": ["correction", "complaint"]}, "value": {"type": "null"}}},
]
"""What a schema says of the fields that go together; `Feedback` checks the same."""


class Feedback(BaseModel):
    """What somebody says about an answer.

    >>> Feedback(request_id=7, kind="rating", value=5).metric
    'rating'
    """

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, strict=True, json_schema_extra={"oneOf": _KINDS}
    )

    request_id: Annotated[int, Field(ge=1, lt=2**63), WHOLE]
    kind: Literal["rating", "correction", "complaint", "label"]
    """A label is what a check or a person with time found, under the name of its ``tag``; for admins only."""
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Of a rating 1 (bad) to 5 (good); of a label any number; a correction and a complaint have none."""
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    text: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Only where the daemon keeps texts."""
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Of the same key the first is taken, and the same again is answered alike."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "rating" and not (self.value is not None and 1.0 <= self.value <= _BEST):
            raise ValueError("a rating has a 'value' from 1 to 5")
        if self.kind == "label" and (self.value is None or self.tag is None):
            raise ValueError("a label has a 'value', and its name as 'tag'")
        if self.kind in ("correction", "complaint") and self.value is not None:
            raise ValueError(f"a {self.kind} has no 'value'")
        return self

    @property
    def metric(self) -> str:
        """What it is called in `Observed` events."""
        return self.tag if self.kind == "label" and self.tag is not None else self.kind


class Taken(NamedTuple):
    """What became of something that was committed."""

    number: int
    """Its number in the store."""
    again: bool
    """Whether it had been taken before, under the same idempotency key."""


class _Row(NamedTuple):
    """Feedback as it is told."""

    feedback_id: int
    request_id: int
    agent: int
    variant: int
    unit: int
    propensity: float
    metric: str
    value: float
    assigned_s: float | None


class Outbox:
    """Commits feedback and orders, then tells the control plane.

    Parameters
    ----------
    store
        Where they are kept.
    driver
        Who is told.
    keep_text
        Whether texts of feedback are kept.
    clock
        Seconds since 1970.
    """

    def __init__(
        self, store: Store, driver: Driver, *, keep_text: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._driver = driver
        self._keep_text = keep_text
        self._clock = clock

    async def feedback(self, given: Feedback, *, scope: int, tenant: int | None) -> Taken:
        """Take in feedback; it is committed and told when this returns.

        Parameters
        ----------
        given
            What was said.
        scope
            Whose idempotency keys these are: a 64-bit hash of the caller, 0 for admins.
        tenant
            The caller's, whose requests alone it may rate; None: any.

        Raises
        ------
        Unknown
            No such request of the caller's is remembered.
        KeyReused
            The key came before with something else.
        TooMuch
            There are 16 rows on this request already.
        ValueError
            It has a text, and texts are not kept.
        StoreError
            It could not be written; nothing was kept.
        """
        if given.text is not None and not self._keep_text:
            raise ValueError("text: this daemon keeps no texts; leave it out")
        journal, at_s = self._store.journal, self._clock()
        value = 1.0 if given.value is None else given.value
        said = (given.request_id, given.kind, value, given.tag, given.text)

        def take(database: sqlite3.Connection) -> _Row | Taken:
            if given.idempotency_key is not None:
                before = database.execute(
                    "SELECT feedback_id, request_id, kind, value, tag, text FROM feedback "
                    "WHERE scope = ? AND idempotency = ?",
                    (signed(scope), given.idempotency_key),
                ).fetchone()
                if before is not None:
                    return _repeat(before[0], before[1:] == said)
            seen = database.execute(
                "SELECT agent, variant, unit, propensity, assigned_s, tenant FROM requests_seen "
                "WHERE request_id = ? AND journal = ?",
                (given.request_id, journal),
            ).fetchone()
            if seen is None or (tenant is not None and seen[5] != signed(tenant)):
                raise Unknown(
                    f"request {given.request_id} is not known: it was never served, is too old, or is not yours"
                )
            (there,) = database.execute(
                "SELECT count(*) FROM feedback WHERE request_id = ?", (given.request_id,)
            ).fetchone()
            if there >= _MOST_A_REQUEST:
                raise TooMuch(f"request {given.request_id} has {there} rows of feedback; no more are taken")
            request_id, kind, _, tag, text = said
            number = database.execute(
                "INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    journal,
                    at_s,
                    signed(scope),
                    given.idempotency_key,
                    request_id,
                    *seen[:4],
                    kind,
                    value,
                    tag,
                    text,
                    seen[4],
                ),
            ).lastrowid
            assert number is not None
            agent, variant, unit, propensity, assigned_s, _ = seen
            return _Row(
                number,
                request_id,
                agent,
                variant,
                unsigned(unit),
                propensity,
                given.metric,
                value,
                assigned_s,
            )

        taken = await self._store.done(take, self._tell_feedback)
        return taken if isinstance(taken, Taken) else Taken(taken.feedback_id, False)

    async def order(
        self, *, who: str, what: str, before: Mapping[str, Any], after: Mapping[str, Any],
        changes: Sequence[Change] = (), outcome: str = "ordered", key: str | None = None,
    ) -> Taken:  # fmt: skip
        """Write an operator's order into the audit and have it obeyed; both are so when this returns.

        Parameters
        ----------
        who, what
            Who ordered what, on what.
        before, after
            As it is, and as it is ordered to be: plain JSON data.
        changes
            What the control plane is told; nothing where the order was refused.
        outcome
            ``ordered``, or why it was refused.
        key
            Of the same key the first is obeyed, and the same again is answered alike.

        Raises
        ------
        KeyReused
            The key came before with another order.
        StoreError
            It could not be written; nothing was ordered.
        """
        journal, at_s = self._store.journal, self._clock()
        wanted = json.dumps(after, sort_keys=True)
        told = json.dumps([[int(change.kind), change.agent, change.value] for change in changes])

        def write(database: sqlite3.Connection) -> tuple[int, Sequence[Change]] | Taken:
            if key is not None:
                there = database.execute(
                    "SELECT audit_id, what, after FROM audit WHERE idempotency = ?", (key,)
                ).fetchone()
                if there is not None:
                    return _repeat(there[0], there[1:] == (what, wanted))
            number = database.execute(
                "INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (journal, at_s, who, what, json.dumps(before, sort_keys=True), wanted, outcome, told, key),
            ).lastrowid
            assert number is not None
            return number, changes

        taken = await self._store.done(write, self._tell_order)
        return taken if isinstance(taken, Taken) else Taken(taken[0], False)

    async def catch_up(self) -> int:
        """Tell what is committed and not in the journal that is gone on with; return how much that was.

        Call it once, when the driver has recovered and before anything new is taken.
        """
        heard, obeyed = self._driver.feedback_told, self._driver.orders_told
        journal = self._store.journal

        def untold(database: sqlite3.Connection) -> tuple[list[_Row], list[tuple[int, list[Change]]]]:
            feedback = database.execute(
                "SELECT feedback_id, request_id, agent, variant, unit, propensity, "
                "CASE kind WHEN 'label' THEN tag ELSE kind END, value, assigned_s FROM feedback "
                "WHERE journal = ? AND feedback_id > ? ORDER BY feedback_id",
                (journal, heard),
            )
            orders = database.execute(
                "SELECT audit_id, changes FROM audit WHERE journal = ? AND audit_id > ? AND changes != '[]' "
                "ORDER BY audit_id",
                (journal, obeyed),
            )
            return (
                [_Row(*row)._replace(unit=unsigned(row[4])) for row in feedback],
                [(row[0], _changes(row[1])) for row in orders],
            )

        rows, orders = await self._store.read(untold)
        for row in rows:
            self._tell_feedback(row)
        for order in orders:
            self._tell_order(order)
        return len(rows) + len(orders)

    def _tell_feedback(self, taken: _Row | Taken) -> None:
        if isinstance(taken, Taken) or not self._driver.listening:
            return  # told before; or it is told after the restart
        number, request_id, agent, variant, unit, propensity, metric, value, assigned_s = taken
        now_s = self._driver.now_s()
        self._driver.tell(
            Observed(now_s, request_id, agent, variant, unit, propensity, metric, value, number, assigned_s)
        )

    def _tell_order(self, taken: tuple[int, Sequence[Change]] | Taken) -> None:
        if isinstance(taken, Taken) or not self._driver.listening:
            return
        number, changes = taken
        for change in changes:  # in one frame of the journal: it is written between steps of the event loop
            self._driver.tell(Changed(self._driver.now_s(), change._replace(order_id=number)))


def _repeat(number: int, same: bool) -> Taken:
    if not same:
        raise KeyReused("the idempotency key came before with something else: give each its own")
    return Taken(number, True)


def _changes(told: str) -> list[Change]:
    return [Change(ChangeKind(kind), agent, value) for kind, agent, value in json.loads(told)]
