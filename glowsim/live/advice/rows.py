"""From the lines of a log to calls: the formats are those of ``glowsim import``, read a row at a time."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from glowsim.core.types import Outcome
from glowsim.traces.formats import FORMATS
from glowsim.traces.formats.base import Format, LeftOut, Request
from glowsim.traces.log import LogError
from glowsim.traces.source import LINE_BYTES
from glowsim.traces.values import Row, Unreadable

__all__ = ["LAST", "Call", "Rows"]

_log = logging.getLogger(__name__)
_OUTCOMES: Final = {
    "ok": Outcome.OK, "error": Outcome.ERROR, "throttled": Outcome.THROTTLED, "timeout": Outcome.TIMEOUT,
    "cancelled": Outcome.CANCELLED,
}  # fmt: skip
_TOKENS: Final = ("tokens_in", "tokens_cached", "tokens_out")
_MOST_TOKENS: Final = 1 << 31
_KEYS: Final = 100_000
"""Names of requests that are remembered, so that one that is written again counts once."""
_WARNED: Final = 5
LAST: Final = 100
"""Rows that say how well a log can be read at present."""


class Call(NamedTuple):
    """A request that is over, as a log tells of it; None: the row does not say."""

    begun_s: float
    """Seconds since 1970 UTC."""
    ended_s: float
    outcome: Outcome
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    first_token_s: float | None
    """From the beginning."""
    agent: str | None
    model: str | None
    instance: str | None
    """URL or host:port."""
    session: str | None
    user: str | None
    tenant: str | None


class Rows:
    """Makes calls of lines; counts what it cannot read, and says so of the first.

    Parameters
    ----------
    path
        The log, for messages.
    name
        Of its format; None: it is recognised by the names of the fields.

    Raises
    ------
    LogError
        There is no such format.

    >>> rows = Rows(Path("spend.jsonl"), "csv")
    >>> line = '{"t_s": "2026-11-22T20:00:00Z", "tokens_in": 9, "tokens_out": 3, "latency_s": 1.5, "agent": "tax"}'
    >>> call = next(rows.calls(line))
    >>> call.agent, call.ended_s - call.begun_s, call.outcome.name
    ('tax', 1.5, 'OK')
    """

    def __init__(self, path: Path, name: str | None) -> None:
        if name is not None and name not in FORMATS:
            raise LogError(f"there is no format {name!r}: choose from {', '.join(FORMATS)}")
        self._path = path
        self._form: Format | None = None if name is None else FORMATS[name]()
        self._json: bool | None = None
        self._header: list[str] | None = None
        self._record = ""
        """Lines of a CSV record whose quotes are still open."""
        self._keys: OrderedDict[str, None] = OrderedDict()
        self.counts: Counter[str] = Counter()
        """``calls``, ``refused``, ``repeated``, ``left_out`` (no model calls) -> rows."""
        self._last: deque[bool] = deque(maxlen=LAST)
        """Of the last rows, whether each was refused."""

    @property
    def format(self) -> str | None:
        """The name of the format, once it is known."""
        return None if self._form is None else self._form.name

    @property
    def unreadable(self) -> int:
        """How many of the last 100 rows could not be read."""
        return sum(self._last)

    def calls(self, line: str | None) -> Iterator[Call]:
        """Yield the calls of a line; None: another file begins.

        Raises
        ------
        LogError
            The file is a JSON array, or a CSV file whose columns are of no known format.
        """
        if line is None:
            self._json = self._header = None
            self._record = ""
            return
        if self._json is None:
            line = line.removeprefix("\ufeff")
            if not line or line.isspace():
                return
            if line.lstrip().startswith("["):
                raise LogError(f"{self._path} is a JSON array, which does not grow: write JSON lines")
            self._json = line.lstrip().startswith("{")
        for row in self._objects(line) if self._json else self._records(line):
            yield from self._within(row)

    def _objects(self, line: str) -> Iterator[Row]:
        if not line or line.isspace():
            return
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._refuse(f"not JSON: {str(error)[:200]}")
            return
        page = found.get("data") if isinstance(found, dict) else None
        for each in page if isinstance(page, list) else [found]:
            if isinstance(each, dict):
                yield each
            else:
                self._refuse(f"a JSON object is needed, not a {type(each).__name__}")

    def _records(self, line: str) -> Iterator[Row]:
        """Yield the record that ends with this line, if one does: text in quotes may go over several."""
        self._record += ("\n" if self._record else "") + line
        if self._record.count('"') % 2:
            if len(self._record) > LINE_BYTES:
                self._record = ""
                self._refuse(f"a record is longer than {LINE_BYTES:,} characters: a quote is missing")
            return
        text, self._record = self._record, ""
        if not text or text.isspace():
            return
        longest = csv.field_size_limit(LINE_BYTES)
        try:
            cells = next(csv.reader(text.splitlines(keepends=True), strict=True))
        except csv.Error as error:
            self._refuse(f"not CSV: {error}")
            return
        finally:
            csv.field_size_limit(longest)
        if self._header is None:
            self._header = [cell.strip() for cell in cells]
            self._recognise(tuple(self._header))
            if self._form is None or (lacking := self._form.missing(tuple(self._header))) is not None:
                lacks = "" if self._form is None else f"; as {self._form.name} it lacks {lacking!r}"
                raise LogError(
                    f"{self._path} is of no known format: it has {', '.join(self._header)[:500]}{lacks}"
                )
        elif len(cells) == len(self._header):
            yield dict(zip(self._header, cells, strict=True))
        else:
            self._refuse(f"{len(cells)} cells, where the header has {len(self._header)}")

    def _recognise(self, names: tuple[str, ...]) -> None:
        if self._form is None:
            made = (make() for make in FORMATS.values())
            self._form = next((form for form in made if form.missing(names) is None), None)

    def _within(self, found: Row) -> Iterator[Call]:
        self._recognise(tuple(found))
        form = self._form
        if form is None:
            self._refuse(
                f"of no known format: it has {', '.join(map(repr, found))[:200]}; name one by --format"
            )
            return
        try:
            rows = list(form.rows(found))
        except Unreadable as error:
            self._refuse(str(error))
            return
        for row in rows:
            try:
                call = self._call(form.request(row))
            except Unreadable as error:
                self._refuse(str(error))
            except LeftOut:
                self._count("left_out")
            else:
                self._count("repeated" if call is None else "calls")
                if call is not None:
                    yield call

    def _call(self, request: Request) -> Call | None:
        if not request.at.dated:
            raise Unreadable("its time is no date (ISO 8601), and advice needs to know when it was")
        latency_s = request.numbers.get("latency_s")
        if latency_s is None:
            raise Unreadable("it does not say when it ended")
        key = request.key
        if key is not None:
            if key in self._keys:
                return None
            self._keys[key] = None
            if len(self._keys) > _KEYS:
                self._keys.popitem(last=False)
        begun_s = request.at.ns / 1e9
        name = request.names.get
        tokens = [int(request.numbers.get(each) or 0.0) for each in _TOKENS]
        if max(tokens) >= _MOST_TOKENS:
            raise Unreadable(f"no call has {max(tokens):,} tokens")
        return Call(
            begun_s, begun_s + latency_s, _OUTCOMES[name("status") or "ok"], tokens[0], tokens[1], tokens[2],
            request.numbers.get("first_token_s"), name("agent"), name("model"), name("instance"),
            name("session"), name("user"), name("tenant"),
        )  # fmt: skip

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._last.append(what == "refused")

    def _refuse(self, why: str) -> None:
        self._count("refused")
        if self.counts["refused"] <= _WARNED:
            last = "; further ones are only counted" if self.counts["refused"] == _WARNED else ""
            _log.warning("%s: a row cannot be read: %s%s", self._path, why, last)
