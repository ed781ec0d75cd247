"""Reading: a broken row costs itself, with its line and a reason; nothing but a LogError is ever raised."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.traces import source
from glowsim.traces.formats import FORMATS
from glowsim.traces.log import Log, LogError
from glowsim.traces.published import PUBLISHED, find
from glowsim.traces.reading import read

DEEP = "[" * 200_000 + "]" * 200_000


def saved(folder: Path, text: str | bytes, name: str = "log") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def row(**fields: Any) -> str:
    return json.dumps({"t_s": 1, "tokens_in": 10, **fields})


def refused(log: Log) -> list[tuple[int, str]]:
    return [tuple(each) for each in log.reading.refused]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("{", "not JSON"),
        (DEEP, "nested too deeply"),
        ("[1]", "a JSON object is needed, not a list"),
        ("null", "a JSON object is needed"),
        (row(tokens_in=-1), "tokens_in must be a number of 0 or more, not -1"),
        (row(tokens_in=1.5), "tokens_in must be a whole number"),
        (row(tokens_in=True), "tokens_in must be"),
        (row(tokens_in="many"), "tokens_in must be"),
        ('{"t_s": 1, "tokens_in": NaN}', "tokens_in must be"),
        ('{"t_s": 1, "tokens_in": 1e999}', "tokens_in must be"),
        ('{"t_s": 1, "tokens_in": 1' + "0" * 400 + "}", "tokens_in must be"),
        ('{"t_s": 1, "tokens_in": 1' + "0" * 5000 + "}", "not JSON"),
        (row(tokens_in=[1]), "tokens_in must be a number of 0 or more, not a list"),
        (row(tokens_cached=11), "tokens_cached, 11, is more than tokens_in, 10, of which it is part"),
        (row(t_s=None), "t_s is missing"),
        (row(t_s="soon"), "t_s must be seconds or a date"),
        (row(t_s=1.7e12), "is it in milliseconds?"),
        (row(t_s="2026-13-01T00:00:00Z"), "t_s is no date"),
        (row(t_s="2300-01-01T00:00:00Z"), "t_s must be between the years 1970 and 2255"),
        (row(t_s="2026-01-01T00:00:00Z"), "the time is a date, where the rows before have seconds"),
        (row(model={"a": 1}), "model must be a name, not a dict"),
        (row(model="m" * 1001), "model is longer than 1000 characters"),
        (row(status="fine"), "status must be one of ok"),
    ],
)  # fmt: skip
def test_a_broken_row_is_refused_and_the_rest_is_read(tmp_path: Path, broken: str, why: str) -> None:
    log = read(saved(tmp_path, "\n".join([row(), "", broken, row(t_s=3)])), "csv")
    assert log.t_s.tolist() == [0.0, 2.0]
    ((line, said),) = refused(log)
    assert line == 3
    assert why in said
    assert (log.reading.rows, log.reading.refused_count) == (3, 1)
    assert "line 3: " in log.reading.text()


def test_bytes_that_are_not_utf8_and_lines_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LINE_BYTES", 1000)
    long = b'{"x": "' + b"a" * 5000 + b'"}'
    path = saved(tmp_path, b"\n".join([row().encode(), b'"\xff"', long, row(t_s=2).encode(), long]))
    log = read(path)
    assert len(log) == 2
    assert [(line, why[:12]) for line, why in refused(log)] == [
        (2, "not UTF-8: i"), (3, "the line is "), (5, "the line is "),
    ]  # fmt: skip


def test_csv_rows_that_do_not_fit_the_header(tmp_path: Path) -> None:
    text = 't_s,tokens_in,model\n1,2,a\n\n2,3\n3,4,a,b\n4,5,"a"b\n5,6,"two\nlines"\n6,7,a\n7,8,"open\n8,9,a\n'
    log = read(saved(tmp_path, text))
    assert log.t_s.tolist() == [0.0, 4.0, 5.0]
    assert log.names["model"].labels == ("a", "two\nlines")
    assert [line for line, _ in refused(log)] == [4, 5, 6, 10]
    assert refused(log)[1][1] == "4 cells, where the header has 3"
    assert refused(log)[3][1] == "not CSV: unexpected end of data"


def test_cells_longer_than_the_csv_module_allows_are_read_and_its_limit_is_left_alone(tmp_path: Path) -> None:
    before = 131_072
    csv.field_size_limit(before)
    log = read(saved(tmp_path, f"t_s,tokens_in,note\n1,2,{'x' * 200_000}\n"))
    assert (len(log), log.reading.refused_count) == (1, 0)
    assert csv.field_size_limit() == before


def test_a_row_stands_once(tmp_path: Path) -> None:
    chat = {"chat_id": 1, "parent_chat_id": -1, "timestamp": 1, "input_length": 1, "output_length": 1}
    log = read(saved(tmp_path, json.dumps([chat, {**chat, "chat_id": 2}, chat])))
    assert refused(log) == [(3, "'1' was there before: a request stands in one row")]
    assert "element 3: " in log.reading.text()


def test_json_documents(tmp_path: Path) -> None:
    good = '{"t_s": 5, "note": "],[{ \\"", "tokens_in": 1}'
    whole = read(saved(tmp_path, f"\n [{good},\n{row(t_s=7)}]"))
    assert whole.t_s.tolist() == [0.0, 2.0]
    broken = read(saved(tmp_path, f"[{good}, {{'t': 1}}, {DEEP}, {row(t_s=7)}, {row(t_s=9)[:-3]}"))
    assert broken.t_s.tolist() == [0.0, 2.0]
    assert [(line, why[:8]) for line, why in refused(broken)] == [
        (2, "not JSON"),
        (3, "the JSON"),
        (5, "not JSON"),
    ]
    pretty = read(saved(tmp_path, json.dumps({"t_s": 5, "tokens_in": 1}, indent=2)))
    assert len(pretty) == 1


def test_gzip_is_seen_by_its_content_and_read_as_far_as_it_goes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    text = "\n".join(row(t_s=i, session=str(rng.integers(10**12))) for i in range(2000)).encode()
    packed = gzip.compress(text)
    assert len(read(saved(tmp_path, packed, "log.csv"))) == 2000
    log = read(saved(tmp_path, packed[: len(packed) // 2]))
    assert 100 < len(log) < 1990
    assert "breaks off" in refused(log)[0][1]
    middle = len(packed) // 2
    log = read(saved(tmp_path, packed[:middle] + b"\xff" * 50 + packed[middle + 50 :]))
    assert len(log) > 100
    assert log.reading.refused_count >= 1


def test_a_mark_of_byte_order_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert len(read(saved(tmp_path, "\ufefft_s,tokens_in\n1,2\n"))) == 1
    assert len(read(saved(tmp_path, "\ufeff" + row()))) == 1
    assert len(read(saved(tmp_path, f"\ufeff[{row()}]"))) == 1


def test_a_small_file_cannot_unpack_into_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_UNPACKED_BYTES", 100_000)
    bomb = saved(tmp_path, gzip.compress(b"t_s,tokens_in\n" + b"1,2\n" * 100_000))
    with pytest.raises(LogError, match="holds more than 100,000 bytes"):
        read(bomb)
    monkeypatch.setattr(source, "LINE_BYTES", 1_000)
    line = saved(tmp_path, gzip.compress(b"t_s,tokens_in\n1,2\n" + b"x" * 500_000))
    with pytest.raises(LogError, match="holds more than 100,000 bytes"):
        read(line)
    with pytest.raises(LogError, match="holds more than 100,000 bytes"):
        read(saved(tmp_path, gzip.compress(b"\n" * 500_000)))
    monkeypatch.setattr(source, "_DOCUMENT_BYTES", 1_000)
    with pytest.raises(LogError, match="write it as JSON lines"):
        read(saved(tmp_path, "[" + ",\n".join([row()] * 100) + "]"))


def test_there_is_a_most_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowsim.traces.reading._MOST_ROWS", 10)
    with pytest.raises(LogError, match="more than 10 rows: split it"):
        read(saved(tmp_path, "\n".join([row()] * 11)))
    with pytest.raises(LogError, match="more than 10 rows: split it"):
        read(saved(tmp_path, "\n".join([row(), *["{"] * 200])))


def test_memory_does_not_grow_with_what_is_not_taken(tmp_path: Path) -> None:
    text = "t_s,tokens_in,note\n" + "".join(f"{i},1,{'x' * 1000}\n" for i in range(10_000))
    path = saved(tmp_path, text)
    del text
    tracemalloc.start()
    read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("content", "format", "said"),
    [
        ("", None, "is empty"),
        ("\n \n", None, "is empty"),
        ("a,b\n1,2\n", None, r"of no known format; its rows have a, b\nknown are:(.|\n)*litellm: rows with request_id"),
        ("{}", None, "its rows have no fields"),
        ("[1]", None, "no row of it can be parsed, the first at element 1: a JSON object is needed"),
        ("[]", None, "it has no rows"),
        ("a,a\n1,2\n", None, "two columns 'a'"),
        ("a,b\n1,2\n", "azure_llm", "no column 'TIMESTAMP'; it has a, b"),
        ('{"a": 1}', "litellm", r"line 1: startTime is missing.*\n  expected: rows with request_id"),
        ('{"resourceSpans": []}', None, "no requests that can be read as otel: it has no rows"),
        (row(t_s="x"), None, "1 rows were refused, the first at line 1: t_s must be"),
        ("t_s,tokens_in\n", None, "has no requests that can be read as csv: it has no rows"),
        ("x", "vcr", "no format 'vcr': choose from"),
        (b"[\xff]", None, "not UTF-8"),
        (b"\x1f\x8b\x08\x00broken", None, "damaged gzip"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 6 + b"\xff" * 50, None, "damaged gzip file: .*invalid block"),
    ],
)  # fmt: skip
def test_a_file_of_which_nothing_can_be_read_says_what_was_found_and_expected(
    tmp_path: Path, content: str | bytes, format: str | None, said: str  # noqa: A002
) -> None:  # fmt: skip
    with pytest.raises(LogError, match=said):
        read(saved(tmp_path, content), format)


def test_no_file_no_log(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(LogError, match="cannot be read"):
            read(path)
    with pytest.raises(LogError, match="columns are only for the format csv"):
        read(tmp_path, "otel", columns={"t_s": "x"})


def test_only_the_first_of_many_refusals_and_kinds_are_kept(tmp_path: Path) -> None:
    rows = [row(**{f"f{i}": 1}) for i in range(3000)] + ["{"] * 3000
    log = read(saved(tmp_path, "\n".join(rows)))
    assert (log.reading.refused_count, len(log.reading.refused)) == (3000, 100)
    assert len(log.reading.unknown) == 1001
    assert sum(log.reading.unknown.values()) == 3000
    assert log.reading.unknown["(others)"] == 2000


def test_a_value_that_some_rows_lack_is_nan_and_a_column_that_all_lack_is_absent(tmp_path: Path) -> None:
    log = read(saved(tmp_path, "\n".join([row(), row(t_s=2, latency_s=1, model="m"), row(t_s=3)])))
    assert list(log.numbers) == ["tokens_in", "latency_s"]
    np.testing.assert_array_equal(log.numbers["latency_s"], [nan, 1.0, nan])
    assert log.names["model"].codes.tolist() == [-1, 0, -1]
    assert log.blocks is None
    assert log.epoch is None


def test_rows_out_of_order_are_sorted_and_said_to_be(tmp_path: Path) -> None:
    rows = [row(t_s=4, tokens_in=1, model="b"), row(t_s=2, tokens_in=2, model="a"), row(t_s=4, tokens_in=3)]
    log = read(saved(tmp_path, "\n".join(rows)))
    assert log.t_s.tolist() == [0.0, 2.0, 2.0]
    assert log.numbers["tokens_in"].tolist() == [2.0, 1.0, 3.0]
    assert [log.names["model"].labels[code] if code >= 0 else None for code in log.names["model"].codes] == [
        "a", "b", None,
    ]  # fmt: skip
    assert log.reading.remarks == ("the rows were not in order of time, and were sorted",)
    assert read(saved(tmp_path, "\n".join(sorted(rows[1:])))).reading.remarks == ()


WHEN = datetime(2026, 3, 2, 10, tzinfo=UTC)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "at_ms": st.integers(0, 10**9),
            "tokens_in": st.integers(0, 10**9),
            "latency_ms": st.integers(0, 10**7) | st.none(),
            "model": st.text(
                st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=9
            ),
        }
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60)
@given(rows=ROWS, as_csv=st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], as_csv: bool
) -> None:
    spend = [
        {
            "request_id": str(i),
            "startTime": (WHEN + timedelta(milliseconds=each["at_ms"])).isoformat(),
            "endTime": None if each["latency_ms"] is None
            else (WHEN + timedelta(milliseconds=each["at_ms"] + each["latency_ms"])).isoformat(),
            "prompt_tokens": each["tokens_in"],
            "completion_tokens": 0,
            "model": each["model"],
        }
        for i, each in enumerate(rows)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("round")
    if as_csv:
        quoted = [
            ",".join(
                '"' + str("" if cell is None else cell).replace('"', '""') + '"' for cell in each.values()
            )
            for each in spend
        ]
        log = read(saved(folder, "\n".join([",".join(spend[0]), *quoted])))
    else:
        log = read(saved(folder, "\n".join(map(json.dumps, spend))))
    assert log.reading.refused_count == 0
    in_order = sorted(rows, key=lambda each: each["at_ms"])
    assert log.t_s.tolist() == [(each["at_ms"] - in_order[0]["at_ms"]) / 1e3 for each in in_order]
    assert log.numbers["tokens_in"].tolist() == [each["tokens_in"] for each in in_order]
    assert [log.names["model"].labels[code] for code in log.names["model"].codes] == [
        each["model"] for each in in_order
    ]
    latencies = [nan if each["latency_ms"] is None else each["latency_ms"] / 1e3 for each in in_order]
    np.testing.assert_array_equal(log.numbers.get("latency_s", np.full(len(rows), nan)), latencies)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    {field for make in FORMATS.values() for field in make().fields}
    | {
        "resourceSpans",
        "scopeSpans",
        "spans",
        "attributes",
        "key",
        "value",
        "usage_object",
        "data",
        "event_type",
    }
)


@settings(max_examples=300)
@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"{", b"[", b"\x1f\x8b\x08", b"t_s,tokens_in\n1,"]),
       format=st.sampled_from([None, *FORMATS]))  # fmt: skip
def test_arbitrary_bytes_raise_nothing_but_a_log_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes, format: str | None  # noqa: A002
) -> None:  # fmt: skip
    _read_or_refuse(saved(tmp_path_factory.mktemp("bytes"), start + content), format)


@settings(max_examples=300)
@given(rows=st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8), min_size=1, max_size=4),
       format=st.sampled_from(list(FORMATS)))  # fmt: skip
def test_arbitrary_values_of_known_fields_raise_nothing_but_a_log_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], format: str  # noqa: A002
) -> None:  # fmt: skip
    content = "\n".join(json.dumps(each) for each in rows)
    _read_or_refuse(saved(tmp_path_factory.mktemp("rows"), content), format)


def _read_or_refuse(path: Path, format: str | None) -> None:  # noqa: A002
    try:
        log = read(path, format)
    except LogError:
        return
    assert len(log) >= 1
    assert log.t_s[0] == 0.0
    assert np.all(np.diff(log.t_s) >= 0.0)
    assert len(log) + log.reading.refused_count <= log.reading.rows
    assert {len(log)} == {len(column) for column in log.numbers.values()} | {len(log)}
    assert all(np.all((column >= 0.0) | np.isnan(column)) for column in log.numbers.values())


def test_a_published_trace_is_found_by_path_by_name_one_folder_down_and_gzipped(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    lies = saved(tmp_path / "set", "x", "a.csv")
    assert find("set/a.csv", tmp_path) == find("elsewhere/a.csv", tmp_path) == find("a.csv", tmp_path) == lies
    packed = saved(tmp_path / "set", "x", "conversation_trace.jsonl.gz")
    assert find("mooncake/conversation_trace.jsonl", tmp_path) == packed
    with pytest.raises(LogError, match=r"(?s)published at: .*Azure.*licence: CC-BY-4.0.*put it at"):
        find("AzureLLMInferenceTrace_conv.csv", tmp_path)
    with pytest.raises(LogError, match="GLOWSIM_DATA"):
        find("b.csv", None)


def test_every_published_trace_has_a_format_and_a_licence() -> None:
    assert {each.format for each in PUBLISHED} <= FORMATS.keys()
    assert all(each.where.startswith("https://") and "cite" in each.licence for each in PUBLISHED)
    assert len({each.file for each in PUBLISHED}) == len(PUBLISHED)


def test_a_format_is_called_what_it_calls_itself() -> None:
    assert [make().name for make in FORMATS.values()] == list(FORMATS)
