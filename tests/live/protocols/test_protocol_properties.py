"""What holds for every body, every answer, and every way to cut a text into pieces."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols import (
    BY_NAME,
    CHAT,
    MESSAGES,
    RESPONSES,
    BadBody,
    Protocol,
    chat_chunk,
    usage_chunk,
)

MADE: dict[str, Any] = {"model": "tax", "answer_id": "1", "created": 7}
USED = Usage(tokens_in=9, tokens_cached=4, tokens_out=2)
TALKING = (CHAT, RESPONSES, MESSAGES)
ASKED = {
    protocol.name: protocol.read(json.dumps({"model": "tax", "stream": True, **content}).encode())
    for protocol, content in (
        (CHAT, {"messages": [{"role": "user", "content": "Due?"}]}),
        (RESPONSES, {"input": "Due?"}),
        (MESSAGES, {"max_tokens": 9, "messages": [{"role": "user", "content": "Due?"}]}),
    )
}
# The words that the protocols look for, so that what is drawn gets past the first checks now and then.
WORDS = sorted(
    {"model", "messages", "input", "stream", "max_tokens", "max_output_tokens", "tools", "tool_choice", "system",
     "text", "instructions", "role", "content", "type", "user", "assistant", "tool_use", "tool_result", "id", "name", "call_id",
     "function_call", "function_call_output", "arguments", "output", "image", "source", "url", "base64", "data",
     "function", "tool_use_id", "message", "delta", "usage", "choices", "finish_reason", "stop", "tool_calls", "index", "refusal",
     "error", "input_tokens", "prompt_tokens", "message_start", "message_delta", "content_block_start", "content_block",
     "content_block_delta", "response", "response.completed", "response.output_text.delta", "metadata", "reasoning",
     "output_config", "format", "json_schema", "schema", "stop_sequences", "document", "input_schema", "input_text"}
)  # fmt: skip
TEXTS = st.sampled_from(WORDS) | st.text(max_size=5)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, JSONS, max_size=6)
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
MESSAGES_LIKE = st.lists(
    OBJECTS | st.fixed_dictionaries({"role": ROLES, "content": JSONS}), min_size=1, max_size=3
)
LIKELY = st.fixed_dictionaries(
    {"model": st.just("tax"), "messages": MESSAGES_LIKE, "input": MESSAGES_LIKE | TEXTS, "max_tokens": st.just(9)},
    optional=dict.fromkeys(("tools", "tool_choice", "system", "text", "reasoning", "output_config", "stream"), JSONS),
)  # fmt: skip


@pytest.mark.parametrize("protocol", BY_NAME.values(), ids=BY_NAME)
@given(raw=st.binary(max_size=40) | (JSONS | LIKELY).map(lambda value: json.dumps(value).encode()))
@example(raw=b'{"model": "tax", "input": [{"type": 5}], "messages": [{"role": []}], "max_tokens": 9}')
def test_a_body_is_read_or_refused(protocol: Protocol, raw: bytes) -> None:
    try:
        asked = protocol.read(raw)
    except BadBody:
        return
    assert asked.tokens_in >= 1
    assert json.loads(raw) == asked.body
    json.dumps(protocol.body_for(asked, model="m", max_tokens_out=5), allow_nan=False).encode()
    with suppress(BadBody):
        chat = protocol.to_chat(asked)
        assert chat["model"] == asked.model
        assert all(isinstance(message, dict) for message in chat["messages"])
    assert json.loads(raw) == asked.body  # nothing was changed on the way


@pytest.mark.parametrize("protocol", TALKING, ids=[protocol.name for protocol in TALKING])
@given(
    said=OBJECTS
    | st.fixed_dictionaries({"type": st.sampled_from(WORDS), "choices": JSONS}, optional={"usage": OBJECTS})
)
def test_whatever_an_upstream_says_is_read_or_its_error(protocol: Protocol, said: dict[str, Any]) -> None:
    asked = ASKED[protocol.name]
    for read in (
        lambda: protocol.usage_of(said, 5),
        lambda: protocol.reader(asked, 5).feed(None, json.dumps(said)),
        lambda: protocol.writer(asked, answer_id="1", created=7).feed(said),
        lambda: protocol.from_chat(said, asked, answer_id="1", created=7),
    ):
        with suppress(InstanceError):
            read()


CALLS = st.lists(
    st.tuples(
        st.text("abc_", min_size=1, max_size=5),
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3),
    ),
    max_size=3,
)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """Return a text, some calls, and chat chunks that bring both in pieces."""
    text, calls = draw(st.text(max_size=20)), draw(CALLS)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in draw(cut(text))]
    for place, (name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        deltas.append(
            {
                "tool_calls": [
                    {"index": place, "id": f"call_{place}", "type": "function", "function": function}
                ]
            }
        )
        deltas += [
            {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}
            for piece in draw(cut(json.dumps(arguments)))
        ]
    chunks = [chat_chunk(delta, **MADE) for delta in deltas]
    finish = "tool_calls" if calls else "stop"
    return text, calls, [*chunks, chat_chunk({}, finish=finish, **MADE), usage_chunk(USED, **MADE)]


def heard(events: list[tuple[str | None, str]]) -> tuple[str, list[str]]:
    """Return the text and the arguments of calls that a client of a protocol puts together from the deltas."""
    text = ""
    calls: dict[int, str] = {}
    for _, data in events:
        match json.loads(data) if data != "[DONE]" else {}:
            case {
                "choices": [{"delta": {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}}]
            }:
                calls[place] = calls.get(place, "") + piece
            case {"choices": [{"delta": {"content": str(piece)}}]}:
                text += piece
            case {"type": "response.output_text.delta", "delta": piece}:
                text += piece
            case {"type": "response.output_item.added", "output_index": place, "item": {"arguments": _}}:
                calls[place] = ""
            case {"type": "response.function_call_arguments.delta", "output_index": place, "delta": piece}:
                calls[place] += piece
            case {"type": "content_block_delta", "delta": {"text": piece}}:
                text += piece
            case {"type": "content_block_start", "index": place, "content_block": {"type": "tool_use"}}:
                calls[place] = ""
            case {"type": "content_block_delta", "index": place, "delta": {"partial_json": piece}}:
                calls[place] += piece
    return text, [calls[place] for place in sorted(calls)]


@pytest.mark.parametrize("protocol", TALKING, ids=[protocol.name for protocol in TALKING])
@given(made=answers())
def test_a_text_cut_anywhere_is_the_same_text(protocol: Protocol, made: Any, events: Any) -> None:
    text, calls, chunks = made
    asked = ASKED[protocol.name]
    writer = protocol.writer(asked, answer_id="1", created=7)
    stream = "".join(map(writer.feed, chunks)) + writer.end()
    assert stream.isascii()
    said, arguments = heard(events(stream))
    assert said == text
    assert [json.loads(each) for each in arguments] == [given for _, given in calls]

    reader = protocol.reader(asked, 5)
    frames = [reader.feed(event, data) for event, data in events(stream)]
    assert "".join(frame.text for frame in frames) == stream
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert any(frame.content for frame in frames) == bool(text or calls)


@given(calls=CALLS)
def test_calls_go_to_a_client_and_come_back_in_its_history(calls: list[tuple[str, dict[str, Any]]]) -> None:
    made = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given)},
        }
        for place, (name, given) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": "Look.", "tool_calls": made}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    def returned(protocol: Protocol, **history: Any) -> list[tuple[str, str, Any]]:
        body = {"model": "tax"} | history
        last = protocol.to_chat(protocol.read(json.dumps(body).encode()))["messages"][-1]
        assert last["content"] == "Look."
        return [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in last.get("tool_calls", [])
        ]

    expected = [(f"call_{place}", name, given) for place, (name, given) in enumerate(calls)]
    got = MESSAGES.from_chat(answer, ASKED["messages"], answer_id="1", created=7)
    history = [{"role": "assistant", "content": got["content"]}]
    assert returned(MESSAGES, max_tokens=9, messages=history) == expected
    response = RESPONSES.from_chat(answer, ASKED["responses"], answer_id="1", created=7)
    assert returned(RESPONSES, input=response["output"]) == expected
