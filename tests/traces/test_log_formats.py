"""Formats: what each field of a row becomes, in old spellings and new, and what is never taken in."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowsim.traces.log import Log, LogError
from glowsim.traces.reading import read

Row = dict[str, Any]


def lines(folder: Path, *rows: Row, **asked: Any) -> Log:
    path = folder / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return read(path, **asked)


def table(folder: Path, *rows: Row) -> Log:
    """Write rows as an export to CSV does: objects as JSON, nothing as an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: json.dumps(value) if isinstance(value, dict | list) else value
                for name, value in row.items()
            }
        )
    (folder / "log.csv").write_text(out.getvalue())
    return read(folder / "log.csv")


def number(log: Log, name: str, row: int = 0) -> float:
    return float(log.numbers[name][row])


def label(log: Log, name: str, row: int = 0) -> str | None:
    column = log.names[name]
    return column.labels[column.codes[row]] if column.codes[row] >= 0 else None


SPEND: Row = {
    "request_id": "chatcmpl-1", "call_type": "acompletion", "api_key": "88dc28d0", "spend": 0.0,
    "total_tokens": 1300, "prompt_tokens": 1200, "completion_tokens": 100,
    "startTime": "2026-03-02T10:00:00.250000+00:00", "endTime": "2026-03-02T10:00:02.250000+00:00",
    "completionStartTime": "2026-03-02T10:00:00.750000+00:00", "model": "gpt-4o", "model_group": "chat",
    "custom_llm_provider": "openai", "user": "owner", "end_user": "u-1", "team_id": "team", "session_id": "s-1",
    "metadata": {"status": "success", "usage_object": {
        "prompt_tokens_details": {"cached_tokens": 1024}, "completion_tokens_details": {"reasoning_tokens": 64},
    }},
    "messages": [{"role": "user", "content": "SECRET"}], "status": "success", "cache_hit": "False",
    "agent_id": "tax-eu-001",
}  # fmt: skip
OBSERVATION: Row = {
    "id": "obs-1", "traceId": "trace-1", "type": "GENERATION", "startTime": "2026-03-02T10:00:00.250Z",
    "endTime": "2026-03-02T10:00:02.250Z", "completionStartTime": "2026-03-02T10:00:00.750Z", "model": "gpt-4o",
    "usageDetails": {"input": 176, "input_cached_tokens": 1024, "output": 36, "output_reasoning_tokens": 64,
                     "total": 1300},
    "totalCost": 0.0, "costDetails": {"total": 0.5}, "level": "DEFAULT", "statusMessage": None,
    "sessionId": "s-1", "userId": "u-1", "traceName": "tax-eu-001", "input": "SECRET", "output": "SECRET",
}  # fmt: skip
ATTRIBUTES: Row = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.response.model": "gpt-4o",
    "gen_ai.request.model": "gpt", "gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 100,
    "gen_ai.usage.cache_read.input_tokens": 1024, "gen_ai.usage.reasoning.output_tokens": 64,
    "gen_ai.response.time_to_first_chunk": 0.5, "gen_ai.conversation.id": "s-1", "user.id": "u-1",
    "gen_ai.agent.name": "tax-eu-001", "gen_ai.usage.cost": 0.0, "gen_ai.input.messages": "SECRET",
}  # fmt: skip
START_NS = 1_772_445_600_250_000_000


def span(attributes: Row, *, number_: int = 1, seconds: float = 2.0, **fields: Any) -> Row:
    def value(given: Any) -> Row:
        kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
        return {kinds[type(given)]: str(given) if type(given) is int else given}

    return {
        "traceId": "a" * 32, "spanId": f"{number_:016x}", "name": "chat gpt", "status": {},
        "startTimeUnixNano": str(START_NS + (number_ - 1) * 10**9),
        "endTimeUnixNano": str(START_NS + (number_ - 1) * 10**9 + int(seconds * 1e9)),
        "attributes": [{"key": name, "value": value(given)} for name, given in attributes.items()], **fields,
    }  # fmt: skip


def exported(*spans: Row) -> Row:
    return {
        "resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "tax"}}]},
            "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}],
        }]
    }  # fmt: skip


@pytest.mark.parametrize(
    "source", ["litellm", "litellm csv", "langfuse", "langfuse csv", "langfuse snake", "otel"]
)
def test_the_same_request_is_the_same_whoever_recorded_it(tmp_path: Path, source: str) -> None:
    snake = {"provided_model_name" if name == "model" else _snake(name): v for name, v in OBSERVATION.items()}
    log = {
        "litellm": lambda: lines(tmp_path, SPEND),
        "litellm csv": lambda: table(tmp_path, SPEND),
        "langfuse": lambda: lines(tmp_path, OBSERVATION),
        "langfuse csv": lambda: table(tmp_path, OBSERVATION),
        "langfuse snake": lambda: lines(tmp_path, snake),
        "otel": lambda: lines(tmp_path, exported(span(ATTRIBUTES))),
    }[source]()
    assert log.format == source.split()[0]
    assert log.epoch == "2026-03-02T10:00:00.250000+00:00"
    assert {name: float(column[0]) for name, column in log.numbers.items()} == {
        "tokens_in": 1200.0, "tokens_cached": 1024.0, "tokens_out": 100.0, "tokens_reasoning": 64.0,
        "latency_s": 2.0, "first_token_s": 0.5, "cost_usd": 0.0,
    }  # fmt: skip
    found = {name: label(log, name) for name in log.names}
    assert found.pop("tenant", "team") == "team"
    assert found == {
        "model": "gpt-4o", "agent": "tax-eu-001", "session": "s-1", "user": "u-1", "status": "ok",
    }  # fmt: skip
    assert "SECRET" not in repr(log)
    assert (
        not {"messages", "input", "output", "gen_ai.input.messages", "api_key"} & log.reading.unknown.keys()
    )


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def test_what_no_column_is_made_of_is_listed(tmp_path: Path) -> None:
    log = lines(tmp_path, SPEND, {**SPEND, "request_id": "2", "weather": "rain", "empty": ""})
    assert log.reading.unknown == {"custom_llm_provider": 2, "weather": 1}


class TestLiteLLM:
    def test_a_failure_says_which(self, tmp_path: Path) -> None:
        kinds = [("429", "RateLimitError"), ("408", "Timeout"), ("500", "InternalServerError"), ("499", "x")]
        log = lines(tmp_path, *(
            {**SPEND, "request_id": code, "status": "failure", "completion_tokens": None,
             "metadata": {"status": "failure", "error_information": {"error_code": code, "error_class": name}}}
            for code, name in kinds
        ))  # fmt: skip
        found = [label(log, "status", row) for row in range(4)]
        assert found == ["throttled", "timeout", "error", "cancelled"]
        assert number(log, "tokens_in") == 1200.0
        assert "tokens_out" not in log.numbers

    def test_the_end_is_no_first_token(self, tmp_path: Path) -> None:
        log = lines(tmp_path, {**SPEND, "completionStartTime": SPEND["endTime"]})
        assert "first_token_s" not in log.numbers
        late = lines(tmp_path, {**SPEND, "completionStartTime": "2026-03-02T10:00:09+00:00"})
        assert "first_token_s" not in late.numbers
        assert any("the first token came after the end" in remark for remark in late.reading.remarks)

    def test_a_prompt_smaller_than_its_parts_does_not_include_them(self, tmp_path: Path) -> None:
        usage = {"cache_creation_input_tokens": 1253, "cache_read_input_tokens": 0}
        log = lines(tmp_path, {**SPEND, "prompt_tokens": 31, "metadata": {"additional_usage_values": usage}})
        assert (number(log, "tokens_in"), number(log, "tokens_cache_write")) == (1284.0, 1253.0)
        assert any("were added" in remark for remark in log.reading.remarks)
        usage = {"cache_creation_input_tokens": 1000, "cache_read_input_tokens": 200}
        log = lines(tmp_path, {**SPEND, "metadata": {"usage_object": usage}})
        assert number(log, "tokens_in") == 1200.0

    def test_tool_calls_are_left_out_and_response_hits_marked(self, tmp_path: Path) -> None:
        tool = {**SPEND, "request_id": "t", "call_type": "call_mcp_tool"}
        log = lines(tmp_path, {**SPEND, "cache_hit": "True"}, tool)
        assert len(log) == 1
        assert log.reading.rows == 2
        text = log.reading.text()
        assert "left out, for they are no model calls: call_mcp_tool 1" in text
        assert "answered from the gateway's response cache (1 rows)" in text

    def test_a_page_of_the_api_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "page.json"
        path.write_text(json.dumps({"data": [SPEND, {**SPEND, "request_id": "2"}], "total": 2}, indent=1))
        assert len(read(path)) == 2
        assert len(lines(tmp_path, {"data": [SPEND, {**SPEND, "request_id": "2"}]})) == 2

    def test_metadata_that_cannot_be_parsed_costs_its_row(self, tmp_path: Path) -> None:
        rows = [
            {**SPEND, "request_id": str(i), "metadata": text}
            for i, text in enumerate(("{}", "{", "[" * 10**5))
        ]
        log = table(tmp_path, *rows)
        assert [(row.line, row.why[:20]) for row in log.reading.refused] == [
            (3, "metadata is not JSON"), (4, "metadata is not JSON"),
        ]  # fmt: skip


class TestLangfuse:
    @pytest.mark.parametrize(
        ("usage", "tokens_in", "tokens_out"),
        [
            ({"input": 176, "input_cached_tokens": 1024, "output": 100, "total": 1300}, 1200, 100),
            ({"input": 1200, "input_cached_tokens": 1024, "output": 100, "total": 1300}, 1200, 100),
            ({"input": 176, "cache_read_input_tokens": 1024, "output": 100}, 1200, 100),
            ({"input": 1200, "input_cached_tokens": 1024, "output": 100, "output_reasoning": 64, "total": 1300},
             1200, 100),
            ({"input": 1200, "input_cached_tokens": 1024, "output": 36, "output_reasoning": 64, "total": 1300},
             1200, 100),
            ({"input": 176, "input_cached_tokens": 1024, "output": 100, "output_reasoning": 64, "total": 1300},
             1200, 100),
            ({"input": 5, "output": 7}, 5, 7),
        ],
    )  # fmt: skip
    def test_tokens_are_counted_once(
        self, tmp_path: Path, usage: Row, tokens_in: int, tokens_out: int
    ) -> None:
        log = lines(tmp_path, {**OBSERVATION, "usageDetails": usage})
        assert (number(log, "tokens_in"), number(log, "tokens_out")) == (tokens_in, tokens_out)

    @pytest.mark.parametrize(
        "older",
        [
            {"usage": {"input": 12, "output": 0, "total": 12, "unit": "TOKENS"}},
            {"usage": {"promptTokens": 12, "completionTokens": 0}},
            {"promptTokens": 12, "completionTokens": 0, "totalTokens": 12},
            {"inputUsage": 12, "outputUsage": 0},
        ],
    )
    def test_older_spellings_of_usage(self, tmp_path: Path, older: Row) -> None:
        row = {
            name: value for name, value in OBSERVATION.items() if name not in ("usageDetails", "totalCost")
        }
        log = lines(tmp_path, {**row, "calculatedTotalCost": "0.25", **older})
        assert (number(log, "tokens_in"), number(log, "tokens_out")) == (12.0, 0.0)
        assert number(log, "cost_usd") == 0.25

    def test_characters_are_no_tokens(self, tmp_path: Path) -> None:
        row = {name: value for name, value in OBSERVATION.items() if name != "usageDetails"}
        log = lines(tmp_path, {**row, "usage": {"input": 12, "unit": "CHARACTERS"}})
        assert "tokens_in" not in log.numbers
        assert any("not in tokens" in remark for remark in log.reading.remarks)

    def test_spans_are_left_out_and_errors_named(self, tmp_path: Path) -> None:
        failed = {**OBSERVATION, "id": "2", "level": "ERROR", "statusMessage": "Error code: 429 - SECRET"}
        log = lines(tmp_path, {**OBSERVATION, "type": "SPAN"}, failed, {**OBSERVATION, "type": "TOOL"})
        assert (len(log), label(log, "status")) == (1, "throttled")
        assert "SPAN 1, TOOL 1" in log.reading.text()
        assert "SECRET" not in repr(log)

    def test_the_sum_of_costs_without_a_total(self, tmp_path: Path) -> None:
        told = {**OBSERVATION, "totalCost": None, "costDetails": {"input": 0.1, "total": 0.5}}
        assert number(lines(tmp_path, told), "cost_usd") == 0.5
        row = {**OBSERVATION, "totalCost": None, "costDetails": {"input": 0.1, "output": 0.2}}
        assert number(lines(tmp_path, row), "cost_usd") == pytest.approx(0.3)


class TestOTel:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens"),
            ("gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens"),
            ("gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
            ("llm.request.type", "gen_ai.operation.name"),
            ("session.id", "gen_ai.conversation.id"),
        ],
    )
    def test_old_spellings(self, tmp_path: Path, old: str, new: str) -> None:
        renamed = {old if name == new else name: value for name, value in ATTRIBUTES.items()}
        before, after = (lines(tmp_path, exported(span(each))) for each in (renamed, ATTRIBUTES))
        assert repr(before.numbers) == repr(after.numbers)
        assert before.names["session"] == after.names["session"]

    @pytest.mark.parametrize("name", ["cache_creation", "cache_write"])
    def test_tokens_written_to_the_cache_by_either_name(self, tmp_path: Path, name: str) -> None:
        log = lines(tmp_path, exported(span({**ATTRIBUTES, f"gen_ai.usage.{name}.input_tokens": 100})))
        assert number(log, "tokens_cache_write") == 100.0

    def test_one_export_a_line_and_a_document_are_the_same(self, tmp_path: Path) -> None:
        spans = [span(ATTRIBUTES, number_=i) for i in (1, 2, 3)]
        by_line = lines(tmp_path, *(exported(each) for each in spans))
        (tmp_path / "doc.json").write_text(json.dumps(exported(*spans), indent=2))
        document = read(tmp_path / "doc.json")
        assert by_line.t_s.tolist() == document.t_s.tolist() == [0.0, 1.0, 2.0]
        assert document.reading.unit == "element"

    def test_agents_tools_and_other_spans_are_left_out(self, tmp_path: Path) -> None:
        agent = {**ATTRIBUTES, "gen_ai.operation.name": "invoke_agent"}
        tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": "SECRET"}
        spans = [
            span(each, number_=i) for i, each in enumerate((ATTRIBUTES, agent, tool, {"http.route": "/"}), 1)
        ]
        log = lines(tmp_path, exported(*spans))
        assert (len(log), log.reading.rows) == (1, 4)
        assert "span execute_tool 1, span invoke_agent 1, span without a model 1" in log.reading.text()

    def test_errors_and_the_service_as_agent(self, tmp_path: Path) -> None:
        bare = {name: value for name, value in ATTRIBUTES.items() if name != "gen_ai.agent.name"}
        log = lines(tmp_path, exported(
            span({**bare, "error.type": "RateLimitError"}),
            span(bare, number_=2, status={"code": 2, "message": "SECRET"}),
            span(bare, number_=3, status={"code": "STATUS_CODE_ERROR"}),
            span({**bare, "error.type": "timeout"}, number_=4, status={"code": 2}),
        ))  # fmt: skip
        assert [label(log, "status", row) for row in range(4)] == ["throttled", "error", "error", "timeout"]
        assert log.names["agent"].labels == ("tax",)

    def test_a_broken_span_is_refused_and_the_rest_read(self, tmp_path: Path) -> None:
        log = lines(tmp_path, exported(
            span(ATTRIBUTES), span(ATTRIBUTES, number_=2, seconds=-1.0),
            span(ATTRIBUTES, number_=3, startTimeUnixNano=None), span(ATTRIBUTES, number_=4),
        ))  # fmt: skip
        assert len(log) == 2
        assert [row.why.split()[0] for row in log.reading.refused] == ["endTimeUnixNano", "startTimeUnixNano"]


class TestPublic:
    def test_azure_of_2023_and_of_2024(self, tmp_path: Path) -> None:
        head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        rows = {
            "2023": "2023-11-16 18:17:03.9799600,10,1\n2023-11-16 18:17:04.0000001,20,2\n",
            "2024": "2024-05-10 00:00:00.009930+00:00,10,1\n2024-05-10 00:00:00.029970+00:00,20,2\n",
        }
        for year, text in rows.items():
            (tmp_path / f"{year}.csv").write_text(head + text)
        older, newer = (read(tmp_path / f"{year}.csv") for year in rows)
        assert older.t_s[1] == 0.0200401
        assert newer.t_s[1] == pytest.approx(0.02004)
        assert older.reading.remarks == ("times without a time zone were taken as UTC (2 rows)",)
        assert newer.reading.remarks == ()

    def test_mooncake_leaves_its_grid_within_the_cell_and_by_the_seed(self, tmp_path: Path) -> None:
        rows = [
            {
                "timestamp": 3000 * (i // 10) + i % 3,
                "input_length": 600,
                "output_length": 1,
                "hash_ids": [0, i],
            }
            for i in range(1000)
        ]
        log, again, other = (lines(tmp_path, *rows, seed=seed) for seed in (1, 1, 2))
        assert log.t_s.tolist() == again.t_s.tolist() != other.t_s.tolist()
        cells = np.bincount(np.floor((log.t_s + 1e-9) / 3.0).astype(int), minlength=100)
        assert cells.sum() == 1000
        within = log.t_s % 3.0
        assert abs(within.mean() - 1.5) < 0.1
        assert (log.block_tokens, log.blocks is not None and sorted(log.blocks)[:2]) == (
            512,
            [(0, 0), (0, 1)],
        )
        assert "grid of 3 s" in log.reading.text()

    def test_mooncake_times_that_are_no_grid_stay(self, tmp_path: Path) -> None:
        rows = [
            {"timestamp": t, "input_length": 5, "output_length": 1, "hash_ids": [1]}
            for t in (0, 1500, 1500, 6000)
        ]
        log = lines(tmp_path, *rows)
        assert log.t_s.tolist() == [0.0, 1.5, 1.5, 6.0]
        assert log.reading.remarks == ()

    def test_burstgpt_with_and_without_sessions(self, tmp_path: Path) -> None:
        old = {"Timestamp": 5, "Model": "ChatGPT", "Request tokens": 472, "Response tokens": 18,
               "Total tokens": 490, "Log Type": "Conversation log"}  # fmt: skip
        log = table(tmp_path, old, {**old, "Timestamp": 45, "Response tokens": 0})
        assert [label(log, "status", row) for row in (0, 1)] == ["ok", "error"]
        assert set(log.numbers) == {"tokens_in", "tokens_out"}
        assert log.reading.unknown == {"Log Type": 2}
        log = table(
            tmp_path,
            {**old, "Session ID": "s", "Elapsed time": 43},
            {**old, "Session ID": "", "Elapsed time": 2},
        )
        assert log.numbers["latency_s"].tolist() == [43.0, 2.0]
        assert [label(log, "session", row) for row in (0, 1)] == ["s", None]

    def test_bailian_chats_belong_to_the_root_of_their_parents(self, tmp_path: Path) -> None:
        def chat(number: int, parent: int, turn: int) -> Row:
            return {"chat_id": number, "parent_chat_id": parent, "timestamp": number / 10, "input_length": 40,
                    "output_length": 3, "type": "text", "turn": turn, "hash_ids": [number]}  # fmt: skip

        log = lines(tmp_path, chat(1, -1, 1), chat(2, 1, 2), chat(3, -1, 1), chat(4, 2, 3), chat(5, 99, 2))
        assert [label(log, "session", row) for row in range(5)] == ["1", "1", "3", "1", "99"]
        assert log.numbers["turn"].tolist() == [0.0, 1.0, 0.0, 2.0, 1.0]
        assert log.block_tokens == 16

    def test_tracelab_calls_are_timed_from_their_last_input(self, tmp_path: Path) -> None:
        def event(kind: str, second: int) -> Row:
            return {"event_type": kind, "timestamp": f"2026-06-01T05:40:{second:02}.000Z", "content_chars": 9}

        row = {
            "provider": "codex", "session_id": "codex:1", "round_index": 3, "round_id": "r", "model": "gpt",
            "input_tokens_total": 100, "prefix_tokens": 60, "newly_append_tokens": 40, "output_tokens": 20,
            "reasoning_output_tokens": 5, "claude_cache_creation_input_tokens": None, "tools": [],
            "timing_events": [event("tool_result", 1), event("tool_result", 4), event("reasoning", 6),
                              event("tool_result", 7), event("tool_call", 8), event("usage_report", 9)],
        }  # fmt: skip
        log = lines(
            tmp_path, row, {**row, "round_id": "q", "newly_append_tokens": 39}, {**row, "timing_events": []}
        )
        assert {name: float(column[0]) for name, column in log.numbers.items()} == {
            "tokens_in": 100.0, "tokens_cached": 60.0, "tokens_out": 20.0, "tokens_reasoning": 5.0,
            "latency_s": 4.0, "turn": 3.0,
        }  # fmt: skip
        assert log.epoch == "2026-06-01T05:40:04+00:00"
        assert [refused.line for refused in log.reading.refused] == [2, 3]


class TestNamedColumns:
    def test_fields_are_named_by_the_user_or_by_the_log(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("when,prompt,team,took\n1,10,a,0.5\n3,20,,\n")
        log = read(
            path, "csv", columns={"t_s": "when", "tokens_in": "prompt", "tenant": "team", "agent": "team"}
        )
        assert log.t_s.tolist() == [0.0, 2.0]
        assert (label(log, "tenant"), label(log, "agent"), label(log, "tenant", 1)) == ("a", "a", None)
        assert log.reading.unknown == {"took": 1}
        path.write_text("t_s,tokens_in,latency_s,status\n1,10,0.5,timeout\n2,1,1,bad\n")
        log = read(path)
        assert (log.format, label(log, "status"), len(log)) == ("csv", "timeout", 1)

    @pytest.mark.parametrize(
        ("columns", "said"),
        [({"t_s": "a", "tokens": "b"}, "no column 'tokens'"), ({"tokens_in": "b"}, "which field holds t_s")],
    )
    def test_columns_that_no_log_has(self, tmp_path: Path, columns: dict[str, str], said: str) -> None:
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        with pytest.raises(LogError, match=said):
            read(tmp_path / "x.csv", "csv", columns=columns)
