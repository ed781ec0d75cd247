"""A body of OpenAI's responses as one of chat completions.

What chat completions cannot express is refused by name. What only advises the server is left out: storing, caching,
tiers, truncation, extras to include, and reasoning items in the history.
"""

from __future__ import annotations

from typing import Any

from glowsim.live.protocols.bodies import entry, items, only, without_none
from glowsim.live.protocols.shape import Asked, BadBody

__all__ = ["responses_to_chat"]

_CARRIED = frozenset(
    {"model", "input", "instructions", "max_output_tokens", "stream", "temperature", "top_p", "tools", "tool_choice",
     "parallel_tool_calls", "text", "reasoning", "background"}
)  # fmt: skip
_ADVICE = frozenset(
    {"store", "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
     "prompt_cache_options", "service_tier", "stream_options", "truncation", "include", "max_tool_calls"}
)  # fmt: skip
_KEPT_ELSEWHERE = ("previous_response_id", "conversation", "prompt")


def responses_to_chat(asked: Asked) -> dict[str, Any]:
    """Return a body of responses as one of chat completions.

    Raises
    ------
    BadBody
        A field, item or tool has no place in chat completions, or is not what the protocol says.

    >>> body = {"model": "tax", "instructions": "Be brief.", "input": "Due?"}
    >>> responses_to_chat(Asked("responses", body, "tax", 1, None, False, None))["messages"]
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Due?'}]
    """
    body = asked.body
    for name in _KEPT_ELSEWHERE:
        if body.get(name) is not None:
            raise BadBody(f"'{name}' names what is kept elsewhere: send the whole input instead", name)
    if entry(body, "background", bool):
        raise BadBody("'background' is not possible here: leave it out and wait for the answer", "background")
    only(body, _CARRIED | _ADVICE, "responses")
    output = entry(body, "text", dict) or {}
    reasoning = entry(body, "reasoning", dict) or {}
    return without_none(
        model=asked.model,
        messages=_messages(body),
        max_tokens=asked.max_tokens_out,
        stream=asked.stream or None,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        tools=[_tool(tool, f"tools[{number}]") for number, tool in enumerate(items(body, "tools"))] or None,
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tool_calls=body.get("parallel_tool_calls"),
        reasoning_effort=reasoning.get("effort"),
        response_format=_format(output.get("format")),
        verbosity=output.get("verbosity"),
    )


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    instructions = entry(body, "instructions", str)
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(body["input"], str):
        return [*messages, {"role": "user", "content": body["input"]}]
    for number, item in enumerate(items(body, "input", needed=True)):
        _add(messages, item, f"input[{number}]")
    return messages


def _add(messages: list[dict[str, Any]], item: dict[str, Any], place: str) -> None:
    match item:
        case {"type": "reasoning"}:
            return
        case {
            "type": "function_call",
            "call_id": str(call_id),
            "name": str(name),
            "arguments": str(arguments),
        }:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            function = {"name": name, "arguments": arguments}
            calls = messages[-1].setdefault("tool_calls", [])
            calls.append({"id": call_id, "type": "function", "function": function})
        case {"type": "function_call_output", "call_id": str(call_id), "output": output}:
            content = _content(output, place)
            if isinstance(content, list) and any(part["type"] != "text" for part in content):
                raise BadBody(
                    f"{place}: chat completions take only text as a tool's output: send the rest in a message",
                    "input",
                )
            messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        case {"role": "user" | "assistant" as role, "content": content} if _is_message(item):
            messages.append({"role": role, "content": _content(content, place)})
        case {"role": "system" | "developer", "content": content} if _is_message(item):
            messages.append({"role": "system", "content": _content(content, place)})
        case _:
            raise BadBody(
                f"{place}: the instance takes chat completions, which have messages with 'role' and 'content', "
                f"function_call and function_call_output; not {str(item.get('type', 'this'))[:50]!r}", "input",
            )  # fmt: skip


def _is_message(item: dict[str, Any]) -> bool:
    return item.get("type") in (None, "message")


def _content(content: Any, place: str) -> str | list[dict[str, Any]]:
    """Return a lone text as it is, everything else as a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise BadBody(f"{place}: the content must be a text or a list of parts", "input")
    parts = [_part(part, place) for part in content]
    match parts:
        case []:
            return ""
        case [{"type": "text", "text": str(only_text)}]:
            return only_text
    return parts


def _part(part: dict[str, Any], place: str) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text", "text": str(said)}:
            return {"type": "text", "text": said}
        case {"type": "refusal", "refusal": str(said)}:
            return {"type": "refusal", "refusal": said}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": without_none(url=url, detail=part.get("detail"))}
        case {"type": "input_file", "file_data": str(data)}:
            return {"type": "file", "file": without_none(file_data=data, filename=part.get("filename"))}
    raise BadBody(
        f"{place}: the instance takes chat completions, which have no such {str(part.get('type'))[:50]!r}: send texts, "
        "images with 'image_url' and files with 'file_data'", "input",
    )  # fmt: skip


def _tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    match tool:
        case {"type": "function", "name": str(name)}:
            function = without_none(
                name=name,
                description=tool.get("description"),
                parameters=tool.get("parameters"),
                strict=tool.get("strict"),
            )
            return {"type": "function", "function": function}
    raise BadBody(
        f"{place}: the instance takes chat completions, which know tools of type 'function' with a 'name', and no "
        f"hosted {str(tool.get('type'))[:50]!r}: leave it out", "tools",
    )  # fmt: skip


def _choice(asked: Any) -> Any:
    match asked:
        case None | "none" | "auto" | "required":
            return asked
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
    raise BadBody(
        "'tool_choice' must be none, auto, required, or of type function with a 'name'", "tool_choice"
    )


def _format(asked: Any) -> dict[str, Any] | None:
    match asked:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "json_schema", "name": str(name), "schema": dict(schema)}:
            described = without_none(
                name=name, schema=schema, description=asked.get("description"), strict=asked.get("strict")
            )
            return {"type": "json_schema", "json_schema": described}
    raise BadBody(
        "'text.format' must be of type text, json_object, or json_schema with 'name' and 'schema'", "text"
    )
