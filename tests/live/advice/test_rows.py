"""Rows of every format that a gateway writes as it goes, read one at a time, broken ones counted and passed over."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from glowsim.core.types import Outcome
from glowsim.live.advice.rows import Rows
from glowsim.traces.log import LogError

AT = "2026-11-22T12:00:00+00:00"
NOON_S = 1_795_348_800.0
LITELLM = {
    "request_id": "r1", "startTime": AT, "endTime": "2026-11-22T12:00:02.5+00:00", "prompt_tokens": 100,
    "completion_tokens": 20, "model": "gpt-4o", "agent_id": "tax", "end_user": "ann", "team_id": "acme",
    "session_id": "s1", "status": "success", "api_base": "http://10.0.0.1:8000/v1",
}  # fmt: skip
LANGFUSE = {
    "id": "r1", "traceId": "t1", "type": "GENERATION", "startTime": AT, "endTime": "2026-11-22T12:00:02.5Z",
    "model": "gpt-4o", "traceName": "tax", "userId": "ann", "sessionId": "s1", "level": "DEFAULT",
    "usageDetails": {"input": 100, "output": 20, "total": 120},
}  # fmt: skip
OURS = {"t_s": AT, "latency_s": 2.5, "tokens_in": 100, "tokens_out": 20, "model": "gpt-4o", "agent": "tax",
        "user": "ann", "session": "s1", "status": "ok"}  # fmt: skip


def span(**attributes):
    said = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.agent.name": "tax",
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20, "gen_ai.conversation.id": "s1",
        "user.id": "ann", "server.address": "10.0.0.1", "server.port": 8000,
    } | attributes  # fmt: skip
    kinds = {str: "stringValue", int: "intValue"}
    one = {
        "traceId": "t1", "spanId": "s1", "startTimeUnixNano": f"{NOON_S:.0f}000000000",
        "endTimeUnixNano": f"{NOON_S + 2:.0f}500000000",
        "attributes": [{"key": key, "value": {kinds[type(value)]: value}} for key, value in said.items()],
    }  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}


def calls(*lines, form=None):
    rows = Rows(Path("log"), form)
    return [call for line in lines for call in rows.calls(line)], rows


@pytest.mark.parametrize(
    ("row", "form", "instance"),
    [
        (LITELLM, "litellm", "http://10.0.0.1:8000/v1"),
        (LANGFUSE, "langfuse", None),
        (span(), "otel", "10.0.0.1:8000"),
        (OURS, "csv", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_tells_the_same_call(row, form, instance):
    (call,), rows = calls(json.dumps(row))
    assert rows.format == form
    assert (call.begun_s, call.ended_s) == (NOON_S, NOON_S + 2.5)
    assert (call.agent, call.model, call.user, call.session) == ("tax", "gpt-4o", "ann", "s1")
    assert (call.tokens_in, call.tokens_out, call.outcome, call.instance) == (100, 20, Outcome.OK, instance)


def test_csv_with_text_over_several_lines():
    text = io.StringIO()
    writer = csv.DictWriter(text, [*LITELLM, "messages"], lineterminator="\n")
    writer.writeheader()
    for number in range(3):
        writer.writerow(LITELLM | {"request_id": number, "messages": 'say "hi",\n\nplease'})
    found, rows = calls(*text.getvalue().splitlines())
    assert [call.tokens_in for call in found] == [100, 100, 100]
    assert rows.counts == {"calls": 3}


def test_the_next_file_brings_its_own_header():
    found, _ = calls("t_s,tokens_in,latency_s", f"{AT},1,1", None, "latency_s,t_s,tokens_in", f"1,{AT},2")
    assert [call.tokens_in for call in found] == [1, 2]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"torn": ', "refused"),
        ("[" * 100_000, "refused"),
        ('{"data": [3]}', "refused"),
        (json.dumps(OURS | {"t_s": 3.0}), "refused"),  # seconds since nobody knows when
        (json.dumps(OURS | {"latency_s": None}), "refused"),
        (json.dumps(OURS | {"tokens_in": 2**40}), "refused"),
        (json.dumps(OURS | {"status": "splendid"}), "refused"),
        ("", None),
    ],
)
def test_a_row_that_cannot_be_read_is_counted_and_the_next_is_read(line, why):
    found, rows = calls(json.dumps(OURS), line, json.dumps(OURS))
    assert len(found) == 2
    assert rows.counts == {"calls": 2} | ({} if why is None else {why: 1})


def test_a_row_that_is_written_again_counts_once():
    found, rows = calls(*[json.dumps(LITELLM)] * 3)
    assert len(found) == 1
    assert rows.counts["repeated"] == 2


def test_spans_that_call_no_model_are_left_out():
    found, rows = calls(json.dumps(span(**{"gen_ai.operation.name": "execute_tool"})))
    assert found == []
    assert rows.counts == {"left_out": 1}


@pytest.mark.parametrize(
    ("line", "why"), [("[", "write JSON lines"), ("when,what", "no known format: it has when, what")]
)
def test_what_cannot_be_followed_is_said_at_once(line, why):
    with pytest.raises(LogError, match=why):
        calls(line)
    with pytest.raises(LogError, match="no format 'x'"):
        Rows(Path("log"), "x")
