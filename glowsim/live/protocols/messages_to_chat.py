"""A body of Anthropic's messages as one of chat completions.

What chat completions cannot express is refused by name. What only advises the server is left out: ``thinking``
(chat answers show none), ``context_management``, caching, tiers, and thoughts in the history. The flag ``is_error``
of a tool's result is left out too: its text says what went wrong.
"""

from __future__ import annotations

from typing import Any

from glowsim.live.protocols.bodies import entry, items, only, without_none
from glowsim.live.protocols.events import json_text
from glowsim.live.protocols.shape import Asked, BadBody

__all__ = ["messages_to_chat"]

_CARRIED = frozenset(
    {"model", "max_tokens", "messages", "system", "stream", "stop_sequences", "temperature", "top_p", "tools",
     "tool_choice", "output_config"}
)  # fmt: skip
_ADVICE = frozenset(
    {"thinking", "metadata", "cache_control", "service_tier", "speed", "diagnostics", "context_management"}
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def messages_to_chat(asked: Asked) -> dict[str, Any]:
    """Return a body of messages as one of chat completions.

    Raises
    ------
    BadBody
        A field, block or tool has no place in chat completions, or is not what the protocol says.

    >>> body = {"model": "tax", "max_tokens": 9, "messages": [{"role": "user", "content": "Due?"}]}
    >>> messages_to_chat(Asked("messages", body, "tax", 1, 9, False, None)) == body
    True
    """
    body = asked.body
    only(body, _CARRIED | _ADVICE, "messages")
    system = body.get("system")
    messages = [] if system is None else [{"role": "system", "content": _content(system, "system")}]
    for number, message in enumerate(items(body, "messages", needed=True)):
        messages += _message(message, f"messages[{number}]")
    chosen = _choice(body)
    output = entry(body, "output_config", dict) or {}
    return without_none(
        model=asked.model,
        messages=messages,
        max_tokens=asked.max_tokens_out,
        stream=asked.stream or None,
        stop=entry(body, "stop_sequences", list) or None,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        tools=[_tool(tool, f"tools[{number}]") for number, tool in enumerate(items(body, "tools"))] or None,
        tool_choice=chosen,
        parallel_tool_calls=False
        if (body.get("tool_choice") or {}).get("disable_parallel_tool_use")
        else None,
        reasoning_effort=output.get("effort"),
        response_format=_format(output.get("format")),
    )


def _message(message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    match role:
        case "user" | "system":
            results = [block for block in _blocks(content, place) if block.get("type") == "tool_result"]
            others = [block for block in _blocks(content, place) if block.get("type") != "tool_result"]
            said = [{"role": role, "content": _content(others, place)}] if others or not results else []
            return [_result(block, place) for block in results] + said
        case "assistant":
            return _assistant(_blocks(content, place), place)
    raise BadBody(f"{place}: the role must be user, assistant or system", "messages")


def _assistant(blocks: list[dict[str, Any]], place: str) -> list[dict[str, Any]]:
    blocks = [block for block in blocks if block.get("type") not in ("thinking", "redacted_thinking")]
    calls = [_call(block, place) for block in blocks if block.get("type") == "tool_use"]
    texts = [block for block in blocks if block.get("type") != "tool_use"]
    if not blocks:
        return []
    said: dict[str, Any] = {"role": "assistant", "content": _content(texts, place) if texts else None}
    return [said | {"tool_calls": calls} if calls else said]


def _call(block: dict[str, Any], place: str) -> dict[str, Any]:
    match block:
        case {"id": str(call_id), "name": str(name), "input": dict(given)}:
            function = {"name": name, "arguments": json_text(given)}
            return {"id": call_id, "type": "function", "function": function}
    raise BadBody(f"{place}: a tool_use block needs 'id', 'name' and an object as 'input'", "messages")


def _result(block: dict[str, Any], place: str) -> dict[str, Any]:
    call_id, content = block.get("tool_use_id"), block.get("content")
    if not isinstance(call_id, str):
        raise BadBody(f"{place}: a tool_result block needs 'tool_use_id'", "messages")
    said = "" if content is None else _content(content, place)
    if isinstance(said, list) and any(part["type"] != "text" for part in said):
        raise BadBody(
            f"{place}: chat completions take only text as a tool's result: send the image in a message",
            "messages",
        )
    return {"role": "tool", "tool_call_id": call_id, "content": said}


def _blocks(content: Any, place: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(block, dict) for block in content):
        return content
    raise BadBody(f"{place}: the content must be a text or a list of blocks", place.partition("[")[0])


def _content(content: Any, place: str) -> str | list[dict[str, Any]]:
    """Return a lone text as it is, everything else as a list of parts."""
    parts = [_part(block, place) for block in _blocks(content, place)]
    match parts:
        case []:
            return ""
        case [{"type": "text", "text": str(only_text)}]:
            return only_text
    return parts


def _part(block: dict[str, Any], place: str) -> dict[str, Any]:
    match block:
        case {"type": "text", "text": str(said)}:
            return {"type": "text", "text": said}
        case {"type": "document", "source": {"type": "text", "data": str(said)}}:
            return {"type": "text", "text": said}
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return {"type": "image_url", "image_url": {"url": url}}
    kind = str(block.get("type"))[:50]
    raise BadBody(
        f"{place}: the instance takes chat completions, which have no such {kind!r} block: send text or images "
        "(base64 or url)", place.partition("[")[0],
    )  # fmt: skip


def _tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    match tool:
        case {"name": str(name), "input_schema": dict(schema)} if tool.get("type") in (None, "custom"):
            function = without_none(
                name=name, description=tool.get("description"), parameters=schema, strict=tool.get("strict")
            )
            return {"type": "function", "function": function}
    kind = str(tool.get("type", "custom"))[:50]
    raise BadBody(
        f"{place}: the instance takes chat completions, which know tools of one's own with a 'name' and an "
        f"'input_schema', and no {kind!r}", "tools",
    )  # fmt: skip


def _choice(body: dict[str, Any]) -> Any:
    match body.get("tool_choice"):
        case None:
            return None
        case {"type": "tool", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": str(kind)} if kind in _CHOICES:
            return _CHOICES[kind]
    raise BadBody("'tool_choice' must be of type auto, any, none, or tool with a 'name'", "tool_choice")


def _format(asked: Any) -> dict[str, Any] | None:
    match asked:
        case None:
            return None
        case {"type": "json_schema", "schema": dict(schema)}:
            return {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            }
    raise BadBody("'output_config.format' must be of type json_schema with a 'schema'", "output_config")
