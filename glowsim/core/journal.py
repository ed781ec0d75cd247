"""The journal: every event, every command, and what the world did with it, packed; the only record of a run.

A record is kept as it is at first and packed together with some hundred others, which costs about half.
Records of one kind stand together in a block of fixed-size rows, so `numpy.frombuffer` reads them as a
table; one byte a record tells the order over all kinds. A segment is a header and a sequence of frames, each
with a checksum: a torn last frame is left out on reading and said so. Rare records of varying size are JSON.
A journal is one segment, or several one after the other, each in a file of its own (`glowsim.live.segments`);
the header of every one but the first begins with the state that the one before ends with.

Replaying feeds the events to a fresh control plane and compares its commands with the recorded ones, byte
by byte, and its state with that at the head of every segment: `first_difference`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import compress, groupby, pairwise
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import JournalError
from glowsim.core.reasons import Code, Constraint
from glowsim.core.snapshot import pack as plain
from glowsim.core.snapshot import unpack as unplain
from glowsim.core.types import (
    Abandoned,
    Advance,
    Advised,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Changed,
    Command,
    Dispatch,
    Effect,
    Event,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Observed,
    Outcome,
    Plan,
    Probe,
    Probed,
    Raise,
    Reason,
    Reject,
    Reported,
    Request,
    Scale,
    Shadowed,
    State,
    Status,
    Told,
    Usage,
    Woke,
)  # fmt: skip

__all__ = [
    "BATCH", "Difference", "Effected", "Journal", "Recording", "SUFFIX", "VERSION", "files_of", "first_difference",
    "gone_on_with", "journals", "read",
]  # fmt: skip

VERSION = 5
_READABLE = (3, 4, VERSION)
"""Up to version 4 a journal is one segment; version 3 has no numbers of feedback and orders. All else is the same."""
_MAGIC = b"GLOWSIMJ"
_FRAME = struct.Struct("<4sIQ")
_FRAME_MAGIC = b"FRAM"
_SPILL_RECORDS = 1 << 16
BATCH = 1 << 9
"""Records that are packed at once."""
SUFFIX = ".glow"
_REASON = [("code", "B"), ("bound", "B"), ("a", "d"), ("b", "d"), ("c", "d")]
_USAGE = [
    ("tokens_in", "i"),
    ("tokens_cached", "i"),
    ("tokens_out", "i"),
    ("first_token_s", "d"),
    ("score", "d"),
]
_NUMPY = {"d": "<f8", "q": "<i8", "Q": "<u8", "i": "<i4", "h": "<i2", "B": "u1", "?": "?"}


class Effected(NamedTuple):
    """What the world did with commands ``first`` .. ``first + n - 1``, counted from 0 over the journal.

    A row of commands that were done stands in one record: each was done at the time it was given.
    """

    t_s: float
    first: int
    n: int
    status: Effect


class _Kind(NamedTuple):
    """How one type is packed: its columns, which fields hold several of them, and how it is put together."""

    code: int
    type: type
    columns: list[tuple[str, str]]
    nested: tuple[int, ...]
    together: Callable[[tuple[Any, ...]], Any] | None

    @property
    def struct(self) -> struct.Struct:
        return struct.Struct("<" + "".join(form for _, form in self.columns))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([(name, _NUMPY[form]) for name, form in self.columns])


_code, _constraint = cache(Code), cache(Constraint)


def _reason(values: Sequence[Any]) -> Reason:
    code, bound, a, b, c = values
    return Reason(_code(code), _constraint(bound), a, b, c)


_FIXED = [
    _Kind(
        1, Arrived,
        [("t_s", "d"), ("request_id", "q"), ("agent", "i"), ("tokens_in", "i"), ("max_tokens_out", "i"),
         ("priority", "B"), ("kind", "h"), ("region", "h"), ("stream", "?"), ("deadline_s", "d"), ("session", "Q"),
         ("user", "Q"), ("tenant", "Q"), ("cache_key", "Q"), ("idempotency_key", "Q"), ("payload", "Q")],
        (1,),
        lambda v: Arrived(v[0], Request(*v[1:])),
    ),
    _Kind(2, FirstToken, [("t_s", "d"), ("attempt", "q")], (), None),
    _Kind(
        3, Finished, [("t_s", "d"), ("attempt", "q"), ("outcome", "B"), *_USAGE, ("retry_after_s", "d")],
        (3,),
        lambda v: Finished(v[0], v[1], Outcome(v[2]), Usage(*v[3:8]), v[8]),
    ),
    _Kind(4, Abandoned, [("t_s", "d"), ("request_id", "q")], (), None),
    _Kind(
        5, Told, [("t_s", "d"), ("ask_id", "q"), ("status", "B"), ("value", "d"), ("expires_s", "d")], (),
        lambda v: Told(v[0], v[1], Status(v[2]), v[3], v[4]),
    ),
    _Kind(
        6, InstanceChanged,
        [("t_s", "d"), ("agent", "i"), ("instance", "i"), ("state", "B"), ("region", "h"), ("eta_s", "d")], (),
        lambda v: InstanceChanged(v[0], v[1], v[2], State(v[3]), v[4], v[5]),
    ),
    _Kind(
        7, Reported,
        [("t_s", "d"), ("agent", "i"), ("instance", "i"), ("signal", "h"), ("value", "d"), ("sampled_at_s", "d"),
         ("n", "i")], (), None,
    ),
    _Kind(8, Woke, [("t_s", "d")], (), None),
    _Kind(
        20, Dispatch,
        [("attempt", "q"), ("request_id", "q"), ("instance", "i"), ("model", "h"), ("variant", "h"),
         ("tokens_in", "i"), ("max_tokens_out", "i"), *_REASON],
        (3, 4),
        lambda v: Dispatch(v[0], v[1], v[2], Plan(*v[3:7]), _reason(v[7:])),
    ),
    _Kind(
        21, Cancel, [("attempt", "q"), *_REASON], (1,), lambda v: Cancel(v[0], _reason(v[1:])),
    ),
    _Kind(
        22, Answer, [("request_id", "q"), ("source", "q"), *_REASON, ("keep", "?")],
        (2,),
        lambda v: Answer(v[0], v[1], _reason(v[2:7]), v[7]),
    ),
    _Kind(23, Forget, [("source", "q")], (), None),
    _Kind(32, Keep, [("source", "q")], (), None),
    _Kind(
        24, Reject, [("request_id", "q"), ("retry_after_s", "d"), *_REASON], (2,),
        lambda v: Reject(v[0], v[1], _reason(v[2:])),
    ),
    _Kind(
        25, Fail, [("request_id", "q"), ("outcome", "B"), *_REASON], (2,),
        lambda v: Fail(v[0], Outcome(v[1]), _reason(v[2:])),
    ),
    _Kind(
        26, Advance, [("agent", "i"), ("stage", "h"), ("weight", "d"), *_REASON], (3,),
        lambda v: Advance(v[0], v[1], v[2], _reason(v[3:])),
    ),
    _Kind(
        40, Effected, [("t_s", "d"), ("first", "q"), ("n", "i"), ("status", "B")], (),
        lambda v: Effected(v[0], v[1], v[2], Effect(v[3])),
    ),
]  # fmt: skip
_LOOSE: dict[int, type] = {
    9: Probed, 10: Observed, 11: Changed, 27: Scale, 28: Probe, 29: Ask, 30: Raise, 31: Shadowed,
    33: Advised,
}  # fmt: skip
_FIRST_COMMAND, _EFFECT = 20, 40
_BY_CODE = {kind.code: kind for kind in _FIXED}
_CODES = {kind.type: kind.code for kind in _FIXED} | {kind: code for code, kind in _LOOSE.items()}
_KINDS = {code: kind for kind, code in _CODES.items()}
_PACK = {kind.code: kind.struct.pack for kind in _FIXED}
_LENGTH = struct.Struct("<I")
_HEAD = len(_MAGIC) + _LENGTH.size


def _rows(kind: type, records: list[Any]) -> bytes:
    """Return the packed rows of records of one type: column by column, so that the loops are the built-ins'."""
    code = _CODES[kind]
    if code in _LOOSE:
        texts = [_loose_bytes(record) for record in records]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    fixed = _BY_CODE[code]
    columns: list[Any] = []
    for i, column in enumerate(zip(*records, strict=True)):
        columns.extend(zip(*column, strict=True) if i in fixed.nested else [column])
    try:
        return b"".join(map(_PACK[code], *columns))
    except struct.error as error:
        if len(records) > 1:
            for record in records:  # one of them is to blame
                _rows(kind, [record])
        raise JournalError(f"{records[0]!r} does not fit a row of the journal: {error}") from error


_SCALE = struct.Struct("<4iBB3d")
_SCALE_ROW = np.dtype(
    [(name, "<i4") for name in ("agent", "region", "kind", "want")]
    + [("code", "u1"), ("bound", "u1")]
    + [(name, "<f8") for name in "abc"]
)


def _loose_bytes(record: Any) -> bytes:
    """Return a record of varying size as JSON; a `Scale`, which a quiet fleet writes with every task, as numbers."""
    if type(record) is Scale:
        agent, region, kind, want, victims, reason = record
        return _SCALE.pack(agent, region, kind, want, *reason) + struct.pack(f"<{len(victims)}i", *victims)
    return json.dumps(plain(record), separators=(",", ":")).encode()


def _loose_record(code: int, packed: bytes) -> Any:
    if code != _CODES[Scale]:
        return unplain(json.loads(packed))
    agent, region, kind, want, *reason = _SCALE.unpack_from(packed)
    victims = struct.unpack_from(f"<{(len(packed) - _SCALE.size) // 4}i", packed, _SCALE.size)
    return Scale(agent, region, kind, want, victims, _reason(reason))


class Journal:
    """Writes down events, commands and effects.

    Parameters
    ----------
    header
        Names, seed, versions: plain JSON data that `read` gives back.
    path
        Where to write; without one the journal stays in memory (`recording`).

    >>> journal = Journal({"seed": 1})
    >>> journal.event(Woke(1.5))
    >>> [record for record in journal.recording().records()]
    [Woke(t_s=1.5)]
    """

    def __init__(self, header: dict[str, Any], path: Path | None = None) -> None:
        self.header = {"version": VERSION, **header}
        self._order = bytearray()
        self._blocks: dict[int, bytearray] = {code: bytearray() for code in _CODES.values()}
        self._file: BinaryIO | None = None
        self._commands = 0
        self._counted = 0
        """Commands among the records so far, and of the pending ones how many records were looked at for it."""
        self.pending: list[Event | Command | Effected] = []
        """Records that are not packed yet. Who appends here himself, for speed, calls `pack` at `BATCH`."""
        self._settled = 0
        if path is not None:
            self._file = file_of(path, self.header)

    @property
    def full(self) -> bool:
        """Whether it is time for another segment; a journal of one segment never is."""
        return False

    def begin(self, head: Mapping[str, Any]) -> None:
        """Begin a segment that stands by itself.

        Parameters
        ----------
        head
            Goes into its header. ``state``: what `ControlPlane.snapshot` returned, if anything happened before;
            ``commands``: how many were given before, 0 if it says nothing.

        Raises
        ------
        JournalError
            This is a journal of one segment, and that was begun.
        """
        if self._file is not None or self._order or self.pending:
            raise JournalError("a journal of one segment cannot begin another")
        self.header |= head
        self._number_from(head)

    def _number_from(self, head: Mapping[str, Any]) -> None:
        self._commands = self._settled = head.get("commands", 0)

    def event(self, event: Event) -> None:
        """Write down an event."""
        self._record(event)

    def command(self, command: Command) -> int:
        """Write down a command and return its number, by which its effect is told."""
        self._record(command)
        return self.commands - 1

    @property
    def commands(self) -> int:
        """How many commands have been written down: the number of the next one."""
        pending = self.pending
        for place in range(self._counted, len(pending)):
            self._commands += _FIRST_COMMAND <= _CODES[type(pending[place])] < _EFFECT
        self._counted = len(pending)
        return self._commands

    def _record(self, record: Event | Command | Effected) -> None:
        self.pending.append(record)
        if len(self.pending) >= BATCH:
            self.pack()

    def pack(self) -> None:
        """Pack what is pending.

        Raises
        ------
        JournalError
            A record that is none of the types, or has a number out of range; nothing was packed.
        """
        pending = self.pending
        try:
            order = bytes(map(_CODES.__getitem__, map(type, pending)))
        except KeyError as error:
            raise JournalError(f"{error.args[0].__name__} is no event, command or effect") from None
        codes = np.frombuffer(order, dtype=np.uint8)
        rows = {
            code: _rows(_KINDS[code], list(compress(pending, (codes == code).tobytes())))
            for code in set(order)
        }
        self._order += order
        for code, packed in rows.items():
            self._blocks[code] += packed
        uncounted = codes[self._counted :]
        self._commands += int(np.count_nonzero((uncounted >= _FIRST_COMMAND) & (uncounted < _EFFECT)))
        self._counted = 0
        pending.clear()

    def effect(self, t_s: float, number: int, status: Effect) -> None:
        """Write down what became of a command; those before it, unless deferred, were done at once."""
        self.defer(t_s, number)
        self._record(Effected(t_s, number, 1, status))

    def defer(self, t_s: float, number: int) -> None:
        """Say that a command's effect will be told later."""
        if number >= self._settled:
            self._settle(t_s, number)
            self._settled = number + 1

    def settle(self, t_s: float) -> None:
        """Write down that every command so far, if nothing else was said of it, was done at once."""
        self._settle(t_s, self.commands)
        if self._file is not None and len(self._order) + len(self.pending) >= _SPILL_RECORDS:
            self.flush()

    def _settle(self, t_s: float, before: int) -> None:
        if before > self._settled:
            self._record(Effected(t_s, self._settled, before - self._settled, Effect.DONE))
            self._settled = before

    def flush(self) -> None:
        """Write what has gathered as one frame of the file."""
        self.pack()
        if self._file is None or not self._order:
            return
        payload = self._payload()
        self._file.write(_FRAME.pack(_FRAME_MAGIC, crc32(payload), len(payload)))
        self._file.write(payload)
        self._file.flush()
        self._order.clear()
        for block in self._blocks.values():
            block.clear()

    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def _payload(self) -> bytes:
        blocks = {code: block for code, block in self._blocks.items() if block}
        index = json.dumps([len(self._order), {code: len(block) for code, block in blocks.items()}]).encode()
        return b"".join([_LENGTH.pack(len(index)), index, self._order, *blocks.values()])

    def recording(self) -> Recording:
        """Return what an unfiled journal holds."""
        self.pack()
        return Recording(
            self.header, bytes(self._order), {c: bytes(b) for c, b in self._blocks.items() if b}, False
        )


def file_of(path: Path, header: Mapping[str, Any]) -> BinaryIO:
    """Return a fresh file that a segment was begun in."""
    head = json.dumps(header, separators=(",", ":")).encode()
    file = path.open("xb")
    file.write(_MAGIC + _LENGTH.pack(len(head)) + head)
    file.flush()
    return file


class Recording:
    """A journal that was read: tables by kind, records in order.

    Parameters
    ----------
    header
        What the journal was opened with.
    order
        One code a record.
    blocks
        The packed rows of every code.
    torn
        Whether a last, incomplete frame was left out.
    seams
        Before which record another segment begins -> the state at its head.
    """

    def __init__(
        self, header: dict[str, Any], order: bytes, blocks: dict[int, bytes], torn: bool,
        seams: Mapping[int, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.header = header
        self.torn = torn
        self.seams = seams
        self._order = order
        self._blocks = blocks

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._order)

    @property
    def commands(self) -> int:
        """The number of the first command after this journal."""
        order = np.frombuffer(self._order, dtype=np.uint8)
        given = np.count_nonzero((order >= _FIRST_COMMAND) & (order < _EFFECT))
        return int(self.header.get("commands", 0)) + int(given)

    def untold(self) -> list[int]:
        """Return the numbers of the commands whose effect was not told."""
        first = self.header.get("commands", 0)
        waiting = set(self.header.get("untold", ())) | set(range(first, self.commands))
        for row in self.table(Effected):
            waiting.difference_update(range(row["first"], row["first"] + row["n"]))
        return sorted(waiting)

    def table(self, kind: type) -> npt.NDArray[Any]:
        """Return the records of a fixed-size kind as a structured array, in order."""
        fixed = _BY_CODE[_CODES[kind]]
        return np.frombuffer(self._blocks.get(fixed.code, b""), dtype=fixed.dtype)

    def positions(self, kind: type) -> npt.NDArray[np.int64]:
        """Return where in the order the records of a kind stand."""
        return np.flatnonzero(np.frombuffer(self._order, dtype=np.uint8) == _CODES[kind])

    def times(self) -> npt.NDArray[np.float64]:
        """Return the time of every record: an event's own, a command's that of the event before it."""
        times = np.full(len(self._order), -np.inf)
        for fixed in _FIXED:
            if fixed.columns[0][0] == "t_s":
                times[self.positions(fixed.type)] = self.table(fixed.type)["t_s"]
        for code, kind in _LOOSE.items():
            if code < _FIRST_COMMAND and code in self._blocks:
                times[self.positions(kind)] = [record.t_s for record in self.loose(kind)]
        filled: npt.NDArray[np.float64] = np.maximum.accumulate(times)
        return filled

    def loose(self, kind: type) -> list[Any]:
        """Return the records of a kind of varying size, in order."""
        code = _CODES[kind]
        block, offset, records = self._blocks.get(code, b""), 0, []
        while offset < len(block):
            (length,) = _LENGTH.unpack_from(block, offset)
            offset += _LENGTH.size + length
            records.append(_loose_record(code, block[offset - length : offset]))
        return records

    def scales(self) -> npt.NDArray[Any]:
        """Return the `Scale` commands as a structured array, in order, without their victims."""
        block, offset, rows = self._blocks.get(_CODES[Scale], b""), 0, []
        while offset < len(block):
            (length,) = _LENGTH.unpack_from(block, offset)
            offset += _LENGTH.size
            rows.append(block[offset : offset + _SCALE.size])
            offset += length
        return np.frombuffer(b"".join(rows), dtype=_SCALE_ROW)

    def records(self) -> Iterator[Event | Command | Effected]:
        """Yield every record in order."""
        for _, record, _ in self._walk():
            yield record

    def _walk(self) -> Iterator[tuple[int, Any, bytes]]:
        """Yield (code, record, packed row)."""
        offsets = dict.fromkeys(self._blocks, 0)
        unpackers = {kind.code: (kind.struct, kind.together or kind.type._make) for kind in _FIXED}  # type: ignore[attr-defined]
        for code in self._order:
            block, offset = self._blocks[code], offsets[code]
            if code in unpackers:
                form, together = unpackers[code]
                end = offset + form.size
                record = together(form.unpack_from(block, offset))
            else:
                (length,) = _LENGTH.unpack_from(block, offset)
                end = offset + _LENGTH.size + length
                record = _loose_record(code, block[end - length : end])
            offsets[code] = end
            yield code, record, block[offset:end]


def read(path: Path) -> Recording:
    """Return the journal in a file, or in a folder of segments.

    Raises
    ------
    JournalError
        As `journals` does; and it was written under several configurations.
    """
    found = journals(path)
    if len(found) > 1:
        raise JournalError(f"{path} was written under {len(found)} configurations, one after the other")
    return found[0]


def journals(path: Path) -> list[Recording]:
    """Return what is in a file, or in a folder of segments: a journal of every configuration, in order.

    Raises
    ------
    JournalError
        Not a journal, or one of another version, or damaged before its last frame; segments that are missing, or
        of several journals.
    """
    files = files_of(path) if path.is_dir() else [path]
    if not files:
        raise JournalError(
            f"{path} holds no segments of a journal, which are called 00000001{SUFFIX} and so on"
        )
    parts = [part for file in files for part in _parts(memoryview(file.read_bytes()), file)]
    name = parts[0].header.get("id")
    for one, other in pairwise(parts):
        before, after = (
            part.header.get("segment", 1) for part in (one, other)
        )  # one of before version 5 is the first
        if name not in (None, other.header.get("id")):
            raise JournalError(f"{path} holds segments of several journals: keep each in a folder of its own")
        if after != before + 1:
            raise JournalError(f"{path} lacks what stands between segments {before} and {after}")
    return [_joined(list(run)) for _, run in groupby(parts, key=lambda part: part.header.get("digest"))]


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder's segments, in order; none if it is no journal."""
    return sorted(folder.glob("[0-9]" * 8 + SUFFIX))


def _joined(parts: Sequence[Recording]) -> Recording:
    """Return the segments of one journal, one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    seams, order, blocks = {}, bytearray(), {code: bytearray() for code in _CODES.values()}
    for part in parts:
        if part is not parts[0]:
            seams[len(order)] = part.header["state"]
        order += part._order
        for code, block in part._blocks.items():
            blocks[code] += block
    packed = {code: bytes(block) for code, block in blocks.items() if block}
    return Recording(parts[0].header, bytes(order), packed, parts[-1].torn, seams)


def _parts(data: memoryview, path: Path) -> list[Recording]:
    """Return the segments in the bytes of a file, each of which may end with a torn frame."""
    parts: list[Recording] = []
    at = 0
    while not parts or at < len(data):
        part, at = _segment(data, at, path)
        parts.append(part)
    return parts


def _segment(data: memoryview, at: int, path: Path) -> tuple[Recording, int]:
    """Return the segment that begins at an offset, and where it ends."""
    if data[at : at + len(_MAGIC)] != _MAGIC:
        raise JournalError(f"{path} is not a glowsim journal")
    length = _LENGTH.unpack_from(data, at + len(_MAGIC))[0] if len(data) >= at + _HEAD else 0
    if length == 0 or len(data) < at + _HEAD + length:
        raise JournalError(f"{path} breaks off within its header: nothing was written to it")
    at += _HEAD
    header = json.loads(bytes(data[at : at + length]))
    if header["version"] not in _READABLE:
        raise JournalError(
            f"{path} is of journal version {header['version']}; this glowsim reads versions "
            f"{', '.join(map(str, _READABLE[:-1]))} and {_READABLE[-1]}"
        )
    at += length
    orders: list[bytes] = []
    blocks: dict[int, list[bytes]] = {}
    torn = False
    while at < len(data) and data[at : at + len(_MAGIC)] != _MAGIC:
        payload = _frame(data, at)
        if payload is None:
            end = bytes(data[at:]).find(_MAGIC)
            end = len(data) if end < 0 else at + end
            if _whole_frame_after(data[:end], at):
                raise JournalError(
                    f"{path} is damaged at byte {at}, and whole frames follow: take a copy of it"
                )
            torn, at = True, end
            break
        at += _FRAME.size + len(payload)
        (index_length,) = _LENGTH.unpack_from(payload, 0)
        cut = _LENGTH.size + index_length
        records, sizes = json.loads(bytes(payload[_LENGTH.size : cut]))
        orders.append(bytes(payload[cut : cut + records]))
        cut += records
        for code, size in sizes.items():
            blocks.setdefault(int(code), []).append(bytes(payload[cut : cut + size]))
            cut += size
    packed = {code: b"".join(rows) for code, rows in blocks.items()}
    return Recording(header, b"".join(orders), packed, torn), at


def _frame(data: memoryview, at: int) -> memoryview | None:
    """Return the payload of the frame at an offset, or None if it is torn."""
    if at + _FRAME.size > len(data):
        return None
    magic, checksum, size = _FRAME.unpack_from(data, at)
    payload = data[at + _FRAME.size : at + _FRAME.size + size]
    if magic != _FRAME_MAGIC or len(payload) < size or crc32(payload) != checksum:
        return None
    return payload


def _whole_frame_after(data: memoryview, at: int) -> bool:
    rest = bytes(data[at + 1 :])
    place = rest.find(_FRAME_MAGIC)
    while place >= 0:
        if _frame(data, at + 1 + place) is not None:
            return True
        place = rest.find(_FRAME_MAGIC, place + 1)
    return False


class Difference(NamedTuple):
    """Where a replay first decided otherwise."""

    number: int
    """Which event of the journal, counted from 0."""
    event: Event
    recorded: tuple[Command, ...]
    replayed: tuple[Command, ...]
    state: bool = False
    """Whether the commands are equal, but the next segment begins with another state."""


def first_difference(recording: Recording, plane: ControlPlane) -> Difference | None:
    """Feed a journal's events to a fresh control plane; return where it first differs, or None.

    Equal means equal bytes: numbers, order and reasons included, and the state at the head of every segment. A
    journal whose first segments are gone begins with the state at the head of the first that is there.
    """
    number: int = -1
    event: Event | None = None
    expected: list[tuple[int, Any, bytes]] = []
    if "state" in recording.header:
        plane.restore(recording.header["state"])

    def compare() -> Difference | None:
        if event is None:
            return None
        given = plane.handle(event)
        if len(given) == len(expected) and all(
            _CODES[type(command)] == code and _rows(type(command), [command]) == row
            for command, (code, _, row) in zip(given, expected, strict=True)
        ):
            return None
        return Difference(number, event, tuple(record for _, record, _ in expected), tuple(given))

    seams = recording.seams
    for place, (code, record, row) in enumerate(recording._walk()):
        if place in seams and event is not None:
            difference = compare()
            if difference is None and _text(plane.snapshot()) != _text(seams[place]):
                difference = Difference(number, event, (), (), state=True)
            if difference is not None:
                return difference
            event, expected = None, []
        if code == _EFFECT:
            continue
        if code >= _FIRST_COMMAND:
            expected.append((code, record, row))
            continue
        difference = compare()
        if difference is not None:
            return difference
        number, event, expected = number + 1, record, []
    return compare()


def gone_on_with(recording: Recording, plane: ControlPlane, *, fresh_s: float) -> float:
    """Bring a fresh control plane to where a journal ends; return when that was.

    Parameters
    ----------
    recording
        The whole journal, or its last segment.
    plane
        As the journal's was when it began.
    fresh_s
        What is returned of a journal in which nothing happened.

    Raises
    ------
    JournalError
        The control plane decides otherwise than the journal says: another scenario, another version.
    """
    difference = first_difference(recording, plane)
    if difference is not None:
        raise JournalError(
            f"the journal was written by another control plane: at event {difference.number}, "
            f"{difference.event!r}, it has {difference.recorded} and this one {difference.replayed}"
            f"{', and another state' if difference.state else ''}; move the journal away to start afresh"
        )
    times = recording.times()
    return float(times[-1]) if len(times) and isfinite(times[-1]) else recording.header.get("t_s", fresh_s)


def _text(state: Any) -> str:
    return json.dumps(state, sort_keys=True)
