"""Following files: the same lines however they are written, over rotations of every kind, in bounded memory."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.live.advice import tail as module
from glowsim.live.advice.tail import Tail
from glowsim.traces.log import LogError


def drained(tail):
    found = []
    while (lines := tail.read()) or not tail.at_end:
        found += lines
    return found


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.touch()
    return path


@pytest.fixture
def tail(log):
    following = Tail(log)
    yield following
    following.close()


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=20)),
    cuts=st.lists(st.integers(0, 200)),
)
def test_lines_are_the_same_however_they_come(tmp_path_factory, lines, cuts):
    path = tmp_path_factory.mktemp("tail") / "log"
    path.touch()
    data = "".join(f"{line}\n" for line in lines).encode()
    tail, found = Tail(path), []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in pairwise(places):
        append(path, data[begin:end])
        found += drained(tail)
    tail.close()
    assert found == lines


def test_a_torn_line_waits_for_its_end(log, tail):
    append(log, b'{"a": 1}\n{"b"')
    assert drained(tail) == ['{"a": 1}']
    append(log, b": 2}\n")
    assert drained(tail) == ['{"b": 2}']


def test_a_renamed_file_is_read_to_its_end_first(log, tail):
    append(log, b"1\n2\n")
    assert tail.read() == ["1", "2"]
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), b"3\nunfinished")
    assert drained(tail) == ["3"]  # there is no new file yet
    append(log, b"4\n")
    assert drained(tail) == ["unfinished", None, "4"]
    assert tail.rotations == 1


def test_a_file_that_was_cut_is_read_from_its_beginning(log, tail):
    append(log, b"1\n2\n")
    assert drained(tail) == ["1", "2"]
    log.write_bytes(b"3\n")
    assert drained(tail) == [None, "3"]


def test_a_line_without_end_takes_no_memory(log, tail, monkeypatch):
    monkeypatch.setattr(module, "LINE_BYTES", 1000)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 400)
    append(log, b"x" * 10_000)
    drained(tail)
    assert len(tail._rest) <= 1400
    append(log, b"\nnext\n")
    assert drained(tail) == ["next"]
    assert tail.cut == 1


def test_bytes_that_are_no_text_spoil_their_line_only(log, tail):
    append(log, b"\xff\xfe\ngood\r\n")
    assert drained(tail) == ["\ufffd\ufffd", "good"]


def test_what_cannot_grow_is_refused(tmp_path, log):
    with pytest.raises(LogError, match="cannot be read"):
        Tail(tmp_path / "nothing")
    log.write_bytes(gzip.compress(b"1\n"))
    with pytest.raises(LogError, match="unpack it"):
        Tail(log)
