"""Messages, as Anthropic's own client and models understand them; and as chat completions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols import CHAT, MESSAGES, Asked, BadBody, chat_answer, chat_chunk, stream_of

Events = Callable[[str], list[tuple[str | None, str]]]
MADE = {"model": "tax", "answer_id": "1", "created": 7}
ASKED = [{"role": "user", "content": "What is due in May?"}]
TOOL = {"name": "due", "description": "What is due.", "input_schema": {"type": "object", "properties": {}}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
USED = Usage(tokens_in=9, tokens_cached=4, tokens_out=2)
ANSWER = chat_answer("VAT, then.", USED, model="tax", answer_id="1", created=7)


def asked(**more: Any) -> Asked:
    body = {"model": "tax", "max_tokens": 50, "messages": ASKED} | more
    return MESSAGES.read(json.dumps(body).encode())


def with_calls(
    text: str | None = None, finish: str = "tool_calls", last: str = '{"of": 2}'
) -> dict[str, Any]:
    answer = chat_answer("", USED, model="tax", answer_id="1", created=7, finish=finish)
    calls = [("call_1", "due", '{"of": 1}'), ("call_2", "paid", last)]
    answer["choices"][0]["message"] |= {
        "content": text,
        "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ],
    }
    return answer


def refused() -> dict[str, Any]:
    answer = chat_answer("", USED, model="tax", answer_id="1", created=7)
    answer["choices"][0]["message"] |= {"content": None, "refusal": "I cannot."}
    return answer


def whole(answer: dict[str, Any]) -> dict[str, Any]:
    return MESSAGES.from_chat(answer, asked(), answer_id="1", created=7)


def streamed(answer: dict[str, Any]) -> str:
    return stream_of(MESSAGES, answer, asked(stream=True), answer_id="1", created=7)


# --- what is read, sent upstream and comes back --------------------------------------------------------


def test_a_body_is_read_and_sent_on() -> None:
    got = asked(stream=True, metadata={"user_id": "u"}, system=[{"type": "text", "text": "x" * 21}])
    assert (got.model, got.tokens_in, got.max_tokens_out, got.stream, got.tag) == ("tax", 10, 50, True, "u")
    assert MESSAGES.body_for(got, model="m", max_tokens_out=9) == got.body | {"model": "m", "max_tokens": 9}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 40}}
    scan = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "x" * 999},
    }
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 999}}
    call = {"type": "tool_use", "id": "c" * 99, "name": "due", "input": {"of": 1}}
    content = [document, scan, image, call]
    assert asked(messages=[{"role": "user", "content": content}]).tokens_in == 14  # 40, "due", {"of":1}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"), ({"max_tokens": None}, "max_tokens"), ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"metadata": [1]}, "metadata"),
        ({"metadata": {"user_id": 5}}, "user_id"), ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadBody, match=param) as caught:
        asked(**more)
    assert caught.value.param == param


def test_usage_counts_the_cache_in() -> None:
    stated = {
        "input_tokens": 10,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 5,
        "output_tokens": 7,
    }
    assert MESSAGES.usage_of({"usage": stated}, 3)[:3] == (95, 80, 7)
    assert MESSAGES.usage_of({"usage": {"output_tokens": 7}}, 3)[:3] == (3, 0, 7)
    assert MESSAGES.usage_of({}, 3)[:3] == (3, 0, 0)
    for wrong in ({"input_tokens": "10"}, {"input_tokens": 1, "cache_read_input_tokens": -1}):
        with pytest.raises(InstanceError, match="count of tokens"):
            MESSAGES.usage_of({"usage": wrong}, 3)
    with pytest.raises(InstanceError, match="Overloaded"):
        MESSAGES.usage_of(
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 3
        )


def test_a_stream_passes_as_it_is(events: Events) -> None:
    stream = streamed(with_calls("Let me look."))
    reader = MESSAGES.reader(asked(stream=True), 3)
    frames = [reader.feed(event, data) for event, data in events(stream)]
    assert "".join(frame.text for frame in frames) == stream
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert [frame.content for frame in frames[:3]] == [False, False, True]
    used = [frame.usage for frame in frames if frame.usage is not None]
    assert used[-1][:3] == USED[:3]


def test_counts_of_a_stream_are_cumulative() -> None:
    reader = MESSAGES.reader(asked(stream=True), 3)
    start = {"usage": {"input_tokens": 10, "cache_read_input_tokens": 80, "output_tokens": 1}}
    begun = reader.feed("message_start", json.dumps({"type": "message_start", "message": start}))
    assert begun.usage is not None
    assert begun.usage[:3] == (90, 80, 1)
    delta = {"type": "message_delta", "delta": {}, "usage": {"input_tokens": None, "output_tokens": 7}}
    ended = reader.feed("message_delta", json.dumps(delta))
    assert ended.usage is not None
    assert ended.usage[:3] == (90, 80, 7)


def test_a_ping_passes_and_means_nothing() -> None:
    frame = MESSAGES.reader(asked(stream=True), 3).feed("ping", '{"type": "ping"}')
    assert frame == ('event: ping\ndata: {"type": "ping"}\n\n', False, False, None, None)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[1]",
        "{}",
        '{"type": 5}',
        '{"type": "a\\nb"}',
        '{"type": "error", "error": {"message": "Overloaded"}}',
    ],
)
def test_an_event_that_cannot_be_read_breaks_the_stream(data: str) -> None:
    with pytest.raises(InstanceError):
        MESSAGES.reader(asked(stream=True), 3).feed(None, data)


# --- answers made of chat's, by Anthropic's models and client ------------------------------------------


@pytest.mark.parametrize("answer", [ANSWER, with_calls(), with_calls("Let me look."), refused()])
def test_the_client_takes_an_answer_and_the_same_as_a_stream(
    server: Any, anthropic: Any, events: Events, answer: dict[str, Any]
) -> None:
    from anthropic.types import Message, RawMessageStreamEvent

    Message.model_validate(whole(answer), strict=True)
    event = TypeAdapter[Any](RawMessageStreamEvent)
    for name, data in events(streamed(answer)):
        assert event.validate_python(json.loads(data), strict=True).type == name

    server.reply(json.dumps(whole(answer)))
    at_once = anthropic.messages.create(model="tax", max_tokens=50, messages=ASKED)
    assert server.path == "/v1/messages"
    server.reply(streamed(answer))
    with anthropic.messages.stream(model="tax", max_tokens=50, messages=ASKED) as stream:
        in_pieces = stream.get_final_message()
    said = {name: value for name, value in whole(answer).items() if value is not None}
    assert in_pieces.to_dict(exclude_none=True) == at_once.to_dict(exclude_none=True) == said
    assert at_once.usage.input_tokens == 5
    assert at_once.usage.cache_read_input_tokens == 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ANSWER, "end_turn"), (chat_answer("VA", USED, finish="length", **MADE), "max_tokens"), (refused(), "refusal"),
        (chat_answer("", USED, finish="content_filter", **MADE), "refusal"), (with_calls(), "tool_use"),
        (with_calls(finish="stop"), "tool_use"),  # as OpenAI ends a call that was forced by name
    ],
)  # fmt: skip
def test_reasons_to_stop(answer: dict[str, Any], reason: str) -> None:
    assert whole(answer)["stop_reason"] == reason
    assert f'"stop_reason":"{reason}"' in streamed(answer)


def test_calls_become_blocks_with_objects() -> None:
    assert whole(with_calls("Look."))["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "call_1", "name": "due", "input": {"of": 1}},
        {"type": "tool_use", "id": "call_2", "name": "paid", "input": {"of": 2}},
    ]
    assert whole(with_calls(last=""))["content"][1]["input"] == {}


@pytest.mark.parametrize("last", ["{", "[1]", "NaN{"])
def test_a_broken_call_is_an_error_unless_the_limit_cut_it_off(last: str) -> None:
    for made in (whole, streamed):
        with pytest.raises(InstanceError, match="'paid'"):
            made(with_calls(last=last))
    assert len(whole(with_calls(last=last, finish="length"))["content"]) == 1
    assert '"stop_reason":"max_tokens"' in streamed(with_calls(last=last, finish="length"))


def test_arguments_come_in_pieces_and_text_may_follow_a_call(anthropic: Any, server: Any) -> None:
    def call(place: int, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": place} | more]}

    deltas = [
        {"role": "assistant", "content": ""}, {"content": "Lo"}, {"content": "ok."},
        call(0, id="call_1", function={"name": "due", "arguments": ""}), call(0, function={"arguments": '{"o'}),
        call(0, function={"arguments": 'f": 1}'}), call(1, id="call_2", function={"name": "paid", "arguments": "{}"}),
        {"content": "Then."},
    ]  # fmt: skip
    writer = MESSAGES.writer(asked(stream=True), answer_id="1", created=7)
    chunks = [chat_chunk(delta, **MADE) for delta in deltas] + [chat_chunk({}, finish="tool_calls", **MADE)]
    server.reply("".join(map(writer.feed, chunks)) + writer.end())
    with anthropic.messages.stream(model="tax", max_tokens=50, messages=ASKED) as stream:
        seen = [event.partial_json for event in stream if event.type == "input_json"]
        got = stream.get_final_message()
    assert seen == ['{"o', 'f": 1}', "{}"]
    assert [block.to_dict() for block in got.content] == [
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "call_1", "name": "due", "input": {"of": 1}},
        {"type": "tool_use", "id": "call_2", "name": "paid", "input": {}},
        {"type": "text", "text": "Then."},
    ]


def test_a_stream_that_goes_back_to_a_call_or_begins_one_without_a_name_is_an_error() -> None:
    writer = MESSAGES.writer(asked(stream=True), answer_id="1", created=7)
    for place in (0, 1):
        call = {"index": place, "id": f"call_{place}", "function": {"name": "due", "arguments": "{}"}}
        writer.feed(chat_chunk({"tool_calls": [call]}, **MADE))
    with pytest.raises(InstanceError, match="tool call 0"):
        writer.feed(chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, **MADE))
    with pytest.raises(InstanceError, match="without an id or a name"):
        writer.feed(chat_chunk({"tool_calls": [{"index": 2, "id": "call_2"}]}, **MADE))


def test_a_stream_without_a_finish_reason_is_no_answer() -> None:
    writer = MESSAGES.writer(asked(stream=True), answer_id="1", created=7)
    writer.feed(chat_chunk({"content": "VA"}, **MADE))
    with pytest.raises(InstanceError, match="without a finish reason"):
        writer.end()
    writer.feed(chat_chunk({}, finish="tired", **MADE))
    with pytest.raises(InstanceError, match="'tired'"):
        writer.end()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"error": {"message": "too hot"}},
        {"choices": []},
        {"choices": [{}]},
        {"choices": 5},
        {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
    ],
)
def test_what_is_no_chat_answer_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(InstanceError):
        whole(answer)


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "BadRequestError", "invalid_request_error"), (401, "AuthenticationError", "authentication_error"),
        (403, "PermissionDeniedError", "permission_error"), (404, "NotFoundError", "not_found_error"),
        (413, "RequestTooLargeError", "request_too_large"), (429, "RateLimitError", "rate_limit_error"),
        (422, "UnprocessableEntityError", "invalid_request_error"), (500, "InternalServerError", "api_error"),
        (502, "InternalServerError", "api_error"), (503, "ServiceUnavailableError", "overloaded_error"),
        (504, "DeadlineExceededError", "timeout_error"), (529, "OverloadedError", "overloaded_error"),
    ],
)  # fmt: skip
def test_the_client_raises_the_right_error(
    server: Any, anthropic: Any, status: int, name: str, kind: str
) -> None:
    import anthropic as package
    from anthropic.types.shared import ErrorResponse

    error = MESSAGES.error(status, "say which", code="limited", param="model")
    if kind != "request_too_large":  # documented, but not among the client's types
        ErrorResponse.model_validate(error, strict=True)
    server.reply(json.dumps(error), status, **{"retry-after": "3"})
    with pytest.raises(package.APIStatusError) as caught:
        anthropic.messages.create(model="tax", max_tokens=50, messages=ASKED)
    assert isinstance(caught.value, getattr(package, name))
    assert (caught.value.type, caught.value.api_message) == (kind, "say which")
    assert caught.value.response.headers["retry-after"] == "3"


def test_the_client_raises_the_error_of_a_broken_stream(server: Any, anthropic: Any) -> None:
    import anthropic as package

    writer = MESSAGES.writer(asked(stream=True), answer_id="1", created=7)
    begun = writer.feed(chat_chunk({"content": "VA"}, **MADE))
    server.reply(begun + MESSAGES.error_frame(502, "the instance is gone", code="broken_stream"))
    with (
        anthropic.messages.stream(model="tax", max_tokens=50, messages=ASKED) as stream,
        pytest.raises(package.APIStatusError, match="the instance is gone"),
    ):
        stream.get_final_message()


# --- as chat completions -------------------------------------------------------------------------------


def test_a_conversation_becomes_one_of_chat(is_chat: Callable[[dict[str, Any]], None]) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    request = asked(
        stream=True,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image, LINKED]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "call_1", "name": "due", "input": {"of": "May"}},
                    {"type": "tool_use", "id": "call_2", "name": "paid", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": [{"type": "text", "text": "VAT"}],
                    },
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "no", "is_error": True},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
        tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        temperature=0.5,
        top_p=0.9,
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    body = MESSAGES.to_chat(request)
    is_chat(body)
    calls = [("call_1", "due", '{"of":"May"}'), ("call_2", "paid", "{}")]
    assert body == {
        "model": "tax",
        "max_tokens": 50,
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                    for call_id, name, arguments in calls
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "VAT"},
            {"role": "tool", "tool_call_id": "call_2", "content": "no"},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "due", "description": "What is due.", "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    }  # fmt: skip
    assert CHAT.read(json.dumps(body).encode()).body == body


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ({"type": "auto"}, "auto"), ({"type": "none"}, "none"),
        ({"type": "tool", "name": "due"}, {"type": "function", "function": {"name": "due"}}),
    ],
)  # fmt: skip
def test_choices_of_tools(
    choice: dict[str, Any], becomes: Any, is_chat: Callable[[dict[str, Any]], None]
) -> None:
    body = MESSAGES.to_chat(asked(tools=[TOOL], tool_choice=choice))
    is_chat(body)
    assert body["tool_choice"] == becomes


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("more", "says", "param"),
    [
        ({"top_k": 5}, "'top_k' cannot be translated", "top_k"),
        ({"container": "c"}, "'container' cannot be translated", "container"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\]: the role", "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\]: the content", "messages"),
        (user({"type": "search_result"}), "no such 'search_result' block", "messages"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "no such 'image' block", "messages"),
        (user({"type": "tool_result", "content": "x"}), "needs 'tool_use_id'", "messages"),
        (user({"type": "tool_result", "tool_use_id": "c", "content": [LINKED]}), "take only text", "messages"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "c"}]}]}, "needs 'id'", "messages"),
        ({"system": 5}, "system: the content", "system"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, "no 'web_search_20260209'", "tools"),
        ({"tools": [5]}, "'tools' must be a list of objects", "tools"),
        ({"tool_choice": "auto"}, "'tool_choice' must be", "tool_choice"),
        ({"tool_choice": {"type": "tool"}}, "'tool_choice' must be", "tool_choice"),
        ({"stop_sequences": "END"}, "'stop_sequences' must be a list", "stop_sequences"),
        ({"output_config": {"format": {"type": "xml"}}}, "'output_config.format' must be", "output_config"),
    ],
)  # fmt: skip
def test_what_chat_cannot_express_is_refused_by_name(more: dict[str, Any], says: str, param: str) -> None:
    with pytest.raises(BadBody, match=says) as caught:
        MESSAGES.to_chat(asked(**more))
    assert caught.value.param == param


def test_a_plain_document_is_a_text_and_no_blocks_are_none() -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "VAT"}}
    history = [{"role": "user", "content": [document]}, {"role": "user", "content": []}]
    assert MESSAGES.to_chat(asked(messages=history))["messages"] == [
        {"role": "user", "content": "VAT"},
        {"role": "user", "content": ""},
    ]


def test_an_empty_output_config_asks_for_nothing() -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Due?"}]}
    asked = MESSAGES.read(json.dumps(body | {"output_config": {}}).encode())
    assert MESSAGES.to_chat(asked) == body


def test_what_only_advises_is_left_out() -> None:
    advice = {
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "top_k": None,
    }
    assert MESSAGES.to_chat(asked(**advice)) == MESSAGES.to_chat(asked())
    thoughts = [{"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}]
    assert MESSAGES.to_chat(asked(messages=ASKED + thoughts))["messages"] == ASKED
