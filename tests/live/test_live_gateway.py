"""The gateway over real sockets: the official clients, whoever calls, and what headers may say."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress

import pytest
from loopback import answering

from glowsim.core.journal import files_of, first_difference, read
from glowsim.core.streams import Streams
from glowsim.core.types import (
    Abandoned,
    Arrived,
    Cancel,
    Dispatch,
    Finished,
    FirstToken,
    InstanceChanged,
    Outcome,
    Reported,
    Signal,
    State,
)  # fmt: skip
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A small fleet in two regions
question: Does the gateway speak what clients speak?
seed: 1
duration: 10s
regions: [eu, us]
latency: {eu: {us: 90ms}}
residency: {eu: [eu]}
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, AGENT}
  - {agent: tax-us, region: us, AGENT}
  - {agent: limited, controllers: {limiter: {use: token_bucket, rate: 1/h, burst: 1}}, AGENT}
  - agent: sorry
    failures: {error: 100%}
    controllers:
      retrier: {use: backoff, attempts: 1}
      ladder: {use: ladder, steps: [apology]}
    model: m
    instances: 1
    concurrency: 4
    service: {law: time, time: 1ms}
  - {agent: picky, failures: {invalid: 100%}, AGENT}
services:
  vat: {agents: [tax, tax-us], failover: 60s}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
controllers:
  cache: {use: lru, entries: 10, ttl: 60s}
  retrier: {use: backoff, base: 1ms}
""".replace(
    "AGENT",
    "model: m, instances: 2, concurrency: 4, timeout: 5s, "
    "service: {law: tokens, base: 2ms, input: 1us/token, output: 100us/token, slowdown: 0.1}",
)
KEY = "ann-key-0123456789"
ASKED = {"model": "tax", "messages": [{"role": "user", "content": "What is due in May?"}], "max_tokens": 7}


def serve(test, path, *, text=TEXT, environment=None, **given):
    """Run a test against a daemon on this thread's loop; return the journal, which replays."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    folder, allow_plugins = given.pop("folder", None), given.pop("allow_plugins", False)
    scenario = load(text)

    async def main():
        chosen = settings(
            environment=environment or {}, journal_path=path, port=0, admin_port=0, grace_s=4.0,
            tokens=scenario.live.tokens is not None, **given,
        )  # fmt: skip
        async with (
            asyncio.timeout(20.0),
            serving(scenario, chosen, folder=folder, allow_plugins=allow_plugins) as daemon,
            aiohttp.ClientSession(daemon.address) as session,
        ):
            await test(session)

    asyncio.run(main())
    recording = read(path)
    from glowsim import build

    fresh = build.control_plane(scenario, Streams(scenario.seed), fall_back=True)
    assert first_difference(recording, fresh) is None
    return recording


def told(recording, kind):
    return [record for record in recording.records() if isinstance(record, kind)]


def serve_upstream(test, path, handler, adapter=None, agent="tax", **given):
    """Run a test against a daemon of which one agent is a handler."""
    adapter = adapter or {"adapter": "openai_http"}
    found = []

    async def main():
        async with answering(handler) as url:
            live = {"live": {"agents": {agent: {**adapter, "urls": [url]}}}}
            found.append(
                await asyncio.to_thread(serve, test, path, text=TEXT + json.dumps(live)[1:-1], **given)
            )

    asyncio.run(main())
    return found[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fleet.journal"


def openai_client(session, **given):
    openai = pytest.importorskip("openai")
    return openai.AsyncOpenAI(
        base_url=str(session._base_url / "v1"), **{"api_key": "none", "max_retries": 0} | given
    )


# --- OpenAI's client --------------------------------------------------------------------------------


def test_openais_client_is_answered_plain_and_streaming(path):
    async def test(session):
        async with openai_client(session) as client:
            answer = await client.chat.completions.create(**ASKED)
            assert answer.choices[0].message.content.split() == ["emulated"] * 7
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 7)
            stream = await client.chat.completions.create(
                **ASKED, stream=True, stream_options={"include_usage": True}
            )
            *chunks, last = [chunk async for chunk in stream]
            assert "".join(each.choices[0].delta.content or "" for each in chunks).split() == ["emulated"] * 7
            assert [each.choices[0].finish_reason for each in chunks][-1] == "stop"
            assert last.usage.completion_tokens == 7
            models = await client.models.list()
            assert [each.id for each in models.data] == ["tax", "tax-us", "limited", "sorry", "picky", "vat"]
            assert (await client.models.retrieve("vat")).id == "vat"

    recording = serve(test, path)
    assert [each.request.stream for each in told(recording, Arrived)] == [False, True]
    assert len(told(recording, FirstToken)) == 1
    assert b"due in May" not in files_of(path)[0].read_bytes(), "contents are not written down"


def test_openais_client_raises_what_was_wrong(path):
    openai = pytest.importorskip("openai")

    async def test(session):
        async with openai_client(session) as client:
            ask = client.chat.completions.create
            with pytest.raises(openai.NotFoundError, match="there is no agent 'tex'"):
                await ask(**ASKED | {"model": "tex"})
            with pytest.raises(openai.BadRequestError, match="'messages'") as caught:
                await ask(**ASKED | {"messages": []})
            assert caught.value.param == "messages"
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError, match="one answer"):
                    await ask(**ASKED, n=2, stream=stream)
            with pytest.raises(openai.BadRequestError, match="as the scenario's failures have it"):
                await ask(**ASKED | {"model": "picky"})
            await ask(**ASKED | {"model": "limited"})
            with pytest.raises(openai.RateLimitError, match="over its limit") as limited:
                await ask(**ASKED | {"model": "limited"})
            assert 3000 <= int(limited.value.response.headers["retry-after"]) <= 3600
            with pytest.raises(openai.RateLimitError):
                await ask(**ASKED | {"model": "limited", "stream": True})

    serve(test, path)


def test_a_fallbacks_apology_is_in_the_clients_protocol(path):
    async def test(session):
        async with openai_client(session) as client:
            raw = await client.chat.completions.with_raw_response.create(**ASKED | {"model": "sorry"})
            assert raw.headers["x-glowsim-answered"] == "apology"
            assert raw.parse().choices[0].message.content.startswith("I am sorry")
            stream = await client.chat.completions.create(**ASKED | {"model": "sorry", "stream": True})
            said = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(said).startswith("I am sorry")

    serve(test, path)


def test_tools_pass_through_to_an_instance_that_speaks_the_protocol(path):
    seen = []
    tool = {
        "type": "function",
        "function": {"name": "rate", "parameters": {"type": "object", "properties": {}}},
    }

    async def handler(request):
        from aiohttp import web

        body = await request.json()
        seen.append((request.path, body, dict(request.headers)))
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "rate", "arguments": '{"of": "books"}'},
        }
        usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
        about = {"id": "x", "created": 1, "model": "m-1"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return web.json_response(
                {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = [
            {"role": "assistant", "content": ""},
            {"tool_calls": [{"index": 0, **call, "function": {"name": "rate", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"of": '}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '"books"}'}}]},
        ]
        for delta in deltas:
            chunk = {**about, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        for each in (end, {"choices": [], "usage": usage}):
            await response.write(
                f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', **each})}\n\n".encode()
            )
        await response.write(b"data: [DONE]\n\n")
        return response

    async def test(session):
        async with openai_client(session) as client:
            trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            answer = await client.chat.completions.create(
                **ASKED, tools=[tool], temperature=0.5, extra_headers=trace
            )
            assert answer.choices[0].message.tool_calls[0].function.arguments == '{"of": "books"}'
            async with client.chat.completions.stream(**ASKED, tools=[tool]) as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_completion()
            assert final.choices[0].message.tool_calls[0].function.arguments == '{"of": "books"}'

    recording = serve_upstream(test, path, handler)
    (where, plain, headers), (_, streamed, _) = seen
    assert where == "/v1/chat/completions"
    assert plain == ASKED | {"model": "m", "tools": [tool], "temperature": 0.5}
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")
    assert streamed["stream_options"] == {"include_usage": True}
    assert [each.usage[:3] for each in told(recording, Finished)] == [(40, 0, 9)] * 2


def test_what_comes_before_the_first_word_does_not_commit(path):
    asked, numbers = [], []

    async def handler(request):
        from aiohttp import web

        asked.append(1)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        await response.write(f"data: {json.dumps(role)}\n\n".encode())
        if len(asked) == 1:
            return response  # it stops short before it said a word
        for delta, finish in (({"content": "fine"}, None), ({}, "stop")):
            said = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            await response.write(f"data: {json.dumps(said)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def test(session):
        async with session.post("/v1/chat/completions", json=ASKED | {"stream": True}) as response:
            said = await response.text()
            assert response.status == 200
            numbers.append(int(response.headers["X-Request-Id"]))
            assert said.count('"role"') == 1
            assert '"fine"' in said
            assert said.endswith("data: [DONE]\n\n")

    recording = serve_upstream(test, path, handler)
    assert [each.outcome for each in told(recording, Finished)] == [Outcome.UNREACHABLE, Outcome.OK]
    assert [each.request.request_id for each in told(recording, Arrived)] == numbers, (
        "what feedback is to name"
    )


@pytest.mark.parametrize("protocol", ["chat/completions", "responses", "messages"])
def test_a_stream_that_ends_with_its_finish_reason_is_whole(path, protocol):
    """As `transformers serve` 5.23 ends them."""

    async def handler(request):
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, finish in (({"content": "fine"}, None), ({}, "stop")):
            said = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            await response.write(f"data: {json.dumps(said)}\n\n".encode())
        return response

    async def test(session):
        question = (
            {"input": "hi"} if protocol == "responses" else {"messages": ASKED["messages"], "max_tokens": 9}
        )
        body = {"model": ASKED["model"], "stream": True, **question}
        async with session.post(f"/v1/{protocol}", json=body) as response:
            said = await response.text()
        assert "fine" in said
        last = {"chat/completions": "[DONE]", "responses": "response.completed", "messages": "message_stop"}
        assert last[protocol] in said.rstrip().rpartition("data: ")[2]

    recording = serve_upstream(test, path, handler)
    assert [each.outcome for each in told(recording, Finished)] == [Outcome.OK]


def test_an_instances_complaint_about_the_body_reaches_the_client(path):
    async def handler(request):
        from aiohttp import web

        return web.json_response({"error": {"message": "maximum context length is 8192 tokens"}}, status=400)

    async def test(session):
        openai = pytest.importorskip("openai")
        async with openai_client(session) as client:
            with pytest.raises(openai.BadRequestError, match="maximum context length is 8192 tokens"):
                await client.chat.completions.create(**ASKED)

    recording = serve_upstream(test, path, handler)
    assert [each.outcome for each in told(recording, Finished)] == [Outcome.INVALID]


def test_a_broken_stream_ends_with_the_protocols_error(path):
    openai = pytest.importorskip("openai")

    async def handler(request):
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        said = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
        said["choices"] = [{"index": 0, "delta": {"content": "half"}}]
        await response.write(f"data: {json.dumps(said)}\n\n".encode())
        return response

    async def test(session):
        async with openai_client(session) as client:
            stream = aiter(await client.chat.completions.create(**ASKED, stream=True))
            assert (await anext(stream)).choices[0].delta.content == "half"
            with pytest.raises(openai.APIError, match="ended with UNREACHABLE"):
                await anext(stream)

    recording = serve_upstream(test, path, handler)
    assert len(told(recording, Dispatch)) == 1


def test_a_client_that_does_not_read_holds_the_instance_back(path):
    """Bounded memory: an instance that writes without end is read no faster than its client reads."""
    written, gone = [], asyncio.Event()

    async def handler(request):
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        said = {"choices": [{"index": 0, "delta": {"content": "x" * 50_000}}]}
        try:
            while len(written) < 10_000:
                await response.write(f"data: {json.dumps(said)}\n\n".encode())
                written.append(1)
        finally:
            gone.set()
        return response

    async def test(session):
        async with session.post("/v1/chat/completions", json=ASKED | {"stream": True}) as response:
            await response.content.readany()
            before = -1
            while before != len(written):  # until nothing moves any more
                before = len(written)
                await asyncio.sleep(0.2)
            assert len(written) < 1000, "far from 10,000: 500 MB"

    recording = serve_upstream(test, path, handler)
    assert len(told(recording, Abandoned)) == 1
    assert len(told(recording, Cancel)) == 1


# --- the other protocols ----------------------------------------------------------------------------


def anthropic_client(session, **given):
    anthropic = pytest.importorskip("anthropic")
    return anthropic.AsyncAnthropic(
        base_url=str(session._base_url), **{"api_key": "none", "max_retries": 0} | given
    )


def test_anthropics_client_is_answered_plain_and_streaming(path):
    anthropic = pytest.importorskip("anthropic")

    async def test(session):
        async with anthropic_client(session) as client:
            answer = await client.messages.create(**ASKED)
            assert answer.content[0].text.split() == ["emulated"] * 7
            assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 7)
            async with client.messages.stream(**ASKED) as stream:
                final = await stream.get_final_message()
            assert final.content[0].text.split() == ["emulated"] * 7
            assert final.usage.output_tokens == 7
            with pytest.raises(anthropic.NotFoundError, match="there is no agent"):
                await client.messages.create(**ASKED | {"model": "tex"})
            await client.messages.create(**ASKED | {"model": "limited"})
            with pytest.raises(anthropic.RateLimitError, match="over its limit"):
                await client.messages.create(**ASKED | {"model": "limited"})
            models = await client.models.list()
            assert models.data[0].id == "tax"

    serve(test, path)


def test_openais_responses_are_answered_plain_and_streaming(path):
    async def test(session):
        async with openai_client(session) as client:
            asked = {"model": "tax", "input": "What is due in May?", "max_output_tokens": 7}
            answer = await client.responses.create(**asked)
            assert answer.output_text.split() == ["emulated"] * 7
            async with client.responses.stream(**asked) as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_response()
            assert final.output_text.split() == ["emulated"] * 7
            assert final.usage.output_tokens == 7

    serve(test, path)


def test_tools_reach_an_instance_that_speaks_only_chat(path):
    seen = []

    async def handler(request):
        from aiohttp import web

        body = await request.json()
        seen.append((request.path, body))
        arguments = '{"of": "books"}'
        call = {"id": "call_1", "type": "function", "function": {"name": "rate", "arguments": arguments}}
        about = {"id": "x", "created": 1, "model": "m-1"}
        usage = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}
        if not body.get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return web.json_response(
                {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for choices, more in [
            ([{"index": 0, "delta": {"role": "assistant", "tool_calls": [{"index": 0, **call}]}}], {}),
            ([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], {}),
            ([], {"usage": usage}),
        ]:
            chunk = {**about, "object": "chat.completion.chunk", "choices": choices, **more}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    schema = {"type": "object", "properties": {"of": {"type": "string"}}}

    async def test(session):
        async with anthropic_client(session) as client:
            asked = ASKED | {"system": "Be brief.", "tools": [{"name": "rate", "input_schema": schema}]}
            answer = await client.messages.create(**asked)
            async with client.messages.stream(**asked) as stream:
                streamed = await stream.get_final_message()
            for each in (answer, streamed):
                assert [(block.type, block.name, block.input) for block in each.content] == [
                    ("tool_use", "rate", {"of": "books"})
                ]
                assert each.stop_reason == "tool_use"
        async with openai_client(session) as client:
            tool = {"type": "function", "name": "rate", "parameters": schema, "strict": False}
            answer = await client.responses.create(model="tax", input="What is due in May?", tools=[tool])
            assert [(item.type, item.name, item.arguments) for item in answer.output] == [
                ("function_call", "rate", '{"of": "books"}')
            ]

    recording = serve_upstream(test, path, handler)
    assert {where for where, _ in seen} == {"/v1/chat/completions"}
    assert seen[0][1]["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is due in May?"},
    ]  # fmt: skip
    assert seen[0][1]["tools"][0]["function"]["name"] == "rate"
    assert [each.usage[:3] for each in told(recording, Finished)] == [(40, 0, 9)] * 3


def test_embeddings_go_to_an_instance_that_makes_them_and_are_refused_by_one_of_words(path):
    openai = pytest.importorskip("openai")
    seen = []

    async def handler(request):
        from aiohttp import web

        body = await request.json()
        seen.append((request.path, body))
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        return web.json_response({"object": "list", "model": "m-1", "data": data, "usage": usage})

    async def test(session):
        async with openai_client(session) as client:
            made = await client.embeddings.create(model="tax", input="hi", encoding_format="float")
            assert made.data[0].embedding == [0.5, -1.0]
            with pytest.raises(openai.BadRequestError, match="embeddings"):
                await client.embeddings.create(model="limited", input="hi", encoding_format="float")
            with pytest.raises(openai.InternalServerError):  # no apology is an embedding
                await client.embeddings.create(model="sorry", input="hi", encoding_format="float")

    serve_upstream(test, path, handler)
    assert seen == [("/v1/embeddings", {"input": "hi", "model": "m", "encoding_format": "float"})]


# --- an instance with JSON of its own, and a function -----------------------------------------------


def test_an_instance_with_json_of_its_own_is_sent_its_template(path):
    seen = []

    async def handler(request):
        from aiohttp import web

        seen.append((request.path, await request.json(), request.headers.get("traceparent")))
        return web.json_response({"result": [{"text": "forty-two"}], "n": {"in": 11, "out": 2}, "sure": 0.5})

    async def test(session):
        async with openai_client(session) as client:
            answer = await client.chat.completions.create(**ASKED, extra_headers={"traceparent": "00-1-2-03"})
            assert answer.choices[0].message.content == "forty-two"
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 2)
            stream = await client.chat.completions.create(**ASKED, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "forty-two"
        async with session.post(
            "/v1/agents/tax/tasks",
            json={"input": ASKED["messages"], "max_tokens_out": 7},
            headers={"traceparent": "t"},
        ) as response:
            assert (await response.json())["output"] == "forty-two"

    adapter = {
        "adapter": "http_json", "path": "/ask", "output": "result.0.text", "tokens_in": "n.in", "tokens_out": "n.out",
        "score": "sure", "request": {"question": "Q: {input}", "limit": "{max_tokens_out}", "deep": [True, "{model}"]},
    }  # fmt: skip
    recording = serve_upstream(test, path, handler, adapter)
    wanted = {"question": "Q: What is due in May?", "limit": 7, "deep": [True, "m"]}
    assert seen == [("/ask", wanted, trace) for trace in ("00-1-2-03", None, "t")]
    assert {each.usage.score for each in told(recording, Finished)} == {0.5}


def test_a_key_that_an_instance_wants_comes_from_the_environment(path, monkeypatch):
    seen = []

    async def handler(request):
        from aiohttp import web

        seen.append(request.headers.get("Authorization"))
        return web.json_response({"output": "fine"})

    async def test(session):
        async with session.post("/v1/agents/tax/tasks", json={"input": "hi"}) as response:
            assert (await response.json())["output"] == "fine"

    from glowsim.live.settings import SettingsError

    adapter = {"adapter": "http_json", "key_env": "TAX_AGENT_KEY"}
    with pytest.raises(SettingsError, match="TAX_AGENT_KEY must hold the key"):
        serve_upstream(test, path, handler, adapter)
    monkeypatch.setenv("TAX_AGENT_KEY", "s3cret-s3cret")
    serve_upstream(test, path, handler, adapter)
    assert seen == ["Bearer s3cret-s3cret"]
    assert b"s3cret" not in files_of(path)[0].read_bytes()


AGENTS = """
async def answer(call):
    return f"{len(call.task.asked.body['messages'])} messages"

async def talk(call):
    for word in ("forty", "-", "two"):
        yield word

def plain(call):
    return "no"
"""


def test_an_agent_may_be_a_function_where_code_is_trusted(path, tmp_path, monkeypatch):
    from glowsim.live.settings import SettingsError

    (tmp_path / "our_agents.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(tmp_path)

    def text(tax):
        said = {"tax": tax, "picky": "our_agents:talk"}
        agents = {name: {"adapter": "callable", "use": use} for name, use in said.items()}
        return TEXT + json.dumps({"live": {"agents": agents}})[1:-1]

    async def test(session):
        async with openai_client(session) as client:
            ask = client.chat.completions.create
            assert (await ask(**ASKED)).choices[0].message.content == "1 messages"
            assert (await ask(**ASKED | {"model": "picky"})).choices[0].message.content == "forty-two"
            stream = await ask(**ASKED | {"model": "picky", "stream": True})
            words = [chunk.choices[0].delta.content async for chunk in stream]
            assert [word for word in words if word] == ["forty", "-", "two"]

    with pytest.raises(SettingsError, match="give --allow-plugins"):
        serve(test, path, text=text("our_agents:answer"))
    for use, why in [("our_agents:nobody", "cannot be found"), ("our_agents:plain", "no 'async def'")]:
        with pytest.raises(SettingsError, match=why):
            serve(test, path, text=text(use), allow_plugins=True)
    serve(test, path, text=text("our_agents:answer"), allow_plugins=True)


def test_workers_are_started_and_ended(path, tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(TEXT)
    worker = [sys.executable, "-m", "glowsim", "emulate", str(file), "--agent", "tax", "--port", "{port}"]
    agents = {
        "tax": {
            "adapter": "openai_http", "health": "/health", "process": {"command": worker},
        }
    }  # fmt: skip

    async def test(session):
        for _ in range(3000):
            status, said, _ = await status_of(session)
            if status == 200:
                break
            assert said["error"]["code"] == "no_instance", said
            await asyncio.sleep(0.01)
        assert said["choices"][0]["message"]["content"].split() == ["emulated"] * 7

    text = TEXT.replace("agent: tax,", "agent: tax, timeout: 20s,", 1).replace("timeout: 5s, ", "")
    recording = serve(test, path, text=text + json.dumps({"live": {"agents": agents}})[1:-1])
    states = [State(each.state).name for each in told(recording, InstanceChanged) if each.agent == 0]
    assert states[:2] == ["STARTING", "STARTING"]
    assert "READY" in states


def test_instances_are_asked_how_loaded_they_are(path):
    polls = []

    async def handler(request):
        from aiohttp import web

        polls.append(request.path)  # of two, the first has been told
        return web.Response(text="vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n")

    async def test(session):
        while len(polls) < 2:
            async with session.get("/healthz"):
                pass

    adapter = {"adapter": "openai_http", "metrics": "/metrics", "report_every": "500ms"}
    recording = serve_upstream(test, path, handler, adapter)
    assert set(polls) == {"/metrics"}
    reported = {Signal(each.signal).name: (each.agent, each.value) for each in told(recording, Reported)}
    assert reported["RUNNING"] == (0, 3.0)
    assert reported["WAITING"] == (0, 1.0)


# --- who calls, and what headers may say ------------------------------------------------------------


async def status_of(session, headers=None, body=None, path="/v1/chat/completions"):
    async with session.post(path, json=body or ASKED, headers=headers or {}) as response:
        return response.status, await response.json(), response.headers


def test_a_key_may_come_the_way_of_either_vendor(path):
    async def test(session):
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
            assert (await status_of(session, headers))[0] == 200
        for headers in ({}, {"x-api-key": KEY[:-1]}, {"Authorization": f"Basic {KEY}"}):
            status, said, sent = await status_of(session, headers)
            assert (status, said["error"]["type"]) == (401, "authentication_error")
            assert sent["WWW-Authenticate"] == "Bearer"

    recording = serve(test, path, environment={"GLOWSIM_KEYS": f"ann@acme:{KEY}"})
    first, second = told(recording, Arrived)
    assert (first.request.user, first.request.tenant) == (second.request.user, second.request.tenant)


def test_a_signed_token_binds_user_and_tenant(path, tmp_path):
    jwt = pytest.importorskip("jwt")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def public(key):
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "idp.pem").write_bytes(public(key))
    now_s = time.time()
    claims = {"iss": "idp", "aud": "glowsim", "sub": "ann", "tenant": "acme", "exp": now_s + 600}

    def token(by=key, algorithm="ES256", **changed):
        said = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(said, by, algorithm=algorithm)

    async def test(session):
        async def status(text):
            return (await status_of(session, {"Authorization": f"Bearer {text}"}))[0]

        good = token()
        assert [await status(good), await status(good), await status(token(sub="bob"))] == [200, 200, 200]
        bad = {
            "another key": token(other),
            "expired": token(exp=now_s - 60),
            "no expiry": token(exp=None),
            "not for us": token(aud="somebody"),
            "of another issuer": token(iss="mallory"),
            "no tenant": token(tenant=None),
            "a tenant that is no text": token(tenant=7),
            "unsigned": jwt.encode(claims, None, algorithm="none"),
            "signed with the public key as a secret": token("x" * 40, "HS256"),
            "tampered": good[:-4] + "AAAA",
            "no token": "hello",
        }
        assert {why: await status(text) for why, text in bad.items()} == dict.fromkeys(bad, 401)

    text = TEXT + "live: {tokens: {issuer: idp, audience: glowsim, algorithm: ES256, keys_file: idp.pem}}\n"
    recording = serve(test, path, text=text, folder=tmp_path)
    first, second, third = (each.request for each in told(recording, Arrived))
    assert (first.user, first.tenant) == (second.user, second.tenant)
    assert first.tenant == third.tenant
    assert first.user != third.user


def test_headers_narrow_who_calls_and_are_checked(path):
    async def test(session):
        good = {
            "X-Glowsim-Session": "s1", "X-Glowsim-Priority": "0", "X-Glowsim-Deadline": "2.5",
            "X-Glowsim-Cache": "true", "Idempotency-Key": "k1",
        }  # fmt: skip
        assert (await status_of(session, good))[0] == 200
        status, _, sent = await status_of(session, good)
        assert (status, sent["X-Glowsim-Answered"]) == (200, "repeated")
        changed = ASKED | {"max_tokens": 8}
        assert (await status_of(session, good, changed))[0] == 409
        cached = {"X-Glowsim-Cache": "true"}
        assert (await status_of(session, cached))[2]["X-Glowsim-Answered"] == "cached"
        for name, value in [
            ("X-Glowsim-Priority", "10"), ("X-Glowsim-Priority", "-1"), ("X-Glowsim-Deadline", "0"),
            ("X-Glowsim-Deadline", "nan"), ("X-Glowsim-Deadline", "soon"), ("X-Glowsim-Region", "mars"),
            ("X-Glowsim-Session", "s" * 201), ("Idempotency-Key", "s" * 201),
        ]:  # fmt: skip
            status, said, _ = await status_of(session, {name: value})
            assert (status, name in said["error"]["message"]) == (400, True), (name, value, said)

    recording = serve(test, path)
    first = told(recording, Arrived)[0]
    assert first.request.priority == 0
    assert first.request.session != 0
    assert first.request.deadline_s == pytest.approx(first.t_s + 2.5, abs=0.1)


def test_users_of_a_region_are_served_by_the_nearest_agent_that_may(path):
    async def test(session):
        for region in ("eu", "us"):
            status, _, _ = await status_of(session, {"X-Glowsim-Region": region}, ASKED | {"model": "vat"})
            assert status == 200
        assert (await status_of(session, {}, {"input": "hi"}, "/v1/agents/vat/tasks"))[1]["agent"] == "tax"

    recording = serve(test, path)
    assert [each.request.agent for each in told(recording, Arrived)] == [0, 1, 0]
    assert [each.request.region for each in told(recording, Arrived)] == [0, 1, 0]


def test_without_keys_a_page_of_the_web_cannot_ask_under_its_own_name(path):
    async def test(session):
        for host, expected in [
            ("evil.example", 403),
            ("evil.example:80", 403),
            ("localhost:1", 200),
            ("[::1]:1", 200),
            ("127.9.9.9", 200),
            ("127.0.0.1.evil.example", 403),
            ("", 403),
        ]:
            assert (await status_of(session, {"Host": host}))[0] == expected

    serve(test, path)


def test_what_is_nowhere_and_what_is_asked_wrongly(path):
    async def test(session):
        for method, where, status in [
            ("GET", "/v1/chat/completions", 405), ("GET", "/nowhere", 404), ("POST", "/v1/nowhere", 404),
            ("GET", "/v1/models/tex", 404), ("POST", "/v1/models", 405), ("PUT", "/v1/agents/tax/tasks", 405),
        ]:  # fmt: skip
            async with session.request(method, where) as response:
                assert response.status == status, where
                assert "message" in (await response.json())["error"]

    serve(test, path)


@pytest.mark.parametrize("whole", [True, False])
def test_headers_without_end_are_refused_while_they_come_in(path, whole):
    async def test(session):
        url = session._base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Large: ")
        if whole:
            writer.write(b"x" * 4000 + b"\r\n\r\n")
        else:
            with suppress(ConnectionError):  # it hangs up before all is written
                for _ in range(60):
                    writer.write(b"x" * 100)
                    await writer.drain()
                    await asyncio.sleep(0)
        with suppress(ConnectionResetError):  # what it hung up on may overtake what it said
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()
        async with session.get("/healthz") as response:
            assert response.status == 200

    serve(test, path, max_header_bytes=2048)


def test_one_connection_more_than_allowed_is_told_to_come_back(path):
    async def test(session):
        url = session._base_url
        idle = [await asyncio.open_connection(url.host, url.port) for _ in range(3)]
        async with session.get("/healthz") as response:
            assert response.status == 503
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        for _ in range(100):
            async with session.get("/healthz") as response:
                if response.status == 200:
                    return
        pytest.fail("it does not come back")

    serve(test, path, connections=3)
