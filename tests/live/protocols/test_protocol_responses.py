"""Responses, as OpenAI's own client and models understand them; and as chat completions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols import CHAT, RESPONSES, Asked, BadBody, chat_answer, chat_chunk, stream_of

Events = Callable[[str], list[tuple[str | None, str]]]
MADE: dict[str, Any] = {"model": "tax", "answer_id": "1", "created": 7}
INPUT = "What is due in May?"
TOOL = {"type": "function", "name": "due", "parameters": {"type": "object", "properties": {}}, "strict": True}
USED = Usage(tokens_in=9, tokens_cached=4, tokens_out=2)
ANSWER = chat_answer("VAT, then.", USED, **MADE)


def asked(**more: Any) -> Asked:
    return RESPONSES.read(json.dumps({"model": "tax", "input": INPUT} | more).encode())


def with_calls(text: str | None = None) -> dict[str, Any]:
    answer = chat_answer("", USED, finish="tool_calls", **MADE)
    answer["choices"][0]["message"] |= {
        "content": text,
        "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": '{"of": 1}'}}
            for call_id, name in (("call_1", "due"), ("call_2", "paid"))
        ],
    }
    return answer


def refused() -> dict[str, Any]:
    answer = chat_answer("", USED, **MADE)
    answer["choices"][0]["message"] |= {"content": None, "refusal": "I cannot."}
    return answer


def whole(answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    return RESPONSES.from_chat(answer, asked(**more), answer_id="1", created=7)


def streamed(answer: dict[str, Any], **more: Any) -> str:
    return stream_of(RESPONSES, answer, asked(stream=True, **more), answer_id="1", created=7)


# --- what is read, sent upstream and comes back --------------------------------------------------------


def test_a_body_is_read_and_sent_on() -> None:
    got = asked(max_output_tokens=50, stream=True, instructions="x" * 21, safety_identifier="s", user="u")
    assert (got.model, got.tokens_in, got.max_tokens_out, got.stream, got.tag) == ("tax", 10, 50, True, "s")
    assert RESPONSES.body_for(got, model="m", max_tokens_out=9) == got.body | {
        "model": "m",
        "max_output_tokens": 9,
    }
    parts = [
        {"type": "input_text", "text": "x" * 40}, {"type": "input_image", "image_url": "data:" + "x" * 999},
        {"type": "input_file", "file_data": "x" * 999},
    ]  # fmt: skip
    call = {"type": "function_call", "call_id": "c" * 99, "name": "due", "arguments": "{}"}
    assert asked(input=[{"role": "user", "content": parts}, call]).tokens_in == 12  # 40, due, {}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"), ({"input": None}, "input"), ({"input": []}, "input"), ({"input": ["x"]}, "input"),
        ({"instructions": 5}, "instructions"), ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"stream": "yes"}, "stream"), ({"safety_identifier": ""}, "safety_identifier"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadBody, match=param) as caught:
        asked(**more)
    assert caught.value.param == param


def test_usage_is_checked() -> None:
    stated = {"input_tokens": 90, "input_tokens_details": {"cached_tokens": 80}, "output_tokens": 7}
    assert RESPONSES.usage_of({"usage": stated}, 3)[:3] == (90, 80, 7)
    assert RESPONSES.usage_of({"usage": None}, 3)[:3] == (3, 0, 0)
    with pytest.raises(InstanceError, match="count of tokens"):
        RESPONSES.usage_of({"usage": {"output_tokens": -1}}, 3)
    with pytest.raises(InstanceError, match="too hot"):
        RESPONSES.usage_of({"status": "failed", "error": {"code": "server_error", "message": "too hot"}}, 3)


@pytest.mark.parametrize("answer", [with_calls("Let me look."), refused()])
def test_a_stream_passes_as_it_is(answer: dict[str, Any], events: Events) -> None:
    stream = streamed(answer)
    reader = RESPONSES.reader(asked(stream=True), 3)
    frames = [reader.feed(event, data) for event, data in events(stream)]
    assert "".join(frame.text for frame in frames) == stream
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert [frame.content for frame in frames[:5]] == [False, False, False, False, True]
    assert frames[-1].usage is not None
    assert frames[-1].usage[:3] == USED[:3]


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[1]",
        "{}",
        '{"type": "error", "code": "server_error", "message": "too hot", "sequence_number": 3}',
        '{"type": "response.failed", "response": {"error": {"code": "server_error", "message": "too hot"}}}',
        '{"type": "response.completed", "response": {"usage": {"input_tokens": -1}}}',
    ],
)
def test_an_event_that_cannot_be_read_breaks_the_stream(data: str) -> None:
    with pytest.raises(InstanceError):
        RESPONSES.reader(asked(stream=True), 3).feed(None, data)


# --- answers made of chat's, by OpenAI's models and client ---------------------------------------------


@pytest.mark.parametrize("answer", [ANSWER, with_calls(), with_calls("Let me look."), refused()])
def test_the_client_takes_an_answer_and_the_same_as_a_stream(
    server: Any, openai: Any, events: Events, answer: dict[str, Any]
) -> None:
    from openai.types.responses import Response, ResponseStreamEvent

    echoed = {"tools": [TOOL], "instructions": "Be brief.", "temperature": 0.5, "metadata": {"a": "b"}}
    Response.model_validate(whole(answer, **echoed), strict=True)
    event = TypeAdapter[Any](ResponseStreamEvent)
    for number, (name, data) in enumerate(events(streamed(answer, **echoed))):
        got = event.validate_python(json.loads(data), strict=True)
        assert (got.type, got.sequence_number) == (name, number)

    server.reply(json.dumps(whole(answer, **echoed)))
    at_once = openai.responses.create(model="tax", input=INPUT)
    assert server.path == "/v1/responses"
    server.reply(streamed(answer, **echoed))
    with openai.responses.stream(model="tax", input=INPUT) as stream:
        kinds = [event.type for event in stream]
        in_pieces = stream.get_final_response()
    assert at_once.to_dict() == whole(answer, **echoed)
    assert in_pieces.output_text == at_once.output_text
    assert [(item.id, item.type, item.status) for item in in_pieces.output] == [
        (item.id, item.type, item.status) for item in at_once.output
    ]
    assert at_once.usage.input_tokens_details.cached_tokens == 4
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_the_order_of_events(events: Events) -> None:
    text = [
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
    ]  # fmt: skip
    call = [
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done",
    ]  # fmt: skip
    begun = ["response.created", "response.in_progress"]
    names = [name for name, _ in events(streamed(with_calls("Look.")))]
    assert names == [*begun, *text, *call, *call, "response.completed"]


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [("stop", "completed", None), ("length", "incomplete", "max_output_tokens"),
     ("content_filter", "incomplete", "content_filter")],
)  # fmt: skip
def test_how_answers_end(finish: str, status: str, reason: str | None, events: Events) -> None:
    answer = chat_answer("VA", USED, finish=finish, **MADE)
    in_pieces = json.loads(events(streamed(answer))[-1][1])
    assert in_pieces["type"] == f"response.{status}"
    for response in (whole(answer), in_pieces["response"]):
        assert response["status"] == status
        assert response["incomplete_details"] == (reason and {"reason": reason})
        assert [item["status"] for item in response["output"]] == [status]
    cut_off = with_calls("Look.")
    cut_off["choices"][0]["finish_reason"] = finish
    items = [
        json.loads(data) for name, data in events(streamed(cut_off)) if name == "response.output_item.done"
    ]
    assert [event["item"] for event in items] == whole(cut_off)["output"]
    assert [event["item"]["status"] for event in items] == ["completed", "completed", status]


def test_items_of_calls_hold_their_arguments() -> None:
    assert whole(with_calls())["output"] == [
        {
            "id": f"fc_1_{number}", "type": "function_call", "status": "completed", "call_id": call_id, "name": name,
            "arguments": '{"of": 1}',
        }
        for number, (call_id, name) in enumerate([("call_1", "due"), ("call_2", "paid")])
    ]  # fmt: skip


# --- errors --------------------------------------------------------------------------------------------


def test_the_client_raises_the_right_error(server: Any, openai: Any) -> None:
    import openai as package

    server.reply(json.dumps(RESPONSES.error(429, "slow down")), 429, **{"retry-after": "3"})
    with pytest.raises(package.RateLimitError, match="slow down"):
        openai.responses.create(model="tax", input=INPUT)


def test_the_client_raises_the_error_of_a_broken_stream(server: Any, openai: Any) -> None:
    import openai as package
    from openai.types.responses import ResponseErrorEvent

    writer = RESPONSES.writer(asked(stream=True), answer_id="1", created=7)
    error = RESPONSES.error_frame(502, "the instance is gone", code="broken_stream")
    data = error.removeprefix("event: error\ndata: ")
    ResponseErrorEvent.model_validate_json(data, strict=True)
    server.reply(writer.feed(chat_chunk({"content": "VA"}, **MADE)) + error)
    with (
        openai.responses.stream(model="tax", input=INPUT) as stream,
        pytest.raises(package.APIError, match="the instance is gone"),
    ):
        stream.get_final_response()


# --- as chat completions -------------------------------------------------------------------------------


def test_a_conversation_becomes_one_of_chat(is_chat: Callable[[dict[str, Any]], None]) -> None:
    request = asked(
        stream=True,
        instructions="Be brief.",
        max_output_tokens=50,
        input=[
            {"role": "developer", "content": "Speak English."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
                    {
                        "type": "input_file",
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,AAAA",
                    },
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "call_1", "name": "due", "arguments": '{"of": 1}'},
            {"type": "function_call", "call_id": "call_2", "name": "paid", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "VAT"},
            {
                "type": "function_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_text", "text": "no"}],
            },
            {"type": "function_call", "call_id": "call_3", "name": "due", "arguments": "{}"},
        ],
        tools=[TOOL],
        tool_choice={"type": "function", "name": "due"},
        parallel_tool_calls=False,
        temperature=0.5,
        top_p=0.9,
        text={
            "format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True},
            "verbosity": "low",
        },
        reasoning={"effort": "low", "summary": "auto"},
    )
    body = RESPONSES.to_chat(request)
    is_chat(body)

    def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    assert body == {
        "model": "tax",
        "max_tokens": 50,
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Speak English."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [call("call_1", "due", '{"of": 1}'), call("call_2", "paid", "{}")],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "VAT"},
            {"role": "tool", "tool_call_id": "call_2", "content": "no"},
            {"role": "assistant", "content": None, "tool_calls": [call("call_3", "due", "{}")]},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "due",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "due"}},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {}, "strict": True},
        },
    }
    assert CHAT.read(json.dumps(body).encode()).body == body


@pytest.mark.parametrize(
    ("more", "says", "param"),
    [
        ({"previous_response_id": "resp_1"}, "kept elsewhere: send the whole input", "previous_response_id"),
        ({"conversation": "conv_1"}, "kept elsewhere: send the whole input", "conversation"),
        ({"prompt": {"id": "p"}}, "kept elsewhere: send the whole input", "prompt"),
        ({"background": True}, "wait for the answer", "background"),
        ({"top_logprobs": 3}, "'top_logprobs' cannot be translated", "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "no hosted 'web_search'", "tools"),
        ({"tool_choice": {"type": "web_search"}}, "'tool_choice' must be", "tool_choice"),
        ({"tool_choice": "any"}, "'tool_choice' must be", "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "'text.format' must be", "text"),
        ({"text": "x"}, "'text' must be an object", "text"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, r"input\[0\].*'item_reference'", "input"),
        ({"input": [{"type": "computer_call_output", "call_id": "c"}]}, "'computer_call_output'", "input"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "'function_call'", "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\]", "input"),
        ({"input": [{"role": "user", "content": 5}]}, "must be a text or a list of parts", "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "'image_url'", "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c",
                     "output": [{"type": "input_image", "image_url": "u"}]}]}, "only text", "input"),
    ],
)  # fmt: skip
def test_what_chat_cannot_express_is_refused_by_name(more: dict[str, Any], says: str, param: str) -> None:
    with pytest.raises(BadBody, match=says) as caught:
        RESPONSES.to_chat(asked(**more))
    assert caught.value.param == param


def test_a_refusal_and_empty_messages_are_history_too() -> None:
    refusal = {"type": "refusal", "refusal": "I cannot."}
    history = [{"role": "assistant", "content": [refusal]}, {"role": "user", "content": []}]
    assert RESPONSES.to_chat(asked(input=history))["messages"] == [
        {"role": "assistant", "content": [refusal]},
        {"role": "user", "content": ""},
    ]


def test_what_only_advises_is_left_out() -> None:
    advice = {
        "store": True,
        "include": ["reasoning.encrypted_content"],
        "truncation": "auto",
        "background": False,
    }
    assert RESPONSES.to_chat(asked(**advice)) == RESPONSES.to_chat(asked())
    assert RESPONSES.to_chat(asked(text={"format": {"type": "json_object"}}))["response_format"] == {
        "type": "json_object"
    }
