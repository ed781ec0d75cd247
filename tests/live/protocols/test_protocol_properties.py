"""What holds for every body, every answer, and every way to cut a text into pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
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
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SCHEMA = {"type": "object", "properties": {"of": {"type": "string"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "due", "arguments": "{}"}}
# A body of each protocol that has all there is to translate.
FULL: dict[str, dict[str, Any]] = {
    "chat": {
        "model": "tax",
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Due?"}]},
            {"role": "assistant", "tool_calls": [CALL]},
        ],
        "tools": [{"type": "function", "function": {"name": "due", "parameters": SCHEMA}}],
    },
    "responses": {
        "model": "tax",
        "max_output_tokens": 9,
        "stream": True,
        "instructions": "Be brief.",
        "background": False,
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Due?"},
                    {"type": "input_image", "image_url": "u"},
                ],
            },
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": "Look."},
            {"type": "function_call", "call_id": "call_1", "name": "due", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "call_1",
                "output": [{"type": "input_text", "text": "VAT"}],
            },
        ],
        "tools": [{"type": "function", "name": "due", "parameters": SCHEMA}],
        "tool_choice": {"type": "function", "name": "due"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        "reasoning": {"effort": "low"},
    },
    "messages": {
        "model": "tax",
        "max_tokens": 9,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "metadata": {"user_id": "u"},
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Due?"}, IMAGE]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "due", "input": {"of": "May"}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": [{"type": "text", "text": "VAT"}],
                    }
                ],
            },
        ],
        "tools": [{"name": "due", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "due"},
    },
    "embeddings": {"model": "tax", "input": [[1, 2], [3]], "user": "u"},
}
ASKED = {name: BY_NAME[name].read(json.dumps(body).encode()) for name, body in FULL.items()}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
SAID: list[dict[str, Any]] = [
    {
        "choices": [
            {"message": {"content": "Look.", "refusal": None, "tool_calls": [CALL]}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    },
    {
        "choices": [
            {
                "index": 0,
                "delta": {"content": "Lo", "tool_calls": [{"index": 0} | CALL]},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
    {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 4}}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Lo"}},
    {"type": "response.output_text.delta", "delta": "Lo"},
    {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}}},
    },
    {"type": "response.failed", "response": {"error": {"message": "too hot"}}},
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container inside a value with every key or index that it has."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield value, key
        yield from places(inner)


@st.composite
def spoilt(draw: st.DrawFn, whole: dict[str, Any]) -> dict[str, Any]:
    """Return a value in which one or two things are something else, or gone."""
    value: dict[str, Any] = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(value))
        container, key = found[draw(st.integers(0, len(found) - 1))]
        if draw(st.booleans()):
            container[key] = draw(JSONS)
        else:
            del container[key]
    return value


@pytest.mark.parametrize("name", BY_NAME)
@given(data=st.data())
def test_a_body_is_read_or_refused(name: str, data: st.DataObject) -> None:
    protocol = BY_NAME[name]
    raw = data.draw(
        st.binary(max_size=20) | (JSONS | spoilt(FULL[name])).map(lambda value: json.dumps(value).encode())
    )
    try:
        asked = protocol.read(raw)
    except BadBody:
        return
    assert asked.tokens_in >= 1
    json.dumps(protocol.body_for(asked, model="m", max_tokens_out=5), allow_nan=False).encode()
    with suppress(BadBody):
        chat = protocol.to_chat(asked)
        assert chat["model"] == asked.model
        assert all(isinstance(message, dict) for message in chat["messages"])
    assert json.loads(raw) == asked.body  # nothing was changed on the way


@pytest.mark.parametrize("protocol", TALKING, ids=[protocol.name for protocol in TALKING])
@given(said=st.sampled_from(SAID).flatmap(spoilt))
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
