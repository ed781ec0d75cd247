"""The ``openai_http`` adapter: an instance that speaks OpenAI's API, such as vLLM, llama.cpp, Ollama or a hosted one.

What a client asks in a protocol that the instance speaks too goes there as it came, but for the plan's model and token
limit; what it asks in another is translated to chat completions, and the answer back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import aiohttp

from glowsim.live.adapters.http import Posts, bounded, events, parsed, scored
from glowsim.live.calls import Call, Checked, InstanceError, InvalidTask, Reply
from glowsim.live.content import Content, whole
from glowsim.live.protocols import CHAT, Asked, BadBody, Frame, Protocol
from glowsim.live.protocols.chat_answers import choices_of

__all__ = ["openai_http"]


def openai_http(
    posts: Posts, *, model_name: Callable[[int], str], speaks: Collection[str] = ("chat",), path: str = "/v1",
) -> Checked:  # fmt: skip
    """Return an instance.

    A stream's first piece is the one that brings some of the answer, with all that came before it, so that a request
    can be tried elsewhere until then; what comes before is announced by empty pieces.

    Parameters
    ----------
    posts
        Where it is.
    model_name
        What it calls the model of a plan.
    speaks
        Names of the protocols that it takes as they are.
    path
        What comes before ``/chat/completions`` and the like.
    """

    def sent(call: Call) -> tuple[str, dict[str, Any], Asked, bool]:
        """Return where a call goes, its body, what that asks for, and whether it is a translation."""
        task, plan = call.task, call.plan
        protocol: Protocol
        if not isinstance(task, Content):
            asked = _as_chat(task, call.request.stream)
            protocol, translated = CHAT, False
        elif task.asked.protocol in speaks:
            asked, protocol, translated = task.asked, task.protocol, False
        else:
            try:
                body = task.protocol.to_chat(task.asked)
            except BadBody as error:
                raise InvalidTask(error.message) from error
            asked, protocol, translated = task.asked._replace(protocol="chat", body=body), CHAT, True
        body = protocol.body_for(asked, model=model_name(plan.model), max_tokens_out=plan.max_tokens_out)
        return path + protocol.path.removeprefix("/v1"), body, asked, translated

    async def answer(call: Call) -> Reply:
        where, body, _, translated = sent(call)
        task = call.task
        try:
            async with posts.post(where, body, call.passed_on) as response:
                await posts.check(response)
                raw = await bounded(response)
        except aiohttp.ClientError as error:
            raise posts.lost(error) from error
        said = parsed(raw)
        protocol = task.protocol if isinstance(task, Content) and not translated else CHAT
        usage = scored(said.get("score"), protocol.usage_of(said, call.plan.tokens_in))
        _note_finish(call, said)
        if not isinstance(task, Content):
            return Reply(_text(said), usage)
        if protocol is CHAT and not any(isinstance(each.get("message"), dict) for each in choices_of(said)):
            raise InstanceError("the answer has no 'choices' with a message")
        return Reply(whole(said, task) if translated else raw.decode(errors="replace"), usage)

    async def stream(call: Call) -> AsyncIterator[str]:
        where, body, asked, translated = sent(call)
        task = call.task
        writer = (
            task.protocol.writer(task.asked, answer_id=task.answer_id, created=task.created)
            if translated
            else None
        )
        protocol = task.protocol if isinstance(task, Content) and writer is None else CHAT

        def said(frame: Frame) -> str:
            if not isinstance(task, Content):
                return _delta(frame)
            if writer is None:
                return frame.text
            return writer.feed(frame.chunk) if frame.chunk is not None else ""

        try:
            async with posts.post(where, body, call.passed_on) as response:
                await posts.check(response)
                if response.content_type != "text/event-stream":
                    yield _at_once(parsed(await bounded(response)), call, translated)
                    return
                reader, held, begun, complete = protocol.reader(asked, call.plan.tokens_in), "", False, False
                async for name, data in events(response):
                    frame = reader.feed(name, data)
                    if frame.usage is not None:
                        call.usage = frame.usage
                    if frame.chunk is not None:
                        _note_finish(call, frame.chunk)
                    complete = complete or frame.done
                    begun = begun or frame.content
                    held += said(frame)
                    if begun:
                        yield held
                        held = ""
                    else:
                        yield ""
                rest = "" if complete else reader.end()
                if rest is None:
                    raise ConnectionError(f"{posts.base_url}: the stream stopped before it was complete")
                if writer is not None:
                    held += writer.end()
                elif isinstance(task, Content):
                    held += rest
                if held:
                    yield held
        except aiohttp.ClientError as error:
            raise posts.lost(error) from error

    def serve(call: Call) -> Any:
        return stream(call) if call.request.stream else answer(call)

    return Checked(serve, posts.healthy)


def _as_chat(task: Any, stream: bool) -> Asked:
    """Return a task, a text or messages, as a chat that asks for it."""
    messages = [{"role": "user", "content": task}] if isinstance(task, str) else task
    return Asked(
        "chat", {"messages": messages, **({"stream": True} if stream else {})}, "", 1, None, stream, None
    )


def _text(said: dict[str, Any]) -> Any:
    match said:
        case {"output": output}:
            return output
        case {"choices": [{"message": {"content": content}}, *_]}:
            return content
    raise InstanceError("the answer has no 'choices' with a message")


def _delta(frame: Frame) -> str:
    match frame.chunk:
        case {"choices": [{"delta": {"content": str(text)}}, *_]}:
            return text
    return ""


def _note_finish(call: Call, said: dict[str, Any]) -> None:
    """Note why a model stopped, in the words of its API, if somebody wants to know."""
    if call.finish_reasons is None:
        return
    match said:
        case {"choices": [*choices]}:
            found = [each.get("finish_reason") for each in choices if isinstance(each, dict)]
            call.finish_reasons += [each[:50] for each in found if isinstance(each, str)]
        case {"stop_reason": str(reason)}:
            call.finish_reasons.append(reason[:50])


def _at_once(said: dict[str, Any], call: Call, translated: bool) -> str:
    """Return a whole answer to a question that wanted a stream."""
    task = call.task
    protocol = task.protocol if isinstance(task, Content) and not translated else CHAT
    call.usage = scored(said.get("score"), protocol.usage_of(said, call.plan.tokens_in))
    if not isinstance(task, Content):
        return str(_text(said))
    if protocol is not CHAT:
        raise InstanceError(f"the instance answered a stream of {protocol.name} with a whole answer")
    return whole(said, task)
